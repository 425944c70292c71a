"""
A run that is interrupted at any moment, and resumed, ends with the weights of one that was not: by
Ctrl-C, by a scheduler's SIGTERM, by SIGKILL, and by a disk that is full for a while.

LIBRA_D2_TEST_MOMENTS sets how many moments of each kind there are.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from libra_d2.data.shapes import write_shapes

from ..conftest import ROOT
from .test_resume import OPTIONS, metrics_of
from .test_train_net import on_data

NUM_MOMENTS = int(os.environ.get("LIBRA_D2_TEST_MOMENTS", "1"))
KINDS = ("SIGINT", "SIGTERM", "SIGKILL", "full disk")
DISK = 400  # MB of memory; a run leaves about 200


class Server:
    """Starts runs. Its disk is a small one that nobody else sees, where that is permitted."""

    def __init__(self, folder):
        self.folder = folder
        self.disk = folder / "disk"
        self.disk.mkdir()
        mount = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs"]
        self.has_disk = not subprocess.run([*mount, str(self.disk)], capture_output=True).returncode
        python = [sys.executable, "-m", "tests.engine.run_server"]
        if self.has_disk:
            script = f'mount -t tmpfs -o size={DISK}m tmpfs "$0" && exec "$@"'
            python = ["unshare", "-m", "sh", "-c", script, str(self.disk), *python]
        self.process = subprocess.Popen(
            python,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def seen(self, path):
        """A file of the small disk from outside."""
        return Path(f"/proc/{self.process.pid}/root{path}") if self.has_disk else path

    def ask(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, *args):
        log = self.folder / f"log{time.monotonic_ns()}.txt"
        log.touch()
        return Run(self, self.ask(run=[str(a) for a in args], log=str(log))["pid"], log)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Run:
    def __init__(self, server, pid, log):
        self.server, self.pid, self.log = server, pid, log
        self.status = None

    def ended(self):
        if self.status is None:
            self.status = self.server.ask(poll=self.pid)["status"]
        return self.status is not None

    def wait_for(self, text):
        while text not in self.log.read_text() and not self.ended():
            time.sleep(0.01)

    def wait(self):
        while not self.ended():
            time.sleep(0.01)
        return self.status

    def tail(self):
        return self.log.read_text()[-3000:]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("interruptions"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def undisturbed(server):
    """Options of a run, its folder, and the seconds that its training took."""
    write_shapes(server.folder, "train", 12, seed=1)
    write_shapes(server.folder, "val", 3, seed=2)
    files = [(server.folder / f"{s}.json", server.folder / s) for s in ("train", "val")]
    options = [*on_data(*files), *OPTIONS, "MODEL.DEVICE", "cpu"]
    folder = server.folder / "whole"
    run = server.start(*options, "OUTPUT_DIR", folder)
    run.wait_for("Starting training")
    start = time.monotonic()
    assert run.wait() == 0, run.tail()
    return options, folder, time.monotonic() - start


def interrupt(run, kind, filler):
    if kind == "full disk":
        with open(filler, "wb") as f:
            while space := os.statvfs(filler).f_bavail * os.statvfs(filler).f_frsize:
                with contextlib.suppress(OSError):  # the run has taken some of it
                    os.posix_fallocate(f.fileno(), os.fstat(f.fileno()).st_size, space)
    else:
        os.kill(run.pid, getattr(signal, kind))


@pytest.mark.parametrize("moment", range(NUM_MOMENTS))
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(server, undisturbed, moment):
    options, whole, seconds = undisturbed
    rng = random.Random(moment)
    kinds = [k for k in KINDS if k != "full disk" or server.has_disk]
    rng.shuffle(kinds)
    folder = server.disk / f"run{moment}"
    filler = server.seen(server.disk / "filler")
    log = []
    for kind in [*kinds, "none"]:
        run = server.start("--resume", *options, "OUTPUT_DIR", folder)
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
            interrupt(run, kind, filler)
            expected = {"SIGINT": 130, "SIGTERM": 143, "SIGKILL": -9, "full disk": 2}[kind]
            assert run.wait() == expected or ended_before, run.tail()
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
    shutil.rmtree(server.seen(folder))  # the small disk has room for one run
    if not server.has_disk:
        pytest.skip("mounting a small disk is not permitted: a full one was not tried")


def compare(folder, whole):
    names = {p.name for p in whole.glob("*.pth")}
    assert {p.name for p in folder.glob("*.pth*")} == names
    for name in names:
        ours, theirs = (torch.load(f / name, weights_only=True) for f in (folder, whole))
        assert ours["iteration"] == theirs["iteration"], name
        for key, value in theirs["model"].items():
            assert torch.equal(ours["model"][key], value), f"{name}: {key}"
        states = [x["trainer"]["_trainer"]["optimizer"]["state"] for x in (ours, theirs)]
        for i, state in states[1].items():
            assert torch.equal(states[0][i]["momentum_buffer"], state["momentum_buffer"]), name
        ours, theirs = (x["trainer"]["hooks"] for x in (ours, theirs))
        assert ours["BestCheckpointer"] == theirs["BestCheckpointer"]
        for key, value in theirs["EMA"]["weights"].items():
            assert torch.equal(ours["EMA"]["weights"][key], value), f"{name}: {key}"
    # A run that ends before its time writes the scalars of its last step, too.
    ours, theirs = (json.loads(metrics_of(f)) for f in (folder, whole))
    for iteration, record in theirs.items():
        same = {k: ours.get(iteration, {}).get(k) for k in record}
        assert json.dumps(same) == json.dumps(record), iteration  # text, in which NaN equals NaN
