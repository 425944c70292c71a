"""The processes of a run find each other and end together. None hangs or is left over."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from libra_d2.engine import default_argument_parser, launch
from libra_d2.engine.processes import place_from_environment, torchrun_variables
from libra_d2.errors import UserError

from ..support.project import ROOT
from . import ranks

CPU = ["MODEL.DEVICE", "cpu"]


def no_process_left(mark):
    """Whether all processes with this MARK in their environment end within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not marked(mark):
            return True
        time.sleep(0.2)
    return False


def marked(mark):
    """
    Return their ids, except that of multiprocessing's tracker, which lives as long as this process.
    """
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                is_marked = f"MARK={mark}".encode() in f.read().split(b"\0")
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if is_marked and b"resource_tracker import main" not in f.read():
                    found.append(int(pid))
        except OSError:  # has ended, or is another user's
            continue
    return found


@pytest.fixture
def environment(monkeypatch):
    """Set the variables that ranks.py reads, and return the mark of its processes."""

    def set_up(how, failing_rank=1):
        mark = f"{os.getpid()}-{how}-{time.monotonic_ns()}"
        for name, value in {
            "HOW": how,
            "FAILING_RANK": str(failing_rank),
            "MARK": mark,
            "OMP_NUM_THREADS": "1",
        }.items():
            monkeypatch.setenv(name, value)
        return mark

    monkeypatch.setenv("PYTHONWARNINGS", os.environ.get("PYTHONWARNINGS", ""))
    return set_up


def run(*options):
    """Run the launcher in this process, and return its exit status."""
    try:
        launch(ranks.main, default_argument_parser().parse_args([*options, *CPU]))
    except SystemExit as e:
        return e.code
    return 0


TWO = ("--num-gpus", "2", "--dist-url", "auto")


def start(*arguments, **kwargs):
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


@pytest.mark.parametrize(
    "how,status,message",
    [
        ("user_error", 2, "error: none.json does not exist\n"),
        ("all", 2, "error: a mistake that all processes see\n"),
        ("exit", 7, "error: process 1 ended with exit status 7\n"),
        ("kill", 137, "error: process 1 was ended by signal SIGKILL; out of memory?\n"),
    ],
)
def test_one_dies_all_end(environment, capfd, how, status, message):
    """Processes that wait for it in an all-reduce end, and so do the workers of their loaders."""
    mark = environment(how)
    assert run(*TWO) == status
    assert capfd.readouterr().err == message
    assert no_process_left(mark)


def test_an_error_is_that_of_the_process_that_failed_first(environment, capfd):
    """It is not that of the processes that have lost the connection to it."""
    mark = environment("exception")
    assert run(*TWO) == 1
    err = capfd.readouterr().err
    assert err.startswith("error in process 1:\nTraceback")
    assert err.rstrip().endswith("RuntimeError: the flux capacitor is empty")
    assert err.count("Traceback") == 1
    assert no_process_left(mark)


def test_two_machines_end_together(environment, capfd):
    """Two launchers have one process each, and the process of the other machine is killed."""
    mark = environment("kill")
    machines = ["--num-machines", "2", "--dist-url", f"tcp://127.0.0.1:{free_port()}"]
    command = ["-m", "tests.engine.ranks", "kill", "1", *machines, "--machine-rank", "1", *CPU]
    other = start(*command)
    assert run(*machines, "--machine-rank", "0") == 1
    out, err = capfd.readouterr()
    assert "rank 0 local 0 of 2" in out and "running" in out
    assert "Connection closed by peer" in err or "Connection reset by peer" in err
    out, err = other.communicate(timeout=60)
    assert "rank 1 local 0 of 2" in out
    assert other.returncode == 137 and err.count("\n") == 1
    assert no_process_left(mark)


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_an_interrupt_ends_everything(environment):
    """Ctrl-C reaches every process in the group of the terminal."""
    mark = environment("never")
    command = ["-m", "tests.engine.ranks", "never", "1", *TWO, *CPU]
    # A test run in the background has interrupts ignored, which a child would inherit.
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    launcher = start(*command, start_new_session=True, preexec_fn=heed)
    assert any("running" in line for line in launcher.stdout)
    assert len(marked(mark)) == 7  # the launcher, two processes, and two workers of each
    os.killpg(launcher.pid, signal.SIGINT)
    _, err = launcher.communicate(timeout=60)
    assert launcher.returncode == 130
    assert err == "interrupted\n"
    assert no_process_left(mark)


