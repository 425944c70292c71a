"""
Run an experiment, and go on with one that was interrupted.

Everything that is written is either complete or not there, and a run continues from its last
checkpoint. So the same command can be repeated until all runs are finished.
"""

import dataclasses
import os
import shlex
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from typing import Dict, Sequence

from detectron2.config import CfgNode
from tabulate import tabulate

from ..engine import run_lock
from ..errors import UserError
from ..planning.command import PlanOptions, picture_of, write_plan
from ..utils.files import remove_partial
from ..utils.messages import duration, printable
from .checks import check_settings, check_variants, shares_weights, write_initial_weights
from .commands import FOLDS, INITIAL_WEIGHTS, PLAN, RUNS, command, data_of, environments, gpus
from .design import FILE, Design, Run, differences, load_design
from .estimate import seconds_of_run
from .files import FILES, write_experiment
from .folds import make_folds
from .reading import read_experiment
from .saved_costs import measure_missing_costs
from .scheduler import Job, run_jobs
from .state import console_log, is_finished, iterations_done, last_ap
from .student_t import require_scipy

_POLL = 2  # seconds


def run_experiment(design: Design, *, parallel: int = 1, trust: bool = False) -> Dict[str, str]:
    """
    Run what is left of an experiment, and write its results.

    Args:
        parallel: number of runs at the same time.
        trust: see `--trust` of `libra-d2 train`.

    Returns:
        Name of each failed run -> one line that says why.

    Raises:
        UserError: the experiment cannot be run. Nothing has been trained then.
    """
    check_output(design)
    refuse_second_runner(design)
    with run_lock.run_lock(design.output), tempfile.TemporaryDirectory() as scratch:
        is_new = not os.path.isfile(design.path(FILE))
        design.save()
        try:
            cfgs = _prepare_and_check(design, scratch, trust)
            slots = environments(parallel, gpus(cfgs, parallel))
        except BaseException:
            if is_new:  # the user may change the design, and give the same folder again
                _remove_preparation(design)
            raise
        for folder in (design.output, design.path(INITIAL_WEIGHTS)):
            remove_partial(folder)
        runs = design.runs()
        left = [run for run in runs if not is_finished(design.path(run.folder))]
        for seed in dict.fromkeys(run.seed for run in left):
            write_initial_weights(design, cfgs[design.baseline], seed)
        _wait_for_orphans(design, left)
        shares = shares_weights(cfgs, design.baseline)
        jobs = [_job(design, run, cfgs[run.variant], shares[run.variant], trust) for run in runs]
        errors = run_jobs(jobs, slots)
        if len(errors) < len(runs):
            measure_missing_costs(design, cfgs)
        write_results(design, trust=trust)
    return errors


def dry_run(design: Design, *, parallel: int = 1, trust: bool = False) -> str:
    """
    Check an experiment, and measure a few training steps of each variant. Nothing is written to its
    folder.

    Returns:
        A table of the runs, and the time that they will take.
    """
    check_output(design)
    with tempfile.TemporaryDirectory() as scratch:
        trial = dataclasses.replace(design, output=os.path.join(scratch, "experiment"))
        if os.path.isfile(design.path(PLAN)):
            trial = dataclasses.replace(trial, base=design.path(PLAN), plan=False)
        cfgs = _prepare_and_check(trial, scratch, trust)
        environments(parallel, gpus(cfgs, parallel))
        seconds = {name: seconds_of_run(cfg) for name, cfg in cfgs.items()}
    finished = [is_finished(design.path(run.folder)) for run in design.runs()]
    rows = [
        (run.variant, run.seed, run.fold or "", run.folder, "finished" if done else "to do")
        for run, done in zip(design.runs(), finished)
    ]
    left = [seconds[run.variant] for run, done in zip(design.runs(), finished) if not done]
    each = ", ".join(f"{name} {duration(s)}" for name, s in seconds.items())
    at_once = f", {parallel} at the same time" if parallel > 1 else ""
    return (
        f"{tabulate(rows, headers=('variant', 'seed', 'fold', 'folder', 'state'))}\n\n"
        f"A run takes about: {each}\n"
        f"{len(left)} of {len(rows)} runs are to do{at_once}: about "
        f"{duration(sum(left) / parallel)} in all"
    )


