"""train_net.py like users run it: with their own data, by paths, in a separate process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from libra_d2.checkpoint import LibraCheckpointer
from libra_d2.data.datasets.setup import class_names
from libra_d2.data.datasets.shapes import CLASSES, write_shapes
from libra_d2.engine import load_cfg

from ..support.coco_files import write_dataset
from ..support.programs import run_python
from ..support.project import ROOT, shared_data
from ..support.train_net_runs import SMALL, on_data, train_net


def ap_of(log):
    """Return the numbers below `copypaste: AP,AP50,...`."""
    lines = [line.partition("copypaste: ")[2] for line in log.splitlines()]
    return [float(v) for v in lines[lines.index("AP,AP50,AP75,APs,APm,APl") + 1].split(",")]


@pytest.mark.slow
def test_overfits_eight_images_and_eval_only_agrees(tmp_path):
    """A detector that cannot overfit eight images does not learn."""
    write_shapes(tmp_path, "eight", 8, seed=7)
    files = (tmp_path / "eight.json", tmp_path / "eight")
    out = tmp_path / "out"
    options = [
        *on_data(files, config="configs/demo.yaml"),
        *("OUTPUT_DIR", out, "INPUT.MIN_SIZE_TRAIN", "(192,)", "INPUT.MIN_SIZE_TEST", "192"),
        *("DATALOADER.NUM_WORKERS", "0", "INPUT.RANDOM_FLIP", "none"),
        *("SOLVER.MAX_ITER", "160", "SOLVER.STEPS", "(130,)", "SOLVER.WARMUP_ITERS", "30"),
        *("SOLVER.IMS_PER_BATCH", "2"),
    ]
    run = train_net(*options)
    assert run.returncode == 0, run.stderr[-2000:]
    ap = ap_of(run.stdout)
    assert ap[1] > 90, f"AP50 {ap[1]}"
    for name in CLASSES:
        assert name in run.stdout  # COCO metrics per class
    assert "eta " in run.stdout
    assert run.stdout.count("No CUDA device") == (0 if torch.cuda.is_available() else 1)
    assert "Warning" not in run.stderr

    for picture in ("loss_curve.png", "predictions.png"):
        assert min(Image.open(out / picture).size) > 300
    assert json.loads((out / "metrics.json").read_text().splitlines()[-1])[
        "bbox/AP"
    ] == pytest.approx(ap[0], abs=1e-3)

    # The saved config and weights alone are enough, and give the same numbers.
    again = train_net(
        *("--config-file", out / "config.yaml", "--eval-only"),
        *("MODEL.WEIGHTS", out / "model_final.pth", "OUTPUT_DIR", tmp_path / "again"),
    )
    assert again.returncode == 0, again.stderr[-2000:]
    assert ap_of(again.stdout) == pytest.approx(ap, abs=0, nan_ok=True)  # no large objects here

    check_default_predictor(out, tmp_path / "eight" / "000001.jpg")


def check_default_predictor(out, image):
    """Run the five lines of docs/apps.md."""
    import cv2
    from detectron2.engine import DefaultPredictor

    from libra_d2.engine import load_cfg

    cfg = load_cfg(str(out / "config.yaml"), ["MODEL.WEIGHTS", str(out / "model_final.pth")])
    instances = DefaultPredictor(cfg)(cv2.imread(str(image)))["instances"]
    found = {class_names(cfg)[c] for c in instances.pred_classes[instances.scores > 0.5]}
    assert found and found <= set(CLASSES)


def test_bad_images_do_not_end_a_run(tmp_path):
    """Files are missing, broken or have a wrong size, in training and in evaluation."""
    files = write_dataset(tmp_path, num_images=8)
    images = Path(files[1])
    (images / "2.jpg").unlink()
    (images / "3.jpg").write_bytes((images / "3.jpg").read_bytes()[:200])
    run = train_net(*on_data(files), *SMALL, "SOLVER.MAX_ITER", "6", "OUTPUT_DIR", tmp_path / "out")
    assert run.returncode == 0, run.stderr[-2000:]
    log = run.stdout + run.stderr
    assert "1 of 8 images are missing" in log and "2.jpg" in log
    assert "cannot use image" in log and "3.jpg" in log
    assert "1 images could not be read; their objects count as missed" in log
    results = tmp_path / "out" / "inference"
    assert list(results.rglob("coco_instances_results.json"))


def test_resume_goes_on_where_the_run_ended(tmp_path):
    files = write_dataset(tmp_path)
    options = [
        *on_data(files),
        *SMALL,
        *("SOLVER.CHECKPOINT_PERIOD", "1", "SOLVER.CHECKPOINTS_TO_KEEP", "2"),
        *("TEST.EVAL_PERIOD", "1", "TEST.BEST_METRIC", "bbox/AP"),
        *("OUTPUT_DIR", tmp_path / "out"),
    ]
    assert train_net(*options).returncode == 0
    args = ["--resume", *options, "SOLVER.MAX_ITER", "4"]
    run = train_net(*args)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "Starting training from iteration 2" in run.stdout
    kept = sorted(p.name for p in (tmp_path / "out").glob("*.pth"))
    assert kept == ["model_0000002.pth", "model_0000003.pth", "model_best.pth", "model_final.pth"]
    assert (tmp_path / "out" / "last_checkpoint").read_text() == "model_final.pth"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    "change,named",
    [
        (
            ["DATASETS.TRAIN", "coco:none.json,."],
            "TRAIN coco:none.json,.: annotation file",
        ),
        (["DATASETS.TRAIN", f"coco:{__file__},none"], "image folder"),
        (
            ["MODEL.BFP.REFINE_LEVEL", "p9"],
            "MODEL.BFP.REFINE_LEVEL must be one of ('p2', 'p3', 'p4', 'p5', 'p6'), got 'p9'",
        ),
        (
            ["MODEL.BFP.REFINE_TYPE", "gauss"],
            "REFINE_TYPE must be one of ('none', 'conv', 'non_local'), got 'gauss'",
        ),
        (["MODEL.ROI_HEADS.NUM_CLASSES", "5"], "NUM_CLASSES must be 2, got 5: "),
        (["MODEL.WEIGHTS", "none.pth"], "MODEL.WEIGHTS: none.pth does not exist"),
        (
            ["MODEL.ROI_HEADS.SAMPLER.BIN_RANGE", "all"],
            "BIN_RANGE must be one of ('paper', 'mmdet'), got 'all'",
        ),
        (["MODEL.BACKBONE.NAME", "build_nothing"], "build_nothing"),
        (["MODEL.ANCHORS", "1"], "unknown config key MODEL.ANCHORS"),
    ],
)
def test_a_users_mistake_is_one_line(dataset, tmp_path, change, named):
    run = train_net(*on_data(dataset), *SMALL, *change, "OUTPUT_DIR", tmp_path / "out")
    assert run.returncode == 2
    assert "Traceback" not in run.stdout + run.stderr
    assert run.stderr.count("\n") == 1 and run.stderr.startswith("error: ")
    assert named in run.stderr


def test_stopping_at_a_bad_image_is_one_line(tmp_path):
    """This also holds for a loader worker, which sends its stack trace along."""
    files = write_dataset(tmp_path, num_images=2)
    for i in (1, 2):
        (Path(files[1]) / f"{i}.jpg").write_bytes(b"x")
    for workers in ("0", "1"):
        run = train_net(
            *on_data(files),
            *SMALL,
            *("DATALOADER.ON_BAD_IMAGE", "stop", "DATALOADER.NUM_WORKERS", workers),
            *("DATASETS.CHECK", "False"),  # which would find it earlier
            *("OUTPUT_DIR", tmp_path / "out"),
        )
        assert run.returncode == 2
        assert run.stderr.strip().splitlines()[-1].startswith("error: cannot use image ")
        assert "Traceback" not in run.stdout + run.stderr


def test_more_gpus_than_there_are(tmp_path):
    count = torch.cuda.device_count()
    wanted = max(2, count + 1)
    run = train_net("--num-gpus", wanted, "--config-file", "configs/demo.yaml")
    assert run.returncode == 2
    start = (
        "error: --num-gpus must be at most the number of CUDA devices of this machine, "
        f"{count}, got {wanted}. To run {wanted} processes on the CPU, set MODEL.DEVICE cpu"
    )
    assert run.stderr.startswith(start) and run.stderr.count("\n") == 1


@pytest.mark.parametrize("weights", ["", "torchvision://mobilenet_v2"])
def test_evaluating_an_untrained_detector_is_refused(dataset, tmp_path, weights):
    run = train_net(
        "--eval-only", *on_data(dataset), "MODEL.WEIGHTS", weights, "OUTPUT_DIR", tmp_path
    )
    assert run.returncode == 2 and "must be a trained detector" in run.stderr


def test_evaluating_layers_that_were_never_trained_is_refused(dataset, tmp_path):
    """With other classes, the scores, and hence the AP, would be random."""
    config = load_cfg("configs/libra_mobilenet_v2.yaml", ["MODEL.ROI_HEADS.NUM_CLASSES", "5"])
    LibraCheckpointer(build_model(config), str(tmp_path)).save("m")
    options = ["MODEL.WEIGHTS", tmp_path / "m.pth", "OUTPUT_DIR", tmp_path / "out"]
    run = train_net("--eval-only", *on_data(dataset), *options)
    assert run.returncode == 2 and "lacks tensors of this model" in run.stderr


def test_works_from_another_folder(dataset, tmp_path):
    config = ROOT / "configs/libra_mobilenet_v2.yaml"
    command = [sys.executable, ROOT / "train_net.py", *on_data(dataset, config=config), *SMALL]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    assert (tmp_path / "output" / "model_final.pth").is_file()


@pytest.mark.skipif(
    not (shared_data() / "data/bccd").is_dir(), reason="no real images beside the checkout"
)
def test_real_images(tmp_path):
    bccd = shared_data() / "data/bccd"
    train, test = (
        (bccd / f"annotations/instances_{s}.json", bccd / "images") for s in ("train", "val")
    )
    small_test = json.loads(test[0].read_text())
    keep = {i["id"] for i in small_test["images"][:6]}
    small_test["images"] = small_test["images"][:6]
    small_test["annotations"] = [a for a in small_test["annotations"] if a["image_id"] in keep]
    (tmp_path / "val.json").write_text(json.dumps(small_test))
    run = train_net(
        *on_data(train, (tmp_path / "val.json", test[1])), *SMALL, "OUTPUT_DIR", tmp_path / "out"
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "Platelets" in run.stdout


def test_without_the_package_index(tmp_path):
    """Tests and demo must not download anything: the weights come from an installed package."""
    environment = {
        **os.environ,
        "https_proxy": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }
    code = "from libra_d2.checkpoint import torchvision_weights_file as f; print(f('mobilenet_v2'))"
    run = run_python("-c", code, env=environment)
    assert run.stdout.strip().endswith("mobilenet_v2-b0353104.pth")
