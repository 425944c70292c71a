"""What is read from the folders of finished runs, and what is said about those that are not."""

import json
import math
import os
from datetime import datetime, timezone

import pytest

from libra_d2.config import load_cfg
from libra_d2.data.datasets.coco import register_coco
from libra_d2.engine import run_lock
from libra_d2.evaluation.coco_metrics import coco_metrics
from libra_d2.experiments import saved_costs
from libra_d2.experiments.design import Design, Variant
from libra_d2.experiments.reading import draws, read_experiment, seconds_of
from libra_d2.experiments.results import METRICS, Cost
from tests.support.coco_files import write_dataset

# One small and one medium object in each image, both of class "cat".
BOXES = ((0, 0, 20, 20), (20, 0, 36, 36))
NUM_IMAGES = 8


def design_of(tmp_path, variants=("base", "new"), seeds=(1, 2, 3), folds=0):
    return Design(
        base="configs/libra_mobilenet_v2.yaml",
        variants=tuple(Variant(name, ()) for name in variants),
        baseline="base",
        seeds=seeds,
        train="coco:train.json,images",
        test="" if folds else "coco:test.json,images",
        folds=folds,
        group="",
        plan=False,
        output=str(tmp_path / "exp"),
        overrides=(),
    )


@pytest.fixture(scope="module")
def base_cfg():
    return load_cfg("configs/libra_mobilenet_v2.yaml")


def write_run(design, run, cfg, data, found, at_end=None):
    """
    A finished run that has found the objects of the first `found` images.

    Args:
        data: annotation file and image folder.
        at_end: AP in `metrics.json`, by default that of the predictions.

    Returns:
        The metrics of the predictions, in points, by pycocotools.
    """
    folder = design.path(run.folder)
    results = [
        {"image_id": i, "category_id": 10, "bbox": list(map(float, box)), "score": 0.9 - i / 100}
        for i in range(1, found + 1)
        for box in BOXES
    ]
    with open(data[0], encoding="utf-8") as f:
        expected = coco_metrics(json.load(f), results)
    metrics = {name: 100 * value for name, value in expected.numbers.items()}
    inference = os.path.join(folder, "inference", register_coco(*data))
    os.makedirs(inference)
    cfg = cfg.clone()
    cfg.DATASETS.TEST = (f"coco:{data[0]},{data[1]}",)
    cfg.OUTPUT_DIR = folder
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = 2
    last = {"iteration": 1, "bbox/AP": metrics["AP"] if at_end is None else at_end}
    for path, content in (
        (os.path.join(inference, "coco_instances_results.json"), json.dumps(results)),
        (os.path.join(folder, "config.yaml"), cfg.dump()),
        (os.path.join(folder, "metrics.json"), json.dumps(last)),
        (os.path.join(folder, "model_final.pth"), ""),
        (os.path.join(folder, "last_checkpoint"), "model_final.pth"),
    ):
        with open(path, "w", encoding="utf-8") as f:
            f.write(content)
    return metrics


def test_runs_and_comparison(tmp_path, base_cfg):
    """The last run of "new" is missing, and the second was evaluated again with other weights."""
    data = write_dataset(tmp_path / "data", BOXES, NUM_IMAGES)
    design = design_of(tmp_path, seeds=(1, 2, 3, 4))
    found = {"base": [4, 5, 4, 4], "new": [7, 8, 7]}
    expected = {}
    for run in design.runs():
        if run.seed <= len(found[run.variant]):
            at_end = 12.0 if (run.variant, run.seed) == ("new", 2) else None
            images = found[run.variant][run.seed - 1]
            expected[run.folder] = write_run(design, run, base_cfg, data, images, at_end)
    result = read_experiment(design)
    errors = {r.folder: r.error for r in result.runs if r.error}
    assert set(errors) == {"runs/new/seed2", "runs/new/seed4"}
    assert errors["runs/new/seed4"] == "the run has not been started"
    assert "gives AP 100.00, but the training ended with AP 12.00" in errors["runs/new/seed2"]
    for r in result.runs:
        if r.error:
            assert set(r.metrics.values()) == {None} and r.classes == {}
        else:
            metrics = {name: expected[r.folder][name] for name in METRICS}
            assert math.isnan(metrics["APl"])  # there are no large objects
            metrics["APl"] = None
            assert r.metrics == pytest.approx(metrics, abs=1e-5)
            assert r.classes == {"cat": r.metrics["AP"], "dog": None}
    new = result.variants[1]
    assert len(new.metrics["AP"].values) == 2
    (comparison,) = result.comparisons
    assert comparison.num_pairs == 2
    ap = comparison.metrics[0]
    at = [expected[f"runs/{v}/seed1"]["AP"] for v in ("base", "new")]
    assert ap.difference == pytest.approx(at[1] - at[0])  # seed 3 has the same
    assert comparison.metrics[METRICS.index("APl")].difference is None
    assert [e.metric for e in comparison.classes] == ["cat", "dog"]
    assert comparison.classes[0].difference == ap.difference
    assert "2 of 4 pairs are left out" in comparison.statement


