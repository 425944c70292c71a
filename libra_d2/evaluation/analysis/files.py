"""Write an analysis as JSON and CSV files, and as tables for a terminal."""

import os
from typing import Any, Iterable, List, Optional, Sequence, Union

from tabulate import tabulate

from ...utils.csv_files import write_csv
from ...utils.files import replacing
from ...utils.json_files import read_json
from .best_thresholds import threshold_notes
from .result_json import from_json, to_json
from .results import Analysis, ClassResult, LabelError, OverallResult, RunComparison

CLASS_COLUMNS = (
    "name category_id num_objects num_detections AP AP50 AP75 tp fp fn precision recall f1 "
    "best_threshold best_f1 best_precision best_recall"
).split()
IMAGE_COLUMNS = "image_id file_name width height tp fp fn verdict badness".split()
LABEL_COLUMNS = (
    "image_id file_name kind suspicion annotation_id class_name x y width height detected_class "
    "detected_x detected_y detected_width detected_height score iou"
).split()
CHECK_COLUMNS = (
    "image_id file_name expected_corrections missing_labels wrong_classes badly_placed"
).split()
COMPARE_COLUMNS = "kind name a b difference low high p_value".split()
# Names of the files of an analysis, and of those of a comparison.
REPORT = "report.html"
FILES = (
    "analysis.json",
    REPORT,
    *(
        f"{name}.csv"
        for name in "classes images errors confusion curves label_errors to_check".split()
    ),
)
COMPARISON = ("compare.json", "compare.csv")
SHOWN_IMAGES = 10
SHOWN_CLASSES = 40


def analysis_files(folder: str, compared: bool) -> List[str]:
    """Return the paths of all files that are written into the folder."""
    return [os.path.join(folder, name) for name in FILES + COMPARISON * compared]


def write_analysis(folder: str, analysis: Analysis) -> None:
    """
    Write `analysis.json`, `classes.csv`, `images.csv`, `errors.csv`, `confusion.csv`, `curves.csv`,
    `label_errors.csv` and `to_check.csv`.
    """
    _write_json(os.path.join(folder, "analysis.json"), analysis)

    def write(name: str, header: Sequence[str], rows: Iterable[Sequence]) -> None:
        write_csv(os.path.join(folder, f"{name}.csv"), (header, *rows))

    write("classes", CLASS_COLUMNS, _columns(analysis.classes, CLASS_COLUMNS))
    write("images", IMAGE_COLUMNS, _columns(analysis.images, IMAGE_COLUMNS))
    write("label_errors", LABEL_COLUMNS, map(_label_row, analysis.label_errors))
    write("to_check", CHECK_COLUMNS, _columns(analysis.images_to_check, CHECK_COLUMNS))
    tide = analysis.tide
    columns = ("name", "count", "AP_cost")
    write("errors", columns, _columns([*tide.errors, *tide.special], columns))
    names, matrix = analysis.confusion.names, analysis.confusion.matrix
    write("confusion", ("truth", *names), ((n, *row) for n, row in zip(names, matrix)))
    curve_columns = ("score", "precision", "recall", "f1")
    points = (
        (name, *point)
        for name, curve in analysis.curves.items()
        for point in zip(*(getattr(curve, c) for c in curve_columns))
    )
    write("curves", ("class", *curve_columns), points)


def _label_row(error: LabelError) -> List[Any]:
    box: Sequence[Optional[float]] = error.bbox or [None] * 4
    label = (error.annotation_id, error.class_name, *box)
    head = (error.image_id, error.file_name, error.kind, error.suspicion)
    detected = (error.detected_class, *error.detected_bbox, error.score, error.iou)
    return [*head, *label, *detected]


def read_analysis(path: str) -> Analysis:
    """
    Read an `analysis.json`.

    Raises:
        UserError: the file cannot be read, was written by another version, or is damaged.
    """
    return from_json(Analysis, read_json(path, what="analysis"), path)