def test_torchrun_starts_again_and_tells_a_mistake_once(environment):
    mark = environment("user_error")
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    options = ["--max-restarts", "1", "-m", "tests.engine.ranks", "user_error", "1", *CPU]
    agent = start(*command, *options)
    out, err = agent.communicate(timeout=240)
    assert agent.returncode == 1
    assert out.count("rank 0 local 0 of 2") == out.count("rank 1 local 1 of 2") == 2  # two lives
    assert err.count("error: none.json does not exist\n") == 2
    assert "UserError" not in err
    assert no_process_left(mark)


@pytest.mark.parametrize(
    "options,message",
    [
        (["--num-gpus", "99"], "To run 99 processes on the CPU, set MODEL.DEVICE"),
        (
            ["--num-gpus", "2", "--num-machines", "2", "--dist-url", "auto", *CPU],
            "--dist-url must be an",
        ),
        (
            ["--num-machines", "2", "--machine-rank", "2", *CPU],
            "--machine-rank must be between 0 and 1",
        ),
    ],
)
def test_options_that_cannot_work(capsys, options, message):
    with pytest.raises(SystemExit) as stop:
        launch(ranks.main, default_argument_parser().parse_args(options))
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in err and err.count("\n") == 1


SLURM = {
    "SLURM_JOB_ID": "70123",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "8",
    "SLURM_TASKS_PER_NODE": "4(x2)",
    "SLURM_JOB_NODELIST": "gpu[03-04]",
}


def test_slurm_variables_become_those_of_torchrun():
    assert torchrun_variables(SLURM) == {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "gpu03",
        "MASTER_PORT": str(32768 + 70123 % 16384),
    }
    assert torchrun_variables({**SLURM, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "9"}) == {
        **torchrun_variables(SLURM),
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "9",
    }
    # A step may be smaller than its job.
    step = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_TASKS_PER_NODE": "2",
        "SLURM_STEP_NODELIST": "gpu04",
    }
    variables = torchrun_variables({**SLURM, **step})
    assert [variables[k] for k in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")] == [
        *("2", "2", "gpu04")
    ]


@pytest.mark.parametrize(
    "nodes,first",
    [
        ("node7", "node7"),
        ("a1,b[2-3]", "a1"),
        ("gpu[03,07-09]", "gpu03"),
        ("rack[1-2]n[05-06]-ib,login", "rack1n05-ib"),
    ],
)
def test_first_node_of_a_slurm_list(nodes, first):
    variables = torchrun_variables({**SLURM, "SLURM_JOB_NODELIST": nodes})
    assert variables["MASTER_ADDR"] == first


def test_a_batch_script_is_one_process():
    """sbatch sets the variables of a task as well, but there are no other tasks to wait for."""
    batch = {k: v for k, v in SLURM.items() if k != "SLURM_STEP_ID"}
    assert torchrun_variables(batch) == {}


@pytest.fixture
def bare(monkeypatch):
    for name in list(os.environ):
        if name.startswith("SLURM_") or name in torchrun_variables(SLURM):
            monkeypatch.delenv(name)
    return monkeypatch


def set_environment(monkeypatch, variables):
    # os.environ is written to by the code as well.
    monkeypatch.setattr(os, "environ", {**os.environ, **variables})


def test_places(bare):
    assert place_from_environment() is None
    set_environment(bare, SLURM)
    place = place_from_environment()
    assert (place.rank, place.world_size, place.local_rank, place.local_size) == (5, 8, 1, 4)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"SLURM_LOCALID": "0", "SLURM_PROCID": "1"}, "--distribution block"),  # cyclic
        ({"SLURM_NTASKS": "7"}, "--distribution block"),
        ({"SLURM_PROCID": "one"}, "RANK must be an integer, got 'one'"),
    ],
)
def test_places_that_do_not_fit(bare, change, message):
    set_environment(bare, {**SLURM, **change})
    with pytest.raises(UserError, match=message):
        place_from_environment()


def test_a_machines_rank_is_no_processs(bare):
    """Kubernetes sets RANK and WORLD_SIZE for a pod; a user may pass them as --machine-rank."""
    set_environment(bare, {"RANK": "1", "WORLD_SIZE": "2"})
    assert place_from_environment() is None


@pytest.mark.gpu
def test_one_process_for_each_gpu(environment, capfd):
    count = torch.cuda.device_count()
    if count < 2:
        pytest.skip("one GPU")
    environment("end")
    options = ["--num-gpus", str(count), "--dist-url", "auto"]
    launch(ranks.main, default_argument_parser().parse_args(options))
    assert f"rank 1 local 1 of {count}" in capfd.readouterr().out
