"""Running, failing and going on, with small programs in place of trainings."""

import json
import re
import subprocess
import sys

import pytest
import yaml

from libra_d2.cli.main import main
from libra_d2.engine import run_lock
from libra_d2.experiments import runner, scheduler
from libra_d2.experiments.design import Design, Variant
from libra_d2.experiments.results import ExperimentResult
from libra_d2.experiments.state import is_finished

from ..support.project import ROOT
from ..support.train_net_runs import SMALL

BASE = str(ROOT / "configs/libra_mobilenet_v2.yaml")
TINY = [
    *SMALL,
    *"MODEL.WEIGHTS '' MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16".split(),
    *"MODEL.DEVICE cpu SOLVER.MAX_ITER 3 SOLVER.WARMUP_ITERS 1 SOLVER.CHECKPOINT_PERIOD 1".split(),
]
# Leaves the files of a finished run, unless a file beside its folder says otherwise.
TRAIN = """
import os, sys
folder = sys.argv[1]
os.makedirs(folder, exist_ok=True)
with open(folder + ".starts", "a") as file:
    file.write("x")
if os.path.exists(folder + ".fail"):
    sys.exit("error: the disk is full")
with open(os.path.join(folder, "metrics.json"), "w") as file:
    file.write('{"iteration": 2, "bbox/AP": 31.5}')
for name, text in (("model_final.pth", ""), ("last_checkpoint", "model_final.pth")):
    with open(os.path.join(folder, name), "w") as file:
        file.write(text)
"""


class Experiment:
    def __init__(self, folder, data):
        self.folder, self.data = folder / "exp", data
        self.plan = folder / "plan.yaml"
        self.variants(baseline={"MODEL.BFP.ENABLED": False}, all=None)

    def variants(self, **variants):
        self.plan.write_text(yaml.safe_dump({"variants": variants}, sort_keys=False))

    def options(self, *opts, seeds="2"):
        return [
            *("experiment", "--base", BASE, "--variants", str(self.plan), "--seeds", seeds),
            *("--train", self.data["train"], "--test", self.data["val"]),
            *("--output", str(self.folder), *opts, *TINY),
        ]

    def run(self, *opts, **kwargs):
        return main(self.options(*opts, **kwargs))

    def starts(self, variant, seed):
        path = self.folder / "runs" / variant / f"seed{seed}.starts"
        return len(path.read_text()) if path.exists() else 0


@pytest.fixture
def experiment(tmp_path, data):
    return Experiment(tmp_path, data)


@pytest.fixture
def fake(monkeypatch):
    """Runs do nothing but leave files. Results are not read, and models not built."""

    def command(design, run, shares_weights, trust):
        return [sys.executable, "-S", "-c", TRAIN, design.path(run.folder)]

    monkeypatch.setattr(scheduler, "POLL", 0.01)
    monkeypatch.setattr(runner, "command", command)
    monkeypatch.setattr(runner, "write_results", lambda design, trust: None)
    monkeypatch.setattr(runner, "write_initial_weights", lambda design, cfg, seed: None)
    monkeypatch.setattr(runner, "measure_missing_costs", lambda design, cfgs: None)


RUNS = [("baseline", 1), ("all", 1), ("baseline", 2), ("all", 2)]


def test_runs_every_variant_with_every_seed_once(experiment, fake, capsys):
    assert experiment.run() == 0
    assert [experiment.starts(*run) for run in RUNS] == [1, 1, 1, 1]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("all, seed 2: finished in ") and lines[-1].endswith("AP 31.50")
    design = yaml.safe_load((experiment.folder / "experiment.yaml").read_text())
    assert design["seeds"] == [1, 2] and design["baseline"] == "baseline"
    assert not (experiment.folder / "run.lock").exists()


