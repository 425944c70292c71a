"""
Types of the results of an analysis and of a comparison of two runs.

Their fields have the names of the keys in `analysis.json` and `compare.json`; docs/analysis.md
defines them. AP and fractions are in [0, 1]. Numbers are rounded to six digits, as in the files,
and an undefined number is None.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Optional

VERSION = 1  # of the two files


def number(value: float) -> Optional[float]:
    """Round to six digits; None for NaN and infinity."""
    return round(float(value), 6) if math.isfinite(value) else None


def numbers(values: Iterable[float]) -> List[Optional[float]]:
    return [number(value) for value in values]


@dataclass(frozen=True)
class AnalysisSettings:
    predictions: str
    annotations: str
    images: str  # folder, or "" if the images are not available
    name: str
    iou_threshold: float
    score_threshold: float
    max_detections: int
    weights: Optional[str] = None  # hash of the weights that made the predictions, if it is known


@dataclass(frozen=True)
class CocoSummary:
    """COCO's twelve metrics over all classes."""

    AP: Optional[float]
    AP50: Optional[float]
    AP75: Optional[float]
    APs: Optional[float]
    APm: Optional[float]
    APl: Optional[float]
    AR1: Optional[float]
    AR10: Optional[float]
    AR100: Optional[float]
    ARs: Optional[float]
    ARm: Optional[float]
    ARl: Optional[float]


@dataclass(frozen=True)
class OverallResult:
    """All classes together, at the score threshold."""

    num_images: int
    num_objects: int
    num_detections: int
    tp: int
    fp: int
    fn: int
    precision: Optional[float]
    recall: Optional[float]
    f1: Optional[float]
    best_threshold: Optional[float]
    best_f1: Optional[float]


@dataclass(frozen=True)
class ClassResult:
    name: str
    category_id: Any
    num_objects: int
    num_detections: int
    AP: Optional[float]
    AP50: Optional[float]
    AP75: Optional[float]
    tp: int
    fp: int
    fn: int
    precision: Optional[float]
    recall: Optional[float]
    f1: Optional[float]
    best_threshold: Optional[float]
    best_f1: Optional[float]
    best_precision: Optional[float]
    best_recall: Optional[float]


@dataclass(frozen=True)
class BestThresholds:
    """The score thresholds with the best F1."""

    overall: float  # over all classes
    classes: Dict[str, float]
    from_overall: Dict[str, str]  # classes that have the overall one, and why


@dataclass(frozen=True)
class CurvePoints:
    """Lists of equal length, by descending score."""

    score: List[Optional[float]]
    precision: List[Optional[float]]
    recall: List[Optional[float]]
    f1: List[Optional[float]]


@dataclass(frozen=True)
class HistogramCounts:
    hits: List[int]
    misses: List[int]


@dataclass(frozen=True)
class ScoreHistogram:
    edges: List[float]
    classes: Dict[str, HistogramCounts]  # under "": all classes together


@dataclass(frozen=True)
class SizeResult:
    name: str
    low: float  # squared pixels
    high: Optional[float]
    AP: Optional[float]
    AP50: Optional[float]
    num_objects: int


@dataclass(frozen=True)
class CrowdingResult:
    name: str
    AP: Optional[float]
    AP50: Optional[float]
    num_images: int
    num_objects: int


@dataclass(frozen=True)
class IouResult:
    iou: float
    AP: Optional[float]


@dataclass(frozen=True)
class MixUp:
    truth: str
    predicted: str
    count: int


@dataclass(frozen=True)
class ConfusionMatrix:
    names: List[str]  # of the rows and columns; the last is the background
    matrix: List[List[int]]
    largest_mix_ups: Optional[List[MixUp]] = None  # only if the matrix does not show all classes


@dataclass(frozen=True)
class ErrorCost:
    name: str
    count: int
    AP_cost: Optional[float]