def report(output: str, *, trust: bool = False) -> None:
    """
    Write the results of the runs that are finished so far.

    Args:
        trust: see `--trust` of `libra-d2 train`.

    Raises:
        UserError: the folder is not that of an experiment.
    """
    write_results(load_design(output), trust=trust)


def write_results(design: Design, *, trust: bool = False) -> None:
    """
    Read the finished runs, write the files of results, and say where they are.

    Args:
        trust: see `--trust` of `libra-d2 train`.
    """
    result = read_experiment(design, trust)
    command = shlex.join(["libra-d2", *sys.argv[1:]])
    write_experiment(design.output, dataclasses.replace(result, command=command))
    written = [path for path in map(design.path, FILES) if os.path.isfile(path)]
    print(f"Results: {', '.join(written)}", flush=True)


def check_output(design: Design) -> None:
    """
    Raises:
        UserError: the folder holds an experiment of another design, or other files whose names an
            experiment needs.
    """
    shown = printable(design.output)
    if os.path.lexists(design.output) and not os.path.isdir(design.output):
        raise UserError(f"--output must be a folder, got {shown}, which is a file")
    if not os.path.isfile(design.path(FILE)):
        for name in (FOLDS, PLAN, INITIAL_WEIGHTS, RUNS):
            if os.path.lexists(design.path(name)):
                raise UserError(
                    f"--output {shown} has {name}, but no {FILE}, so that it is not the folder of "
                    "an experiment. Name another folder"
                )
        return
    differing = differences(load_design(design.output), design)
    if differing:
        lines = "\n  ".join([f"--output {shown} holds another experiment:", *differing])
        raise UserError(f"{lines}\nName another folder, or give the options as they were")


def refuse_second_runner(design: Design) -> None:
    """
    Raises:
        UserError: another process runs the experiment.
    """
    other = run_lock.holder(design.output)
    if other:
        raise UserError(
            f"--output {printable(design.output)} is in use: its experiment is run by {other}. "
            "Wait for it, or end it first"
        )


def _prepare_and_check(design: Design, scratch: str, trust: bool) -> Dict[str, CfgNode]:
    """
    Make the folds and the plan of the design, unless they are there, and check everything. Return
    the config of each variant.
    """
    require_scipy()  # the results need it
    check_settings(design, trust=trust)
    if design.folds:
        make_folds(design.train, design.folds, design.group, design.path(FOLDS))
    if design.plan and not os.path.isfile(design.path(PLAN)):
        train, test = data_of(design, fold=1 if design.folds else 0)
        opts = [*design.overrides, "DATASETS.TRAIN", train, "DATASETS.TEST", test]
        plan = write_plan(design.base, opts, design.path(PLAN), PlanOptions(trust=trust or None))
        print(f"{plan.table()}\n", flush=True)
    return check_variants(design, scratch, trust=trust)


def _remove_preparation(design: Design) -> None:
    shutil.rmtree(design.path(FOLDS), ignore_errors=True)
    for path in (design.path(PLAN), picture_of(design.path(PLAN)), design.path(FILE)):
        with suppress(OSError):
            os.remove(path)


def _job(design: Design, run: Run, cfg: CfgNode, shares: bool, trust: bool) -> Job:
    folder = design.path(run.folder)
    return Job(
        name=run_name(run),
        command=partial(command, design, run, shares_weights=shares, trust=trust),
        log=console_log(design, run),
        iterations=cfg.SOLVER.MAX_ITER,
        iterations_done=partial(iterations_done, folder),
        is_finished=partial(is_finished, folder),
        result=lambda: f"AP {last_ap(folder):.2f}",
    )


def run_name(run: Run) -> str:
    """
    >>> run_name(Run("bfp", 2, 1, ""))
    'bfp, seed 2, fold 1'
    """
    return f"{run.variant}, seed {run.seed}" + (f", fold {run.fold}" if run.fold else "")


def _wait_for_orphans(design: Design, runs: Sequence[Run]) -> None:
    """Wait for runs that a killed runner has left behind. They go on without it."""
    for run in runs:
        folder = design.path(run.folder)
        other = run_lock.holder(folder)
        if other:
            print(f"{run_name(run)}: waiting for {other}, which still trains it", flush=True)
        while run_lock.holder(folder):
            time.sleep(_POLL)
