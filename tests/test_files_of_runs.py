"""Files that runs leave, and strangers send: damaged or made to do harm, they are one line."""

import json
from types import SimpleNamespace

import pytest

from libra_d2.engine.run_record import write_run_record
from libra_d2.engine.writers import cut_metrics
from libra_d2.errors import UserError
from libra_d2.predictions.detections import Detections
from libra_d2.predictions.saved_predictions import (
    RECORD,
    RESULTS,
    read_saved,
    save_record,
    save_results,
    why_not_reusable,
)
from libra_d2.predictions.writing import ImageIds, Journal
from libra_d2.visualization.loss_curve import save_loss_curve

DEEP = "[" * 100_000 + "]" * 100_000
BAD = [DEEP, '{"a":' * 100_000 + "1" + "}" * 100_000, "", "3", "null", '"text"', "[1]", "{", "\xff"]


@pytest.mark.parametrize("content", BAD)
def test_run_records(tmp_path, caplog, content):
    (tmp_path / "run.json").write_text(content, encoding="latin1")
    cfg = SimpleNamespace(OUTPUT_DIR=str(tmp_path), MODEL=SimpleNamespace(DEVICE="cpu"))
    write_run_record(cfg)
    assert len(json.loads((tmp_path / "run.json").read_text())) == 1
    assert caplog.text.count("\n") == 1 and "run.json must be a list of JSON objects" in caplog.text


MADE_BY = {"weights": "a", "data": "b", "config": {}, "versions": {}}


@pytest.fixture
def saved(tmp_path):
    save_results(str(tmp_path), [{"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [1] * 4}])
    save_record(str(tmp_path), MADE_BY, num_images=1, unreadable=["a.jpg"])
    assert why_not_reusable(str(tmp_path), MADE_BY) == ""
    assert read_saved(str(tmp_path))[1] == ["a.jpg"]
    return tmp_path


@pytest.mark.parametrize(
    "content", [*BAD, '{"predictions": 3, "unreadable": []}', '{"unreadable": "a.jpg"}', "[[]]"]
)
def test_records_of_predictions(saved, content):
    (saved / RECORD).write_text(content, encoding="latin1")
    why = why_not_reusable(str(saved), MADE_BY)
    assert why and "\n" not in why and str(saved / RECORD) in why


@pytest.mark.parametrize("content", [*BAD, '[{"image_id": 1}]', '[{"image_id": 1}, []]'])
def test_predictions_that_fit_their_record(saved, content):
    """A stranger's record can have the hash of a stranger's predictions."""
    (saved / RESULTS).write_text(content, encoding="latin1")
    save_record(str(saved), MADE_BY, num_images=1, unreadable=[])
    with pytest.raises(UserError) as e:
        read_saved(str(saved))
    assert "\n" not in str(e.value) and str(saved / RESULTS) in str(e.value)


GOOD = {"key": "a", "stamp": [1, 2], "height": 4, "width": 5}
GOOD.update(boxes=[[0, 0, 1, 1]], scores=[0.5], labels=[1])


@pytest.mark.parametrize(
    "line",
    [
        *BAD,
        *(
            json.dumps({**GOOD, **change})
            for change in (
                {"key": ["a"]},
                {"key": {}},
                {"stamp": 3},
                {"boxes": 3},
                {"boxes": [[0, 0, 1]]},
                {"boxes": [["a", 0, 1, 1]]},
                {"boxes": []},
                {"scores": ["0.5"]},
                {"labels": [1.5]},
                {"labels": [-1]},
                {"labels": [3]},
                {"height": "4"},
                {"extra": 1},
            )
        ),
    ],
)
def test_journals(tmp_path, line):
    """What follows a line that no run has written is found again by the network."""
    path = tmp_path / "p.json.journal"
    journal = Journal(str(path), {"a": 1}, num_classes=3)
    journal.add([("first", [1], Detections(4, 5, [[0, 0, 1, 1]], [0.5], [2]))])
    journal.close()
    with open(path, "a", encoding="latin1") as f:
        f.write(f"{line}\n{json.dumps(GOOD)}\n")
    journal = Journal(str(path), {"a": 1}, resume=True, num_classes=3)
    assert journal.has("first", [1]) and not journal.has("a", [1, 2])
    ((key, detections),) = journal.read(["first", "a"])
    assert key == "first" and detections.entry("abc", (7, 8, 9))["predictions"][0]["score"] == 0.5
    journal.close()


def test_a_journal_is_no_link(tmp_path):
    (tmp_path / "theirs").write_text("text")
    (tmp_path / "p.json.journal").symlink_to("theirs")
    with pytest.raises(UserError, match="is a link"):
        Journal(str(tmp_path / "p.json.journal"), {})
    assert (tmp_path / "theirs").read_text() == "text"


@pytest.mark.parametrize("first", [*BAD, '{"b": 2}'])
def test_journals_that_begin_with_something_else(tmp_path, first):
    path = tmp_path / "p.json.journal"
    path.write_text(f"{first}\n{json.dumps(GOOD)}\n", encoding="latin1")
    try:
        journal = Journal(str(path), {"a": 1}, resume=True)
    except UserError as e:  # of other settings
        assert "\n" not in str(e)
        return
    assert journal.is_new and not journal.has("a", [1, 2])
    journal.close()


@pytest.mark.parametrize("line", [*BAD, '{"iteration": "4", "total_loss": 1}', '{"total_loss": 1}'])
def test_metrics(tmp_path, line):
    path = tmp_path / "metrics.json"
    good = [json.dumps({"iteration": i, "total_loss": 1.0, "loss_a": 1.0}) for i in (1, 3)]
    path.write_text(f"{good[0]}\n{line}\n{good[1]}\n", encoding="latin1")
    assert save_loss_curve(str(path), str(tmp_path / "a.png"))
    assert cut_metrics(str(path), 5) == 1
    assert path.read_text() == f"{good[0]}\n"


@pytest.mark.parametrize("content", [*BAD, '{"images": 3, "categories": []}', '{"images": [3]}'])
def test_annotations_that_give_image_ids(tmp_path, content):
    (tmp_path / "a.json").write_text(content, encoding="latin1")
    with pytest.raises(UserError, match=r"annotations .*a\.json") as e:
        ImageIds(str(tmp_path / "a.json"))
    assert "\n" not in str(e.value)
