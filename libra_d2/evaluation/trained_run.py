"""Evaluation of a trained detector by the folder of its run."""

import os
from typing import Dict, Sequence

from ..data import setup_datasets
from ..engine import LibraTrainer
from ..engine.trainer import inference_dir
from ..inference.trained import trained_config


def evaluate_run(
    model: str,
    *,
    config_file: str = "",
    opts: Sequence[str] = (),
    device: str = "",
    backend: str = "",
    reuse: bool = False,
    trust: bool = False,
) -> Dict[str, str]:
    """
    As `train_net.py --eval-only`, on the test sets of the config, with the best weights of the run.
    Results go to its folder unless `opts` name an `OUTPUT_DIR`.

    Args:
        model, config_file, opts, device, trust: see :func:`trained_config`.
        backend: `TEST.EVAL_BACKEND`, by default that of the config.
        reuse: `TEST.REUSE_PREDICTIONS`.

    Returns:
        Data set -> the folder of its predictions.
    """
    cfg = trained_config(
        model, config_file=config_file, opts=opts, device=device, trust=trust, purpose="evaluate"
    )
    if "OUTPUT_DIR" not in opts[0::2] and os.path.exists(model):
        cfg.OUTPUT_DIR = model if os.path.isdir(model) else os.path.dirname(model) or "."
    cfg.TEST.EVAL_BACKEND = backend or cfg.TEST.EVAL_BACKEND
    cfg.TEST.REUSE_PREDICTIONS = reuse or cfg.TEST.REUSE_PREDICTIONS
    setup_datasets(cfg, num_classes_given=True, train=False)
    cfg.freeze()
    LibraTrainer.evaluate(cfg)
    return {name: inference_dir(cfg, name) for name in cfg.DATASETS.TEST}
