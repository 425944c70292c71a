"""What people type wrongly: each mistake is named in a few words, before a model is built."""

import json
import os
import subprocess
import sys
import time

import pytest

from libra_d2.cli.main import main
from libra_d2.engine import LibraTrainer, default_argument_parser, launch, setup

from ..support.coco_files import write_dataset
from ..support.project import ROOT

CONFIG = "--config-file configs/libra_mobilenet_v2.yaml"
MAX_SECONDS = 5  # of processor time, without the import of torch


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Values of the names in braces below."""
    folder = tmp_path_factory.mktemp("mistakes")
    annotations, images = write_dataset(folder / "data")
    (folder / "model_final.pth").touch()
    (folder / "config.yaml").write_text("MODEL:\n  WEIGHTS: ''\n")
    results = folder / "results.json"
    results.write_text("[]")
    for name, text in CONFIGS.items():
        (folder / name).write_text(text.replace("{root}", str(ROOT)))
    return {"folder": folder, "json": annotations, "images": images, "results": results}


@pytest.fixture(autouse=True)
def nothing_is_built(monkeypatch):
    def built(cls, cfg):
        raise AssertionError("a model was built before the mistake was found")

    monkeypatch.setattr(LibraTrainer, "build_model", classmethod(built))


def train_net(arguments):
    """As train_net.py; returns the exit status."""
    try:
        args = default_argument_parser().parse_args(arguments)
        launch(lambda args: LibraTrainer.build_model(setup(args)), args)
    except SystemExit as e:
        return e.code
    return 0


def command(arguments):
    try:
        return main(arguments)
    except SystemExit as e:
        return e.code


def message(run, arguments, capsys):
    """What stderr says after a run that must fail in time, with the status of a user's mistake."""
    start = time.process_time()
    status = run(arguments)
    error = capsys.readouterr().err
    assert status == 2, error
    assert "Traceback" not in error
    assert time.process_time() - start < MAX_SECONDS
    return error


def words(line, files):
    return [word.format(**files) for word in line.split()]


DEEP = "".join(f"{' ' * i}A:\n" for i in range(200))
ALIASES = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 25)
)
CONFIGS = {
    "unknown_key.yaml": "_BASE_: {root}/configs/libra_mobilenet_v2.yaml\nSOLVER:\n  MAX_ITERS: 5\n",
    "wrong_type.yaml": "_BASE_: {root}/configs/libra_mobilenet_v2.yaml\nSOLVER:\n  MAX_ITER: many\n",
    "null.yaml": "_BASE_: {root}/configs/libra_mobilenet_v2.yaml\nSOLVER:\n  MAX_ITER:\n",
    "integer_key.yaml": "SOLVER:\n  7: 5\n",
    "list.yaml": "- SOLVER\n- MODEL\n",
    "section.yaml": "_BASE_: {root}/configs/libra_mobilenet_v2.yaml\nSOLVER: 5\n",
    "syntax.yaml": "MODEL: [1, 2\n",
    "python.yaml": "OUTPUT_DIR: !!python/object/apply:os.getcwd []\n",
    "deep.yaml": DEEP,
    "aliases.yaml": ALIASES,
    "twice.yaml": "SEED: 1\nSEED: 2\n",
    "loop.yaml": "_BASE_: loop2.yaml\n",
    "loop2.yaml": "_BASE_: loop.yaml\n",
    "url_base.yaml": "_BASE_: https://example.com/base.yaml\n",
    "home_base.yaml": "_BASE_: ~/base.yaml\n",
    "no_base.yaml": "_BASE_: nothing.yaml\n",
    "number_base.yaml": "_BASE_: 5\n",
    "version.yaml": "_BASE_: {root}/configs/libra_mobilenet_v2.yaml\nVERSION: 1\n",
}

