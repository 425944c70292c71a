"""
Check the annotations of a data set without opening images.

Shapes: I: number of images; N: number of objects in all images.
"""

from typing import Any, Dict, List

import numpy as np
from detectron2.config import CfgNode

from ..datasets.annotation_arrays import Annotations
from ..datasets.coco import NO_AREA, NO_POLYGON, NOT_FINITE, OTHER_CLASS, OUTSIDE, UNKNOWN_IMAGE
from .anchors import check_anchors
from .config_limits import config_limits
from .findings import DatasetReport

# Areas in pixels below which COCO calls an object small or medium.
_SMALL, _MEDIUM = 32**2, 96**2
_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
# Boxes may extend this many pixels beyond the border because of rounding.
_ROUNDING = 1.0
_CHECKS = {
    UNKNOWN_IMAGE: "unknown_images",
    NO_POLYGON: "no_polygon",
    NOT_FINITE: "not_finite",
    NO_AREA: "no_area",
    OUTSIDE: "outside",
    OTHER_CLASS: "other_classes",
}


def check_annotations(
    report: DatasetReport, dicts: List[Dict[str, Any]], metadata: Any, cfg: CfgNode
) -> None:
    """Add figures and findings about the objects of a data set to `report`."""
    left_out = metadata.get("left_out", {})
    num_left_out = sum(map(len, left_out.values()))
    objects = Annotations.of(dicts)
    num_objects, total = len(objects.ids), len(objects.ids) + num_left_out
    for reason, ids in left_out.items():
        text = f"{reason} are left out (annotation ids)"
        report.add(_CHECKS[reason], text, ids, total, problem=reason != OTHER_CLASS)
    _check_borders(report, objects, total)
    _check_duplicates(report, objects, dicts, total)
    _count(report, objects, dicts, metadata.get("thing_classes", []))
    if report.split == "train":
        _check_empty_images(report, objects, dicts, cfg)
    if num_objects:
        _measure(report, objects)
        check_anchors(report, objects, cfg)
        file_names = [d["file_name"] for d in dicts]
        for finding in config_limits(objects, file_names, cfg, report.split):
            finding.dataset = report.dataset
            report.findings.append(finding)


def _check_borders(report: DatasetReport, objects: Annotations, total: int) -> None:
    sizes = objects.sizes[objects.image]
    beyond = np.maximum(-objects.boxes[:, :2], objects.boxes[:, 2:] - sizes).max(1, initial=0)
    text = "boxes extend beyond their image by {} and are clipped (annotation ids)"
    far, little = beyond > _ROUNDING, (beyond > 0.01) & (beyond <= _ROUNDING)
    report.add("clipped", text.format("more than a pixel"), _ids(objects, far), total)
    report.add(
        "rounding", text.format("a pixel or less"), _ids(objects, little), total, problem=False
    )


def _ids(objects: Annotations, mask: np.ndarray) -> List[Any]:
    return [objects.ids[i] for i in np.flatnonzero(mask)]


def _check_duplicates(
    report: DatasetReport, objects: Annotations, dicts: List[Dict[str, Any]], total: int
) -> None:
    rows = np.column_stack([objects.image, objects.classes, objects.boxes])
    _, first = np.unique(rows, axis=0, return_index=True)
    repeated = np.ones(len(rows), dtype=bool)
    repeated[first] = False
    report.add(
        "duplicate_boxes",
        "boxes are exact duplicates within their class and image, and are kept (annotation ids)",
        _ids(objects, repeated),
        total,
    )
    seen, again = set(), []
    for d in dicts:
        if d["file_name"] in seen:
            again.append(d["file_name"])
        seen.add(d["file_name"])
    report.add(
        "duplicate_files", "images are listed more than once, and are kept", again, len(dicts)
    )


def _count(
    report: DatasetReport, objects: Annotations, dicts: List[Dict[str, Any]], names: List[str]
) -> None:
    crowd = int(objects.crowd.sum())
    share = crowd / max(len(objects.ids), 1)
    report.figures["objects"] = len(objects.ids) - crowd
    report.figures["crowd regions"] = f"{crowd} ({share:.1%})"
    empty = len(dicts) - len(np.unique(objects.image[~objects.crowd]))
    report.figures["images without objects"] = empty
    counts = np.bincount(objects.classes[~objects.crowd], minlength=len(names))
    report.classes.update({name: int(n) for name, n in zip(names, counts)})
    without = [name for name, n in report.classes.items() if n == 0]
    report.add("classes_without_objects", "classes have no objects", without, len(names))


def _check_empty_images(
    report: DatasetReport, objects: Annotations, dicts: List[Dict[str, Any]], cfg: CfgNode
) -> None:
    has_object = np.zeros(len(dicts), dtype=bool)
    has_object[objects.image[~objects.crowd]] = True
    has_crowd = np.zeros(len(dicts), dtype=bool)
    has_crowd[objects.image[objects.crowd]] = True
    key = "DATALOADER.FILTER_EMPTY_ANNOTATIONS"
    becomes = "left out" if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS else "background"
    for check, what, mask in (
        ("images_without_annotations", "have no annotations", ~has_object & ~has_crowd),
        ("only_crowd", "have only crowd regions", ~has_object & has_crowd),
    ):
        files = [dicts[i]["file_name"] for i in np.flatnonzero(mask)]
        text = f"images {what}, and are {becomes} in training ({key})"
        report.add(check, text, files, len(dicts), problem=False)


def _measure(report: DatasetReport, objects: Annotations) -> None:
    area = objects.widths_heights.prod(1)[~objects.crowd]
    if not len(area):
        return
    bins = np.searchsorted((_SMALL, _MEDIUM), area, side="right")
    shares = np.bincount(bins, minlength=3) / len(area)
    report.figures["small / medium / large"] = " / ".join(f"{s:.0%}" for s in shares)
    sides = np.percentile(np.sqrt(area), _PERCENTILES)
    report.figures["sqrt(area), 5 / 50 / 95 %"] = " / ".join(f"{sides[i]:.0f}" for i in (1, 3, 5))
    report.details["sizes"] = dict(
        zip(("small", "medium", "large"), np.bincount(bins, minlength=3).tolist())
    )
    report.details["sqrt_area_percentiles"] = dict(zip(map(str, _PERCENTILES), sides.tolist()))
