import subprocess
import sys

import pytest
import torch

from libra_d2 import __version__
from libra_d2.cli import diagnosis
from libra_d2.cli.main import main

from ..support.project import ROOT


def python(code, *args):
    return subprocess.run(
        [sys.executable, *args, "-c", code], capture_output=True, text=True, cwd=ROOT
    )


def test_doctor_tells_versions_and_tries_a_step(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("torch", torch.__version__, "detectron2", "CUDA", "compiled operators", "extra ["):
        assert word in out
    assert "training step on cpu    " in out.replace("  works", "    works")
    assert "works (loss" in out and "No problems found." in out


def test_doctor_finds_problems(capsys, monkeypatch):
    monkeypatch.setattr(diagnosis, "PACKAGES", ("torch", "no_such_package"))
    monkeypatch.setattr(diagnosis, "tiny_training_step", lambda device: 1 / 0)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "problem: no_such_package cannot be imported" in out
    assert "problem: a training step on cpu fails" in out


def test_doctor_leaves_the_random_stream_alone():
    torch.manual_seed(0)
    diagnosis.tiny_training_step("cpu")
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), after)


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "{missing}":
            raise ModuleNotFoundError("No module named " + name, name=name)
sys.meta_path.insert(0, Missing())
{then}
"""


@pytest.mark.parametrize("missing", ["detectron2", "torch"])
def test_import_without_detectron2_says_how_to_get_it(missing):
    run = python(WITHOUT.format(missing=missing, then="import libra_d2"))
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: libra_d2 needs Detectron2, but '{missing}")
    assert "make setup" in last and "https://detectron2.readthedocs.io" in last
    assert "During handling" not in run.stderr


def test_command_without_detectron2_is_one_line():
    then = "sys.argv = ['libra-d2', 'doctor']; import libra_d2_launcher; libra_d2_launcher.main()"
    run = python(WITHOUT.format(missing="detectron2", then=then))
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1 and "make setup" in run.stderr


def test_an_import_error_of_something_else_is_not_mistaken():
    run = python(WITHOUT.format(missing="fvcore", then="import libra_d2"))
    assert "No module named fvcore" in run.stderr and "needs Detectron2" not in run.stderr


def test_import_prints_nothing():
    run = python("import libra_d2; print(libra_d2.__version__)")
    assert (run.stdout, run.stderr) == (f"{__version__}\n", "")


def test_importing_registers_the_components():
    code = (
        "import libra_d2; from detectron2.modeling import *; "
        "from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY as P; "
        "print([n in BACKBONE_REGISTRY for n in ('build_libra_resnet_fpn_backbone', "
        "'build_libra_retinanet_resnet_fpn_backbone', 'build_libra_torchvision_fpn_backbone')], "
        "'LibraROIHeads' in ROI_HEADS_REGISTRY, 'LibraCascadeROIHeads' in ROI_HEADS_REGISTRY, "
        "'LibraRPN' in P)"
    )
    assert python(code).stdout == "[True, True, True] True True True\n"


def test_unknown_command(capsys):
    with pytest.raises(SystemExit) as e:
        main(["nothing"])
    assert e.value.code == 2 and "invalid choice" in capsys.readouterr().err


def test_a_misspelt_option_is_named_with_what_it_resembles(capsys):
    with pytest.raises(SystemExit) as e:
        main(["draw", "--ouput", "x", "--output", "y"])
    error = capsys.readouterr().err
    assert e.value.code == 2 and "libra-d2 draw: error" in error
    assert "unrecognized arguments: --ouput x; did you mean --output?" in error


def test_ctrl_c_is_one_line(capsys, monkeypatch):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("libra_d2.cli.doctor.run", interrupted)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "libra-d2 doctor: interrupted\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--output", "m.xyz"], "must end in one of .onnx, .pt, .pth, .ts, got m.xyz"),
        (
            ["--output", "m.pt", "--format", "onnx"],
            "--format must be torchscript for --output m.pt, got onnx",
        ),
        (["--output", "nowhere/m.pt"], "--output must be a file in an existing folder, got "),
    ],
)
def test_names_of_exported_files(capsys, arguments, message):
    assert main(["export", "--model", "run", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["infer", "--help"], ["browse", "--help"], ["nope"]],
)
def test_help_and_mistakes_do_not_load_torch(arguments):
    code = (
        "import sys, libra_d2_launcher\n"
        "try: libra_d2_launcher.main()\n"
        "finally: print([m for m in ('torch', 'detectron2', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