def test_a_failed_run_is_named_and_only_it_is_retried(experiment, fake, capsys):
    fails = experiment.folder / "runs/all/seed1.fail"
    assert experiment.run(seeds="1,") == 0
    (experiment.folder / "runs/all/seed1/last_checkpoint").unlink()
    fails.touch()
    assert experiment.run(seeds="1,") == 1
    err = capsys.readouterr().err
    assert "1 of 2 runs failed:\n  all, seed 1: error: the disk is full\n" in err
    fails.unlink()
    assert experiment.run(seeds="1,") == 0
    assert (experiment.starts("baseline", 1), experiment.starts("all", 1)) == (1, 3)


def test_another_design_is_refused_in_the_same_folder(experiment, fake, capsys):
    assert experiment.run(seeds="1,") == 0
    assert experiment.run(seeds="2") == 2
    err = capsys.readouterr().err
    assert "holds another experiment:\n  seeds: 1 there, 1, 2 here\nName another folder" in err
    assert experiment.starts("all", 2) == 0


def test_a_second_runner_is_refused(experiment, fake, capsys):
    assert experiment.run(seeds="1,") == 0
    other = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    try:
        lock(experiment.folder, other.pid)
        assert experiment.run(seeds="1,") == 2
        assert f"its experiment is run by process {other.pid} on " in capsys.readouterr().err
    finally:
        other.communicate(b"\n")
    assert experiment.run(seeds="1,") == 0  # a lock that was left behind


def lock(folder, pid):
    folder.mkdir(parents=True, exist_ok=True)
    owner = {**run_lock._this_process(), "pid": pid, "start": run_lock._start(pid)}
    (folder / "run.lock").write_text(json.dumps(owner))


def test_waits_for_runs_that_a_killed_runner_has_left(experiment, fake, capsys, monkeypatch):
    monkeypatch.setattr(runner, "_POLL", 0.01)
    folder = experiment.folder / "runs/all/seed1"
    orphan = subprocess.Popen(
        [sys.executable, "-S", "-c", f"input(); {TRAIN}", str(folder)], stdin=subprocess.PIPE
    )
    wait = runner._wait_for_orphans

    def end_the_orphan_while_waiting(design, runs):
        lock(folder, orphan.pid)
        holders = iter([True, True, True])
        real = run_lock.holder

        def holder(path):
            if next(holders, None) is None:
                orphan.communicate(b"\n")
            return real(path)

        monkeypatch.setattr(run_lock, "holder", holder)
        wait(design, runs)

    monkeypatch.setattr(runner, "_wait_for_orphans", end_the_orphan_while_waiting)
    assert experiment.run(seeds="1,") == 0
    assert f"all, seed 1: waiting for process {orphan.pid} on" in capsys.readouterr().out
    assert experiment.starts("all", 1) == 1  # the orphan finished it


@pytest.mark.parametrize(
    ("variants", "opts", "message"),
    [
        ({}, (), "at least one variant"),
        ({"baseline": None, "x/y": None}, (), "the name of a folder"),
        ({"baseline": None, "b": ["MODEL.BFP.ENABLD", "1"]}, (), "variant b: .*did you mean"),
        ({"baseline": None, "b": ["SEED", "1"]}, (), "variant b: SEED is set by --seeds"),
        (
            {"baseline": None, "b": {"MODEL.ROI_HEADS.NUM_CLASSES": 2}},
            (),
            r"variant b: MODEL.ROI_HEADS.NUM_CLASSES must be \d+, got 2",
        ),
        (
            {"baseline": None, "b": {"MODEL.BFP.REFINE_LEVEL": "p9"}},
            (),
            "variant b: MODEL.BFP.REFINE_LEVEL must be one of",
        ),
        ({"a": None}, ("--baseline", "b"), r"--baseline must be the name of a variant \(a\)"),
        ({"a": None}, ("--seeds", "1,1"), "--seeds must differ"),
        ({"a": None}, ("--seeds", "1,-1"), "got -1"),
        ({"a": None}, ("--train", "coco:no.json,no"), "no.json"),
        ({"a": None}, ("--test", "coco:no.json,no"), "no.json"),
        ({"a": None}, ("--base", "no.yaml"), "no.yaml"),
        ({"a": None}, ("--parallel", "0"), "--parallel must be at least 1"),
        ({"a": None}, ("--parallel", "100000"), "--parallel must be at most the number of cores"),
        ({"a": None}, ("--folds", "2"), "--folds and --test cannot be combined"),
    ],
)
def test_a_bad_plan_is_refused_before_anything_is_written(
    experiment, fake, capsys, variants, opts, message
):
    experiment.variants(**variants)
    assert experiment.run(*opts) == 2
    out, err = capsys.readouterr()
    assert "libra-d2 experiment: " in err and "Traceback" not in err
    assert re.search(message, err), err
    assert "started" not in out
    left = [p.name for p in experiment.folder.iterdir()] if experiment.folder.exists() else []
    assert left == []


