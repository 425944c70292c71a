"""COCO metrics, by Detectron2's evaluator."""

import contextlib
import io
import logging
import math
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.utils import comm

logger = logging.getLogger(__name__)


class LibraCOCOEvaluator(COCOEvaluator):
    """
    As upstream; unreadable images have no predictions, and annotations without area or outside
    of their image, which no detection can match, are no ground truth.
    """

    def __init__(self, dataset_name: str, *args, **kwargs):
        super().__init__(dataset_name, *args, **kwargs)
        dataset = self._coco_api.dataset
        if "annotations" not in dataset:
            return  # predictions for an evaluation server
        invalid = set(MetadataCatalog.get(dataset_name).get("invalid_annotation_ids", ()))
        annotations = [a for a in dataset["annotations"] if a["id"] not in invalid]
        for i, annotation in enumerate(annotations, start=1):
            # COCO's metrics need numbers for ids, and take an object of the id 0 for missed.
            annotation["id"] = i
            # They need these, too; files made by hand often lack them.
            annotation.setdefault("iscrowd", 0)
            if not _is_number(annotation.get("area")):
                annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
        dataset["annotations"] = annotations
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            self._coco_api.createIndex()

    def reset(self) -> None:
        super().reset()
        self.num_unreadable = 0

    def process(self, inputs, outputs) -> None:
        pairs = [(i, o) for i, o in zip(inputs, outputs) if not i.get("unreadable")]
        self.num_unreadable += len(inputs) - len(pairs)
        super().process([i for i, _ in pairs], [o for _, o in pairs])

    def evaluate(self, *args, **kwargs):
        num_unreadable = sum(comm.all_gather(self.num_unreadable))
        if num_unreadable:
            logger.warning(
                f"{num_unreadable} images could not be read; their objects count as missed"
            )
        return super().evaluate(*args, **kwargs)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
