"""
A run that is interrupted at any moment and resumed ends with the weights of an uninterrupted run.
It is interrupted by Ctrl-C, by a scheduler's SIGTERM, by SIGKILL and by a disk that is full for a
while.

LIBRA_D2_TEST_MOMENTS sets the number of moments of each kind.
"""

import contextlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from libra_d2.data.datasets.shapes import write_shapes

from ..support.programs import ProgramServer, program_server
from ..support.project import ROOT
from ..support.train_net_runs import on_data
from .resumed_runs import OPTIONS, assert_same_checkpoints, metrics_of

NUM_MOMENTS = int(os.environ.get("LIBRA_D2_TEST_MOMENTS", "1"))
KINDS = ("SIGINT", "SIGTERM", "SIGKILL", "full disk")
DISK = 400  # MB of memory; a run leaves about 200


class Server(ProgramServer):
    """
    Starts runs that write to a small disk of their own, where the system permits to mount one.
    """

    def __init__(self, folder):
        self.folder = folder
        self.disk = folder / "disk"
        self.disk.mkdir()
        mount = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs"]
        self.has_disk = not subprocess.run([*mount, str(self.disk)], capture_output=True).returncode
        script = f'mount -t tmpfs -o size={DISK}m tmpfs "$0" && exec "$@"'
        alone = ["unshare", "-m", "sh", "-c", script, str(self.disk)]
        super().__init__(alone if self.has_disk else ())

    def seen(self, path):
        """Return a file of the small disk as seen from outside."""
        return Path(f"/proc/{self.process.pid}/root{path}") if self.has_disk else path

    def run(self, *args):
        log = self.folder / f"log{time.monotonic_ns()}.txt"
        return self.start("train_net.py", *args, out=log, err=log)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("interruptions"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def undisturbed(server):
    """Options of a run that is not interrupted, its folder, and the seconds that it trained."""
    write_shapes(server.folder, "train", 12, seed=1)
    write_shapes(server.folder, "val", 3, seed=2)
    files = [(server.folder / f"{s}.json", server.folder / s) for s in ("train", "val")]
    options = [*on_data(*files), *OPTIONS, "MODEL.DEVICE", "cpu"]
    folder = server.folder / "whole"
    run = server.run(*options, "OUTPUT_DIR", folder)
    run.wait_for("Starting training")
    start = time.monotonic()
    assert run.wait() == 0, run.tail()
    return options, folder, time.monotonic() - start


def fill(filler, free=0):
    """Fill the disk of a file with it, up to some free bytes."""
    with open(filler, "wb") as f:
        while (space := os.statvfs(filler).f_bavail * os.statvfs(filler).f_frsize - free) > 0:
            with contextlib.suppress(OSError):  # the run has taken some of it
                os.posix_fallocate(f.fileno(), os.fstat(f.fileno()).st_size, space)


def clear(disk):
    """Remove the run of another test: the small disk has room for one."""
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def interrupt(run, kind, filler):
    if kind == "full disk":
        fill(filler)
    else:
        os.kill(run.pid, getattr(signal, kind))


@pytest.mark.parametrize("moment", range(NUM_MOMENTS))
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(server, undisturbed, moment):
    options, whole, seconds = undisturbed
    clear(server.seen(server.disk))
    rng = random.Random(moment)
    kinds = [k for k in KINDS if k != "full disk" or server.has_disk]
    rng.shuffle(kinds)
    folder = server.disk / "run"
    filler = server.seen(server.disk / "filler")
    log = []
    for kind in [*kinds, "none"]:
        run = server.run("--resume", *options, "OUTPUT_DIR", folder)
        run.wait_for("Starting training from iteration")
        first = run.log.read_text().partition("from iteration ")[2].split("\n")[0]
        if kind != "none":
            # A run that has no checkpoint yet when it is killed does not go on.
            while kind in ("SIGKILL", "full disk") and not (
                server.seen(folder / "last_checkpoint").exists() or run.ended()
            ):
                time.sleep(0.01)
            wait = rng.uniform(0, seconds / 5)
            time.sleep(wait)
            ended_before = run.ended()
            if not ended_before:
                interrupt(run, kind, filler)
            expected = {"SIGINT": 130, "SIGTERM": 143, "SIGKILL": -9, "full disk": 2}[kind]
            status = run.wait()
            if status == 0:  # the training was over, and its pictures were drawn at most
                end = run.log.read_text().partition("Total training time")[2]
                ended_before = bool(re.search(f"{kind}: |Could not draw the pictures", end))
            assert status == expected or ended_before, run.tail()
            log.append(f"{kind} {wait:.2f} s after iteration {first}")
        else:
            assert run.wait() == 0, run.tail()
            log.append(f"the rest from iteration {first}")
        filler.unlink(missing_ok=True)
        text = run.log.read_text()
        assert "Traceback" not in text, run.tail()
        if kind in ("SIGINT", "SIGTERM") and not ended_before:
            assert f"stopped by {kind} after" in text.splitlines()[-1], run.tail()
            assert "--resume --config-file" in text.splitlines()[-1]
        if kind == "full disk" and not ended_before:
            last = text.splitlines()[-1]
            assert last.startswith("error: ") and "No space left on device" in last, run.tail()
            assert not list(server.seen(folder).glob("*partial*"))
    print("; ".join(log))
    compare(server.seen(folder), whole)
    if not server.has_disk:
        pytest.skip("mounting a small disk is not permitted: a full one was not tried")


@pytest.mark.parametrize("free", [4, 16, 64, 92, 1024])
def test_a_run_that_starts_on_a_full_disk_has_no_stack_trace(server, undisturbed, free):
    """
    Its settings, its log or its first checkpoint cannot be written.

    Args:
        free: kilobytes that are free.
    """
    if not server.has_disk:
        pytest.skip("mounting a small disk is not permitted: a full one was not tried")
    clear(server.seen(server.disk))
    folder, filler = server.disk / "run", server.seen(server.disk / "filler")
    fill(filler, free * 1024)
    run = server.run(*undisturbed[0], "OUTPUT_DIR", folder)
    assert run.wait() == 2, run.tail()
    text = run.log.read_text()
    assert "Traceback" not in text and "Logging error" not in text
    last = text.splitlines()[-1]
    assert re.match(f"error: {server.disk}/.* cannot be written: No space left on device", last)
    filler.unlink()


# An evaluation that says where it is, and waits there the first time.
SLOW = """
import os, time
from libra_d2.evaluation import LibraCOCOEvaluator

process = LibraCOCOEvaluator.process

def slow(self, inputs, outputs):
    process(self, inputs, outputs)
    if not os.path.exists(__file__ + ".done"):
        open(__file__ + ".done", "w").close()
        print("in the evaluation", flush=True)
        time.sleep(60)

LibraCOCOEvaluator.process = slow
"""


@pytest.fixture
def slow(tmp_path):
    """Options with which the first evaluation waits for a signal."""
    path = tmp_path / "slow_evaluation.py"
    path.write_text(SLOW)
    return ["IMPORTS", f"('{path}',)"]


@pytest.mark.parametrize("name, status", [("SIGTERM", 143), ("SIGINT", 130)])
def test_an_evaluation_in_a_run_ends_at_once(server, undisturbed, slow, tmp_path, name, status):
    """The training before it is saved, and the resumed run evaluates first."""
    options, whole, _ = undisturbed
    folder = tmp_path / "run"
    run = server.run("--resume", *options, *slow, "OUTPUT_DIR", folder)
    run.wait_for("in the evaluation")
    sent = time.monotonic()
    os.kill(run.pid, getattr(signal, name))
    assert run.wait() == status, run.tail()
    assert time.monotonic() - sent < 50
    text = run.log.read_text()
    assert "Traceback" not in text
    assert f"stopped by {name} after 6 of 24 iterations, which are saved" in text.splitlines()[-1]
    assert (folder / "last_checkpoint").read_text() == "model_stopped.pth"
    assert not list(folder.rglob("*partial*")) and not list(folder.rglob("coco_instances*.json"))
    if name == "SIGTERM":
        run = server.run("--resume", *options, *slow, "OUTPUT_DIR", folder)
        assert run.wait() == 0, run.tail()
        compare(folder, whole)


@pytest.mark.parametrize("name, status", [("SIGTERM", 143), ("SIGINT", 130)])
def test_an_evaluation_that_is_stopped_leaves_the_one_before(undisturbed, slow, name, status):
    """No loader worker is left over, either."""
    _, whole, _ = undisturbed
    before = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    process = start_program(
        "-m", "libra_d2.cli.main", "evaluate", "--model", whole, "--opts", *slow
    )
    for line in process.stdout:
        if "in the evaluation" in line:
            break
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=50)
    assert process.returncode == status, err
    assert err.splitlines()[-1] == "libra-d2 evaluate: interrupted" and "Traceback" not in err
    assert before == {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def start_program(*args):
    """Start a program in a process group of its own, like a shell in a terminal does."""
    return subprocess.Popen(
        [sys.executable, *map(str, args)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A test run in the background has interrupts ignored, which a child would inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


TWO_PROCESSES = (
    "SOLVER.ACCUMULATION_STEPS 1 SOLVER.MAX_ITER 15 SOLVER.STEPS (9,) SOLVER.CHECKPOINT_PERIOD 3 "
    "TEST.EVAL_PERIOD 0 BALANCE.PERIOD 0"
).split()


# Forked processes have PyTorch imported already. Those of tests/engine/test_launch.py are spawned.
FORKING = """
import functools, runpy, sys
import torch.multiprocessing as mp
mp.start_processes = functools.partial(mp.start_processes, start_method="fork")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_two_processes_that_were_stopped_end_as_two_that_were_not(undisturbed, tmp_path):
    """SIGTERM is sent to the launcher only, Ctrl-C to all processes."""
    options = [*undisturbed[0], *TWO_PROCESSES]
    two = ["--num-gpus", "2", "--dist-url", "auto"]
    whole, folder = tmp_path / "whole", tmp_path / "stopped"

    def start(*args):
        """Start train_net.py; its standard error is the last of these files."""
        files.append(tmp_path / f"err{len(files)}.txt")
        log = tmp_path / f"out{len(files)}.txt"
        return program_server().start("-c", FORKING, *args, out=log, err=files[-1])

    files = []
    assert start("train_net.py", *two, *options, "OUTPUT_DIR", whole).wait() == 0, files[-1]
    process = start("train_net.py", *two, *options, "OUTPUT_DIR", folder)
    for name, status in (("SIGTERM", 143), ("SIGINT", 130)):
        process.wait_for("Saving checkpoint|Starting training from iteration [1-9]")
        (os.kill if name == "SIGTERM" else os.killpg)(process.pid, getattr(signal, name))
        assert process.wait(timeout=120) == status, process.tail()
        *notes, last = files[-1].read_text().splitlines()
        assert [line.split(":")[0] for line in notes] == [name]
        assert f"stopped by {name} after" in last and "of 15 iterations, which are saved" in last
        assert (folder / "last_checkpoint").read_text() == "model_stopped.pth"
        command = shlex.split(last.partition("Resume with: ")[2])
        assert command[0] == sys.executable and command[-2:] == ["--num-gpus", "2"]
        process = start(*command[1:], "--dist-url", "auto")
    assert process.wait() == 0 and files[-1].read_text() == ""
    compare(folder, whole)


def compare(folder, whole):
    assert_same_checkpoints(folder, whole)
    # A run that ends before its time writes the scalars of its last step, too.
    ours, theirs = (json.loads(metrics_of(f)) for f in (folder, whole))
    for iteration, record in theirs.items():
        same = {k: ours.get(iteration, {}).get(k) for k in record}
        assert json.dumps(same) == json.dumps(record), iteration  # text, in which NaN equals NaN
