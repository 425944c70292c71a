"""Plan the batch size, the length of the training, and how often it is evaluated and saved."""

from typing import List, NamedTuple, Optional

from detectron2.config import CfgNode

from ..utils.messages import duration
from .settings import Advice, Note, Setting
from .training_set import TrainingSet

MIN_EPOCHS = 12  # the "1x" schedule for COCO
MAX_EPOCHS = 300  # more epochs of a small data set teach nothing new
_EVALUATIONS = 10
_EVALUATION_SHARE = 0.15  # largest share of the time
_WARMUP_SHARE = 0.25  # largest share of the steps
_MEMORY_SHARE = 0.9  # largest share of the available memory
_FASTER = 1.15  # smallest speed-up for which mixed precision is used


class Costs(NamedTuple):
    """The costs of training with a config on this machine, as measured in a few steps."""

    step_seconds: float  # median time of a training step
    image_seconds: float  # time to evaluate one image
    start_seconds: float  # time until the first step
    peak_bytes: int  # memory of a step with the images that have the most objects
    available_bytes: int  # memory that was available before the steps
    images: int  # images of a step in one process
    parts: int = 1  # SOLVER.ACCUMULATION_STEPS with which the peak was measured

    def run_seconds(self, steps: int, evaluated_images: int = 0) -> float:
        """Return the time of a run of some training steps, with its start and its evaluations."""
        evaluation = evaluated_images * self.image_seconds
        return self.start_seconds + steps * self.step_seconds + evaluation


def plan_batch(data: TrainingSet, cfg: CfgNode) -> Advice:
    """
    Limit the batch to the number of training images, and scale the learning rate with it.

    Source: the linear scaling rule (Goyal et al., 2017).
    """
    batch = cfg.SOLVER.IMS_PER_BATCH
    if data.num_images >= batch:
        return []
    rate = cfg.SOLVER.BASE_LR * data.num_images / batch
    return [
        Setting(
            "SOLVER.IMS_PER_BATCH",
            data.num_images,
            f"the training set has only {data.num_images} images",
        ),
        Setting(
            "SOLVER.BASE_LR", float(f"{rate:.4g}"), "scaled with the number of images in a batch"
        ),
    ]


def plan_memory(cfg: CfgNode, costs: Optional[Costs]) -> Advice:
    """
    Split a step into parts if it needs more than nine tenths of the available memory. All parts
    have the same number of images.
    """
    if costs is None:
        return [Note("the memory was not measured, so SOLVER.ACCUMULATION_STEPS is not planned")]
    allowed = _MEMORY_SHARE * costs.available_bytes
    needed = (
        f"a step needs {costs.peak_bytes / 1e9:.1f} GB of {costs.available_bytes / 1e9:.1f} GB of "
        "available memory"
    )
    parts = next(
        (
            parts
            for parts in numbers_of_parts(costs.images, costs.parts)
            if costs.peak_bytes * costs.parts / parts <= allowed
        ),
        costs.images,
    )
    if costs.parts > 1:
        needed += f" when it is split into {costs.parts} parts"
    if parts == cfg.SOLVER.ACCUMULATION_STEPS:
        if costs.peak_bytes > allowed:
            return [Note(f"{needed}, and it cannot be split further")]
        return [Note(f"{needed}, so SOLVER.ACCUMULATION_STEPS {parts} is kept")]
    return [Setting("SOLVER.ACCUMULATION_STEPS", parts, needed)]


def numbers_of_parts(images: int, at_least: int) -> List[int]:
    """Return the numbers of parts of one size into which the images of a process can be split."""
    return [parts for parts in range(at_least, images + 1) if images % parts == 0]


