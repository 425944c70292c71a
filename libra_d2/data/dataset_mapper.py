"""A dataset mapper that skips unreadable images instead of ending the run."""

import copy
import logging
from types import FunctionType, SimpleNamespace
from typing import Any, Dict, Optional, Sequence

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.utils.logger import log_first_n

from ..config.augmentations import RESIZING, check_augmentations, parse_augmentations
from ..config.choices import ON_BAD_IMAGE
from ..config.loading import refuse
from ..errors import UserError
from .annotated_input import AnnotatedInput
from .augmentations import build_augmentations
from .copy_paste import CopyPaste, Donors
from .images.reader import read_image, read_label_map
from .transforms import check_proportions, with_fixed_size

logger = logging.getLogger(__name__)


def _read(file_name: str, label_format: str = "", *, format: str = "") -> np.ndarray:
    """Detectron2's mapper passes the format of an image by keyword, of a label map by position."""
    return read_label_map(file_name) if label_format else read_image(file_name, format)


# Upstream's `__call__`, but with `_read` for `utils.read_image`, which is not replaced elsewhere.
_call_of_upstream = FunctionType(
    DatasetMapper.__call__.__code__,
    {
        **DatasetMapper.__call__.__globals__,
        "utils": SimpleNamespace(**{**vars(utils), "read_image": _read}),
    },
)


