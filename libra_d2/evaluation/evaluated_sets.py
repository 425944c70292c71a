"""Find the predictions of a run's last evaluation, and the annotations of its test sets."""

import os
from dataclasses import dataclass
from typing import List

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..data import setup_datasets
from ..errors import UserError
from ..predictions.saved_predictions import RESULTS
from .coco_metrics import evaluation_limit


@dataclass(frozen=True)
class EvaluatedSet:
    """A test set of a run, and what the run has found in it."""

    dataset: str  # registered name
    predictions: str  # file of COCO results
    annotations: str  # file in COCO's format
    images: str  # folder, or "" if it is not available
    max_detections: int  # of an image and class that count; -1: all


def evaluated_sets(cfg: CfgNode, folder: str) -> List[EvaluatedSet]:
    """
    Register the test sets of a run, and find its predictions of each of them.

    Args:
        cfg: config of the run; modified by :func:`setup_datasets`.
        folder: folder of the run.

    Raises:
        UserError: the run has no test sets, or their data or predictions do not exist.
    """
    setup_datasets(cfg, num_classes_given=True, train=False)
    if not cfg.DATASETS.TEST:
        config = os.path.join(folder, "config.yaml")
        raise UserError(f"DATASETS.TEST must name at least one test set, got () in {config}")
    return [_evaluated_set(cfg, folder, dataset) for dataset in cfg.DATASETS.TEST]


def _evaluated_set(cfg: CfgNode, folder: str, dataset: str) -> EvaluatedSet:
    predictions = os.path.join(folder, "inference", dataset, RESULTS)
    if not os.path.isfile(predictions):
        raise UserError(
            f"{predictions} does not exist. Evaluate the run first (train_net.py --eval-only), "
            "or give a file with --predictions"
        )
    metadata = MetadataCatalog.get(dataset)
    if not metadata.get("json_file"):
        raise UserError(f"test set {dataset} must have a COCO annotation file, but has none")
    images = metadata.get("image_root", "")
    return EvaluatedSet(
        dataset=dataset,
        predictions=predictions,
        annotations=metadata.json_file,
        images=images if os.path.isdir(images) else "",
        max_detections=evaluation_limit(cfg.TEST.DETECTIONS_PER_IMAGE),
    )
