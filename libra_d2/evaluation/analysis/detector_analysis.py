"""
Analyze where a detector is right and where it is wrong.

docs/analysis.md defines all results.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ...predictions.detection_set import DetectionSet, grouped
from ...predictions.matching import AREA_RANGES, IOU_THRESHOLDS, match_detections
from .average_precision import AveragePrecision, mean_or_nan
from .best_thresholds import best_thresholds
from .confusion import confusion
from .image_results import image_results
from .label_errors import images_to_check, label_errors
from .matched_detections import MatchedDetections
from .results import (
    Analysis,
    AnalysisSettings,
    ClassResult,
    CocoSummary,
    ConfusionMatrix,
    CrowdingResult,
    CurvePoints,
    ErrorCost,
    IouResult,
    MixUp,
    OverallResult,
    ScoreHistogram,
    SizeResult,
    SpecialCost,
    TideErrors,
    number,
    numbers,
)
from .score_curves import (
    HISTOGRAM_EDGES,
    ScoreCurve,
    calibration,
    floor6,
    precision_recall_f1,
    score_histogram,
)
from .tide import ErrorCosts, error_costs, error_types

# If there are more classes, only those with the most objects get curves, histograms and rows of the
# confusion matrix. With ten thousand classes, these would take gigabytes.
MAX_CLASSES = 300
MAX_MIX_UPS = 1000
OTHER_CLASSES = "other classes"
NO_HITS_THRESHOLD = 0.5
CROWDING = {"1": (1, 1), "2-4": (2, 4), "5-9": (5, 9), "10-19": (10, 19), "20+": (20, None)}


def analyze(
    annotations: Dict[str, Any],
    results: Sequence[Dict[str, Any]],
    *,
    score_threshold: Optional[float] = None,
    iou_threshold: float = 0.5,
    max_detections: int = 100,
    predictions_path: str = "",
    annotations_path: str = "",
    images_folder: str = "",
    name: str = "",
) -> Analysis:
    """
    Analyze the detections of a data set.

    Args:
        annotations: content of a COCO annotation file.
        results: COCO results for its images and classes.
        score_threshold: detections with a lower score do not count in counts, precision, recall,
            F1, the confusion matrix and verdicts. By default, the threshold with the best F1 over
            all classes.
        iou_threshold: overlap from which a detection finds an object, in (0.1, 1].
        max_detections: number of detections of an image and class that count, the best ones.
        predictions_path, annotations_path, name: recorded in the settings of the analysis.
        images_folder: recorded as well, and used to find the image files.

    Raises:
        UserError: a setting or a result is wrong.

    Example:

        >>> annotations = {
        ...     "images": [{"id": 1, "file_name": "1.jpg", "width": 640, "height": 480}],
        ...     "categories": [{"id": 1, "name": "cat"}],
        ...     "annotations": [
        ...         {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 99, 99]},
        ...         {"id": 2, "image_id": 1, "category_id": 1, "bbox": [200, 0, 99, 99]},
        ...     ],
        ... }
        >>> result = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 99, 99], "score": 0.9}
        >>> analysis = analyze(annotations, [result])
        >>> analysis.overall.recall, analysis.images[0].verdict
        (0.5, 'missing')
    """
    matched = MatchedDetections.of(
        annotations, results, iou_threshold=iou_threshold, max_detections=max_detections
    )
    return analyze_matched(
        matched,
        score_threshold,
        max_detections,
        predictions_path=predictions_path,
        annotations_path=annotations_path,
        images_folder=images_folder,
        name=name,
    )


def analyze_matched(
    matched: MatchedDetections,
    score_threshold: Optional[float],
    max_detections: int,
    *,
    predictions_path: str = "",
    annotations_path: str = "",
    images_folder: str = "",
    name: str = "",
    weights: str = "",
    limits: Sequence[str] = (),
) -> Analysis:
    """
    Analyze detections that are already matched with objects. See :func:`analyze`.

    Args:
        weights: hash of the weights that made the predictions, "" if it is not known.
        limits: sentences that say what the analysis does not show. Its own are added to them.
    """
    data = matched.data
    shown = _shown_classes(data)
    curves = score_curves(matched)
    threshold = pooled_threshold(matched) if score_threshold is None else score_threshold
    whole = AveragePrecision(data, matched.matches)
    sizes = {area: _of_size(matched, area, max_detections) for area in AREA_RANGES}
    aps = {area: of_size.ap for area, of_size in sizes.items()}
    errors = error_types(data, matched.overlaps, matched.at_iou, matched.iou_threshold)
    scores, hits = data.det_scores[matched.counted], matched.hits[matched.counted]
    of_class = detections_by_class(matched)
    shown_names = ["", *(data.categories[k]["name"] for k in shown)]
    overall = _overall(matched, threshold, curves[""])
    classes = _classes(matched, threshold, curves, aps["all"])
    best = best_thresholds(overall, classes)
    suspicious = label_errors(matched, best)
    return Analysis(
        settings=AnalysisSettings(
            predictions=predictions_path,
            annotations=annotations_path,
            images=images_folder,
            name=name,
            iou_threshold=round(matched.iou_threshold, 6),
            score_threshold=round(threshold, 6),
            max_detections=max_detections,
            weights=weights or None,
        ),
        coco=_coco_metrics(sizes, whole, max_detections),
        overall=overall,
        classes=classes,
        curves={n: _points(curves[n].thinned()) for n in shown_names},
        score_histogram=ScoreHistogram(
            edges=[round(edge, 6) for edge in HISTOGRAM_EDGES.tolist()],
            classes={n: score_histogram(*of_class[n]) for n in shown_names},
        ),
        ap_by_size=[
            SizeResult(
                area,
                low,
                high if area != "large" else None,
                *_ap_and_ap50(aps[area]),
                sizes[area].num_objects,
            )
            for area, (low, high) in AREA_RANGES.items()
            if area != "all"
        ],
        ap_by_crowding=_by_crowding(matched, whole),
        ap_by_iou=[
            IouResult(round(iou, 6), number(mean_or_nan(ap)))
            for iou, ap in zip(IOU_THRESHOLDS.tolist(), aps["all"])
        ],
        confusion=_confusion(matched, threshold, shown),
        tide=_tide(error_costs(data, errors)),
        calibration=calibration(scores, hits),
        images=image_results(matched, errors, threshold, images_folder),
        limits=[*limits, *_not_shown(len(shown), data.num_classes)],
        best_thresholds=best,
        label_errors=suspicious,
        images_to_check=images_to_check(suspicious),
    )


def _not_shown(num_shown: int, num_classes: int) -> List[str]:
    if num_shown == num_classes:
        return []
    return [
        f"Curves, score histograms and the confusion matrix show the {num_shown} of "
        f"{num_classes} classes with the most objects. The matrix has one more row and column for "
        f'all others, "{OTHER_CLASSES}". The {MAX_MIX_UPS} most frequent mix-ups of all classes '
        "are in analysis.json, and the metrics of all classes are in classes.csv"
    ]


def _tide(costs: ErrorCosts) -> TideErrors:
    return TideErrors(
        number(costs.ap),
        [ErrorCost(n, costs.counts[n], number(cost)) for n, cost in costs.costs.items()],
        [SpecialCost(n, number(cost)) for n, cost in costs.special.items()],
    )


def pooled_threshold(matched: MatchedDetections) -> float:
    """
    Return the score threshold with the best F1 over all classes, rounded down to six digits, or 0.5
    if no detection finds an object.
    """
    counted = matched.counted
    scores, hits = matched.data.det_scores[counted], matched.hits[counted]
    curve = ScoreCurve.of(scores, hits, int(matched.at_iou.counts.sum()))
    best = curve.best()
    return NO_HITS_THRESHOLD if best is None else float(floor6(curve.score[best]))


def score_curves(matched: MatchedDetections) -> Dict[str, ScoreCurve]:
    """Return the curves by class name, and under "" the curve of all classes together."""
    number = matched.data.num_objects()
    totals = {"": int(number.sum())}
    totals.update({c["name"]: int(n) for c, n in zip(matched.data.categories, number)})
    of_class = detections_by_class(matched)
    return {name: ScoreCurve.of(*of_class[name], n) for name, n in totals.items()}


def detections_by_class(matched: MatchedDetections) -> Dict[str, Tuple[np.ndarray, np.ndarray]]:
    """
    Return the scores and hits of the detections that count, best first, by class name, and under
    "" those of all classes together.
    """
    data = matched.data
    own = np.flatnonzero(matched.counted)
    ret = {"": (data.det_scores[own], matched.hits[own])}
    by_class = grouped(data.det_class[own], data.num_classes)
    for category, of_class in zip(data.categories, by_class):
        ret[category["name"]] = data.det_scores[own[of_class]], matched.hits[own[of_class]]
    return ret


def _shown_classes(data: DetectionSet) -> List[int]:
    """Return the indices of at most `MAX_CLASSES` classes, those with the most objects."""
    return sorted(np.argsort(-data.num_objects(), kind="stable")[:MAX_CLASSES].tolist())


def _confusion(matched: MatchedDetections, threshold: float, shown: List[int]) -> ConfusionMatrix:
    names = [c["name"] for c in matched.data.categories]
    counts = confusion(matched, threshold)
    matrix = counts.matrix(shown).tolist()
    if len(shown) == len(names):
        return ConfusionMatrix([*names, "background"], matrix)
    names.append("background")
    return ConfusionMatrix(
        [*(names[k] for k in shown), OTHER_CLASSES, "background"],
        matrix,
        [
            MixUp(names[truth], names[predicted], count)
            for truth, predicted, count in counts.largest_mix_ups(MAX_MIX_UPS)
        ],
    )


class _OfSize(NamedTuple):
    """AP and recall of the objects of one size."""

    ap: np.ndarray  # (T, K)
    recall: np.ndarray  # (T, K)
    num_objects: int


def _of_size(matched: MatchedDetections, area: str, max_detections: int) -> _OfSize:
    matches = matched.matches
    if area != "all":
        matches = match_detections(matched.data, matched.overlaps, area_range=AREA_RANGES[area])
    average = AveragePrecision(matched.data, matches)
    return _OfSize(average.ap(), average.recall(max_detections), int(average.num_objects().sum()))


def _coco_metrics(
    of_sizes: Dict[str, _OfSize], whole: AveragePrecision, max_detections: int
) -> CocoSummary:
    sizes = {"s": "small", "m": "medium", "l": "large"}
    limits = {"AR1": 1, "AR10": 10, "AR100": max_detections}
    ap = of_sizes["all"].ap
    values = {
        "AP": ap,
        "AP50": ap[0],
        "AP75": ap[5],
        **{f"AP{s}": of_sizes[area].ap for s, area in sizes.items()},
        **{n: whole.recall(limit) for n, limit in limits.items()},
        **{f"AR{s}": of_sizes[area].recall for s, area in sizes.items()},
    }
    return CocoSummary(**{name: number(mean_or_nan(value)) for name, value in values.items()})


class _Best(NamedTuple):
    """The point of a score curve with the best F1."""

    threshold: Optional[float] = None
    f1: Optional[float] = None
    precision: Optional[float] = None
    recall: Optional[float] = None


def _best(curve: ScoreCurve, num_objects: int) -> _Best:
    best = curve.best()
    if best is None:
        return _Best(f1=0.0 if num_objects else None)
    at_best = (curve.f1[best], curve.precision[best], curve.recall[best])
    return _Best(float(floor6(curve.score[best])), *map(number, at_best))


def _rates(tp: int, fp: int, fn: int) -> Dict[str, Optional[float]]:
    return {name: number(value) for name, value in precision_recall_f1(tp, fp, fn).items()}


def _overall(matched: MatchedDetections, threshold: float, curve: ScoreCurve) -> OverallResult:
    tp, fp, fn = matched.counts_by_class(threshold).sum(0).tolist()
    best = _best(curve, tp + fn)
    return OverallResult(
        num_images=len(matched.data.images),
        num_objects=tp + fn,
        num_detections=int((matched.data.det_scores >= threshold).sum()),
        tp=tp,
        fp=fp,
        fn=fn,
        **_rates(tp, fp, fn),
        best_threshold=best.threshold,
        best_f1=best.f1,
    )


def _classes(
    matched: MatchedDetections, threshold: float, curves: Dict[str, ScoreCurve], ap: np.ndarray
) -> List[ClassResult]:
    data = matched.data
    strong = data.det_scores >= threshold
    num_detections = np.bincount(data.det_class[strong], minlength=data.num_classes).tolist()
    ret = []
    for k, (tp, fp, fn) in enumerate(matched.counts_by_class(threshold).tolist()):
        category = data.categories[k]
        best = _best(curves[category["name"]], tp + fn)
        ret.append(
            ClassResult(
                name=category["name"],
                category_id=category["id"],
                num_objects=tp + fn,
                num_detections=num_detections[k],
                AP=number(mean_or_nan(ap[:, k])),
                AP50=number(ap[0, k]),
                AP75=number(ap[5, k]),
                tp=tp,
                fp=fp,
                fn=fn,
                **_rates(tp, fp, fn),
                best_threshold=best.threshold,
                best_f1=best.f1,
                best_precision=best.precision,
                best_recall=best.recall,
            )
        )
    return ret


def _points(curve: ScoreCurve) -> CurvePoints:
    return CurvePoints(*map(numbers, curve._replace(score=floor6(curve.score))))


def _by_crowding(matched: MatchedDetections, average: AveragePrecision) -> List[CrowdingResult]:
    data = matched.data
    objects = np.bincount(data.obj_image[~data.obj_crowd], minlength=len(data.images))
    ret = []
    for name, (least, most) in CROWDING.items():
        inside = (objects >= least) & (objects <= (most or np.inf))
        ap = average.ap(inside.astype(np.float64))
        counts = int(inside.sum()), int(objects[inside].sum())
        ret.append(CrowdingResult(name, *_ap_and_ap50(ap), *counts))
    return ret


def _ap_and_ap50(ap: np.ndarray) -> Tuple[Optional[float], Optional[float]]:
    return number(mean_or_nan(ap)), number(mean_or_nan(ap[0]))
