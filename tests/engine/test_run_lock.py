"""Only one run at a time trains in a folder, and a folder contains only one run."""

import json
import os
import subprocess
import sys

import pytest

from libra_d2.engine import run_lock
from libra_d2.engine.run_folder import enter
from libra_d2.errors import UserError


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    run_lock.release(str(tmp_path))


@pytest.fixture
def other():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()


def owned_by(folder, **changes):
    owner = {**run_lock._this_process(), **changes}
    (folder / "run.lock").write_text(json.dumps(owner))


def test_a_second_process_is_refused(folder, other):
    owned_by(folder, pid=other.pid, start=run_lock._start(other.pid))
    with pytest.raises(UserError, match=f"another run is training in .*process {other.pid} on "):
        run_lock.acquire(str(folder))


@pytest.mark.parametrize("kind", ["ended", "number used again", "half-written", "other machine"])
def test_a_stale_lock_is_taken_over(folder, other, kind):
    if kind == "ended":
        other.kill()
        owned_by(folder, pid=other.pid, start=run_lock._start(other.pid) or "1")
        other.wait()
    elif kind == "number used again":
        owned_by(folder, pid=other.pid, start="1")
    elif kind == "half-written":
        (folder / "run.lock").write_text('{"host": "a')
    else:
        owned_by(folder, place="another one")
        os.utime(folder / "run.lock", (1, 1))
    run_lock.acquire(str(folder))
    assert json.loads((folder / "run.lock").read_text())["pid"] == os.getpid()
    run_lock.release(str(folder))
    assert not (folder / "run.lock").exists()


def test_a_run_on_another_machine_is_heeded(folder):
    owned_by(folder, place="another one")
    with pytest.raises(UserError, match="another run is training"):
        run_lock.acquire(str(folder))


def test_another_run_is_moved_away_only_if_asked(folder):
    for name in ("model_0000003.pth", "model_final.pth", "last_checkpoint", "notes.txt"):
        (folder / name).write_text(name)
    with pytest.raises(UserError, match=r"holds another run\. .*--resume.*--overwrite"):
        enter(str(folder))
    assert (folder / "model_final.pth").read_text() == "model_final.pth"
    enter(str(folder), overwrite=True)
    (backup,) = folder.glob("old_run_*")
    moved = {"model_0000003.pth", "model_final.pth", "last_checkpoint"}
    assert {p.name for p in backup.iterdir()} == moved
    assert {p.name for p in folder.iterdir()} == {"notes.txt", "run.lock", backup.name}


def test_resume_without_a_checkpoint(folder):
    """
    A run starts if the folder is empty or contains only files of a start; otherwise it is an error.
    """
    enter(str(folder / "new"), resume=True)
    (folder / "new" / "log.txt").write_text("of a start")
    enter(str(folder / "new"), resume=True)
    run_lock.release(str(folder / "new"))
    (folder / "metrics.json").write_text('{"iteration": 19}\n')
    with pytest.raises(UserError, match=r"no checkpoint in OUTPUT_DIR"):
        enter(str(folder), resume=True)


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/none"])
def test_a_folder_that_cannot_be_made_is_one_line(folder, place):
    (folder / "file").write_text("x")
    with pytest.raises(UserError, match="set OUTPUT_DIR") as error:
        enter(os.path.join(folder, place))
    assert "\n" not in str(error.value)
