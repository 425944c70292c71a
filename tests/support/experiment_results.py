"""Made-up results of experiments, and the files that their runs would leave."""

import json
import math
import random
from statistics import mean, stdev

from libra_d2.experiments.results import (
    METRICS,
    Comparison,
    Cost,
    Effect,
    ExperimentResult,
    Imbalance,
    RunResult,
    Spread,
    VariantResult,
)

VARIANTS = ("baseline", "sampling", "bfp", "balanced_l1", "all")
CLASSES = ("RBC", "WBC", "platelet")
_BASE = dict(zip(METRICS, (38.0, 61.0, 41.0, 21.0, 42.0, 51.0)))


def made_up_result(
    variants=VARIANTS,
    num_seeds=5,
    classes=CLASSES,
    *,
    folds=0,
    failed=(),
    costs=True,
    imbalances=True,
    undefined=(),
):
    """
    The first variant is the baseline, and each following one is about half a point better.

    Args:
        failed: (variant, seed) of runs that failed.
        undefined: metrics and classes without a value.
    """
    seeds = list(range(1, num_seeds + 1))
    runs = [
        run_of(i, variant, seed, fold, classes, undefined, (variant, seed) in failed)
        for i, variant in enumerate(variants)
        for seed in seeds
        for fold in (range(1, folds + 1) if folds else [0])
    ]
    results = [variant_of(v, runs, classes, costs * (i + 1)) for i, v in enumerate(variants)]
    return ExperimentResult(
        name="Blood cells",
        baseline=variants[0],
        command="libra-d2 experiment experiment.yaml --output output/exp",
        train="coco:train.json,images",
        test="coco:val.json,images",
        seeds=seeds,
        folds=folds,
        method="Intervals are 95 % t-intervals of the paired differences.",
        variants=results,
        runs=runs,
        comparisons=[comparison_of(v, runs, variants[0], classes) for v in variants[1:]],
        imbalances=IMBALANCES if imbalances else [],
        libra_version="0.2.0",
    )


IMBALANCES = [
    Imbalance(
        "hard negatives",
        "7 % of the sampled negatives overlap an object by 0.1 or more.",
        "high",
        "sampling",
        "IoU-balanced sampling should raise AP75 more than AP50.",
        "The interval of the difference contains zero: the experiment cannot tell.",
    ),
    Imbalance(
        "levels of the pyramid",
        "The strongest level has 3.4 times the energy of the weakest.",
        "medium",
        "bfp",
        "The balanced pyramid should raise APs.",
        "APs is 0.9 points higher.",
    ),
    Imbalance("classes", "The rarest class has 3 % of the objects.", "low", "", "Nothing.", ""),
]


def run_of(i, variant, seed, fold, classes, undefined, failed):
    rng = random.Random(f"{i} {seed} {fold}")
    seed_effect = random.Random(f"{seed} {fold}").gauss(0, 0.5)

    def value(name, base):
        if name in undefined:
            return None
        return round(base + 0.5 * i + seed_effect + rng.gauss(0, 0.3), 6)

    folder = f"runs/{variant}/seed{seed}" + (f"-fold{fold}" if fold else "")
    if failed:
        error = "FloatingPointError: the loss became NaN in iteration 310"
        return RunResult(variant, seed, fold, folder, error, {}, {}, None)
    metrics = {m: value(m, _BASE[m]) for m in METRICS}
    of_classes = {c: value(c, 30 + 5 * (j % 7)) for j, c in enumerate(classes)}
    return RunResult(variant, seed, fold, folder, "", metrics, of_classes, 612.5 + i)


def variant_of(name, runs, classes, cost_factor):
    own = [run for run in runs if run.variant == name and not run.error]
    cost = Cost(41_300_000, 180.2 + cost_factor, 0.41, 0.061, 3120.0) if cost_factor else None
    return VariantResult(
        name,
        ["MODEL.BFP.REFINE_TYPE", "none"],
        {m: spread([run.metrics[m] for run in own]) for m in METRICS},
        {c: spread([run.classes[c] for run in own]) for c in classes},
        cost,
    )


def spread(values):
    known = [v for v in values if v is not None]
    return Spread(mean(known) if known else None, stdev(known) if len(known) > 1 else None, values)


def comparison_of(name, runs, baseline, classes):
    of_baseline = {(r.seed, r.fold): r for r in runs if r.variant == baseline and not r.error}
    pairs = [
        (run, of_baseline[run.seed, run.fold])
        for run in runs
        if run.variant == name and not run.error and (run.seed, run.fold) in of_baseline
    ]
    metrics = [effect(m, [(a.metrics[m], b.metrics[m]) for a, b in pairs]) for m in METRICS]
    of_classes = [effect(c, [(a.classes[c], b.classes[c]) for a, b in pairs]) for c in classes]
    ap = metrics[0].difference
    known = "was not measured" if ap is None else f"is {ap:+.2f} points from that of {baseline}"
    return Comparison(name, metrics, of_classes, len(pairs), f"The AP of {name} {known}.")


def effect(name, pairs):
    known = [a - b for a, b in pairs if a is not None and b is not None]
    if not known:
        return Effect(name, None, None, None, None, None, None, None)
    difference = mean(known)
    if len(known) == 1:
        return Effect(name, difference, None, None, None, None, None, None)
    half = 2.8 * stdev(known) / math.sqrt(len(known))
    better = sum(d > 0 for d in known) / len(known)
    p = 0.0004 if abs(difference) > half else 0.2
    return Effect(
        name, difference, difference - half, difference + half, better, p, min(1.0, 4 * p), 7
    )


def write_runs(folder, result, num_points=30):
    """Write the `metrics.json` of each finished run, and the report of the first."""
    finished = [run for run in result.runs if not run.error]
    for run in finished:
        path = folder / run.folder
        path.mkdir(parents=True)
        rng = random.Random(run.folder)
        lines = []
        for i in range(num_points):
            record = {
                "iteration": 20 * i + 19,
                "total_loss": 2 / (1 + 0.2 * i) + 0.1 * rng.random(),
            }
            if i % 5 == 4:
                share = (i + 1) / num_points
                record["bbox/AP"] = (run.metrics["AP"] or 0) * share**0.4
                record["validation/total_loss"] = 1.2 / (1 + 0.1 * i)
            lines.append(json.dumps(record))
        (path / "metrics.json").write_text("\n".join(lines) + "\n")
    if finished:
        analysis = folder / finished[0].folder / "analysis"
        analysis.mkdir()
        (analysis / "report.html").write_text("<!DOCTYPE html><title>report</title>")
