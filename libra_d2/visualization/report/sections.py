"""Build the cards and tables of the report, which are shown even without JavaScript."""

from typing import Any, Dict, List, NamedTuple, Tuple

from ...evaluation.analysis.results import Analysis, ConfusionMatrix, ImageChange, RunComparison
from ..page_tables import NOTHING, Table, shown, table

MAX_ROWS = 500  # of the tables of images; analysis.json contains all images
_MAX_MIX_UPS = 20


class Card(NamedTuple):
    title: str
    value: str
    other: str  # name and value of the second run, "" if there is none


class RunSettings(NamedTuple):
    name: str
    rows: List[Tuple[str, str]]


def cards(runs: List[Analysis], names: List[str]) -> List[Card]:
    found = []
    for title, part, key, form in (
        ("AP", "coco", "AP", "ratio"),
        ("AP50", "coco", "AP50", "ratio"),
        ("AP75", "coco", "AP75", "ratio"),
        ("Precision", "overall", "precision", "ratio"),
        ("Recall", "overall", "recall", "ratio"),
        ("F1", "overall", "f1", "ratio"),
        ("Images", "overall", "num_images", "count"),
        ("Objects", "overall", "num_objects", "count"),
        ("Detections", "overall", "num_detections", "count"),
    ):
        value, *others = [shown(getattr(getattr(run, part), key), form) for run in runs]
        found.append(Card(title, value, f"{names[1]}: {others[0]}" if others else ""))
    return found


def class_table(analysis: Analysis) -> Table:
    columns = [
        ("Class", "text", "name"),
        ("Objects", "count", "num_objects"),
        ("Detections", "count", "num_detections"),
        ("AP", "ratio", "AP"),
        ("AP50", "ratio", "AP50"),
        ("AP75", "ratio", "AP75"),
        ("Precision", "ratio", "precision"),
        ("Recall", "ratio", "recall"),
        ("F1", "ratio", "f1"),
        ("TP", "count", "tp"),
        ("FP", "count", "fp"),
        ("FN", "count", "fn"),
        ("Best threshold", "score", "best_threshold"),
        ("Best F1", "ratio", "best_f1"),
        ("P at best F1", "ratio", "best_precision"),
        ("R at best F1", "ratio", "best_recall"),
    ]
    rows = [[getattr(c, key) for *_, key in columns] for c in analysis.classes]
    return table("Classes", [c[:2] for c in columns], rows, name="class-table")


def image_table(analysis: Analysis) -> Table:
    images = analysis.images
    rows = [[i.file_name, i.tp, i.fp, i.fn, i.verdict, i.badness] for i in images[:MAX_ROWS]]
    caption = "Images, worst first"
    if len(images) > MAX_ROWS:
        caption += f" ({MAX_ROWS} of {len(images)}; analysis.json contains all)"
    columns = [
        *(("Image", "text"), ("TP", "count"), ("FP", "count"), ("FN", "count")),
        *(("Verdict", "text"), ("Badness", "score")),
    ]
    return table(caption, columns, rows, name="image-table", headed=len(images) <= MAX_ROWS)


def label_tables(analysis: Analysis) -> List[Table]:
    """Return the images whose labels should be checked, and the labels."""
    errors, images = analysis.label_errors, analysis.images_to_check
    if not errors:
        return []
    limited = f" ({MAX_ROWS} of {len(errors)}; label_errors.csv contains all)"
    of_images = table(
        "Images whose labels to check first",
        [
            *(("Image", "text"), ("Corrections", "score"), ("Missing", "count")),
            *(("Wrong class", "count"), ("Badly placed", "count")),
        ],
        [
            [i.file_name, i.expected_corrections, *(i.missing_labels, i.wrong_classes)]
            + [i.badly_placed]
            for i in images[:MAX_ROWS]
        ],
        name="check-table",
        headed=False,
    )
    of_labels = table(
        "Labels to check first" + limited * (len(errors) > MAX_ROWS),
        [
            *(("Image", "text"), ("Probable error", "text"), ("Suspicion", "score")),
            *(("Label", "text"), ("Detected as", "text"), ("Score", "score"), ("IoU", "score")),
            ("Box: x, y, w, h", "text"),
        ],
        [
            [e.file_name, e.kind, e.suspicion, e.class_name, e.detected_class, e.score]
            + [e.iou, ", ".join(f"{v:.0f}" for v in e.bbox or e.detected_bbox)]
            for e in errors[:MAX_ROWS]
        ],
        name="label-table",
        headed=False,
    )
    return [of_images, of_labels]


