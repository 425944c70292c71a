"""
Compute COCO's detection metrics for annotations and results in memory, with one of two backends.

The metrics are defined at https://cocodataset.org/#detection-eval; pycocotools is the reference.

Shapes of precision and recall: T: IoU thresholds, R: recalls, K: classes, A: object sizes,
M: limits of the number of detections.
"""

import contextlib
import importlib.util
import io
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Sequence, Tuple

import numpy as np
from detectron2.utils.logger import create_small_table
from tabulate import tabulate

from ..config.choices import EVAL_BACKENDS, IOU_TYPES
from ..data.datasets.coco import complete_annotations, usable_annotations
from ..errors import UserError
from ..utils.extras import import_extra
from ..utils.progress import announced, progress

AUTO, *BACKENDS = EVAL_BACKENDS  # "auto": the faster one if it is installed
# The backends need about a megabyte per class. Classes do not depend on each other, so very many
# are evaluated in parts.
CLASSES_AT_ONCE = 1000
SHOWN_CLASSES = 300  # rows of the table
# With this many detections, faster-coco-eval takes more than a second.
_SLOW_DETECTIONS = 20_000


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class, in [0, 1], or NaN for a class without objects."""

    name: str
    category_id: Any
    num_objects: int  # without crowd regions
    num_detections: int
    AP: float
    AP50: float
    AP75: float


@dataclass(frozen=True)
class CocoMetrics:
    """
    COCO's metrics of a data set, and those of each class.

    `numbers` holds COCO's twelve metrics in COCO's order: AP, AP50, AP75, APs, APm, APl, AR1, AR10,
    AR100, ARs, ARm, ARl. They are in [0, 1], or NaN where there is no object to find. AR100 is
    named after `max_detections`, for example AR300. (If the limit is 10, its name is AR10, and
    there are eleven metrics.)
    """

    iou_type: str
    backend: str
    max_detections: int
    num_images: int
    num_objects: int
    num_detections: int
    numbers: Dict[str, float]
    classes: List[ClassMetrics]  # in the order of the category ids

    def to_json(self) -> Dict[str, Any]:
        """Return the content of a JSON file: `numbers` at the top level, and null for NaN."""
        fields = {k: v for k, v in vars(self).items() if k not in ("numbers", "classes")}
        classes = [{k: _or_none(v) for k, v in vars(c).items()} for c in self.classes]
        numbers = {name: _or_none(value) for name, value in self.numbers.items()}
        return {**fields, **numbers, "classes": classes}

    def table(self) -> str:
        """
        Return tables for a terminal, in percent. If there are very many classes, only those with
        the most objects are shown.
        """
        percent = {name: 100 * value for name, value in self.numbers.items()}
        half = len(percent) // 2
        largest = sorted(range(len(self.classes)), key=lambda k: -self.classes[k].num_objects)
        shown = [self.classes[k] for k in sorted(largest[:SHOWN_CLASSES])]
        rows = [(c.name, c.num_objects, 100 * c.AP, 100 * c.AP50) for c in shown]
        parts = [
            create_small_table(dict(list(percent.items())[:half])),
            create_small_table(dict(list(percent.items())[half:])),
            tabulate(rows, ("class", "objects", "AP", "AP50"), tablefmt="pipe", floatfmt=".3f"),
        ]
        if len(shown) < len(self.classes):
            parts.append(
                f"The table shows the {len(shown)} of {len(self.classes)} classes with the most "
                "objects; the result files contain all of them."
            )
        return "\n\n".join(parts)


def coco_metrics(
    annotations: Dict[str, Any],
    results: Sequence[Dict[str, Any]],
    *,
    max_detections: int = 100,
    backend: str = "pycocotools",
    iou_type: str = "bbox",
    drop_unusable: bool = True,
    mask_areas: bool = False,
) -> CocoMetrics:
    """
    Compute COCO's metrics of detection results.

    Args:
        annotations: content of a COCO annotation file. Ids may be strings. Where annotations lack
            them, `iscrowd` is 0 and `area` is the area of the box. The content is not changed.
        results: COCO results with `image_id`, `category_id`, `score` and `bbox` (XYWH, absolute
            pixels) or `segmentation` (RLE), using the ids of the annotations. Without any results,
            AP is 0.
        max_detections: number of detections of an image and class that count, the best ones. AR1
            and AR10 count 1 and 10 of them.
        backend: "pycocotools"; "faster-coco-eval" (extra `fast-eval`), whose metrics are the same
            within 1e-9; or "auto" for the latter if it is installed.
        iou_type: "bbox" or "segm".
        drop_unusable: leave out boxes that have no area or lie outside their image, as training
            does. No detection can match them.
        mask_areas: decide by the `area` of the annotations whether an object is small, medium or
            large. COCO does so, and it is needed if masks are evaluated as well. By default, the
            area of the box decides.

    Raises:
        UserError: a setting is wrong, or a result belongs to an image or class that is not in the
            annotations.
    """
    backend = chosen_backend(backend)
    if iou_type not in IOU_TYPES:
        raise UserError(f"iou_type must be one of {IOU_TYPES}, got {iou_type!r}")
    if max_detections < 1:
        raise UserError(f"max_detections must be at least 1, got {max_detections}")
    box_areas = iou_type == "bbox" and not mask_areas
    truth = _with_numbers_for_ids(annotations, drop_unusable, box_areas)
    found = _with_the_same_ids(results, annotations, iou_type)
    if iou_type == "segm":
        _check_masks(truth["annotations"])
    limits = [min(1, max_detections), min(10, max_detections), max_detections]
    # Both backends change the results that they are given, so they get copies.
    evaluate = _by_pycocotools if backend == "pycocotools" else _by_faster_coco_eval
    precision, recall, thresholds = evaluate(truth, [dict(r) for r in found], iou_type, limits)
    return CocoMetrics(
        iou_type,
        backend,
        max_detections,
        len(truth["images"]),
        sum(not a["iscrowd"] for a in truth["annotations"]),
        len(found),
        _twelve(precision, recall, thresholds, max_detections),
        _by_class(annotations, truth, found, precision, thresholds),
    )


def chosen_backend(backend: str) -> str:
    """
    Return the name of the backend to use: `backend` itself, or for "auto" one that is installed.

    Raises:
        UserError: there is no such backend, or it is not installed.
    """
    if backend == AUTO:
        return BACKENDS[importlib.util.find_spec("faster_coco_eval") is not None]
    if backend not in BACKENDS:
        raise UserError(f"TEST.EVAL_BACKEND must be one of {EVAL_BACKENDS}, got {backend!r}")
    if backend == "faster-coco-eval":
        import_extra("faster_coco_eval", "fast-eval", "evaluations by faster-coco-eval")
    return backend


def evaluation_limit(detections_per_image: int) -> int:
    """
    Return the number of detections of an image and class that count in the evaluation of a run:
    COCO's 100, or `TEST.DETECTIONS_PER_IMAGE` if that is larger; -1 if all count.
    """
    return max(detections_per_image, 100) if detections_per_image >= 0 else -1


def largest_number(results: Iterable[Dict[str, Any]]) -> int:
    """Return the largest number of detections of one image and class, or 100 if that is larger."""
    counts = Counter((r["image_id"], r["category_id"]) for r in results)
    return max([100, *counts.values()])


def uncounted(results: Sequence[Dict[str, Any]], max_detections: int) -> str:
    """
    Return a sentence that says how many detections do not count because their image has more than
    `max_detections` of their class, or "" if all count.
    """
    counts = Counter((r["image_id"], r["category_id"]) for r in results)
    beyond = {key: n - max_detections for key, n in counts.items() if n > max_detections}
    if not beyond:
        return ""
    images = len({image_id for image_id, _ in beyond})
    return (
        f"{sum(beyond.values())} of {len(results)} detections, in {images} images, do not count, "
        f"because only the best {max_detections} of each class in an image do. To count all, use "
        f"--max-detections {max(counts.values())}"
    )


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _numbering(entries: Iterable[Dict[str, Any]]) -> Dict[Any, int]:
    """Number the entries from 1 by their ids. The order decides between equal scores."""
    return {id_: i for i, id_ in enumerate(sorted(e["id"] for e in entries), start=1)}


def _with_numbers_for_ids(
    content: Dict[str, Any], drop_unusable: bool, box_areas: bool
) -> Dict[str, Any]:
    images, categories = _numbering(content["images"]), _numbering(content["categories"])
    annotations = [a for a in content["annotations"] if a["image_id"] in images]
    annotations = complete_annotations(
        usable_annotations(content) if drop_unusable else annotations, box_areas=box_areas
    )
    for a in annotations:
        a["image_id"], a["category_id"] = images[a["image_id"]], categories[a["category_id"]]
    return {
        "images": [{**i, "id": images[i["id"]]} for i in content["images"]],
        "categories": [{**c, "id": categories[c["id"]]} for c in content["categories"]],
        "annotations": annotations,
    }


def _with_the_same_ids(
    results: Sequence[Dict[str, Any]], content: Dict[str, Any], iou_type: str
) -> List[Dict[str, Any]]:
    images, categories = _numbering(content["images"]), _numbering(content["categories"])
    key = {"bbox": "bbox", "segm": "segmentation"}[iou_type]
    ret = []
    for i, r in enumerate(results):
        try:
            ret.append(
                {
                    "image_id": images[r["image_id"]],
                    "category_id": categories[r["category_id"]],
                    # Only one of the two, so that the size of a mask is its own area and not
                    # that of its box.
                    key: r[key],
                    "score": r["score"],
                }
            )
        except KeyError:
            raise UserError(_why_not_result(i, r, key, images)) from None
    return ret


def _why_not_result(i: int, result: Dict[str, Any], key: str, images: Dict[Any, int]) -> str:
    missing = [k for k in ("image_id", "category_id", "score", key) if k not in result]
    if missing:
        return f"results[{i}] must have the keys {missing}"
    which = "category_id" if result["image_id"] in images else "image_id"
    return f"results[{i}]: {which} must be an id of the annotations, got {result[which]!r}"


def _check_masks(annotations: List[Dict[str, Any]]) -> None:
    without = [a for a in annotations if not a.get("segmentation")]
    if without:
        raise UserError(
            f"{len(without)} of {len(annotations)} annotations have no segmentation. To evaluate "
            "masks, each must have one"
        )


def _by_pycocotools(
    truth: Dict[str, Any], found: List[Dict[str, Any]], iou_type: str, limits: List[int]
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    class ShownEvaluation(COCOeval):
        """Shows progress: a step is the IoUs of an image and class, or one range of sizes."""

        def computeIoU(self, *args):
            bar.update()
            return super().computeIoU(*args)

        def evaluateImg(self, *args):
            bar.update()
            return super().evaluateImg(*args)

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        with announced(f"Indexing {len(found)} detections"):
            expected = COCO()
            expected.dataset = truth
            expected.createIndex()
            detected = expected.loadRes(found) if found else _nothing(COCO(), truth)
        total = len(truth["images"]) * len(truth["categories"]) * (1 + 4)  # 4 ranges of sizes
        with progress(desc="Matching detections", total=total) as bar:
            return _run(ShownEvaluation(expected, detected, iou_type), limits)


def _by_faster_coco_eval(
    truth: Dict[str, Any], found: List[Dict[str, Any]], iou_type: str, limits: List[int]
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    from faster_coco_eval import COCO, COCOeval_faster

    text = f"Evaluating {len(found)} detections on {len(truth['images'])} images"
    with announced(text, at_once=len(found) >= _SLOW_DETECTIONS):
        expected = COCO(truth)
        return _run(COCOeval_faster(expected, expected.loadRes(found), iou_type), limits)


def _nothing(coco: Any, truth: Dict[str, Any]) -> Any:
    """Return results without any detection, which `COCO.loadRes` of pycocotools rejects."""
    coco.dataset = {**truth, "annotations": []}
    coco.createIndex()
    return coco


def _run(evaluation: Any, limits: List[int]) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Returns:
        (T, R, K, A) precision at the last limit, (T, K, A, M) recall, (T,) IoU thresholds.
    """
    evaluation.params.maxDets = limits
    classes = list(evaluation.params.catIds)
    precision, recall = [], []
    for start in range(0, max(len(classes), 1), CLASSES_AT_ONCE):
        evaluation.params.catIds = classes[start : start + CLASSES_AT_ONCE]
        evaluation.evaluate()
        evaluation.accumulate()
        precision.append(evaluation.eval["precision"][..., -1].copy())
        recall.append(evaluation.eval["recall"])
    thresholds = np.asarray(evaluation.params.iouThrs)
    return np.concatenate(precision, axis=2), np.concatenate(recall, axis=1), thresholds


