"""
Commands in a process whose disk nobody else sees, where that is permitted: a small or a read-only
one, or a small /dev/shm.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import List, Optional, Sequence

import pytest

from .support.project import ROOT


def run_with_mount(
    folder: str,
    commands: Sequence[Sequence[object]],
    options: str = "",
    size: str = "64m",
    cwd: Path = ROOT,
) -> List[dict]:
    """
    Run commands, one after the other, while a new disk in memory is mounted at `folder`.

    Args:
        commands: of `libra-d2`, or "train_net.py" and its options.
        options: that the empty disk is mounted with again, such as "ro".

    Returns:
        Of each command, its exit "status", the "error" on standard error, and by "files" the
        sizes of those that are on the disk afterwards.
    """
    script = f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"'
    if options:
        remount = f'mount -o remount,{options} "$0"'
        script = script.replace("&&", f"&& {remount} &&")
    can_mount = subprocess.run(["unshare", "-m", "sh", "-c", script, folder, "true"])
    if can_mount.returncode:
        pytest.skip("mounting a disk of its own is not permitted")
    program = [sys.executable, "-m", "tests.own_disk", folder]
    process = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, folder, *program],
        cwd=cwd,
        input=json.dumps([[str(a) for a in command] for command in commands]),
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert process.returncode == 0 and "Traceback" not in process.stderr, process.stderr
    return json.loads(process.stdout)


def _status(command: Sequence[str]) -> Optional[int]:
    import train_net
    from libra_d2.cli.main import main
    from libra_d2.engine import default_argument_parser, launch

    try:
        if command[0] != "train_net.py":
            return main(command)
        launch(train_net.main, default_argument_parser().parse_args(command[1:]))
    except SystemExit as e:
        return e.code
    return 0


def _files(folder: Path) -> dict:
    return {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}


def _main(folder: Path) -> None:
    answers = []
    for command in json.load(sys.stdin):
        with (
            contextlib.redirect_stderr(io.StringIO()) as error,
            contextlib.redirect_stdout(io.StringIO()),
        ):
            status = _status(command)
        answers.append({"status": status, "error": error.getvalue(), "files": _files(folder)})
    print(json.dumps(answers))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