def plan_precision(full: Optional[Costs], mixed: Optional[Costs], dtype: str) -> Advice:
    """Use mixed precision if a measured step is at least 15% faster with it."""
    if full is None or mixed is None:
        return []
    ratio = full.step_seconds / mixed.step_seconds
    text = f"a step with {dtype} takes {1 / ratio:.0%} of the time of a step with float32"
    if ratio < _FASTER:
        return [Note(f"{text}, so mixed precision is not used")]
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
    length_is_given: bool = False,
    steps_for: int = 0,
) -> Advice:
    """
    Plan the number of iterations, the learning-rate steps, the warm-up, and the evaluations.

    With a budget, the run is as long as the time allows, but at most 300 epochs. Without one, it
    trains on as many images as the base config, but for at least 12 and at most 300 epochs. The
    learning-rate steps keep their shares of the run, and the warm-up is at most a quarter of it.

    The run is evaluated ten times, or less often if that would take more than 15% of the time, but
    at least once.

    Args:
        num_test_images: number of images of the data sets in `DATASETS.TEST`.
        costs: measured costs, required with a budget.
        budget: seconds for the whole run, including start and evaluations.
        length_is_given: whether the user has set `SOLVER.MAX_ITER`. The other settings then follow
            from it.
        steps_for: number of iterations for which `SOLVER.STEPS` are given; 0 for those of `cfg`.

    Source: 12 epochs are the paper's schedule for COCO. The upper limit is our own choice.
    """
    solver = cfg.SOLVER
    per_epoch = data.num_images / solver.IMS_PER_BATCH
    evaluations, eval_seconds = _EVALUATIONS, 0.0
    if costs is not None:
        eval_seconds = num_test_images * costs.image_seconds
    if budget is not None and costs is not None:
        evaluations = _evaluations(budget, eval_seconds)
        left = budget - costs.start_seconds - evaluations * eval_seconds
        steps = max(int(left / costs.step_seconds), 1)
        epochs = steps * solver.IMS_PER_BATCH / data.num_images
        why = f"{epochs:.1f} epochs fit into {duration(budget)}"
        if steps > MAX_EPOCHS * per_epoch:
            steps = int(MAX_EPOCHS * per_epoch)
            why = f"{MAX_EPOCHS} epochs are enough, and take less than {duration(budget)}"
    else:
        epochs = min(max(solver.MAX_ITER / per_epoch, MIN_EPOCHS), MAX_EPOCHS)
        steps = max(round(epochs * per_epoch), 1)
        why = f"{epochs:.0f} epochs of {data.num_images} images"
        if costs is not None:
            evaluations = _evaluations_during(steps, costs, eval_seconds)
            seconds = costs.run_seconds(steps, evaluations * num_test_images)
            why += f"; about {duration(seconds)} on this machine"
    advice: Advice = [Setting("SOLVER.MAX_ITER", steps, why)]
    if length_is_given:
        steps = solver.MAX_ITER
        if costs is not None:
            evaluations = _evaluations_during(steps, costs, eval_seconds)
    length = steps_for or solver.MAX_ITER
    shares = [step / length for step in solver.STEPS if step < length]
    if shares:
        named = ", ".join(f"{share:.0%}" for share in shares)
        at = tuple(dict.fromkeys(max(round(share * steps), 1) for share in shares))
        at = tuple(step for step in at if step < steps)
        advice.append(Setting("SOLVER.STEPS", at, f"at {named} of the run, as in the base config"))
    warmup = min(solver.WARMUP_ITERS, int(_WARMUP_SHARE * steps))
    advice.append(Setting("SOLVER.WARMUP_ITERS", warmup, "at most a quarter of the run"))
    if num_test_images:
        period = max(-(-steps // evaluations), 1)
        number = "1 evaluation" if evaluations == 1 else f"{evaluations} evaluations"
        each = f" of {duration(eval_seconds)}{' each' * (evaluations > 1)}" if eval_seconds else ""
        advice.append(Setting("TEST.EVAL_PERIOD", period, number + each))
        advice.append(
            Setting("SOLVER.CHECKPOINT_PERIOD", period, "a checkpoint with each evaluation")
        )
    else:
        advice.append(
            Setting("SOLVER.CHECKPOINT_PERIOD", max(steps // _EVALUATIONS, 1), "ten checkpoints")
        )
        advice.append(
            Note(
                "DATASETS.TEST is empty, so the run is not evaluated. `libra-d2 split` divides a "
                "data set into parts for training and testing"
            )
        )
    if steps < 50 and not length_is_given:
        advice.append(
            Note(f"{steps} training steps are too few to learn much. Plan for a longer --time")
        )
    return advice


def _evaluations_during(steps: int, costs: Costs, eval_seconds: float) -> int:
    """Return how often a run of some training steps is evaluated."""
    return _evaluations(costs.run_seconds(steps) / (1 - _EVALUATION_SHARE), eval_seconds)


def _evaluations(seconds: float, eval_seconds: float) -> int:
    """Return how many evaluations take at most their share of the seconds of a run."""
    if not eval_seconds:
        return _EVALUATIONS
    return min(max(int(_EVALUATION_SHARE * seconds / eval_seconds), 1), _EVALUATIONS)
