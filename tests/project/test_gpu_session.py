"""What tools/gpu_session.sh would run, as far as a machine without a GPU can tell."""

import argparse
import os
import shlex
import subprocess

import pytest

from libra_d2.cli.main import COMMANDS
from libra_d2.config import load_cfg

from ..support.project import ROOT

SCRIPT = "tools/gpu_session.sh"
DATA = ("coco:train.json,images", "coco:val.json,images")


def session(*args, **environment):
    return subprocess.run(
        ["sh", SCRIPT, *map(str, args)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def ran(tmp_path):
    """Run a part with an interpreter that only notes its arguments, and return those."""
    notes = tmp_path / "notes"
    python = tmp_path / "python"
    note = 'for word in "$@"; do printf "%s\\n" "$word"; done; echo --end--'
    python.write_text(f"#!/bin/sh\n{{ {note}; }} >>{shlex.quote(str(notes))}\n")
    python.chmod(0o755)

    def run(*args):
        done = session(*args, tmp_path / "output", PYTHON=str(python))
        assert done.returncode == 0, done.stdout + done.stderr
        return [lines.split("\n")[:-1] for lines in notes.read_text().split("--end--\n")[:-1]]

    return run


def test_the_script_is_valid():
    assert subprocess.run(["sh", "-n", SCRIPT], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("args", [(), ("3",), ("1", "a", "b"), ("2", "a"), ("2", *DATA, "a", "b")])
def test_a_mistake_is_answered_with_the_usage(args):
    done = session(*args)
    assert done.returncode == 2
    assert "error: " in done.stderr and "Usage: sh tools/gpu_session.sh" in done.stderr


@pytest.mark.parametrize("part", [("1",), ("2", *DATA)], ids=["1", "2"])
def test_files_commands_and_options_exist(part, ran):
    commands = ran(*part)[1:]  # the first one looks for a GPU
    assert commands
    for program, *args in commands:
        for word in (program, *args):
            if word.startswith(("benchmarks/", "configs/")):
                assert (ROOT / word).is_file(), word
        if args[:1] == ["libra_d2.cli.main"]:
            _, name, *options = args
            if name not in COMMANDS:
                pytest.skip(f"this version has no libra-d2 {name}")
            parser = argparse.ArgumentParser()
            COMMANDS[name].add_arguments(parser)
            parser.parse_args(options)


def test_the_settings_of_the_experiment_are_valid(ran, tmp_path):
    _, command = ran("2", *DATA)
    assert command[1:3] == ["libra_d2.cli.main", "experiment"]
    settings = command[command.index("MODEL.DEVICE") :]
    settings[1] = "cpu"
    cfg = load_cfg(command[command.index("--base") + 1], settings)
    assert cfg.MODEL.RESNETS.DEPTH == 18 and cfg.MODEL.WEIGHTS == ""
    assert (tmp_path / "output" / "variants.yaml").is_file()