def test_what_is_said_about_runs_that_are_not_finished(tmp_path, base_cfg, monkeypatch):
    data = write_dataset(tmp_path / "data", BOXES, NUM_IMAGES)
    design = design_of(tmp_path, seeds=(1, 2))
    runs = {(run.variant, run.seed): run for run in design.runs()}
    write_run(design, runs["base", 1], base_cfg, data, 4)
    log = tmp_path / "exp/runs/base/seed2.log"
    log.write_text("error: the disk is full\n")
    trained = design.path(runs["new", 1].folder)
    holder = run_lock.holder
    monkeypatch.setattr(
        run_lock, "holder", lambda path: "process 7 on vm" if path == trained else holder(path)
    )
    assert [r.error for r in read_experiment(design).runs] == [
        "",
        "the run is not finished: it is trained by process 7 on vm",
        "error: the disk is full",
        "the run has not been started",
    ]


def test_the_costs_that_were_measured_are_those_of_the_variants(tmp_path, monkeypatch):
    design = design_of(tmp_path, seeds=(1,))
    (tmp_path / "exp").mkdir()
    cost = Cost(1000, 2.5, 0.25, 0.1, 30.0)
    monkeypatch.setattr(saved_costs, "measure_costs", lambda cfgs: dict.fromkeys(cfgs, cost))
    assert [v.cost for v in read_experiment(design).variants] == [None, None]
    saved_costs.measure_missing_costs(design, {"base": None, "new": None})
    assert [v.cost for v in read_experiment(design).variants] == [cost, cost]


def test_identical_variants_differ_by_exactly_nothing(tmp_path, base_cfg):
    data = write_dataset(tmp_path / "data", BOXES, NUM_IMAGES)
    design = design_of(tmp_path, seeds=(1, 2))
    for run in design.runs():
        write_run(design, run, base_cfg, data, 3 + run.seed)
    (comparison,) = read_experiment(design).comparisons
    assert {(e.difference, e.low, e.high) for e in comparison.metrics[:5]} == {(0.0, 0.0, 0.0)}
    assert "nothing can tell them apart" in comparison.statement


def test_folds_have_their_own_images(tmp_path, base_cfg):
    """The second run of fold 2 was tested on the images of fold 1."""
    folds = [write_dataset(tmp_path / f"data{k}", BOXES, n) for k, n in ((1, 4), (2, 6))]
    design = design_of(tmp_path, seeds=(1,), folds=2)
    for run in design.runs():
        wrong = (run.variant, run.fold) == ("new", 2)
        data = folds[0 if wrong else run.fold - 1]
        write_run(design, run, base_cfg, data, 2 if run.variant == "base" else 3)
    result = read_experiment(design)
    errors = {r.folder: r.error for r in result.runs if r.error}
    assert set(errors) == {"runs/new/seed1-fold2"}
    assert "the images of" in errors["runs/new/seed1-fold2"]
    assert "differ from those of the runs before it" in errors["runs/new/seed1-fold2"]
    assert result.test == "each of 2 folds of the training set in turn"
    assert result.comparisons[0].num_pairs == 1


def test_draws_are_the_same_for_all_runs_of_a_fold():
    assert (draws(9, 1) == draws(9, 1)).all()
    assert (draws(9, 1) != draws(9, 2)).any()
    assert (draws(9, 0).sum(1) == 9).all()


def test_seconds(tmp_path):
    start = datetime(2024, 5, 1, tzinfo=timezone.utc)
    last = tmp_path / "last_checkpoint"
    assert seconds_of(str(tmp_path)) is None
    last.write_text("model_final.pth")
    os.utime(last, (start.timestamp() + 90, start.timestamp() + 90))
    assert seconds_of(str(tmp_path)) is None
    entry = {"start_time": start.isoformat()}
    for entries, expected in (([entry], 90.0), ([entry, entry], None), ([{}], None), (None, None)):
        (tmp_path / "run.json").write_text(json.dumps(entries))
        assert seconds_of(str(tmp_path)) == expected