def _twelve(
    precision: np.ndarray, recall: np.ndarray, thresholds: np.ndarray, max_detections: int
) -> Dict[str, float]:
    """
    Return the metrics that `COCOeval.summarize` of pycocotools prints. Unlike it, which always
    takes AP at 100 detections, take AP at `max_detections`.

    Args:
        precision: (T, R, K, A) at `max_detections`, -1 where undefined; A: all, small, medium,
            large.
        recall: (T, K, A, M).
        thresholds: (T,).
    """
    at = {iou: thresholds == iou for iou in (0.5, 0.75)}
    sizes = {"s": 1, "m": 2, "l": 3}
    ret = {"AP": _mean(precision[..., 0])}
    ret.update({f"AP{100 * iou:.0f}": _mean(precision[t][..., 0]) for iou, t in at.items()})
    ret.update({f"AP{s}": _mean(precision[..., a]) for s, a in sizes.items()})
    # If a limit occurs twice, for example 10 and 10, the last one is `max_detections`.
    names = ("AR1", "AR10", f"AR{max_detections}")
    ret.update({name: _mean(recall[:, :, 0, m]) for m, name in enumerate(names)})
    ret.update({f"AR{s}": _mean(recall[:, :, a, 2]) for s, a in sizes.items()})
    return ret


def _mean(values: np.ndarray) -> float:
    values = values[values > -1]
    return float(np.mean(values)) if values.size else math.nan


def _by_class(
    content: Dict[str, Any],
    truth: Dict[str, Any],
    found: List[Dict[str, Any]],
    precision: np.ndarray,
    thresholds: np.ndarray,
) -> List[ClassMetrics]:
    count = len(truth["categories"]) + 1
    objects = [a["category_id"] for a in truth["annotations"] if not a["iscrowd"]]
    num_objects = np.bincount(np.array(objects, dtype=int), minlength=count)
    of_class = np.array([r["category_id"] for r in found], dtype=int)
    num_detections = np.bincount(of_class, minlength=count)
    ret = []
    for k, category in enumerate(sorted(content["categories"], key=lambda c: c["id"])):
        own = precision[:, :, k, 0]
        ret.append(
            ClassMetrics(
                category["name"],
                category["id"],
                int(num_objects[k + 1]),
                int(num_detections[k + 1]),
                _mean(own),
                _mean(own[thresholds == 0.5]),
                _mean(own[thresholds == 0.75]),
            )
        )
    return ret
