"""A detector with random weights in the folder of a run: evaluated, and evaluated again."""

import html
import json
import logging
import os
import re
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.data import DatasetCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import GeneralizedRCNN
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from libra_d2.checkpoint import LibraCheckpointer
from libra_d2.cli.main import main
from libra_d2.cli.run_evaluation import evaluate_run
from libra_d2.data import register_coco, setup_datasets
from libra_d2.data.datasets.setup import category_ids, class_names, with_descriptions
from libra_d2.data.datasets.shapes import write_shapes
from libra_d2.engine import LibraTrainer, load_cfg
from libra_d2.evaluation import LibraCOCOEvaluator
from libra_d2.evaluation.coco_metrics import coco_metrics
from libra_d2.predictions.saved_predictions import data_hash, made_by, why_not_reusable

from ..support.best_thresholds import write_best
from ..support.models import NARROW
from ..support.perfect_output import perfect_output

OPTIONS = [
    *NARROW,
    *"INPUT.MIN_SIZE_TEST 96 DATALOADER.NUM_WORKERS 0 MODEL.RPN.POST_NMS_TOPK_TEST 300".split(),
    *"MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.05".split(),
]


@pytest.fixture
def run_folder(tmp_path):
    """Its weights are random, and its data has an image that cannot be read."""
    write_shapes(tmp_path, "val", 4, seed=2)
    data = ["DATASETS.TEST", f"coco:{tmp_path}/val.json,{tmp_path}/val"]
    cfg = load_cfg("configs/libra_mobilenet_v2.yaml", [*OPTIONS, *data])
    cfg.OUTPUT_DIR = "elsewhere"
    setup_datasets(cfg, num_classes_given=False, train=False)
    torch.manual_seed(0)
    model = LibraTrainer.build_model(cfg)
    folder = tmp_path / "run"
    folder.mkdir()
    LibraCheckpointer(
        model,
        str(folder),
        class_names=class_names(cfg),
        category_ids=category_ids(cfg),
    ).save("model_final")
    (folder / "config.yaml").write_text(with_descriptions(cfg).dump())
    return folder


@pytest.fixture
def calls(monkeypatch):
    """Sizes of the batches that the network is run on."""
    sizes = []
    forward = GeneralizedRCNN.forward

    def counted(self, batch):
        sizes.append(len(batch))
        return forward(self, batch)

    monkeypatch.setattr(GeneralizedRCNN, "forward", counted)
    return sizes


def results_of(folders):
    (folder,) = folders.values()
    return json.loads(Path(folder, "results.json").read_text())["bbox"]