class LibraDatasetMapper(DatasetMapper):
    """
    Converts an image and its annotations to the model's input.

    Like Detectron2's mapper, it applies the config's augmentations. In contrast, it reads images
    with :func:`read_image` and does not fail on an image that is broken or does not have the
    annotated size. Instead, it logs a warning and counts the image in `num_bad_images`. In
    training, the loader then draws another image. In evaluation, an empty image marked
    "unreadable": True takes its place.

    With `INPUT.AUGMENTATIONS`, a training sample also has the numbers of "dropped_boxes" and
    "pasted_boxes".
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        on_bad_image: str = "skip",
        augment_annotations: bool = False,
        **kwargs,
    ):
        """
        Args:
            on_bad_image: "skip" or "stop".
            augment_annotations: in training, apply each augmentation to an
                :class:`~libra_d2.data.annotated_input.AnnotatedInput`, which the augmentations of
                `INPUT.AUGMENTATIONS` need.
            Others: see :class:`DatasetMapper`.
        """
        super().__init__(is_train, **kwargs)
        self.augment_annotations = augment_annotations
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
                "still resizes by INPUT.MIN_SIZE_TEST. Use libra_d2.Predictor instead",
                name=__name__,
                key="message",
            )
        if is_train and cfg.INPUT.AUGMENTATIONS:
            refuse(check_augmentations(cfg))
            ret["augmentations"] = build_augmentations(cfg)
            ret["augment_annotations"] = True
            replaced = "INPUT.RANDOM_FLIP"
            entries = parse_augmentations(cfg.INPUT.AUGMENTATIONS)
            if any(entry.name in RESIZING for entry in entries):
                replaced += " and INPUT.MIN_SIZE_TRAIN"
            listed = ", ".join(cfg.INPUT.AUGMENTATIONS)
            logger.info(f"INPUT.AUGMENTATIONS, in place of {replaced}: {listed}")
        return ret

    def __call__(self, dataset_dict: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        try:
            if self.is_train and self.augment_annotations:
                return self._augmented(dataset_dict)
            return _call_of_upstream(self, dataset_dict)
        except Exception as error:
            cause = self._why_unreadable(dataset_dict)
            if cause is None:
                raise
            self._report(dataset_dict, cause, error)
            if self.is_train:
                return None
            placeholder = {k: v for k, v in dataset_dict.items() if k != "annotations"}
            placeholder.update(image=torch.zeros(3, 64, 64), unreadable=True)
            if "proposal_boxes" in placeholder:
                utils.transform_proposals(placeholder, (64, 64), T.NoOpTransform(), proposal_topk=0)
            return placeholder

    def copy_objects_from(
        self, dataset: Sequence[Dict[str, Any]], records: Sequence[Dict[str, Any]]
    ) -> None:
        """
        Let CopyPaste, if it is one of the augmentations, copy objects from these images.

        Args:
            dataset: records in Detectron2's form, such as a `DatasetFromList`, which is kept.
            records: the same ones, from which the classes are collected.
        """
        for augmentation in self.augmentations.augs:
            if isinstance(augmentation, CopyPaste):
                augmentation.donors = Donors(
                    dataset, records, self._read_donor, needs_masks=self.use_instance_mask
                )

    def _augmented(self, dataset_dict: Dict[str, Any]) -> Dict[str, Any]:
        """What Detectron2's mapper does, with annotations that each augmentation changes."""
        record = copy.deepcopy(dataset_dict)
        image = read_image(record["file_name"], self.image_format)
        utils.check_image_size(record, image)
        sem_seg = None
        if "sem_seg_file_name" in record:
            sem_seg = read_label_map(record.pop("sem_seg_file_name")).squeeze(2)
        pastes = any(isinstance(a, CopyPaste) for a in self.augmentations.augs)
        annotations = record.pop("annotations", [])
        for annotation in annotations:
            # Without a mask head, masks still say which pixels CopyPaste hides.
            if not self.use_instance_mask and not pastes:
                annotation.pop("segmentation", None)
            if not self.use_keypoint:
                annotation.pop("keypoints", None)
        inputs = AnnotatedInput(
            image,
            annotations,
            sem_seg,
            mask_format=self.instance_mask_format,
            keypoint_hflip_indices=self.keypoint_hflip_indices,
        )
        transforms = self.augmentations(inputs)
        size = inputs.image.shape[:2]
        pixels = np.ascontiguousarray(inputs.image.transpose(2, 0, 1))
        record["image"] = torch.as_tensor(pixels)
        if inputs.sem_seg is not None:
            record["sem_seg"] = torch.as_tensor(inputs.sem_seg.astype("long"))
        if self.proposal_topk is not None:
            utils.transform_proposals(record, size, transforms, proposal_topk=self.proposal_topk)
        if "annotations" in dataset_dict:
            for annotation in inputs.annotations:
                if not self.use_instance_mask:
                    annotation.pop("segmentation", None)
                if not self.use_keypoint:
                    annotation.pop("keypoints", None)
            found = utils.annotations_to_instances(
                inputs.annotations, size, mask_format=self.instance_mask_format
            )
            record["instances"] = utils.filter_empty_instances(found)
            inputs.num_dropped += len(found) - len(record["instances"])
        record["dropped_boxes"] = inputs.num_dropped
        record["pasted_boxes"] = inputs.num_pasted
        return record

    def _read_donor(self, record: Dict[str, Any]) -> Optional[np.ndarray]:
        try:
            image = read_image(record["file_name"], self.image_format)
            utils.check_image_size(record, image)
        except Exception as error:
            self._report(record, error, error)
            return None
        return image

    def _report(self, record: Dict[str, Any], cause: Exception, error: Exception) -> None:
        """Count an image that cannot be used, or raise an error if the config says so."""
        # On one line: Detectron2's message on sizes has several.
        text = f"cannot use image {record['file_name']}: {' '.join(str(cause).split())}"
        if self.on_bad_image == "stop":
            raise UserError(text) from error
        self.num_bad_images += 1
        logger.warning(f"{text} (skipped; {int(self.num_bad_images)} so far)")

    def _why_unreadable(self, dataset_dict: Dict[str, Any]) -> Optional[Exception]:
        try:
            image = read_image(dataset_dict["file_name"], self.image_format)
            utils.check_image_size(dict(dataset_dict), image)
            for augmentation in self.augmentations.augs:
                check_proportions(augmentation, *image.shape[:2])
        except Exception as cause:
            return cause
        return None