# train_net.py's arguments -> what the message must say of key, value and expectation.
TRAINING = {
    "": "Add --config-file FILE. FILE can be your own or one of configs/",
    "SOLVER.MAX_ITER 5": "Add --config-file FILE",
    f"{CONFIG} SOLVER.MAX_ITER": "SOLVER.MAX_ITER has no value. Give KEY VALUE pairs",
    f"{CONFIG} SOLVER.MAX_ITER=5": "must be two words, KEY VALUE: SOLVER.MAX_ITER 5",
    f"{CONFIG} SOLVER.MAX_ITER 5 --num-gpus 2": "the option --num-gpus 2 must come before",
    f"{CONFIG} SOLVER.MAX_ITER 5 --resume": "the option --resume must come before",
    f"{CONFIG} solver.max_iter 5": "unknown config key solver.max_iter; did you mean SOLVER.MAX",
    f"{CONFIG} MAX_ITER 5": "unknown config key MAX_ITER; did you mean SOLVER.MAX_ITER?",
    f"{CONFIG} MODEL.BFP.REFINE_LEVL p3": "did you mean MODEL.BFP.REFINE_LEVEL?",
    f"{CONFIG} MODEL.BFP 5": "MODEL.BFP is a section, not a key. Set keys in it, such as ENABLED",
    f"{CONFIG} SOLVER.STEPS 300": 'SOLVER.STEPS must be a tuple, in quotes, such as "(300,)"',
    f"{CONFIG} SOLVER.STEPS (360,300)": "SOLVER.STEPS must increase, got (360, 300)",
    f"{CONFIG} SOLVER.STEPS (300,500)": "SOLVER.STEPS must be below SOLVER.MAX_ITER 400, got (300",
    f"{CONFIG} SOLVER.STEPS ('a',)": "each number of SOLVER.STEPS must be a number of iterations, a share",
    f"{CONFIG} SOLVER.IMS_PER_BATCH 0": "SOLVER.IMS_PER_BATCH must be at least 1, got 0",
    f"{CONFIG} SOLVER.IMS_PER_BATCH 2.5": "SOLVER.IMS_PER_BATCH must be an integer, got '2.5'",
    f"{CONFIG} SOLVER.BASE_LR -0.01": "SOLVER.BASE_LR must be above 0, got -0.01",
    f"{CONFIG} SOLVER.BASE_LR 1e999": "SOLVER.BASE_LR must be a number above 0, got inf",
    f"{CONFIG} SOLVER.BASE_LR fast": "SOLVER.BASE_LR must be a number, got 'fast'",
    f"{CONFIG} SOLVER.MAX_ITER 0": "SOLVER.MAX_ITER must be at least 1, got 0",
    f"{CONFIG} SOLVER.MAX_ITER True": "SOLVER.MAX_ITER must be an integer, got 'True'",
    f"{CONFIG} SOLVER.GAMMA 0.0": "SOLVER.GAMMA must be above 0, got 0",
    f"{CONFIG} SOLVER.MOMENTUM 1.5": "SOLVER.MOMENTUM must be at least 0 and below 1, got 1.5",
    f"{CONFIG} SOLVER.CHECKPOINT_PERIOD 0": "SOLVER.CHECKPOINT_PERIOD must be at least 1, got 0",
    f"{CONFIG} SOLVER.OPTIMIZER adam": "SOLVER.OPTIMIZER must be one of ('SGD', 'AdamW'), got 'adam'",
    f"{CONFIG} SOLVER.LR_SCHEDULER_NAME Cosine": "did you mean 'WarmupCosineLR'?",
    f"{CONFIG} SOLVER.CLIP_GRADIENTS.CLIP_TYPE all": "CLIP_TYPE must be one of ('value', 'norm', 'global_norm'), got 'all'",
    f"{CONFIG} SOLVER.ACCUMULATION_STEPS 3": "SOLVER.ACCUMULATION_STEPS must divide the 4 images per process (of SOLVER.IMS_PER_BATCH 4), got 3",
    f"--num-gpus 3 {CONFIG} MODEL.DEVICE cpu": "IMS_PER_BATCH must be a multiple of the number of processes, 3, got 4",
    f"{CONFIG} SOLVER.EMA_DECAY 1.0": "EMA_DECAY must be at least 0 and below",
    f"{CONFIG} MODEL.DEVICE cpu SOLVER.AMP.ENABLED True": "float16 needs a CUDA device. On a CPU, set DTYPE to bfloat16",
    f"{CONFIG} MODEL.DEVICE gpu": "MODEL.DEVICE must be a device such as 'cpu', 'cuda'",
    f"{CONFIG} DATALOADER.NUM_WORKERS -1": "DATALOADER.NUM_WORKERS must be at least 0, got -1",
    f"{CONFIG} DATALOADER.SAMPLER_TRAIN Training": "did you mean 'TrainingSampler'?",
    f"{CONFIG} DATALOADER.ON_BAD_IMAGE ignore": "ON_BAD_IMAGE must be one of ('skip', 'stop'), got 'ignore'",
    f"{CONFIG} DATASETS.TRAIN ()": "DATASETS.TRAIN must name the training data, such as coco:train.json,images, got ()",
    f"{CONFIG} DATASETS.TRAIN (5,)": "DATASETS.TRAIN must be a tuple of strings, got (5,)",
    f"{CONFIG} DATASETS.TRAIN_NUM -1": "DATASETS.TRAIN_NUM must be at least 0, got -1",
    f"{CONFIG} INPUT.MIN_SIZE_TRAIN (900,)": "INPUT.MAX_SIZE_TRAIN (longer side) must be at least INPUT.MIN_SIZE_TRAIN 900 (shorter side), got",
    f"{CONFIG} INPUT.MIN_SIZE_TRAIN 320": 'MIN_SIZE_TRAIN must be a tuple, in quotes, such as "(320,)"',
    f"{CONFIG} INPUT.AUGMENTATIONS HorizontalFlip(prob=50)": "INPUT.AUGMENTATIONS must be a list in which prob of HorizontalFlip is a number from 0 to 1, got 'HorizontalFlip(prob=50)'",
    f"{CONFIG} INPUT.AUGMENTATIONS HorizontalFlipp()": "Gray, got 'HorizontalFlipp()'; did you mean HorizontalFlip?",
    f"{CONFIG} INPUT.FLIP_PROB 0.3": "INPUT.FLIP_PROB is a key of an earlier version: add HorizontalFlip(prob=0.3) to INPUT.AUGMENTATIONS",
    f"{CONFIG} INPUT.FIXED_SIZE (300,0)": "INPUT.FIXED_SIZE must be (height, width) in pixels, both at least 1, or (0, 0) to disable it, got (300, 0)",
    f"{CONFIG} INPUT.FORMAT rgb": "INPUT.FORMAT must be one of ('BGR', 'RGB'), got 'rgb'; did you mean 'RGB'",
    f"{CONFIG} MODEL.PIXEL_STD [1,0,1]": "each number of MODEL.PIXEL_STD must be above 0, got 0",
    f"{CONFIG} MODEL.WEIGHTS no/such.pth": "MODEL.WEIGHTS: no/such.pth does not exist",
    f"{CONFIG} MODEL.WEIGHTS s3://bucket/m.pth": "MODEL.WEIGHTS must be a path on this machine, or begin with one of https://, http://, detectron2://, catalog://, torchvision://, timm://, got s3://bucket/m.pth",
    f"{CONFIG} MODEL.WEIGHTS FTP://host/m.pth#ema": "timm://, got FTP://host/m.pth#ema. Download the file yourself",
    f"{CONFIG} MODEL.WEIGHTS file:///m.pth": "MODEL.WEIGHTS must be a path without file://, got file:///m.pth",
    f"--resume {CONFIG} MODEL.WEIGHTS gs://bucket/m.pth": "timm://, got gs://bucket/m.pth",
    f"--eval-only {CONFIG} MODEL.WEIGHTS hf://user/m": "timm://, got hf://user/m",
    f"{CONFIG} MODEL.META_ARCHITECTURE FasterRCNN": "'RetinaNet', 'SemanticSegmentor'), got 'FasterRCNN'",
    f"{CONFIG} MODEL.BACKBONE.NAME build_libra_resnet_backbone": "did you mean 'build_libra_resnet_fpn",
    f"{CONFIG} MODEL.CLASSIFIER.NAME mobilenet_v4": "did you mean 'mobilenet_v2'?",
    f"{CONFIG} MODEL.ROI_HEADS.NAME LibraROIHead": "did you mean 'LibraROIHeads'?",
    f"{CONFIG} MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE balanced": "did you mean 'balanced_l1'?",
    f"{CONFIG} MODEL.ROI_HEADS.SAMPLER.NEGATIVES iou": "SAMPLER.NEGATIVES must be one of ('iou_balanced', 'random'), got 'iou'",
    f"{CONFIG} MODEL.ROI_HEADS.SAMPLER.NUM_BINS 0": "SAMPLER.NUM_BINS must be at least 1, got 0",
    f"{CONFIG} MODEL.ROI_HEADS.NUM_CLASSES 0": "MODEL.ROI_HEADS.NUM_CLASSES must be at least 1",
    f"{CONFIG} MODEL.BFP.REFINE_LEVEL p7": "MODEL.BFP.REFINE_LEVEL must be one of ('p2', 'p3', 'p4', 'p5', 'p6'), got 'p7'",
    f"{CONFIG} MODEL.RPN.IN_FEATURES ['p1'] MODEL.ANCHOR_GENERATOR.SIZES [[8]]": "MODEL.RPN.IN_FEATURES must be one of ('p2', 'p3', 'p4', 'p5', 'p6'), got 'p1'",
    f"{CONFIG} MODEL.ANCHOR_GENERATOR.SIZES [[8],[16]]": "SIZES must have one list per level of MODEL.RPN.IN_FEATURES ['p2', 'p3', 'p4', 'p5', 'p6'], or a single list for all levels, got 2",
    f"{CONFIG} MODEL.ANCHOR_GENERATOR.SIZES [[-8]]": "each number of MODEL.ANCHOR_GENERATOR.SIZES must",
    f"{CONFIG} MODEL.RPN.NMS_THRESH 7.0": "MODEL.RPN.NMS_THRESH must be from 0 to 1, got 7",
    f"{CONFIG} MODEL.ROI_HEADS.SCORE_THRESH_TEST 50": "SCORE_THRESH_TEST must be from 0 to 1, got 50",
    f"{CONFIG} TEST.NMS.TYPE soft": "TEST.NMS.TYPE must be one of ('hard', 'linear', 'gaussian'), got 'soft'",
    f"{CONFIG} TEST.EVAL_PERIOD -5": "TEST.EVAL_PERIOD must be at least 0, got -5",
    f"{CONFIG} TEST.BEST_MODE min": "TEST.BEST_MODE is a key of an earlier version: remove it",
    f"{CONFIG} TEST.EARLY_STOPPING_PATIENCE 2": "TEST.EARLY_STOPPING_PATIENCE needs TEST.BEST_METRIC",
    f"{CONFIG} BALANCE.PERIOD -1": "BALANCE.PERIOD must be at least 0, got -1",
    f"--eval-only {CONFIG} TEST.EVAL_BACKEND faster-eval": "did you mean 'faster-coco-eval'?",
    "--config-file no/such.yaml": "no/such.yaml does not exist",
    "--config-file https://example.com/a.yaml": "must be a path on this machine, got the URL",
    "--config-file {folder}/unknown_key.yaml": "SOLVER.MAX_ITERS; did you mean SOLVER.MAX_ITER?",
    "--config-file {folder}/wrong_type.yaml": "SOLVER.MAX_ITER must be an integer, got 'many'",
    "--config-file {folder}/null.yaml": "SOLVER.MAX_ITER must be an integer, got None",
    "--config-file {folder}/integer_key.yaml": "a key in SOLVER must be a name, such as MAX_ITER, got 7",
    "--config-file {folder}/list.yaml": "must have keys and values, such as `SOLVER:`, got ['SOLV",
    "--config-file {folder}/section.yaml": "SOLVER is a section, not a key. Set keys in it",
    "--config-file {folder}/syntax.yaml": "syntax.yaml, line 2",
    "--config-file {folder}/python.yaml": "python.yaml, line 1",
    "--config-file {folder}/deep.yaml": "nested deeper than 64 levels",
    "--config-file {folder}/aliases.yaml": "more than 200000 values, if aliases are expanded",
    "--config-file {folder}/twice.yaml": "the key 'SEED' is given twice",
    "--config-file {folder}/loop.yaml": "_BASE_ leads back to",
    "--config-file {folder}/url_base.yaml": "_BASE_ must be a path on this machine, got the URL",
    "--config-file {folder}/home_base.yaml": "~/base.yaml does not exist",
    "--config-file {folder}/no_base.yaml": "nothing.yaml does not exist",
    "--config-file {folder}/number_base.yaml": "_BASE_ must be a path, got 5",
    "--config-file {folder}/version.yaml": "VERSION must be 2, got 1",
}


