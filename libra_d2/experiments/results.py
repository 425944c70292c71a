"""
The results of an experiment. They are written to `experiment.json` and shown on its page.

AP and differences of AP are in points, 0 to 100. A value is None where it is not defined, such as
APs without small objects.
"""

from dataclasses import dataclass, field
from typing import Dict, List, Optional

FORMAT = 1  # of experiment.json
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@dataclass(frozen=True)
class RunResult:
    """One run: a variant, trained with a seed on a fold."""

    variant: str
    seed: int
    fold: int  # counted from 1; 0 without folds
    folder: str  # relative to the folder of the experiment
    error: str  # "" if the run is finished, otherwise one line that says why it has no result
    metrics: Dict[str, Optional[float]]  # of METRICS
    classes: Dict[str, Optional[float]]  # name -> AP
    seconds: Optional[float]  # of training and evaluation together


@dataclass(frozen=True)
class Spread:
    """The values of one metric over the runs of a variant."""

    mean: Optional[float]
    std: Optional[float]  # with n - 1; None for a single run
    values: List[Optional[float]]  # in the order of the runs


@dataclass(frozen=True)
class Cost:
    """What a variant costs, measured in alternation with the others."""

    parameters: int
    gflops: Optional[float]  # of one image of the test size; None if it cannot be counted
    step_seconds: Optional[float]  # median of a training step
    inference_seconds: Optional[float]  # median of one image
    peak_memory_mb: Optional[float]  # of a training step


@dataclass(frozen=True)
class VariantResult:
    name: str
    overrides: List[str]  # KEY VALUE ..., in addition to the base config
    metrics: Dict[str, Spread]  # of METRICS
    classes: Dict[str, Spread]
    cost: Optional[Cost] = None


@dataclass(frozen=True)
class Effect:
    """The difference of a metric between a variant and the baseline, over paired runs."""

    metric: str  # of METRICS, or the name of a class
    difference: Optional[float]  # variant - baseline, mean over the pairs
    low: Optional[float]  # 95 % confidence interval
    high: Optional[float]
    superiority: Optional[float]  # estimated probability that the variant is better, 0 to 1
    p_value: Optional[float]  # two-sided
    p_adjusted: Optional[float]  # for the number of variants (Holm)
    seeds_needed: Optional[int]  # to see a difference of 1 point with 80 % power


@dataclass(frozen=True)
class Comparison:
    """A variant against the baseline."""

    variant: str
    metrics: List[Effect]  # in the order of METRICS
    classes: List[Effect]
    num_pairs: int
    statement: str  # in words; it never says more than the interval


@dataclass(frozen=True)
class Imbalance:
    """One imbalance of the data or of the baseline's training, and the component against it."""

    name: str  # such as "hard negatives"
    measured: str  # what was measured, in words
    level: str  # "low", "medium" or "high"
    component: str  # "sampling", "bfp", "loss", or "" if Libra R-CNN has none against it
    expectation: str  # what the component should therefore change, in words
    outcome: str  # what the experiment showed, in words; "" if it has no such variant


@dataclass(frozen=True)
class ExperimentResult:
    name: str
    baseline: str  # name of a variant
    command: str
    train: str  # description of the data
    test: str
    seeds: List[int]
    folds: int  # 0 without folds
    method: str  # of the intervals, in a sentence
    variants: List[VariantResult]
    runs: List[RunResult]
    comparisons: List[Comparison]
    imbalances: List[Imbalance] = field(default_factory=list)
    format: int = FORMAT
    libra_version: str = ""