def write_comparison(folder: str, comparison: RunComparison) -> None:
    """Write `compare.json` and `compare.csv`."""
    _write_json(os.path.join(folder, "compare.json"), comparison)
    columns = COMPARE_COLUMNS[1:]
    rows = [["metric", *row] for row in _columns(comparison.metrics, columns)]
    rows += [["AP of class", *row] for row in _columns(comparison.classes, columns)]
    write_csv(os.path.join(folder, "compare.csv"), (COMPARE_COLUMNS, *rows))


def analysis_table(analysis: Analysis) -> str:
    """Return tables of the classes, the kinds of errors and the worst images, in percent."""
    settings, overall, coco = analysis.settings, analysis.overall, analysis.coco
    classes = analysis.classes
    rows = [_class_row(c.name, c.AP, c.AP50, c) for c in classes[:SHOWN_CLASSES]]
    rows.append(_class_row("all", coco.AP, coco.AP50, overall))
    parts = [
        f"{overall.num_images} images, {overall.num_objects} objects; score of "
        f"{settings.score_threshold:g} or more, IoU of {settings.iou_threshold:g} or more",
        _table(
            rows,
            "class objects AP AP50 precision recall F1 TP FP FN best threshold".split(" ", 10),
            (".2f",) * 10 + (".3f",),
        ),
    ]
    if len(classes) > SHOWN_CLASSES:
        parts.append(f"({len(classes) - SHOWN_CLASSES} more classes are in classes.csv)")
    parts.append("\n".join(threshold_notes(analysis)))
    errors: List[Sequence] = [(e.name, e.count, _percent(e.AP_cost)) for e in analysis.tide.errors]
    errors += [(f"all {e.name}", None, _percent(e.AP_cost)) for e in analysis.tide.special]
    parts.append(_table(errors, ("error", "count", "AP cost")))
    worst = [i for i in analysis.images if i.badness > 0][:SHOWN_IMAGES]
    if worst:
        columns = ("file_name", "verdict", "tp", "fp", "fn", "badness")
        headers = ("worst images", "verdict", "TP", "FP", "FN", "badness")
        parts.append(_table(list(_columns(worst, columns)), headers))
    else:
        parts.append("no image has an error")
    suspicious = analysis.images_to_check[:SHOWN_IMAGES]
    if suspicious:
        kinds = ("labels to check", "corrections", "missing", "wrong class", "badly placed")
        parts.append(_table(list(_columns(suspicious, CHECK_COLUMNS[1:])), kinds))
        parts.append(
            f"(corrections that the labels of an image probably need; the "
            f"{len(analysis.label_errors)} labels are in label_errors.csv)"
        )
    parts += analysis.limits
    return "\n\n".join(filter(None, parts))


def comparison_table(comparison: RunComparison) -> str:
    """Return a table of the metrics and the AP of the classes of both runs, in percent."""
    rows = []
    for row in [*comparison.metrics, *comparison.classes[:SHOWN_CLASSES]]:
        values = (row.a, row.b, row.difference, row.low, row.high)
        rows.append((row.name, *map(_percent, values), getattr(row, "p_value", None)))
    headers = ("", comparison.a, comparison.b, "difference", "from", "to", "p")
    formats = ("",) + (".2f",) * 5 + (".3f",)
    caption = f"95 % intervals of {comparison.samples} samples of the images"
    return f"{_table(rows, headers, formats)}\n\n{caption}"


def _class_row(
    name: str, ap: Optional[float], ap50: Optional[float], at: Union[ClassResult, OverallResult]
) -> List[Any]:
    shares = map(_percent, (ap, ap50, at.precision, at.recall, at.f1))
    return [name, at.num_objects, *shares, at.tp, at.fp, at.fn, at.best_threshold]


def _percent(value: Optional[float]) -> Optional[float]:
    return None if value is None else 100 * value


def _table(rows: Sequence, headers: Sequence[str], floatfmt: Any = ".2f") -> str:
    return tabulate(rows, headers, tablefmt="pipe", floatfmt=floatfmt, missingval="-")


def _columns(results: Iterable[Any], columns: Sequence[str]) -> Iterable[List[Any]]:
    return ([getattr(result, c, None) for c in columns] for result in results)


def _write_json(path: str, result: Union[Analysis, RunComparison]) -> None:
    with replacing(path) as partial, open(partial, "w", encoding="utf-8") as f:
        f.write(to_json(result))
