"""`libra-d2 plan` and `train_net.py --plan` on small sets of images."""

import pytest
import yaml
from PIL import Image

from libra_d2.cli.main import main
from libra_d2.config import load_cfg
from libra_d2.planning import command
from libra_d2.planning.schedule import Costs

from ..support.coco_files import write_dataset
from ..support.project import ROOT
from ..support.train_net_runs import train_net

CONFIG = str(ROOT / "configs/libra_mobilenet_v2.yaml")
BASE = ROOT / "configs/Base-Libra-RCNN-FPN.yaml"
COSTS = Costs(0.5, 0.1, 10, 10**9, 8 * 10**9, images=4)


@pytest.fixture
def data(tmp_path):
    annotations, images = write_dataset(tmp_path / "data")
    return f"coco:{annotations},{images}"


def plan(output, data, *args):
    return main(
        ["plan", "--config-file", CONFIG, "--output", str(output), *args]
        + ["DATASETS.TRAIN", data, "DATASETS.TEST", data, "MODEL.DEVICE", "cpu"]
    )


def test_the_plan_is_a_config_and_a_picture(tmp_path, data, capsys):
    output = tmp_path / "plans" / "plan.yaml"
    assert plan(output, data, "--no-measure") == 0
    out = capsys.readouterr().out
    assert "SOLVER.MAX_ITER" in out and "epochs of" in out
    assert f"libra-d2 train --config-file {output}" in out

    cfg = load_cfg(str(output), purpose="train")
    base = load_cfg(CONFIG)
    assert (data,) == cfg.DATASETS.TRAIN and cfg.SOLVER.MAX_ITER != base.SOLVER.MAX_ITER
    assert cfg.MODEL.BACKBONE.NAME == base.MODEL.BACKBONE.NAME
    content = yaml.safe_load(output.read_text())
    assert content["SOLVER"]["MAX_ITER"] == cfg.SOLVER.MAX_ITER
    assert "# " in output.read_text().split("MAX_ITER")[0].splitlines()[-2]  # the reason
    with Image.open(output.with_suffix(".png")) as picture:
        assert picture.size == (1600, 540)


def test_the_same_data_give_the_same_plan(tmp_path, data):
    files = [tmp_path / name / "plan.yaml" for name in "ab"]
    for file in files:
        plan(file, data, "--no-measure")
    assert files[0].read_bytes() == files[1].read_bytes()


def test_what_the_user_gives_is_kept_and_said(tmp_path, data, capsys):
    output = tmp_path / "plan.yaml"
    main(
        ["plan", "--config-file", CONFIG, "--output", str(output), "--no-measure"]
        + ["DATASETS.TRAIN", data, "SOLVER.MAX_ITER", "5", "SOLVER.STEPS", "(3,)"]
    )
    assert load_cfg(str(output)).SOLVER.MAX_ITER == 5
    assert "you gave SOLVER.MAX_ITER 5, so" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("steps", ["", "SOLVER: {STEPS: ['75%', '90%']}"])
def test_steps_follow_a_length_that_the_user_gives(tmp_path, data, steps):
    """The base config has 400 steps, and reduces the learning rate after 300 and 360."""
    base, output = tmp_path / "base.yaml", tmp_path / "plan.yaml"
    base.write_text(f"_BASE_: {CONFIG}\n{steps}\n")
    main(
        ["plan", "--config-file", str(base), "--output", str(output), "--no-measure"]
        + ["DATASETS.TRAIN", data, "SOLVER.MAX_ITER", "1000"]
    )
    assert load_cfg(str(output)).SOLVER.STEPS == (750, 900)


def test_epochs_of_the_user_keep_their_schedule(tmp_path, data, capsys):
    output = tmp_path / "plan.yaml"
    options = ["--config-file", CONFIG, "--output", str(output)]
    given = ["DATASETS.TRAIN", data, "SOLVER.EPOCHS", "4", "TEST.EVAL_PERIOD", "1 epoch"]
    assert main(["plan", *options, "--no-measure", *given]) == 0
    assert "SOLVER.EPOCHS 4 is kept" in " ".join(capsys.readouterr().out.split())
    cfg = load_cfg(str(output), purpose="train")
    assert (cfg.SOLVER.EPOCHS, cfg.SOLVER.STEPS) == (4.0, ("75%", "90%"))
    assert cfg.TEST.EVAL_PERIOD == "1 epoch"
    assert main(["plan", *options, "--time", "2m", *given]) == 2
    assert "--time and SOLVER.EPOCHS 4 both set the length" in capsys.readouterr().err


def test_shares_of_the_user_are_kept(tmp_path, data):
    output = tmp_path / "plan.yaml"
    options = ["--config-file", CONFIG, "--output", str(output), "--no-measure"]
    given = ["DATASETS.TRAIN", data, "SOLVER.STEPS", "(50%,)"]
    assert main(["plan", *options, *given]) == 0
    assert load_cfg(str(output), purpose="train").SOLVER.STEPS == ("50%",)