def test_a_folder_of_something_else_is_refused(experiment, fake, capsys):
    (experiment.folder / "runs").mkdir(parents=True)
    assert experiment.run() == 2
    assert "has runs, but no experiment.yaml" in capsys.readouterr().err


def test_folds_are_trained_and_tested_on(experiment, fake, monkeypatch):
    seen = []
    monkeypatch.setattr(
        runner,
        "command",
        lambda design, run, **_: (
            seen.append((run.fold, runner.data_of(design, run.fold)))
            or [sys.executable, "-S", "-c", TRAIN, design.path(run.folder)]
        ),
    )
    options = experiment.options(seeds="1,")
    i = options.index("--test")
    options[i : i + 2] = ["--folds", "2"]
    assert main(options) == 0
    assert [fold for fold, _ in seen] == [1, 1, 2, 2]
    train, test = seen[2][1]
    assert f"{experiment.folder}/folds/fold2/train.json" in train
    assert f"{experiment.folder}/folds/fold2/test.json" in test
    assert is_finished(str(experiment.folder / "runs/all/seed1-fold2"))


def test_a_dry_run_lists_the_runs_and_their_time(experiment, fake, capsys, monkeypatch):
    monkeypatch.setattr(runner, "seconds_of_run", lambda cfg: 60.0 if cfg.MODEL.BFP.ENABLED else 30)
    assert experiment.run("--dry-run", "--parallel", "2") == 0
    out = capsys.readouterr().out
    assert "runs/all/seed2" in out and "finished" not in out
    assert "A run takes about: baseline 30 s, all 60 s\n" in out
    assert "4 of 4 runs are to do, 2 at the same time: about 2 min in all" in out
    assert not experiment.folder.exists()


def test_report_only_writes_results_of_an_experiment(experiment, fake, capsys, monkeypatch):
    assert main(["experiment", "--report-only", "--output", str(experiment.folder)]) == 2
    assert "is not the folder of an experiment" in capsys.readouterr().err
    assert experiment.run(seeds="1,") == 0
    written = []
    monkeypatch.setattr(runner, "write_results", lambda *a, **k: written.append((*a, k)))
    options = ["--report-only", "--output", str(experiment.folder)]
    assert main(["experiment", *options]) == main(["experiment", *options, "--trust"]) == 0
    assert [(d.seeds, k) for d, k in written] == [((1,), {"trust": t}) for t in (False, True)]
    assert experiment.run("--report-only", seeds="2") == 2  # another design


def test_results_are_written_with_the_command(tmp_path, monkeypatch, capsys):
    empty = {"variants": [], "runs": [], "comparisons": []}
    result = ExperimentResult("exp", "a", "", "b", "c", [1], 0, "method", **empty)
    monkeypatch.setattr(runner, "read_experiment", lambda design, trust: result)
    monkeypatch.setattr(
        runner,
        "write_experiment",
        lambda folder, result: (tmp_path / "experiment.json").write_text(result.command),
    )
    monkeypatch.setattr(sys, "argv", ["main.py", "experiment", "--seeds", "3", "A.B", "x y"])
    variant = Variant("a", ())
    args = ("base.yaml", (variant,), "a", (1,), "b", "c", 0, "", False, str(tmp_path), ())
    runner.write_results(Design(*args))
    assert (tmp_path / "experiment.json").read_text() == "libra-d2 experiment --seeds 3 A.B 'x y'"
    assert capsys.readouterr().out == f"Results: {tmp_path}/experiment.json\n"
