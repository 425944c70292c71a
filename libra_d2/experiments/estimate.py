"""How long a run will take, from a few measured steps."""

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from ..planning.measuring import measure


def seconds_of_run(cfg: CfgNode) -> float:
    """
    Measure a few training steps and inferences of a config in another process, and return the
    seconds of a whole run, with its start and evaluations.

    Args:
        cfg: after :func:`~libra_d2.data.setup_datasets`, with the schedule in iterations.

    Raises:
        UserError: the steps could not be run.
    """
    costs = measure(cfg)
    steps, period = cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD
    # Once at the end, and every `period` steps before.
    evaluations = 1 + ((steps - 1) // period if period > 0 else 0)
    images = sum(len(DatasetCatalog.get(name)) for name in cfg.DATASETS.TEST)
    return costs.run_seconds(steps, evaluations * images)
