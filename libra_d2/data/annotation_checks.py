"""
Checks of annotations alone. They open no image, and their time grows with the number of objects.

Shapes: I images; N objects of all of them; A anchors of one place, of all levels together.
"""

from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import BoxMode

from .coco import NO_AREA, NO_POLYGON, NOT_FINITE, OUTSIDE, UNKNOWN_IMAGE
from .findings import DatasetReport

# COCO's limits of small and medium objects: areas in pixels.
_SMALL, _MEDIUM = 32**2, 96**2
_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
# Rounding puts boxes this many pixels beyond the border; that is no problem.
_ROUNDING = 1.0
# Up to this share of the objects may be out of the anchors' reach without being a problem.
_FEW = 0.01
_CHECKS = {
    UNKNOWN_IMAGE: "unknown_images",
    NO_POLYGON: "no_polygon",
    NOT_FINITE: "not_finite",
    NO_AREA: "no_area",
    OUTSIDE: "outside",
}


@dataclass(frozen=True)
class Annotations:
    """The objects of a data set as arrays."""

    sizes: np.ndarray  # (I, 2) width and height
    boxes: np.ndarray  # (N, 4) XYXY, absolute pixels
    image: np.ndarray  # (N,) index of the image
    classes: np.ndarray  # (N,)
    crowd: np.ndarray  # (N,) bool
    ids: List[Any]  # (N,) annotation ids

    @classmethod
    def of(cls, dicts: List[Dict[str, Any]]) -> "Annotations":
        """From Detectron2's dataset dicts; a size that is not given is infinite."""
        objects = [(i, a) for i, d in enumerate(dicts) for a in d.get("annotations", ())]
        boxes = np.array([a["bbox"] for _, a in objects], dtype=np.float64).reshape(-1, 4)
        modes = np.array([int(a["bbox_mode"]) for _, a in objects], dtype=np.int64)
        xywh = modes == int(BoxMode.XYWH_ABS)
        boxes[xywh, 2:] += boxes[xywh, :2]
        sizes = [(d.get("width", np.inf), d.get("height", np.inf)) for d in dicts]
        return cls(
            sizes=np.array(sizes, dtype=np.float64).reshape(-1, 2),
            boxes=boxes,
            image=np.array([i for i, _ in objects], dtype=np.int64),
            classes=np.array([a["category_id"] for _, a in objects], dtype=np.int64),
            crowd=np.array([a.get("iscrowd", 0) != 0 for _, a in objects], dtype=bool),
            ids=[a.get("id", i) for i, (_, a) in enumerate(objects)],
        )

    @property
    def widths_heights(self) -> np.ndarray:
        return self.boxes[:, 2:] - self.boxes[:, :2]


def check_annotations(
    report: DatasetReport, dicts: List[Dict[str, Any]], metadata: Any, cfg: CfgNode
) -> None:
    """Add figures and findings on the objects of a data set to `report`."""
    left_out = metadata.get("left_out", {})
    num_left_out = sum(map(len, left_out.values()))
    objects = Annotations.of(dicts)
    num_objects, total = len(objects.ids), len(objects.ids) + num_left_out
    for reason, ids in left_out.items():
        report.add(_CHECKS[reason], f"{reason} are left out (annotation ids)", ids, total)
    _check_borders(report, objects, total)
    _check_duplicates(report, objects, dicts, total)
    _count(report, objects, dicts, metadata.get("thing_classes", []))
    if report.split == "train":
        _check_empty_images(report, objects, dicts, cfg)
    if num_objects:
        _measure(report, objects)
        _check_anchors(report, objects, cfg)


def _check_borders(report: DatasetReport, objects: Annotations, total: int) -> None:
    sizes = objects.sizes[objects.image]
    beyond = np.maximum(-objects.boxes[:, :2], objects.boxes[:, 2:] - sizes).max(1, initial=0)
    text = "boxes reach beyond their image by {} and are clipped (annotation ids)"
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
        "boxes repeat another one of the same class and image, and are kept (annotation ids)",
        _ids(objects, repeated),
        total,
    )
    seen, again = set(), []
    for d in dicts:
        if d["file_name"] in seen:
            again.append(d["file_name"])
        seen.add(d["file_name"])
    report.add("duplicate_files", "images are listed once more, and kept", again, len(dicts))


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
        ("only_crowd", "have crowd regions only", ~has_object & has_crowd),
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


