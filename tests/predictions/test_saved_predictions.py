"""Which weights saved predictions were made with."""

import json

from libra_d2.cli.main import main
from libra_d2.predictions.saved_predictions import RESULTS, save_record, save_results, weights_of

from ..support.small_analysis import small_case


def test_weights_of_predictions(tmp_path):
    truth, results = small_case()
    path = str(tmp_path / RESULTS)
    save_results(str(tmp_path), results)
    assert weights_of(path) == "", "without a record"
    save_record(str(tmp_path), {"weights": "abc"}, num_images=4, unreadable=[])
    assert weights_of(path) == "abc"
    assert weights_of(str(tmp_path / "other.json")) == "", "of another file in the folder"

    def analyzed():
        (tmp_path / "truth.json").write_text(json.dumps(truth))
        files = ["--predictions", path, "--annotations", str(tmp_path / "truth.json")]
        assert main(["analyze", *files, "--output", str(tmp_path / "out"), "--no-report"]) == 0
        return json.loads((tmp_path / "out/analysis.json").read_text())["settings"].get("weights")

    assert analyzed() == "abc"
    save_results(str(tmp_path), results[:2])
    assert weights_of(path) == "", "the predictions have changed since"
    assert analyzed() is None
