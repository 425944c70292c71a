"""Scheduling, failures and interruptions of runs, with small programs in place of trainings."""

import json
import sys
import textwrap
import time

import pytest

from libra_d2.experiments import scheduler
from libra_d2.experiments.scheduler import Job, run_jobs
from libra_d2.utils.interrupts import Interrupted

# Notes when it starts and ends, and does one step of work.
WORK = """
import json, os, sys, time
folder = sys.argv[1]
def note(what):
    with open(os.path.join(folder, what), "w") as file:
        json.dump([time.time(), os.environ.get("SLOT", "")], file)
note("start")
{body}
note("end")
"""


class Runs:
    def __init__(self, folder):
        self.folder = folder
        self.started = []

    def job(self, name, body="", finished=None):
        folder = self.folder / name
        folder.mkdir()
        script = folder / "work.py"
        script.write_text(WORK.format(body=textwrap.dedent(body)))

        def command():
            self.started.append(name)
            return [sys.executable, "-S", str(script), str(folder)]

        return Job(
            name=name,
            command=command,
            log=str(self.folder / f"{name}.log"),
            iterations=10,
            iterations_done=lambda: 10 if (folder / "end").exists() else 0,
            is_finished=finished or (folder / "end").exists,
            result=lambda: "AP 1.00",
        )

    def read(self, name, what):
        return json.loads((self.folder / name / what).read_text())


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "POLL", 0.01)
    return Runs(tmp_path)


def test_runs_jobs_in_order_one_after_another(runs, capsys):
    jobs = [runs.job(name) for name in "cab"]
    assert run_jobs(jobs, [{"SLOT": "x"}]) == {}
    assert runs.started == ["c", "a", "b"]
    for before, after in (("c", "a"), ("a", "b")):
        assert runs.read(before, "end")[0] <= runs.read(after, "start")[0]
    assert {runs.read(name, "start")[1] for name in "cab"} == {"x"}
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == list("ccaabb")
    assert lines[1].startswith("c: finished in ") and lines[1].endswith(" s, AP 1.00")


def test_runs_as_many_at_once_as_there_are_environments(runs):
    """Each of the first two waits for the other; the third gets the environment of one of them."""
    body = """
    others = [os.path.join(os.path.dirname(folder), name, "start") for name in "ab"]
    while not all(map(os.path.exists, others)):
        time.sleep(0.01)
    """
    jobs = [runs.job("a", body), runs.job("b", body), runs.job("c")]
    assert run_jobs(jobs, [{"SLOT": "0"}, {"SLOT": "1"}]) == {}
    assert [runs.read(name, "start")[1] for name in "ab"] == ["0", "1"]
    first_end = min(runs.read(name, "end")[0] for name in "ab")
    assert runs.read("c", "start")[0] >= first_end


def test_a_finished_job_is_not_repeated(runs):
    jobs = [runs.job("a"), runs.job("b", finished=lambda: True), runs.job("c")]
    assert run_jobs(jobs, [{}]) == {}
    assert runs.started == ["a", "c"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise ValueError('too\\nbig')", "ValueError: too"),
        ("sys.exit('error: no such file')", "error: no such file"),
        ("print('nearly done'); sys.exit(3)", "nearly done"),
        ("sys.exit(3)", "it printed nothing"),
        ("sys.exit(0)", "it ended without a result: it printed nothing"),
        ("os.kill(os.getpid(), 9)", "error: ended by signal SIGKILL; out of memory?"),
        ("os.kill(os.getpid(), 11)", "error: ended by signal SIGSEGV"),
    ],
)
def test_a_failure_is_named_and_the_others_go_on(runs, capsys, body, reason):
    jobs = [runs.job("a"), runs.job("b", body), runs.job("c")]
    assert run_jobs(jobs, [{}]) == {"b": reason}
    assert runs.started == ["a", "b", "c"] and runs.read("c", "end")
    assert f"s: {reason}\n" in capsys.readouterr().out


def test_the_reason_of_a_killed_job_is_in_its_log(runs):
    run_jobs([runs.job("a", "os.kill(os.getpid(), 9)")], [{}])
    assert (
        (runs.folder / "a.log")
        .read_text()
        .endswith("error: ended by signal SIGKILL; out of memory?\n")
    )


def test_an_interruption_stops_the_jobs_and_waits_for_them(runs, monkeypatch):
    """A training writes a checkpoint after SIGTERM; the runner must not end before that."""
    body = """
    import signal
    def save(*_):
        time.sleep(0.3)
        note("saved")
        sys.exit(143)
    signal.signal(signal.SIGTERM, save)
    note("ready")
    time.sleep(60)
    """
    job = runs.job("a", body)

    def sleep(seconds, sleep=time.sleep):
        if (runs.folder / "a" / "ready").exists():
            raise Interrupted(2)
        sleep(seconds)

    monkeypatch.setattr(scheduler.time, "sleep", sleep)
    with pytest.raises(Interrupted):
        run_jobs([job, runs.job("b")], [{}])
    assert runs.read("a", "saved")
    assert runs.started == ["a"]


class Bar:
    def __init__(self, initial, total, **_):
        self.n, self.total = initial, total
        self.descriptions = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def set_description(self, text, refresh):
        self.descriptions.append(text)

    def update(self, number):
        self.n += number


def test_shows_what_is_done_and_left(runs, monkeypatch):
    """A failed run does not count as work that is left."""
    bars = []

    def progress(**kwargs):
        bars.append(Bar(**kwargs))
        return bars[0]

    monkeypatch.setattr(scheduler, "progress", progress)
    monkeypatch.setattr(scheduler, "_LOOK", 0.0)
    jobs = [runs.job("a"), runs.job("b", "sys.exit(1)"), runs.job("c", finished=lambda: True)]
    run_jobs(jobs, [{}])
    (bar,) = bars
    assert "1 done, 1 running (a), 0 failed, of 3" in bar.descriptions
    assert bar.descriptions[-1] == "2 done, 0 running, 1 failed, of 3"
    assert bar.n == bar.total == 30