def chart_tables(analysis: Analysis) -> Dict[str, Table]:
    """Return tables with the numbers of the charts."""
    ap = [("AP", "ratio"), ("AP50", "ratio")]
    objects = ("Objects", "count")
    tide = analysis.tide
    costs: List[List[Any]] = [[e.name, e.count, e.AP_cost] for e in tide.errors]
    costs += [[e.name, None, e.AP_cost] for e in tide.special]
    return {
        "size": table(
            "AP by object size",
            [("Size", "text"), ("Min. area", "count"), ("Max. area", "count"), *ap, objects],
            [[s.name, s.low, s.high, s.AP, s.AP50, s.num_objects] for s in analysis.ap_by_size],
        ),
        "crowding": table(
            "AP by number of objects in the image",
            [("Objects per image", "text"), *ap, ("Images", "count"), objects],
            [[c.name, c.AP, c.AP50, c.num_images, c.num_objects] for c in analysis.ap_by_crowding],
        ),
        "iou": table(
            "AP by IoU threshold",
            [("IoU threshold", "score"), ("AP", "ratio")],
            [[i.iou, i.AP] for i in analysis.ap_by_iou],
        ),
        "tide": table(
            "Cost of each kind of error",
            [("Error", "text"), ("Count", "count"), ("Cost in points of AP", "points")],
            costs,
        ),
        "calibration": table(
            "Calibration",
            [
                *(("Min. score", "score"), ("Max. score", "score"), ("Detections", "count")),
                *(("Mean score", "ratio"), ("Precision", "ratio")),
            ],
            [
                [b.low, b.high, b.count, b.mean_score, b.precision]
                for b in analysis.calibration.bins
            ],
        ),
    }


def mix_ups(confusion: ConfusionMatrix) -> Table:
    """Return a table of the most frequent errors of the confusion matrix."""
    names, matrix = confusion.names, confusion.matrix
    last = len(names) - 1
    found: List[Tuple[str, str, int, float]] = []
    for i, row in enumerate(matrix):
        for j, count in enumerate(row):
            if i != j and count:
                truth = "background" if i == last else names[i]
                predicted = "missed" if j == last else names[j]
                found.append((truth, predicted, count, count / sum(row)))
    found.sort(key=lambda f: -f[2])
    columns = [
        *(("True class", "text"), ("Detected as", "text")),
        *(("Count", "count"), ("Share", "ratio")),
    ]
    return table("Most frequent confusions", columns, found[:_MAX_MIX_UPS], name="mix-ups")


def comparison_tables(comparison: RunComparison, names: List[str]) -> List[Table]:
    a, b = names if len(names) == 2 else (comparison.a, comparison.b)
    confidence = f"{comparison.confidence:.0%}"
    interval = [("Difference, points", "points"), ("Lower", "points"), ("Upper", "points")]
    values = [(a, "ratio"), (b, "ratio"), *interval]
    metrics = table(
        f"Metrics, with {confidence} confidence intervals from {comparison.samples} bootstrap "
        "samples of the images",
        [("Metric", "text"), *values, ("p-value", "probability")],
        [
            [m.name.replace("f1", "F1"), m.a, m.b, m.difference, m.low, m.high, m.p_value]
            for m in comparison.metrics
        ],
        name="metric-differences",
        headed=False,
    )
    classes = table(
        "AP of each class",
        [("Class", "text"), *values],
        [[c.name, c.a, c.b, c.difference, c.low, c.high] for c in comparison.classes],
        name="class-differences",
        headed=False,
    )
    return [metrics, classes, _changed_table(comparison.images, a, b)]


def _changed_table(images: List[ImageChange], a: str, b: str) -> Table:
    columns = [("Image", "text")]
    for letter in "ab":
        columns += [(f"{word}, {letter}", "count") for word in ("TP", "FP", "FN")]
    columns += [("Change in F1, points", "points")]
    rows = [
        [i.file_name, i.a.tp, i.a.fp, i.a.fn, i.b.tp, i.b.fp, i.b.fn, i.change]
        for i in images[:MAX_ROWS]
    ]
    caption = f"Images that changed most (a is {a}, b is {b})"
    return table(caption, columns, rows, name="image-differences", headed=False)


def settings(runs: List[Analysis], names: List[str]) -> List[RunSettings]:
    return [
        RunSettings(
            name, [(k.replace("_", " "), _setting(v)) for k, v in vars(run.settings).items()]
        )
        for name, run in zip(names, runs)
    ]


def _setting(value: Any) -> str:
    return NOTHING if value in (None, "") else str(value)