@dataclass(frozen=True)
class SpecialCost:
    """The cost of all false detections, or of all missed objects."""

    name: str
    AP_cost: Optional[float]


@dataclass(frozen=True)
class TideErrors:
    AP: Optional[float]
    errors: List[ErrorCost]
    special: List[SpecialCost]


@dataclass(frozen=True)
class CalibrationBin:
    low: float
    high: float
    count: int
    mean_score: Optional[float]
    precision: Optional[float]


@dataclass(frozen=True)
class Calibration:
    bins: List[CalibrationBin]
    ece: Optional[float]  # expected calibration error


@dataclass(frozen=True)
class ListedObject:
    bbox: List[float]  # XYWH, absolute pixels
    class_name: str = field(metadata={"key": "class"})
    found_score: Optional[float]  # of the detection that finds it
    crowd: bool


@dataclass(frozen=True)
class ListedDetection:
    bbox: List[float]  # XYWH, absolute pixels
    class_name: str = field(metadata={"key": "class"})
    score: float
    kind: str  # "hit", "ignored", or a kind of error
    iou: float


@dataclass(frozen=True)
class ImageResult:
    image_id: Any
    file_name: str
    path: str  # "" if the file is not available
    width: float
    height: float
    tp: int
    fp: int
    fn: int
    verdict: str
    badness: float
    objects: List[ListedObject]
    detections: List[ListedDetection]


@dataclass(frozen=True)
class LabelError:
    """A probable error of the ground truth, and the detection that suggests it."""

    image_id: Any
    file_name: str
    kind: str
    suspicion: float  # estimated probability that the label is wrong
    annotation_id: Any  # of the label; None if it is missing, as the two following ones
    class_name: Optional[str] = field(metadata={"key": "class"})
    bbox: Optional[List[float]]  # XYWH, absolute pixels
    detected_class: str
    detected_bbox: List[float]  # XYWH, absolute pixels
    score: float
    iou: float  # of the detection with the label, or with the nearest one


@dataclass(frozen=True)
class ImageToCheck:
    image_id: Any
    file_name: str
    expected_corrections: float
    missing_labels: int
    wrong_classes: int
    badly_placed: int


@dataclass(frozen=True)
class Analysis:
    """The content of `analysis.json`."""

    version: int = field(default=VERSION, kw_only=True)
    settings: AnalysisSettings
    coco: CocoSummary
    overall: OverallResult
    classes: List[ClassResult]
    curves: Dict[str, CurvePoints]  # under "": all classes together
    score_histogram: ScoreHistogram
    ap_by_size: List[SizeResult]
    ap_by_crowding: List[CrowdingResult]
    ap_by_iou: List[IouResult]
    confusion: ConfusionMatrix
    tide: TideErrors
    calibration: Calibration
    images: List[ImageResult]  # worst first
    limits: List[str] = field(default_factory=list)
    best_thresholds: Optional[BestThresholds] = None  # None: no detection finds an object
    label_errors: List[LabelError] = field(default_factory=list)  # most suspicious first
    images_to_check: List[ImageToCheck] = field(default_factory=list)  # most corrections first


@dataclass(frozen=True)
class Difference:
    name: str
    a: Optional[float]
    b: Optional[float]
    difference: Optional[float]  # b - a
    low: Optional[float]
    high: Optional[float]


@dataclass(frozen=True)
class MetricDifference(Difference):
    p_value: Optional[float]


@dataclass(frozen=True)
class Counts:
    tp: int
    fp: int
    fn: int


@dataclass(frozen=True)
class ImageChange:
    image_id: Any
    file_name: str
    a: Counts
    b: Counts
    change: float  # of F1


@dataclass(frozen=True)
class RunComparison:
    """The content of `compare.json`."""

    version: int = field(default=VERSION, kw_only=True)
    a: str
    b: str
    samples: int
    confidence: float
    score_thresholds: List[float]
    metrics: List[MetricDifference]
    classes: List[Difference]  # of AP
    images: List[ImageChange]
