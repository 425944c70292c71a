"""Batch size, learning rate, length of the training, and how often it is evaluated and saved."""

from typing import NamedTuple, Optional

from detectron2.config import CfgNode

from .settings import Advice, Note, Setting
from .training_set import TrainingSet

MIN_EPOCHS = 12  # the schedule "1x" of COCO
MAX_EPOCHS = 300  # beyond it, small sets are seen too often to learn more
_EVALUATIONS = 10
_EVALUATION_SHARE = 0.15  # of the time
_WARMUP_SHARE = 0.25
_MEMORY_SHARE = 0.9
_FASTER = 1.15  # mixed precision has to be faster than this to be used


class Costs(NamedTuple):
    """What training with a config costs on a machine, as measured by a few steps."""

    step_seconds: float  # median of a training step
    image_seconds: float  # inference of one image in evaluation
    start_seconds: float  # until the first step
    peak_bytes: int  # memory of a step with the largest images and the most objects
    available_bytes: int  # memory that was available before


def plan_batch(data: TrainingSet, cfg: CfgNode) -> Advice:
    """
    Use no more images in a step than there are, with the learning rate in proportion.

    Source: the linear scaling rule (Goyal et al., 2017).
    """
    batch = cfg.SOLVER.IMS_PER_BATCH
    if data.num_images >= batch:
        return []
    rate = cfg.SOLVER.BASE_LR * data.num_images / batch
    return [
        Setting("SOLVER.IMS_PER_BATCH", data.num_images, f"there are {data.num_images} images"),
        Setting("SOLVER.BASE_LR", float(f"{rate:.4g}"), "in proportion to the batch"),
    ]


def plan_memory(cfg: CfgNode, costs: Optional[Costs]) -> Advice:
    """Compute a step in parts if it needs more than nine tenths of the available memory."""
    if costs is None:
        return [Note("memory was not measured: SOLVER.ACCUMULATION_STEPS is not planned")]
    allowed = _MEMORY_SHARE * costs.available_bytes
    needed = f"a step needs {costs.peak_bytes / 1e9:.1f} GB of {costs.available_bytes / 1e9:.1f} GB"
    if costs.peak_bytes <= allowed:
        return [Note(f"{needed}, so the batch is kept")]
    parts = cfg.SOLVER.ACCUMULATION_STEPS
    while parts < cfg.SOLVER.IMS_PER_BATCH and costs.peak_bytes / parts > allowed:
        parts *= 2
    return [Setting("SOLVER.ACCUMULATION_STEPS", min(parts, cfg.SOLVER.IMS_PER_BATCH), needed)]


def plan_precision(full: Optional[Costs], mixed: Optional[Costs], dtype: str) -> Advice:
    """Use mixed precision if a measured step is at least 15% faster with it."""
    if full is None or mixed is None:
        return []
    ratio = full.step_seconds / mixed.step_seconds
    text = f"a step with {dtype} takes {1 / ratio:.2f} of the time with float32"
    if ratio < _FASTER:
        return [Note(f"{text}: mixed precision is not used")]
    return [
        Setting("SOLVER.AMP.ENABLED", True, text),
        Setting("SOLVER.AMP.DTYPE", dtype, text),
    ]


def plan_length(
    data: TrainingSet,
    cfg: CfgNode,
    *,
    num_test_images: int,
    costs: Optional[Costs],
    budget: Optional[float],
) -> Advice:
    """
    Train as long as the time allows, at most 300 epochs; without a limit of time, as many images
    as the base config, but at least 12 and at most 300 epochs. The steps keep their shares of the
    run, and warm-up is at most a quarter of it.

    Evaluation happens ten times, or as often as takes 15% of the time, and at the end.

    Args:
        num_test_images: of the data sets in `DATASETS.TEST`.
        costs: needed if there is a budget.
        budget: seconds for the whole run, start and evaluations included.

    Source: 12 epochs are the paper's schedule for COCO; the upper limit is our own choice.
    """
    solver = cfg.SOLVER
    per_epoch = data.num_images / solver.IMS_PER_BATCH
    evaluations, eval_seconds = _EVALUATIONS, 0.0
    if costs is not None:
        eval_seconds = num_test_images * costs.image_seconds
    if budget is not None and costs is not None:
        if eval_seconds:
            evaluations = int(_EVALUATION_SHARE * budget / eval_seconds)
            evaluations = min(max(evaluations, 1), _EVALUATIONS)
        left = budget - costs.start_seconds - evaluations * eval_seconds
        steps = max(int(left / costs.step_seconds), 1)
        why = f"{steps * solver.IMS_PER_BATCH / data.num_images:.1f} epochs in {_duration(budget)}"
        if steps > MAX_EPOCHS * per_epoch:
            steps = int(MAX_EPOCHS * per_epoch)
            why = f"{MAX_EPOCHS} epochs, which need less than {_duration(budget)}"
    else:
        epochs = min(max(solver.MAX_ITER / per_epoch, MIN_EPOCHS), MAX_EPOCHS)
        steps = max(round(epochs * per_epoch), 1)
        why = f"{epochs:.0f} epochs of {data.num_images} images"
        if costs is not None:
            seconds = costs.start_seconds + steps * costs.step_seconds + evaluations * eval_seconds
            why += f"; about {_duration(seconds)} on this machine"
    advice: Advice = [Setting("SOLVER.MAX_ITER", steps, why)]
    shares = [step / solver.MAX_ITER for step in solver.STEPS if step < solver.MAX_ITER]
    if shares:
        named = ", ".join(f"{share:.0%}" for share in shares)
        at = tuple(dict.fromkeys(max(round(share * steps), 1) for share in shares))
        at = tuple(step for step in at if step < steps)
        advice.append(Setting("SOLVER.STEPS", at, f"at {named} of the run, as in the base"))
    warmup = min(solver.WARMUP_ITERS, int(_WARMUP_SHARE * steps))
    advice.append(Setting("SOLVER.WARMUP_ITERS", warmup, "at most a quarter of the run"))
    if num_test_images:
        period = max(-(-steps // evaluations), 1)
        seconds_each = f", {_duration(eval_seconds)} each" if eval_seconds else ""
        advice.append(Setting("TEST.EVAL_PERIOD", period, f"{evaluations} times{seconds_each}"))
        advice.append(Setting("SOLVER.CHECKPOINT_PERIOD", period, "with each evaluation"))
    else:
        advice.append(
            Setting("SOLVER.CHECKPOINT_PERIOD", max(steps // _EVALUATIONS, 1), "ten times")
        )
        advice.append(
            Note("DATASETS.TEST is empty: `libra-d2 split` makes a test set out of the data")
        )
    if steps < 50:
        advice.append(Note(f"{steps} steps are too few to learn much: give more time"))
    return advice


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
