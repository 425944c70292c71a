"""Analyses of thousands of classes: bounded in size and memory, complete in their numbers."""

import csv
import json
import tracemalloc

import numpy as np
import pytest

from libra_d2.cli.analysis_run import Task, run_analysis
from libra_d2.evaluation.analysis.confusion import confusion
from libra_d2.evaluation.analysis.detector_analysis import (
    MAX_CLASSES,
    MAX_MIX_UPS,
    OTHER_CLASSES,
    analyze,
)
from libra_d2.evaluation.analysis.matched_detections import MatchedDetections

from .random_detections import random_dataset

NUM_CLASSES = 3000


def many_classes():
    """Class k has objects of its own only if k % 3 is 0; the first 300 of these have most."""
    rng = np.random.default_rng(0)
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": 900, "height": 900} for i in range(40)
        ],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(NUM_CLASSES)],
        "annotations": [],
    }
    results = []
    for number, k in enumerate([*range(0, NUM_CLASSES, 3), *range(0, 900, 3)]):
        place = {"image_id": number % 40, "bbox": [20.0 * (number // 40), 20.0, 15.0, 15.0]}
        content["annotations"].append({"id": number, "category_id": k, **place})
        predicted = k if rng.random() < 0.5 else int(rng.integers(NUM_CLASSES))
        results.append({"category_id": predicted, "score": 0.9, **place})
    return content, results


def test_thousands_of_classes_give_bounded_files_and_complete_numbers(tmp_path):
    content, results = many_classes()
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "p.json").write_text(json.dumps(results))
    out = tmp_path / "out"
    task = Task(str(tmp_path / "p.json"), str(tmp_path / "a.json"), str(out), report=False)
    shown = run_analysis(task)
    analysis = json.loads((out / "analysis.json").read_text())
    assert sum(f.stat().st_size for f in out.iterdir()) < 4e6
    with open(out / "classes.csv") as f:
        rows = list(csv.DictReader(f))
    assert len(analysis["classes"]) == len(rows) == NUM_CLASSES
    with_objects = [c for c in analysis["classes"] if c["num_objects"]]
    assert len(with_objects) == 1000 and all(c["AP"] is not None for c in with_objects)

    most = [f"class {k}" for k in range(0, 900, 3)]  # two objects each
    assert len(most) == MAX_CLASSES
    assert list(analysis["curves"]) == ["", *most]
    assert list(analysis["score_histogram"]["classes"]) == ["", *most]
    confusion = analysis["confusion"]
    assert confusion["names"] == [*most, OTHER_CLASSES, "background"]
    matrix = np.array(confusion["matrix"])
    assert matrix.shape == (302, 302) and matrix[:-1].sum() == 1300
    assert matrix[:300].sum() == 600
    assert 0 < len(confusion["largest_mix_ups"]) <= MAX_MIX_UPS
    for text in (shown, *analysis["limits"]):
        assert "show the 300 of 3000 classes with the most objects" in text


def test_confusion_takes_no_memory_for_all_pairs_of_classes():
    matched = MatchedDetections.of(*many_classes())
    tracemalloc.start()
    counts = confusion(matched, 0.5)
    matrix = counts.matrix(range(MAX_CLASSES))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6, "an array of all pairs of classes takes 72 MB"
    assert matrix.sum() == counts.count.sum() >= 1300


def test_the_bounded_matrix_is_the_whole_one_added_up(monkeypatch):
    content, results = random_dataset(4, num_images=60, num_classes=6)
    whole = analyze(content, results)
    assert whole.confusion.largest_mix_ups is None and not whole.limits
    monkeypatch.setattr("libra_d2.evaluation.analysis.detector_analysis.MAX_CLASSES", 2)
    monkeypatch.setattr("libra_d2.evaluation.analysis.detector_analysis.MAX_MIX_UPS", 5)
    part = analyze(content, results)
    for key in ("classes", "coco", "overall", "tide"):
        assert getattr(part, key) == getattr(whole, key)
    for name in part.curves:
        assert part.curves[name] == whole.curves[name]
    assert len(part.curves) == 3
    names = whole.confusion.names
    matrix = np.array(whole.confusion.matrix)
    kept = sorted(names.index(n) for n in part.confusion.names[:2])
    others = [i for i in range(6) if i not in kept]
    groups = [[kept[0]], [kept[1]], others, [6]]
    expected = [[matrix[np.ix_(a, b)].sum() for b in groups] for a in groups]
    assert part.confusion.matrix == expected
    np.fill_diagonal(matrix, 0)
    largest = sorted(matrix.ravel().tolist(), reverse=True)[:5]
    assert [m.count for m in part.confusion.largest_mix_ups] == largest
    for m in part.confusion.largest_mix_ups:
        assert matrix[names.index(m.truth), names.index(m.predicted)] == m.count


def test_the_report_takes_a_bounded_analysis(monkeypatch):
    pytest.importorskip("plotly")
    from libra_d2.visualization.report.bounds import bounded, shown_classes

    content, results = random_dataset(4, num_images=60, num_classes=6)
    monkeypatch.setattr("libra_d2.evaluation.analysis.detector_analysis.MAX_CLASSES", 2)
    monkeypatch.setattr("libra_d2.visualization.report.bounds.MAX_CLASSES", 2)
    part = analyze(content, results)
    small = bounded(part, shown_classes(part))
    assert small.confusion.names == part.confusion.names
    assert small.confusion.matrix == part.confusion.matrix
    assert [c.name for c in small.classes] == list(part.curves)[1:]
