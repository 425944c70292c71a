"""`IMPORTS`: modules of one's own run where they are asked for, and nowhere else."""

import sys
from pathlib import Path

import pytest
import torch
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.utils import comm

import libra_d2
from libra_d2.cli.main import main
from libra_d2.engine import default_argument_parser, launch, load_cfg, setup
from libra_d2.errors import UserError

from ..inference.small_detector import write_detector, write_images
from ..support.setup_arguments import arguments

CONFIG = "configs/libra_mobilenet_v2.yaml"
HEADS = """
from pathlib import Path
from detectron2.modeling import ROI_HEADS_REGISTRY
from libra_d2.modeling import LibraROIHeads

Path(__file__).with_suffix(".ran").touch()


@ROI_HEADS_REGISTRY.register()
class {name}(LibraROIHeads):
    pass
"""


@pytest.fixture
def module(tmp_path, request):
    """A file with a component of a name that no other test has; forgotten afterwards."""
    name = f"Heads{abs(hash(request.node.name))}"
    path = tmp_path / f"{name.lower()}.py"
    path.write_text(HEADS.format(name=name))
    yield path, name
    sys.modules.pop(path.stem, None)
    if name in ROI_HEADS_REGISTRY:
        del ROI_HEADS_REGISTRY._obj_map[name]


def ran(path):
    return path.with_suffix(".ran").exists()


def test_paths_are_relative_to_the_config_and_recorded(tmp_path, module):
    path, name = module
    (tmp_path / "mine.yml").write_text(
        f"_BASE_: {libra_d2.__path__[0]}/../{CONFIG}\nIMPORTS: ['{path.name}']\n"
        f"MODEL:\n  ROI_HEADS:\n    NAME: {name}\n"
    )
    args = arguments(tmp_path)
    args.config_file = str(tmp_path / "mine.yml")
    cfg = setup(args)  # which knows the component of that name
    assert (str(path),) == cfg.IMPORTS and ran(path)
    assert str(path) in (tmp_path / "out" / "config.yaml").read_text()
    load_cfg(args.config_file)  # a second time in the same process


def test_a_module_by_its_name_is_found_in_the_working_folder(module, monkeypatch):
    path, name = module
    monkeypatch.chdir(path.parent)
    monkeypatch.setattr(sys, "path", list(sys.path))
    load_cfg("", ["IMPORTS", path.stem])
    assert name in ROI_HEADS_REGISTRY


def build_heads_of_config(args):
    """In each of the processes: what training would build first."""
    cfg = setup(args)
    ROI_HEADS_REGISTRY.get(cfg.MODEL.ROI_HEADS.NAME)
    Path(cfg.OUTPUT_DIR, f"found_by_{comm.get_rank()}_of_{comm.get_world_size()}").touch()


@pytest.mark.slow
def test_each_process_of_a_run_imports_the_modules(tmp_path, module, monkeypatch):
    path, name = module
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    args = default_argument_parser().parse_args(["--num-gpus", "2", "--dist-url", "auto"])
    args.config_file, args.opts = CONFIG, arguments(tmp_path).opts
    args.opts += ["IMPORTS", f"('{path}',)", "MODEL.ROI_HEADS.NAME", name, "MODEL.DEVICE", "cpu"]
    launch(build_heads_of_config, args)
    found = sorted(p.name for p in (tmp_path / "out").glob("found_by_*"))
    assert found == ["found_by_0_of_2", "found_by_1_of_2"]


@pytest.fixture
def strangers(tmp_path, module):
    """A run whose config wants to run the module."""
    run = tmp_path / "run"
    run.mkdir()
    write_detector(run)
    with open(run / "config.yaml", "a") as f:
        f.write(f"\nIMPORTS: ['{module[0]}']\n")
    text = (
        (run / "config.yaml").read_text().replace("IMPORTS: []\n", "").replace("IMPORTS: ()\n", "")
    )
    (run / "config.yaml").write_text(text)
    return run


def test_nothing_runs_of_a_config_that_came_with_weights(tmp_path, strangers, module, capsys):
    path, _ = module
    images = [str(p) for p in write_images(tmp_path / "images", 1)]
    out = str(tmp_path / "out.json")
    model = ["--model", str(strangers)]
    commands = [
        ["infer", *images, *model, "--output", out],
        ["evaluate", *model],
        ["analyze", *model],
        ["export", *model, "--output", str(tmp_path / "m.pt")],
        ["check-data", "--config-file", str(strangers / "config.yaml")],
        ["proposals", "--config-file", str(strangers / "config.yaml")],
        ["infer", *images, *model, "--config-file", str(strangers / "config.yaml")],
    ]
    for command in commands:
        try:
            status = main(command)
        except SystemExit as e:
            status = e.code
        error = capsys.readouterr().err
        assert status == 2 and error.count("\n") == 1, error
        assert str(path) in error and "allow it with --trust" in error
    with pytest.raises(UserError, match="trust=True"):
        libra_d2.Predictor(strangers)
    base = tmp_path / "sub"
    base.mkdir()
    (base / "base.yaml").write_text(f"IMPORTS: ['{path}']\n")
    (strangers / "other.yaml").write_text("_BASE_: ../sub/base.yaml\n")
    with pytest.raises(UserError, match="--trust"):
        load_cfg(str(strangers / "other.yaml"))
    assert not ran(path)


def test_trust_allows_it(tmp_path, strangers, module):
    path, _ = module
    libra_d2.Predictor(strangers, trust=True)
    assert ran(path)


@pytest.mark.parametrize(
    "text, expected",
    [
        (
            "x = 1\nundefined_name\n",
            r"cannot be imported: NameError: .*broken\.py, line 2",
        ),
        ("def f(:\n", r"broken\.py cannot be imported: SyntaxError: .*line 1"),
        ("import no_such_module\n", "No module named 'no_such_module'"),
        (None, r"broken\.py does not exist"),
    ],
)
def test_a_module_that_fails_is_one_line(tmp_path, text, expected):
    path = tmp_path / "broken.py"
    if text:
        path.write_text(text)
    with pytest.raises(UserError, match=expected) as e:
        load_cfg("", ["IMPORTS", str(path)])
    assert "\n" not in str(e.value)


def test_a_file_with_the_name_of_a_module_is_refused(tmp_path):
    (tmp_path / "torch.py").touch()
    with pytest.raises(UserError, match="has the name of the module 'torch'"):
        load_cfg("", ["IMPORTS", str(tmp_path / "torch.py")])
    assert sys.modules["torch"] is torch


def test_wrong_values_are_named(tmp_path):
    (tmp_path / "a.yaml").write_text("IMPORTS: 5\n")
    with pytest.raises(UserError, match="IMPORTS must be a tuple of files and modules"):
        load_cfg(str(tmp_path / "a.yaml"))
