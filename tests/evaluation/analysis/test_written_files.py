"""The JSON files of an analysis, which other programs read."""

import json
import os

import pytest

from libra_d2.cli.analysis_run import Task, run_analysis

from ..random_detections import random_dataset

GOLDEN = os.path.join(os.path.dirname(__file__), "golden")


@pytest.mark.parametrize("name", ["analysis.json", "compare.json"])
def test_files_are_byte_for_byte_the_stored_ones(name, tmp_path, monkeypatch):
    """A change of a key, its place, a number or its digits breaks programs that read the files."""
    monkeypatch.chdir(tmp_path)
    content, results = random_dataset(3, num_images=5, num_classes=2)
    content["categories"].append({"id": 9, "name": "without objects"})
    for path, value in (("truth", content), ("a", results), ("b", results[::2])):
        (tmp_path / f"{path}.json").write_text(json.dumps(value))
    task = Task(
        *("a.json", "truth.json", "out"),
        compare_with="b.json",
        samples=20,
        report=False,
        limits=("a limit of the config",),
    )
    run_analysis(task)
    with open(os.path.join(GOLDEN, name), encoding="utf-8") as f:
        assert (tmp_path / "out" / name).read_text(encoding="utf-8") + "\n" == f.read()