def by_pycocotools(annotations, results):
    truth = COCO(str(annotations))
    evaluation = COCOeval(truth, truth.loadRes(str(results)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats


def make_objects_of_detections(run_folder):
    """A detector with random weights finds nothing else: every seventh, moved by up to 3 pixels."""
    (folder,) = evaluate_run(str(run_folder), device="cpu").values()
    detections = json.loads(Path(folder, "coco_instances_results.json").read_text())[::7]
    path = run_folder.parent / "val.json"
    content = json.loads(path.read_text())
    content["annotations"] = [
        {
            **{k: d[k] for k in ("image_id", "category_id")},
            "bbox": [v + i % 4 for v in d["bbox"]],
            "area": d["bbox"][2] * d["bbox"][3],
            "iscrowd": 0,
            "id": i + 1,
        }
        for i, d in enumerate(detections)
    ]
    path.write_text(json.dumps(content))


def test_numbers_are_those_of_pycocotools_and_are_found_again_without_the_network(
    run_folder, calls, caplog
):
    make_objects_of_detections(run_folder)
    calls.clear()
    folders = evaluate_run(str(run_folder), device="cpu", backend="pycocotools")
    assert sum(calls) == 4
    (folder,) = map(Path, folders.values())
    assert folder.parent == run_folder / "inference", "OUTPUT_DIR of the config, not of the run"
    first = results_of(folders)
    stats = by_pycocotools(run_folder.parent / "val.json", folder / "coco_instances_results.json")
    names = "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()
    assert [first[name] if first[name] is not None else -1 for name in names] == list(stats)
    assert 0 < first["AP"] < first["AR100"] < 1, "numbers that say nothing"

    with caplog.at_level(logging.INFO):
        again = evaluate_run(str(run_folder), reuse=True, backend="pycocotools")
    again = results_of(again)
    assert again == first and sum(calls) == 4, "the network was run"
    assert "are used again" in caplog.text
    fast = results_of(evaluate_run(str(run_folder), reuse=True, backend="faster-coco-eval"))
    assert sum(calls) == 4 and fast["backend"] == "faster-coco-eval"
    assert fast["AP"] == pytest.approx(first["AP"], abs=1e-9)
    evaluate_run(str(run_folder), device="cpu")
    assert sum(calls) == 8, "predictions were used again without being asked for"


def changed(change, run_folder, folder):
    if change == "predictions":
        path = folder / "coco_instances_results.json"
        path.write_text(path.read_text() + "\n")
    elif change == "image":
        image = sorted((run_folder.parent / "val").iterdir())[0]
        status = image.stat()
        os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    elif change == "annotations":
        path = run_folder.parent / "val.json"
        path.write_text(path.read_text() + "\n")
    elif change == "record":
        (folder / "record.json").write_text("[")
    elif change == "weights":
        path = run_folder / "model_final.pth"
        state = torch.load(path, weights_only=True)
        state["model"]["roi_heads.box_predictor.cls_score.bias"][0] += 1e-3
        torch.save(state, path)
    if change != "config":
        return []
    return ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.06", "OUTPUT_DIR", str(run_folder)]


@pytest.mark.parametrize(
    "change,words",
    [
        ("weights", "the weights have changed"),
        ("annotations", "annotations or images have changed"),
        ("image", "annotations or images have changed"),
        ("config", "MODEL.ROI_HEADS.SCORE_THRESH_TEST was 0.05 and is now 0.06"),
        ("predictions", "was changed after its record was written"),
        ("record", "record.json is not a JSON file"),
    ],
)
def test_predictions_of_something_else_are_not_used(change, words, run_folder, calls, caplog):
    folders = evaluate_run(str(run_folder), device="cpu")
    opts = changed(change, run_folder, Path(*folders.values()))
    with caplog.at_level(logging.INFO):
        evaluate_run(str(run_folder), device="cpu", reuse=True, opts=opts)
    assert words in caplog.text
    assert sum(calls) == 8, "the network was not run"
    evaluate_run(str(run_folder), device="cpu", reuse=True, opts=opts)
    assert sum(calls) == 8, "the new predictions have no record that fits"


def test_unreadable_images_are_in_the_record_and_named_again(run_folder, calls, caplog):
    image = sorted((run_folder.parent / "val").iterdir())[0]
    image.write_bytes(b"not an image")
    folders = evaluate_run(str(run_folder), device="cpu")
    record = json.loads(Path(*folders.values(), "record.json").read_text())
    assert record["unreadable"] == [str(image)] and record["num_images"] == 4
    caplog.clear()
    evaluate_run(str(run_folder), device="cpu", reuse=True)
    assert "1 images could not be read" in caplog.text


def test_the_record_of_a_training_fits_what_it_saved(run_folder):
    """The hash is of the weights in memory: an evaluation in training knows no file."""
    cfg = load_cfg(str(run_folder / "config.yaml"), ["OUTPUT_DIR", str(run_folder)])
    setup_datasets(cfg, num_classes_given=False, train=False)
    torch.manual_seed(0)
    model = LibraTrainer.build_model(cfg)
    LibraTrainer.test(cfg, model)
    (name,) = cfg.DATASETS.TEST
    folder = str(run_folder / "inference" / name)
    images = json.loads((run_folder.parent / "val.json").read_text())["images"]
    other = LibraTrainer.build_model(cfg)
    assert why_not_reusable(folder, made_by(cfg, name, images, other))
    LibraCheckpointer(other).load(str(run_folder / "model_final.pth"))
    assert why_not_reusable(folder, made_by(cfg, name, images, other)) == ""


def test_test_time_augmentation_has_a_record_of_its_own(run_folder, calls, caplog):
    opts = ["TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(80,)"]
    evaluate_run(str(run_folder), device="cpu", opts=opts)
    (path,) = run_folder.glob("inference_TTA/*/record.json")
    assert json.loads(path.read_text())["config"]["TEST.AUG.MIN_SIZES"] == [80]
    made = len(calls)
    cfg = load_cfg(str(run_folder / "config.yaml"), [*opts, "OUTPUT_DIR", str(run_folder)])
    cfg.MODEL.WEIGHTS = str(run_folder / "model_final.pth")
    setup_datasets(cfg, num_classes_given=False, train=False)
    with caplog.at_level(logging.INFO):
        assert (
            set(LibraTrainer.evaluate(cfg, reuse=True)) == {"bbox", "bbox_TTA"}
            and len(calls) == made
        )
        assert caplog.text.count("are used again") == 2
        changed("weights", run_folder, path.parent)
        LibraTrainer.evaluate(cfg, reuse=True)
    assert caplog.text.count("the weights have changed") == 2


def test_the_thresholds_of_the_run_after_its_numbers(run_folder, calls, capsys):
    """From them on, precision and recall; the numbers and the saved predictions stay."""
    command = ["evaluate", "--model", str(run_folder), "--score-threshold", "best"]
    assert main(command) == 2
    assert "Run `libra-d2 analyze --model" in capsys.readouterr().err and not calls
    make_objects_of_detections(run_folder)
    before = results_of(evaluate_run(str(run_folder), device="cpu"))
    calls.clear()
    names = [c["name"] for c in before["classes"]]
    write_best(run_folder / "analysis", 0.9, dict.fromkeys(names, 0.0))
    assert main([*command, "--reuse"]) == 0
    out = capsys.readouterr().out
    assert "the thresholds with the best F1 in" in out and not calls
    row = next(line for line in out.splitlines() if line.startswith("| all "))
    objects, tp, fp, fn = (int(row.split("|")[i]) for i in (3, 7, 8, 9))
    assert tp + fn == objects == before["num_objects"]
    assert tp + fp == before["num_detections"], "a threshold of 0 leaves nothing out"
    (folder,) = (run_folder / "inference").iterdir()
    assert json.loads((folder / "results.json").read_text())["bbox"] == before


def test_an_evaluator_without_a_folder_has_nothing_to_reuse(run_folder):
    data = json.loads((run_folder.parent / "val.json").read_text())
    name = register_coco(str(run_folder.parent / "val.json"), str(run_folder.parent / "val"))
    evaluator = LibraCOCOEvaluator(name)
    assert len(evaluator.images) == len(data["images"])
    assert evaluator.evaluate_saved() is None


def test_proposals_are_data(tmp_path):
    """Another file of the same name, and the predictions are made again."""
    write_shapes(tmp_path, "val", 1, seed=2)
    name = register_coco(str(tmp_path / "val.json"), str(tmp_path / "val"))
    proposals = tmp_path / "proposals.pkl"
    hashes = []
    for content in (b"a", b"ab"):
        proposals.write_bytes(content)
        hashes.append(data_hash(name, [], [str(proposals)]))
    assert hashes[0] != hashes[1] and data_hash(name, [], [str(proposals)]) == hashes[1]
    files = ["DATASETS.PROPOSAL_FILES_TEST", repr((str(proposals),))]
    cfg = load_cfg("configs/libra_fast_r50.yaml", [*files, "MODEL.DEVICE", "cpu"])
    assert cfg.MODEL.LOAD_PROPOSALS
    assert made_by(cfg, name, [], torch.nn.Linear(1, 1))["data"] == hashes[1]


def test_unknown_backend_is_refused_before_the_network_runs(run_folder, calls):
    with pytest.raises(ValueError, match=r"TEST\.EVAL_BACKEND must be one of .*, got 'numpy'"):
        evaluate_run(str(run_folder), device="cpu", opts=["TEST.EVAL_BACKEND", "numpy"])
    assert not calls


def perfect_evaluator(files, folder, cls=LibraCOCOEvaluator, every=1, start=0, **settings):
    """Has seen each `every`-th image of the data, with one detection for each object."""
    name = register_coco(*files)
    records = DatasetCatalog.get(name)
    evaluator = cls(name, output_dir=str(folder), **settings)
    evaluator.reset()
    for record in records[start::every]:
        evaluator.process([record], [perfect_output(record)])
    return evaluator


@pytest.fixture
def shapes(tmp_path):
    write_shapes(tmp_path, "val", 5, seed=4)
    return str(tmp_path / "val.json"), str(tmp_path / "val")


def test_numbers_of_upstream_keep_their_names_and_values(shapes, tmp_path):
    """Where `area` is that of the box: Detectron2 takes sizes from it, we take them from boxes."""
    content = json.loads(Path(shapes[0]).read_text())
    for annotation in content["annotations"]:
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
    annotations = tmp_path / "annotations.json"
    annotations.write_text(json.dumps(content))
    shapes = str(annotations), shapes[1]
    settings = {"distributed": False}
    ours = perfect_evaluator(shapes, tmp_path / "ours", **settings).evaluate()["bbox"]
    upstream = perfect_evaluator(shapes, tmp_path / "its", COCOEvaluator, **settings)
    upstream = upstream.evaluate()["bbox"]
    assert {k: ours[k] for k in upstream} == pytest.approx(upstream, abs=0, nan_ok=True)
    assert set(ours) - set(upstream) == {"AR1", "AR10", "AR100", "ARs", "ARm", "ARl"}
    files = [(tmp_path / f / "coco_instances_results.json").read_bytes() for f in ("ours", "its")]
    assert files[0] == files[1]


def test_a_part_of_the_images_is_evaluated_by_upstream(shapes, tmp_path):
    evaluator = perfect_evaluator(shapes, tmp_path / "out", every=2)
    whole = evaluator.evaluate()["bbox"]["AP"]
    evaluator = perfect_evaluator(shapes, tmp_path / "out", every=2)
    ids = [r["image_id"] for r in DatasetCatalog.get(register_coco(*shapes))[::2]]
    part = evaluator.evaluate(img_ids=ids)["bbox"]["AP"]
    assert part == pytest.approx(100) and whole < 90


def test_no_detections_have_an_ap_of_0(shapes, tmp_path, caplog):
    evaluator = perfect_evaluator(shapes, tmp_path / "out", every=9)
    for prediction in evaluator._predictions:
        prediction["instances"] = []
    results = evaluator.evaluate()["bbox"]
    assert results["AP"] == results["AR100"] == 0 and "no detections, so AP is 0" in caplog.text


@pytest.mark.parametrize("detections,name", [(20, "AR100"), (100, "AR100"), (300, "AR300")])
def test_limit_of_detections_is_that_of_the_config(shapes, tmp_path, detections, name):
    cfg = load_cfg("", ["TEST.DETECTIONS_PER_IMAGE", str(detections)])
    cfg.OUTPUT_DIR = str(tmp_path)
    dataset = register_coco(*shapes)
    evaluator = LibraTrainer.build_evaluator(cfg, dataset)
    evaluator.reset()
    for record in DatasetCatalog.get(dataset):
        evaluator.process([record], [perfect_output(record)])
    results = evaluator.evaluate()["bbox"]
    assert [k for k in results if k.startswith("AR") and k[-1] == "0"] == ["AR10", name]
    assert results["AP"] == pytest.approx(100)


def worker(rank, port, files, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    evaluator = perfect_evaluator(files, folder, every=2, start=rank)
    evaluator.made_by = {"weights": 1, "data": 2, "config": {}, "versions": {}}
    first = evaluator.evaluate()
    again = evaluator.evaluate_saved()
    evaluator.made_by = {**evaluator.made_by, "weights": 3} if rank == 0 else None
    assert evaluator.evaluate_saved() is None
    assert json.dumps(again) == json.dumps(first)  # NaN equals NaN
    assert bool(first) == (rank == 0)
    if rank == 0:
        Path(folder, "first.json").write_text(json.dumps(first))
    dist.destroy_process_group()


def test_two_processes_have_the_numbers_of_one(shapes, tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(worker, (port, shapes, str(tmp_path / "two")), nprocs=2)
    two = json.loads((tmp_path / "two/first.json").read_text())["bbox"]
    one = perfect_evaluator(shapes, tmp_path / "one").evaluate()["bbox"]
    assert two == pytest.approx(one, abs=0, nan_ok=True) and one["AP"] == pytest.approx(100)
    assert json.loads((tmp_path / "two/record.json").read_text())["num_images"] == 5


def test_masks_have_all_numbers(shapes, tmp_path):
    content = json.loads(Path(shapes[0]).read_text())
    for a in content["annotations"]:
        x, y, w, h = a["bbox"]
        a["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    Path(shapes[0]).write_text(json.dumps(content))
    name = register_coco(*shapes)
    evaluator = LibraCOCOEvaluator(name, output_dir=str(tmp_path / "masks"))
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        output = perfect_output(record)
        masks = np.zeros((len(record["annotations"]), record["height"], record["width"]), bool)
        for mask, a in zip(masks, record["annotations"]):
            x, y, w, h = (round(v) for v in a["bbox"])
            mask[y : y + h, x : x + w] = True
        output["instances"].pred_masks = torch.from_numpy(masks)
        evaluator.process([record], [output])
    results = evaluator.evaluate()
    assert list(results) == ["bbox", "segm"]
    assert results["segm"]["AP50"] == pytest.approx(100) and results["segm"]["AR100"] > 80
    assert set(results["segm"]) == set(results["bbox"])


def test_other_settings_or_weights_leave_the_predictions_of_the_run(run_folder, calls):
    """They go to a folder that is named by what is different, and are found again there."""
    own = Path(*evaluate_run(str(run_folder), device="cpu").values())
    before = (own / "coco_instances_results.json").read_bytes()
    other = str(run_folder / "model_0000007.pth")
    state = torch.load(run_folder / "model_final.pth", weights_only=True)
    torch.save(state, other)
    opts = ["TEST.DETECTIONS_PER_IMAGE", "3"]
    for model, options, name in (
        (str(run_folder), opts, "TEST.DETECTIONS_PER_IMAGE=3"),
        (other, [], "model_0000007"),
    ):
        calls.clear()
        folder = Path(*evaluate_run(model, device="cpu", opts=options).values())
        assert folder.parent == run_folder / "evaluations" / name / "inference"
        assert (own / "coco_instances_results.json").read_bytes() == before
        evaluate_run(model, device="cpu", opts=options, reuse=True)
        assert sum(calls) == 4, "the predictions were not used again"
    # What is no part of a detection changes nothing.
    same = evaluate_run(str(run_folder), device="cpu", opts=["TEST.EVAL_BACKEND", "pycocotools"])
    assert Path(*same.values()) == own


def test_analysis_counts_as_the_evaluation_of_the_run(run_folder, caplog):
    """With more than 100 detections an image, whose best 100 are false, the limit decides."""
    cfg = load_cfg(str(run_folder / "config.yaml"), ["TEST.DETECTIONS_PER_IMAGE", "300"])
    (run_folder / "config.yaml").write_text(with_descriptions(cfg).dump())
    folders = evaluate_run(str(run_folder), device="cpu")
    folder = Path(*folders.values())
    truth = json.loads((run_folder.parent / "val.json").read_text())
    false = [
        {"image_id": i["id"], "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.9}
        for i in truth["images"]
        for _ in range(120)
    ]
    hits = [
        {
            "image_id": a["image_id"],
            "category_id": a["category_id"],
            "bbox": a["bbox"],
            "score": 0.5,
        }
        for a in truth["annotations"]
    ]
    (folder / "coco_instances_results.json").write_text(json.dumps(false + hits))
    expected = coco_metrics(truth, false + hits, max_detections=300).numbers["AP"]
    assert expected - coco_metrics(truth, false + hits).numbers["AP"] > 0.001
    assert main(["analyze", "--model", str(run_folder), "--no-report"]) == 0
    analysis = json.loads((run_folder / "analysis" / "analysis.json").read_text())
    assert analysis["settings"]["max_detections"] == 300
    assert analysis["coco"]["AP"] == pytest.approx(expected, abs=1e-6)
    assert not [w for w in caplog.messages if "--max-detections" in w]
    files = ["--predictions", str(folder / "coco_instances_results.json")]
    files += ["--annotations", str(run_folder.parent / "val.json")]
    assert main(["evaluate", *files]) == 0
    assert [w for w in caplog.messages if "--max-detections" in w]


def test_what_a_setting_cuts_off_is_said_below_the_ap_and_in_the_report(run_folder, capsys):
    """Some images have more objects than the detector may return."""
    make_objects_of_detections(run_folder)
    config = run_folder / "config.yaml"
    text = config.read_text()
    for number, is_said in ((1000, False), (2, True)):
        config.write_text(re.sub(r"(DETECTIONS_PER_IMAGE): \d+", rf"\1: {number}", text))
        assert main(["evaluate", "--model", str(run_folder), "--device", "cpu"]) == 0
        results, _, below = capsys.readouterr().out.partition("AP50")
        limit = "more objects than the detector may return"
        assert below and limit not in results and (limit in below) is is_said
        assert ("; set TEST.DETECTIONS_PER_IMAGE" in below) is is_said
        assert main(["analyze", "--model", str(run_folder)]) == 0
        report = html.unescape((run_folder / "analysis" / "report.html").read_text())
        assert (limit in report) is is_said
        assert ('; set TEST.DETECTIONS_PER_IMAGE "' in report) is is_said
