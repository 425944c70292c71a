"""`libra-d2 benchmark`. No test asserts a time, which depends on the machine."""

import json

import pytest

from libra_d2.cli.benchmark import names_of
from libra_d2.cli.benchmark_output import as_json, table
from libra_d2.cli.main import main
from libra_d2.config import load_cfg
from libra_d2.experiments import costs
from libra_d2.experiments.costs import CostOptions, Measured
from libra_d2.experiments.costs.random_models import Found
from libra_d2.modeling.build import build_model

from ..support.detector_runs import RETINANET, write_run
from ..support.models import NARROW
from ..support.project import ROOT

LIBRA = str(ROOT / "configs/libra_mobilenet_v2.yaml")
BASELINE = str(ROOT / "configs/ablations/mobilenet_v2_baseline.yaml")
QUICK = "--size 64x96 --batch-size 1 --repeats 2 --objects 2 --no-memory".split()


def rows_of(text):
    """The cells of a table, by its first column."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_a_config_beside_its_baseline(tmp_path, capsys):
    output = tmp_path / "costs.json"
    arguments = ["--config-file", LIBRA, BASELINE, *QUICK, "--output", str(output)]
    assert main(["benchmark", *arguments, "--device", "cpu", "--opts", *NARROW]) == 0
    out = capsys.readouterr().out
    assert "Median of 2 rounds" in out and "Ratios to libra_mobilenet_v2." in out
    rows = rows_of(out)
    assert rows[""] == ["libra_mobilenet_v2", "mobilenet_v2_baseline", "ratio"]
    assert rows["images in a training step"] == ["1 of 64x96", "1 of 64x96", ""]
    libra, baseline, ratio = rows["- BFP"]
    assert libra != "-" and (baseline, ratio) == ("-", "-")
    assert all(cell not in ("", "-") for cell in rows["sum of the stages, ms"])
    assert rows["peak memory of a step, MB"] == ["-", "-", "-"]

    content = json.loads(output.read_text())
    assert content["options"]["size"] == [64, 96] and content["options"]["repeats"] == 2
    assert list(content["configs"]) == ["libra_mobilenet_v2", "mobilenet_v2_baseline"]
    for file, measured in zip((LIBRA, BASELINE), content["configs"].values()):
        model = build_model(load_cfg(file, NARROW))
        assert measured["parameters"] == sum(p.numel() for p in model.parameters())
        assert len(measured["step_seconds"]) == len(measured["inference_seconds"]) == 2
        assert measured["flops"] > 0 and measured["found"]["proposals"] > 0


def test_the_config_of_a_run(tmp_path, capsys):
    run = tmp_path / "mine"
    run.mkdir()
    write_run(run, RETINANET)
    assert main(["benchmark", "--model", str(run), *QUICK]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows[""] == ["mine"] and "- head" in rows and "- RPN" not in rows


@pytest.mark.parametrize(
    "paths, names",
    [
        (["a/x.yaml"], ["x"]),
        (["a/x.yaml", "b/y.yaml"], ["x", "y"]),
        (["a/x.yaml", "b/x.yaml"], ["a/x.yaml", "b/x.yaml"]),
        (["x.yaml", "x.yaml", "x.yaml"], ["x", "x (2)", "x (3)"]),
        (["output/run/"], ["run"]),
    ],
)
def test_names(paths, names):
    assert names_of(paths) == names


def measured(scale, flops=2 * 10**9):
    return Measured(
        parameters=10**6 * scale,
        flops=flops,
        flops_error="" if flops else "no tracing",
        train_shape=(32, 64),
        test_shape=(32, 96),
        step_images=4,
        inference_images=1,
        found=Found(None, 7),
        step_seconds=[scale * t for t in (1, 2, 4)],
        inference_seconds=[scale * t for t in (0.1, 0.2, 0.3)],
        stage_seconds={"backbone": [scale * 0.1] * 3, "head": [scale * 0.05] * 3},
        peak_memory=scale * 5 * 10**7,
        memory_error="",
    )


def test_ratios_are_those_of_the_same_round():
    both = {"a": measured(1), "b": measured(3, flops=None)}
    text = table(both, dict.fromkeys(both, "cpu"), CostOptions(repeats=3))
    rows = rows_of(text)
    assert rows["parameters, M"] == ["1.00", "3.00", "3.00"]
    assert rows["FLOPs of an image, G"] == ["2.00", "-", "-"]
    # The quartiles of the times differ, those of their ratios do not.
    step = ["2.00 (1.50 .. 3.00)", "6.00 (4.50 .. 9.00)", "3.00 (3.00 .. 3.00)"]
    assert rows["training step, s"] == step
    assert rows["sum of the stages, ms"][0] == "150 (150 .. 150)"
    assert rows["peak memory of a step, MB"] == ["50.0", "150", "3.00"]
    assert rows["images in a training step"][0] == "4 of 32x64, test 32x96"
    assert rows["found in an image"] == ["7 detections", "7 detections", ""]
    assert text.endswith("b: FLOPs: no tracing")
    json.dumps(as_json(both, dict.fromkeys(both, "cpu"), CostOptions()))


def test_a_single_round_has_no_quartiles():
    one = measured(1)
    single = Measured(**{**one.__dict__, "step_seconds": [2.5]})
    assert rows_of(table({"a": single}, {"a": "cpu"}, CostOptions()))["training step, s"] == [
        "2.50"
    ]


CONFIG = ["--config-file", LIBRA]
MISTAKES = [
    ([], "exactly one of --config-file and --model must be given"),
    ([*CONFIG, "--model", "run"], "exactly one of --config-file and --model must be given"),
    (["--config-file", "nothing.yaml"], "nothing.yaml"),
    (["--model", "no_run"], "no_run"),
    ([*CONFIG, "--size", "320"], "--size must be HxW, the height and width in pixels, at least 32"),
    ([*CONFIG, "--size", "320x"], "such as 320x448, got 320x"),
    ([*CONFIG, "--size", "16x320"], "at least 32 each, such as 320x448, got 16x320"),
    ([*CONFIG, "--repeats", "0"], "--repeats must be at least 1, got 0"),
    ([*CONFIG, "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
    ([*CONFIG, "--objects", "-1"], "--objects must be at least 0, got -1"),
    ([*CONFIG, "--device", "gpu"], "MODEL.DEVICE must be a device such as 'cpu'"),
    ([*CONFIG, "--output", LIBRA], "name another file to write"),
    ([*CONFIG, "--opts", "SOLVER.IMS_PER_BATCH", "0"], "SOLVER.IMS_PER_BATCH must be at least 1"),
    ([*CONFIG, "--opts", "MODEL.BFP.REFINE_LEVL", "p3"], "did you mean MODEL.BFP.REFINE_LEVEL?"),
]


@pytest.mark.parametrize("arguments, message", MISTAKES)
def test_mistakes_are_one_line_before_anything_is_measured(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(costs, "measure", None)
    assert main(["benchmark", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_device_that_is_not_there(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["benchmark", *CONFIG, "--device", "cuda"]) == 2
    assert "the device must be 'cpu', because this machine has no CUDA" in capsys.readouterr().err