def _check_anchors(report: DatasetReport, objects: Annotations, cfg: CfgNode) -> None:
    if cfg.MODEL.LOAD_PROPOSALS or cfg.MODEL.ANCHOR_GENERATOR.NAME != "DefaultAnchorGenerator":
        return
    low, high = _thresholds(cfg)
    shapes = objects.widths_heights[~objects.crowd]
    shapes = shapes * _scales(objects.sizes, cfg, report.split)[objects.image[~objects.crowd], None]
    ious = best_shape_ious(shapes, anchor_shapes(cfg))
    if not len(ious):
        return
    report.figures[f"best anchor IoU below {high}"] = f"{(ious < high).mean():.1%}"
    report.figures[f"best anchor IoU below {low}"] = f"{(ious < low).mean():.1%}"
    report.details["anchors"] = {
        "foreground_threshold": high,
        "background_threshold": low,
        "num_below_foreground": int((ious < high).sum()),
        "num_below_background": int((ious < low).sum()),
        "mean_best_iou": float(ious.mean()),
    }
    ids = np.array(objects.ids, dtype=object)[~objects.crowd]
    after = "after the resize (MODEL.ANCHOR_GENERATOR.SIZES; annotation ids)"
    between = (ious < high) & (ious >= low)
    report.add(
        "loose_anchors",
        f"objects have a best anchor of IoU {low} to {high}, the only one they train, {after}",
        ids[between].tolist(),
        len(ids),
        problem=False,
    )
    report.add(
        "no_anchor",
        f"objects have no anchor of IoU {low} or more {after}",
        ids[ious < low].tolist(),
        len(ids),
        problem=bool((ious < low).mean() > _FEW),
    )


def _thresholds(cfg: CfgNode) -> Tuple[float, float]:
    """IoUs below which an anchor is background, and from which it is foreground."""
    node = cfg.MODEL.RETINANET if "RetinaNet" in cfg.MODEL.META_ARCHITECTURE else cfg.MODEL.RPN
    return min(node.IOU_THRESHOLDS), max(node.IOU_THRESHOLDS)


def _scales(sizes: np.ndarray, cfg: CfgNode, split: str) -> np.ndarray:
    """(I,) factors by which the config's resize enlarges images; the middle one in training."""
    short = cfg.INPUT.MIN_SIZE_TEST if split == "test" else np.median(cfg.INPUT.MIN_SIZE_TRAIN)
    longest = cfg.INPUT.MAX_SIZE_TEST if split == "test" else cfg.INPUT.MAX_SIZE_TRAIN
    if not short:
        return np.ones(len(sizes))
    scales = np.minimum(short / sizes.min(1), longest / sizes.max(1))
    return np.where(np.isfinite(sizes).all(1), scales, 1.0)


def anchor_shapes(cfg: CfgNode) -> np.ndarray:
    """(A, 2) widths and heights of the config's anchors, of all levels."""
    node = cfg.MODEL.ANCHOR_GENERATOR
    levels = max(len(node.SIZES), len(node.ASPECT_RATIOS))
    generator = DefaultAnchorGenerator(
        sizes=node.SIZES, aspect_ratios=node.ASPECT_RATIOS, strides=[1] * levels, offset=0.0
    )
    anchors = np.concatenate([cell.numpy() for cell in generator.cell_anchors])
    return (anchors[:, 2:] - anchors[:, :2]).astype(np.float64)


def best_shape_ious(shapes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """
    The best IoU of each object with an anchor that has the same centre: an upper bound of the
    real one, whose centre is off by up to half a stride.

    Args:
        shapes: (N, 2) widths and heights.
        anchors: (A, 2) widths and heights.

    Returns:
        (N,), in [0, 1].
    """
    best = np.zeros(len(shapes))
    area = shapes.prod(1)
    for anchor in anchors:  # a few dozen; one array of N at a time
        overlap = np.minimum(shapes, anchor).prod(1)
        np.maximum(best, overlap / (area + anchor.prod() - overlap), out=best)
    return best
