"""Run several processes, some of them at the same time, and report how they end."""

import os
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Sequence

from tqdm import tqdm

from ..utils.messages import duration, printable
from ..utils.progress import progress
from .state import last_error

POLL = 0.2  # seconds between two looks at the processes
_LOOK = 10.0  # seconds between two looks at the files of the runs
_MAX_WIDTH = 60


@dataclass(frozen=True)
class Job:
    """
    A run to be done in a process of its own.

    Attributes:
        name: for messages, such as "bfp, seed 2".
        command: returns the words of the command. It is called when the process is started.
        log: file for what the process prints.
        iterations: length of the run.
        iterations_done: returns how many of them have been done.
        is_finished: returns whether the run is complete.
        result: returns a short text about a finished run, such as "AP 31.2".
    """

    name: str
    command: Callable[[], List[str]]
    log: str
    iterations: int
    iterations_done: Callable[[], int]
    is_finished: Callable[[], bool]
    result: Callable[[], str]


def run_jobs(jobs: Sequence[Job], environments: Sequence[Mapping[str, str]]) -> Dict[str, str]:
    """
    Run the jobs in their order, as many at the same time as there are environments. A job that
    fails does not stop the others. Finished jobs are left out.

    On an exception, such as :class:`~libra_d2.utils.interrupts.Interrupted`, the processes get
    SIGTERM, after which training writes a checkpoint, and are waited for.

    Args:
        environments: each is a set of environment variables for one process at a time.

    Returns:
        Name of each failed job -> one line that says why.
    """
    return _Scheduler(jobs, environments).run()


class _Running:
    def __init__(self, job: Job, environment: Mapping[str, str]):
        self.job = job
        self.environment = environment
        self.start = time.monotonic()
        os.makedirs(os.path.dirname(job.log) or ".", exist_ok=True)
        with open(job.log, "wb") as log:
            self.process = subprocess.Popen(
                job.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )


class _Scheduler:
    def __init__(self, jobs: Sequence[Job], environments: Sequence[Mapping[str, str]]):
        self.jobs = list(jobs)
        self.waiting = [job for job in jobs if not job.is_finished()]
        self.free = list(environments)
        self.running: List[_Running] = []
        self.done = Counter({job.name: job.iterations for job in jobs})
        self.num_done = len(self.jobs) - len(self.waiting)
        self.errors: Dict[str, str] = {}
        for job in self.waiting:
            self.done[job.name] = min(job.iterations_done(), job.iterations)

    def run(self) -> Dict[str, str]:
        initial, total = sum(self.done.values()), sum(job.iterations for job in self.jobs)
        # The rate since the start, since evaluations make it vary from one minute to the next.
        desc = self._counts()
        with progress(desc=desc, total=total, initial=initial, unit="step", smoothing=0) as bar:
            try:
                looked = 0.0
                while self.waiting or self.running:
                    self._start()
                    time.sleep(POLL)
                    self._collect()
                    if time.monotonic() - looked >= _LOOK:
                        self._show(bar)
                        looked = time.monotonic()
            finally:
                self._stop()
            self._show(bar)
        return self.errors

    def _start(self) -> None:
        while self.waiting and self.free:
            job = self.waiting.pop(0)
            self._say(f"{job.name}: started")
            self.running.append(_Running(job, self.free.pop(0)))

    def _collect(self) -> None:
        for run in [r for r in self.running if r.process.poll() is not None]:
            self.running.remove(run)
            self.free.append(run.environment)
            job, took = run.job, duration(time.monotonic() - run.start)
            if job.is_finished():
                self.num_done += 1
                self._say(f"{job.name}: finished in {took}, {job.result()}")
            else:
                self.errors[job.name] = _reason(run.process.returncode, job.log)
                self._say(f"{job.name}: failed after {took}: {self.errors[job.name]}")
            # Work that will not be done in this session is left out of the remaining time.
            self.done[job.name] = job.iterations

    def _show(self, bar: tqdm) -> None:
        for run in self.running:
            self.done[run.job.name] = min(run.job.iterations_done(), run.job.iterations)
        bar.set_description(self._counts(), refresh=False)
        bar.update(sum(self.done.values()) - bar.n)

    def _counts(self) -> str:
        names = ", ".join(run.job.name for run in self.running)
        names = f" ({names})" if 0 < len(names) <= _MAX_WIDTH else ""
        counts = f"{self.num_done} done, {len(self.running)} running{names}"
        return f"{counts}, {len(self.errors)} failed, of {len(self.jobs)}"

    def _say(self, text: str) -> None:
        tqdm.write(printable(text))

    def _stop(self) -> None:
        for run in self.running:
            if run.process.poll() is None:
                run.process.send_signal(signal.SIGTERM)
        for run in self.running:
            run.process.wait()


def _reason(status: int, log: str) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        reason = f"error: ended by signal {name}" + "; out of memory?" * (name == "SIGKILL")
        with open(log, "a", encoding="utf-8") as file:  # where reports look for the reason
            file.write(f"\n{reason}\n")
        return reason
    text = last_error(log)
    return text if status else f"it ended without a result: {text}"