def test_the_time_is_a_budget(tmp_path, data, monkeypatch):
    monkeypatch.setattr(command, "measure", lambda cfg, processes: COSTS)
    monkeypatch.setattr(command, "faster_dtype", lambda cfg: "")
    output = tmp_path / "plan.yaml"
    assert plan(output, data, "--time", "2m") == 0
    num_images = 3
    cfg = load_cfg(str(output))
    evaluations = -(-cfg.SOLVER.MAX_ITER // cfg.TEST.EVAL_PERIOD)
    spent = 10 + 0.5 * cfg.SOLVER.MAX_ITER + evaluations * num_images * 0.1
    assert spent <= 120 + 0.5
    assert int(300 * num_images / cfg.SOLVER.IMS_PER_BATCH) == cfg.SOLVER.MAX_ITER or spent > 110


@pytest.mark.parametrize(
    "args,message",
    [
        (["--time", "soon"], "--time must be a duration such as 45m or 1h30m, got 'soon'"),
        (["--time", "1h", "--no-measure"], "--time needs measured steps. Leave out --no-measure"),
        (["--output", CONFIG], f"would replace {CONFIG}, which it is made from"),
        (["--output", str(BASE)], f"would replace {BASE}, which it is made from"),
        (["--config-file", "no.yaml", "--output", CONFIG], "no.yaml"),
        (["--output", "plan.json"], "--output must be a .yaml file"),
        (
            ["DATASETS.TRAIN", "()"],
            "DATASETS.TRAIN must name the training set, such as coco:train.json,images, got ()",
        ),
    ],
)
def test_mistakes_are_one_line(tmp_path, data, capsys, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    opts = [] if "DATASETS.TRAIN" in args else ["DATASETS.TRAIN", data]
    assert main(["plan", "--config-file", CONFIG, *args, *opts]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "text,seconds",
    [("90", 90), ("45m", 2700), ("1h30m", 5400), ("1.5h", 5400), ("2 h 5 min", 7500)],
)
def test_durations(text, seconds):
    assert command.seconds(text) == seconds


@pytest.mark.slow
def test_a_planned_run_measures_and_trains(tmp_path, data):
    """`--plan` writes the plan into the run's folder and trains with it."""
    folder = tmp_path / "run"
    small = (
        "INPUT.MIN_SIZE_TRAIN (96,) INPUT.MIN_SIZE_TEST 96 DATALOADER.NUM_WORKERS 0 SEED 1 "
        "MODEL.DEVICE cpu MODEL.WEIGHTS"
    ).split()
    args = ["--config-file", CONFIG, "--plan", "--time", "20s", "DATASETS.TRAIN", data]
    args += ["DATASETS.TEST", data, "OUTPUT_DIR", folder, *small, ""]
    run = train_net(*args)
    assert run.returncode == 0, run.stderr
    assert "20 s" in run.stdout and (folder / "plan.png").exists()
    planned = load_cfg(str(folder / "plan.yaml"))
    assert load_cfg(str(folder / "config.yaml")).SOLVER.MAX_ITER == planned.SOLVER.MAX_ITER
    assert planned.INPUT.MIN_SIZE_TRAIN == (96,)
    again = train_net(*args)
    assert again.returncode == 2 and "holds another run" in again.stderr


@pytest.mark.parametrize(
    "args,message",
    [
        (["--plan", "--resume"], "--plan needs a new run. Leave out --resume"),
        (["--plan", "--eval-only"], "--plan needs a new run. Leave out --resume"),
        (["--time", "1h"], "--time needs --plan"),
        (["--any-orientation"], "--any-orientation needs --plan"),
        (["--plan", "--num-machines", "2"], "Plan with `libra-d2 plan` first"),
    ],
)
def test_mistakes_with_a_planned_run(tmp_path, data, capsys, args, message):
    command_line = ["train", "--config-file", CONFIG, *args, "DATASETS.TRAIN", data]
    with pytest.raises(SystemExit) as e:
        main([*command_line, "OUTPUT_DIR", str(tmp_path / "run")])
    assert e.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("config", ["plan.yaml", "child.yaml"])
def test_a_planned_run_keeps_the_config_it_is_based_on(tmp_path, data, capsys, config):
    folder = tmp_path / "run"
    folder.mkdir()
    plan_file = folder / "plan.yaml"
    plan_file.write_text(f"_BASE_: {CONFIG}\nSEED: 1\n")
    (folder / "child.yaml").write_text("_BASE_: plan.yaml\nSEED: 2\n")
    before = plan_file.read_bytes()
    args = ["--config-file", str(folder / config), "--plan", "DATASETS.TRAIN", data]
    with pytest.raises(SystemExit) as e:
        main(["train", *args, "OUTPUT_DIR", str(folder)])
    err = capsys.readouterr().err
    assert e.value.code == 2 and f"would replace {plan_file}, which it is made from" in err
    assert plan_file.read_bytes() == before
