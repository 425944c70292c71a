"""The images of an epoch, their number, and schedules that depend on it."""

import logging
from typing import Any, Dict

from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts

from ..config.schedule import is_resolved, needs_epochs, resolve, scaled_line

logger = logging.getLogger(__name__)


def in_iterations(cfg: CfgNode) -> CfgNode:
    """
    Return a config whose schedule is in iterations: `MAX_ITER` that follows from `EPOCHS`, and
    whole numbers instead of texts such as "70%". See :mod:`..config.schedule`.

    Args:
        cfg: after :func:`~libra_d2.data.setup_datasets`. It is not changed, and returned if its
            schedule is in iterations already.

    Raises:
        UserError: `SOLVER.STEPS` do not increase.
    """
    if is_resolved(cfg):
        return cfg
    ret = cfg.clone()
    ret.defrost()
    resolve(ret, images_per_epoch(cfg) if needs_epochs(cfg) else 0)
    line = scaled_line(ret, cfg.SOLVER.EPOCHS)
    if line:
        logger.info(line)
    if cfg.is_frozen():
        ret.freeze()
    return ret


def images_per_epoch(cfg: CfgNode) -> int:
    """
    Count the images of an epoch: all training images that are left after empty ones are filtered,
    or those of `RANDOM_SUBSET_RATIO`. Repeat factors and weights, which show some images more often
    than others, do not change the number.

    Args:
        cfg: after :func:`~libra_d2.data.setup_datasets`.
    """
    upstream = logging.getLogger("detectron2.data.build")
    before, upstream.disabled = upstream.disabled, True  # the loader logs the same when it is built
    try:
        dicts = get_detection_dataset_dicts(
            list(cfg.DATASETS.TRAIN), check_consistency=False, **image_filter(cfg)
        )
    finally:
        upstream.disabled = before
    return images_seen(cfg, len(dicts))


def image_filter(cfg: CfgNode) -> Dict[str, Any]:
    """
    Return the arguments of Detectron2's `get_detection_dataset_dicts` that leave out the training
    images without objects, or without keypoints, as the config says.
    """
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
    return {
        "filter_empty": cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        "min_keypoints": keypoints,
    }


def images_seen(cfg: CfgNode, num_images: int) -> int:
    """Return the number of images of an epoch, out of those of the training set."""
    if cfg.DATALOADER.SAMPLER_TRAIN != "RandomSubsetTrainingSampler" or not num_images:
        return num_images
    return max(int(num_images * cfg.DATALOADER.RANDOM_SUBSET_RATIO), 1)
