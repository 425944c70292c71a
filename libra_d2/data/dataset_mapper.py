"""A dataset mapper that skips unreadable images instead of ending the run."""

import logging
from types import FunctionType, SimpleNamespace
from typing import Any, Dict, Optional

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.utils.logger import log_first_n

from ..config.choices import ON_BAD_IMAGE
from ..errors import UserError
from .images.reader import read_image, read_label_map
from .transforms import RandomExpand, check_proportions, with_fixed_size

logger = logging.getLogger(__name__)


def _read(file_name: str, label_format: str = "", *, format: str = "") -> np.ndarray:
    """Detectron2's mapper passes the format of an image by keyword, of a label map by position."""
    return read_label_map(file_name) if label_format else read_image(file_name, format)


# Upstream's `__call__` itself, in which `utils.read_image` is `_read`. Nobody else's is replaced.
_call_of_upstream = FunctionType(
    DatasetMapper.__call__.__code__,
    {
        **DatasetMapper.__call__.__globals__,
        "utils": SimpleNamespace(**{**vars(utils), "read_image": _read}),
    },
)


class LibraDatasetMapper(DatasetMapper):
    """
    Converts an image and its annotations to the model's input. Like Detectron2's mapper, it applies
    the config's augmentations; in contrast, it reads images with :func:`read_image`, and survives
    an image that is broken or whose size differs from the annotated one: it logs a warning and
    counts it in `num_bad_images`. In training, the loader then draws another image. In evaluation,
    an empty image marked "unreadable": True takes its place.
    """

    @configurable
    def __init__(self, is_train: bool, *, on_bad_image: str = "skip", **kwargs):
        """
        Args:
            on_bad_image: "skip" or "stop".
            Others: see :class:`DatasetMapper`.
        """
        super().__init__(is_train, **kwargs)
        if on_bad_image not in ON_BAD_IMAGE:
            raise UserError(
                f"DATALOADER.ON_BAD_IMAGE must be one of {ON_BAD_IMAGE}, got {on_bad_image!r}"
            )
        self.on_bad_image = on_bad_image
        # Shared with the loader's workers.
        self.num_bad_images = torch.zeros(1, dtype=torch.int64).share_memory_()

    @classmethod
    def from_config(cls, cfg, is_train: bool = True) -> Dict[str, Any]:
        ret = super().from_config(cfg, is_train)
        ret["on_bad_image"] = cfg.DATALOADER.ON_BAD_IMAGE
        if any(cfg.INPUT.FIXED_SIZE):
            ret["augmentations"] = with_fixed_size(cfg, ret["augmentations"])
            log_first_n(
                logging.WARNING,
                f"INPUT.FIXED_SIZE {tuple(cfg.INPUT.FIXED_SIZE)}: Detectron2's DefaultPredictor "
                "still resizes by INPUT.MIN_SIZE_TEST; take libra_d2.Predictor",
                name=__name__,
                key="message",
            )
        for key in ("FLIP_PROB", "EXPAND_PROB"):
            if not 0 <= cfg.INPUT[key] <= 1:
                raise UserError(f"INPUT.{key} must be in [0, 1], got {cfg.INPUT[key]}")
        if is_train:
            for augmentation in ret["augmentations"]:
                if isinstance(augmentation, T.RandomFlip):
                    augmentation.prob = cfg.INPUT.FLIP_PROB
            if cfg.INPUT.EXPAND_PROB > 0:
                ret["augmentations"].insert(0, RandomExpand(cfg.INPUT.EXPAND_PROB))
        return ret

    def __call__(self, dataset_dict: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        try:
            return _call_of_upstream(self, dataset_dict)
        except Exception as error:
            cause = self._why_unreadable(dataset_dict)
            if cause is None:
                raise
            # On one line: Detectron2's message on sizes has several.
            text = f"cannot use image {dataset_dict['file_name']}: {' '.join(str(cause).split())}"
            if self.on_bad_image == "stop":
                raise UserError(text) from error
            self.num_bad_images += 1
            logger.warning(f"{text} (skipped; {int(self.num_bad_images)} so far)")
            if self.is_train:
                return None
            placeholder = {k: v for k, v in dataset_dict.items() if k != "annotations"}
            placeholder.update(image=torch.zeros(3, 64, 64), unreadable=True)
            if "proposal_boxes" in placeholder:
                utils.transform_proposals(placeholder, (64, 64), T.NoOpTransform(), proposal_topk=0)
            return placeholder

    def _why_unreadable(self, dataset_dict: Dict[str, Any]) -> Optional[Exception]:
        try:
            image = read_image(dataset_dict["file_name"], self.image_format)
            utils.check_image_size(dict(dataset_dict), image)
            for augmentation in self.augmentations.augs:
                check_proportions(augmentation, *image.shape[:2])
        except Exception as cause:
            return cause
        return None