@pytest.mark.parametrize("line", TRAINING)
def test_train_net(line, files, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    error = message(train_net, words(line, files), capsys)
    assert error.startswith("error: ") and error.count("\n") == 1, error
    assert TRAINING[line] in error
    assert not os.listdir(tmp_path)


OPTS = "--opts"
COMMANDS = {
    "analyse --model {folder}": "invalid choice: 'analyse'",
    "infer {images} --model {folder}/nothing": "nothing does not exist",
    "infer {images} --model {images}": "must contain model_best.pth, model_final.pth or another",
    "infer {images} --model {folder}/model_final.pth --score-threshold 5": "--score-threshold must be in [0, 1], got 5.0",
    "infer {images} --model {folder}/model_final.pth --device gpu": "the device must be one such as 'cpu', 'cuda' or 'cuda:1', got 'gpu'",
    "infer {images} --model {folder}/model_final.pth --nms soft": "invalid choice: 'soft'",
    "infer {images} --modell {folder}": "unrecognized arguments: --modell",
    "infer {images} --model {folder}/model_final.pth --opts TEST.NMS.SIGMA 0.0": "NMS.SIGMA must be above",
    "infer {images} --model {folder}/model_final.pth --opts TEST.NMS.SIGMA=1": "two words, KEY VALUE",
    "evaluate": "exactly one of --model and --predictions must be given",
    "evaluate --predictions {results}": "--predictions needs the ground truth, given with --annotations",
    "evaluate --predictions no.json --annotations {json}": "no.json",
    "evaluate --model {folder} --opts TEST.DETECTIONS_PER_IMAGE 0": "DETECTIONS_PER_IMAGE must be",
    "evaluate --model {folder} --opts INPUT.MIN_SIZE_TEST -8": "MIN_SIZE_TEST must be at least 0",
    "export --model {folder} --output m.xyz": "must end in one of .onnx, .pt, .pth, .ts, got m.xyz",
    "export --model {folder} --output m.pt --opts MODEL.DEVICES cpu": "did you mean MODEL.DEVICE?",
    "analyze --model {images}": "is not the folder of a run",
    "analyze --predictions {results}": "--predictions needs --annotations and --output",
    "check-data --config-file no.yaml": "no.yaml does not exist",
    "check-data --config-file {folder}/wrong_type.yaml": "SOLVER.MAX_ITER must be an integer",
    f"check-data {CONFIG} INPUT.AUGMENTATIONS Expand(2,prob=2)": "prob of Expand is a number from 0 to 1",
    "pack --json {json}": "Missing here: --images, --out",
    "proposals --config-file no.yaml": "no.yaml does not exist",
    f"proposals {CONFIG} MODEL.RPN.POST_NMS_TOPK_TEST 0": "POST_NMS_TOPK_TEST must be at least 1",
    "convert no.pth out.pth": "no.pth",
    "draw --output out --annotations no.json": "no.json",
}


@pytest.mark.parametrize("line", COMMANDS)
def test_commands(line, files, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert COMMANDS[line] in message(command, words(line, files), capsys)


def test_all_mistakes_are_told_at_once(files, capsys, monkeypatch):
    """In keys, types and values together, of the file and of the command line."""
    monkeypatch.chdir(ROOT)
    line = (
        "--config-file {folder}/unknown_key.yaml SOLVER.BASE_LR=1 SOLVER.STEPS 300 TEST.NMS.TYPE x "
        "SOLVER.IMS_PER_BATCH 0 MODEL.WEIGHTS no.pth MODEL.ROI_HEADS.NAME no"
    )
    error = message(train_net, words(line, files), capsys)
    assert "the config has 7 mistakes:" in error
    for key in (
        "MAX_ITERS",
        "BASE_LR",
        "STEPS",
        "NMS.TYPE",
        "IMS_PER_BATCH",
        "WEIGHTS",
        "'StandardROIHeads'), got 'no'",
    ):
        assert key in error


@pytest.mark.parametrize(
    "line, expected",
    [
        ("SOLVER.IMS_PER_BATCH 0", "error: SOLVER.IMS_PER_BATCH must be at least 1, got 0\n"),
        ("SOLVER.STEPS 300", "error: command line: SOLVER.STEPS must be a tuple"),
    ],
)
def test_of_a_real_process(line, expected):
    run = subprocess.run(
        [sys.executable, "train_net.py", *CONFIG.split(), *line.split()],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert run.returncode == 2 and run.stderr.startswith(expected)
    assert json.dumps(run.stderr).count("\\n") == 1


def test_old_runs_are_evaluated_whatever_their_schedule(files, monkeypatch):
    """Only what a command needs is checked."""
    from libra_d2.engine import load_cfg

    opts = ["SOLVER.MAX_ITER", "0", "SOLVER.BASE_LR", "0.0", "MODEL.WEIGHTS", ""]
    for purpose in ("evaluate", "infer", "data"):
        cfg = load_cfg(str(ROOT / "configs/libra_mobilenet_v2.yaml"), opts, purpose=purpose)
        assert cfg.SOLVER.MAX_ITER == 0


def test_every_config_of_the_project_is_accepted():
    from libra_d2.engine import load_cfg

    configs = sorted(ROOT.glob("configs/**/*.yaml"))
    assert len(configs) > 15
    for config in configs:
        load_cfg(str(config), ["MODEL.WEIGHTS", ""], purpose="train")
