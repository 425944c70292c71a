"""Evaluation of a trained detector by the folder of its run."""

import hashlib
import logging
import os
import re
from typing import Dict, Sequence

from detectron2.config import CfgNode

from ..data import setup_datasets
from ..engine import LibraTrainer
from ..engine.evaluating import inference_dir
from ..errors import UserError
from ..inference.trained_detector import trained_config
from ..predictions.saved_predictions import relevant_config

logger = logging.getLogger(__name__)

_LONGEST_NAME = 80


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
    Results go to its folder unless `opts` name an `OUTPUT_DIR`. With other weights or settings than
    the run's they go to a folder in it, `evaluations/NAME`, named by what is different.

    Args:
        model, config_file, opts, device, trust: see :func:`trained_config`.
        backend: `TEST.EVAL_BACKEND`, by default that of the config.
        reuse: take saved predictions if their record fits, without running the network.

    Returns:
        Data set -> the folder of its predictions.
    """
    cfg = trained_config(
        model, config_file=config_file, opts=opts, device=device, trust=trust, purpose="evaluate"
    )
    if "OUTPUT_DIR" not in opts[0::2] and os.path.exists(model):
        run = model if os.path.isdir(model) else os.path.dirname(model) or "."
        changed = _changes(cfg, run, trust)
        cfg.OUTPUT_DIR = os.path.join(run, "evaluations", changed) if changed else run
        if changed:
            logger.info(
                f"Predictions go to {cfg.OUTPUT_DIR}: they are not those of the run, whose own "
                "stay as they are"
            )
    cfg.TEST.EVAL_BACKEND = backend or cfg.TEST.EVAL_BACKEND
    setup_datasets(cfg, num_classes_given=True, train=False)
    cfg.freeze()
    LibraTrainer.evaluate(cfg, reuse=reuse)
    return {name: inference_dir(cfg, name) for name in cfg.DATASETS.TEST}


def _changes(cfg: CfgNode, run: str, trust: bool) -> str:
    """
    What predictions depend on that is different from the run's own: a name for a folder; "" if
    nothing is. Predictions with test-time augmentation have `TEST.AUG` as well.
    """
    try:
        own = trained_config(run, trust=trust)
    except UserError:  # weights without a run: there are no predictions to replace
        return ""
    with_tta = own.TEST.AUG.ENABLED and cfg.TEST.AUG.ENABLED
    old, new = (relevant_config(c, with_tta=with_tta) for c in (own, cfg))
    parts = [f"{k}={new.get(k)}" for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    if not _same_file(cfg.MODEL.WEIGHTS, own.MODEL.WEIGHTS):
        parts.insert(0, os.path.splitext(os.path.basename(cfg.MODEL.WEIGHTS))[0])
    text = ",".join(parts)
    name = re.sub(r"[^\w.=,-]+", "_", text).strip("_.")
    if name != text or len(name) > _LONGEST_NAME:
        digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
        name = f"{name[:_LONGEST_NAME]}-{digest}" if text else ""
    return name


def _same_file(a: str, b: str) -> bool:
    return os.path.realpath(a) == os.path.realpath(b)
