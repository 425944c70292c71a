"""The work of `libra-d2 evaluate --model`: evaluate a trained detector, given its run's folder."""

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
    Evaluate a trained detector on the test sets of its config, like `train_net.py --eval-only`.

    The best weights of the run are evaluated. Results are written to the run's folder unless `opts`
    contain an `OUTPUT_DIR`. If weights or settings differ from those of the run, results are
    written to `evaluations/NAME` in its folder, where NAME says what differs.

    Args:
        model, config_file, opts, device, trust: see :func:`trained_config`.
        backend: `TEST.EVAL_BACKEND`, by default that of the config.
        reuse: evaluate saved predictions, without running the network, if they were made with the
            same weights and settings.

    Returns:
        For each data set, the folder of its predictions.
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
                f"Weights or settings differ from the run's own: results are written to "
                f"{cfg.OUTPUT_DIR}, and those of the run are kept"
            )
    cfg.TEST.EVAL_BACKEND = backend or cfg.TEST.EVAL_BACKEND
    setup_datasets(cfg, num_classes_given=True, train=False)
    cfg.freeze()
    LibraTrainer.evaluate(cfg, reuse=reuse)
    return {name: inference_dir(cfg, name) for name in cfg.DATASETS.TEST}


def _changes(cfg: CfgNode, run: str, trust: bool) -> str:
    """
    Return a folder name that says which settings that affect predictions differ from the run's own;
    "" if none differ. `TEST.AUG` counts only if both use test-time augmentation.
    """
    try:
        own = trained_config(run, trust=trust)
    except UserError:  # weights without a run, so there are no predictions to replace
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
