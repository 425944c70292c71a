"""The parts of the report that need no script: cards and tables."""

import html
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

MAX_ROWS = 500  # of the table of images; the analysis holds them all
_MAX_MIX_UPS = 20
_LONG = 24  # letters
_NOTHING = "\u2013"  # en dash
_FORMS = {
    "text": str,
    "count": str,
    "ratio": "{:.1%}".format,
    "score": "{:.2f}".format,
    "points": lambda v: f"{100 * v:+.1f}",
    "probability": "{:.3f}".format,
}
Columns = Sequence[Tuple[str, str]]  # title and form


def table(
    caption: str,
    columns: Columns,
    rows: Iterable[Sequence[Any]],
    *,
    name: str = "",
    headed: bool = True,
) -> str:
    """
    An HTML table in a box that scrolls; report.js makes it sortable. None is shown as a dash.

    Args:
        headed: a heading above says what the caption does, which then is for screen readers only.
    """
    head = "".join(
        f'<th scope="col" class="{form}"><button type="button"{_tip(title)}>'
        f"<span>{html.escape(title)}</span></button></th>"
        for title, form in columns
    )
    body = "\n".join(f"<tr>{_cells(columns, row)}</tr>" for row in rows)
    label = html.escape(caption)
    place = f' id="{html.escape(name)}"' if name else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'
        f'<table class="sortable"{place}>'
        f"<caption{' class=heard' if headed else ''}>{label}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cells(columns: Columns, row: Sequence[Any]) -> str:
    cells = []
    for i, ((_, form), value) in enumerate(zip(columns, row)):
        text = html.escape(_NOTHING if value is None else _FORMS[form](value))
        if form == "text":
            tag = ("td", 'th scope="row"')[i == 0]
            cells.append(f'<{tag} class="text"{_tip(str(value))}>{text}</{tag.split()[0]}>')
        else:
            key = "" if value is None else value
            cells.append(f'<td class="{form}" data-value="{html.escape(str(key))}">{text}</td>')
    return "".join(cells)


def _tip(text: str) -> str:
    """The attribute that shows the whole of a text that may be cut off."""
    return f' title="{html.escape(text)}"' if len(text) > _LONG else ""


def cards(runs: List[Dict[str, Any]], names: List[str]) -> str:
    found = []
    first = runs[0]
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
        values = [run[part][key] for run in runs]
        more = ""
        if len(runs) == 2:
            more = f"<dd class=other>{html.escape(names[1])}: {_shown(values[1], form)}</dd>"
        value = _shown(first[part][key], form)
        found.append(f"<div class=card><dt>{title}</dt><dd>{value}</dd>{more}</div>")
    return f"<dl class=cards>{''.join(found)}</dl>"


def _shown(value: Any, form: str) -> str:
    return html.escape(_NOTHING if value is None else _FORMS[form](value))


def class_table(analysis: Dict[str, Any]) -> str:
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
        ("Right", "count", "tp"),
        ("False", "count", "fp"),
        ("Missed", "count", "fn"),
        ("Best threshold", "score", "best_threshold"),
        ("F1 there", "ratio", "best_f1"),
        ("Precision there", "ratio", "best_precision"),
        ("Recall there", "ratio", "best_recall"),
    ]
    rows = [[c[key] for *_, key in columns] for c in analysis["classes"]]
    return table("Classes", [c[:2] for c in columns], rows, name="class-table")


def image_table(analysis: Dict[str, Any]) -> str:
    images = analysis["images"]
    rows = [
        [i["file_name"], i["tp"], i["fp"], i["fn"], i["verdict"], i["badness"]]
        for i in images[:MAX_ROWS]
    ]
    caption = "Images, worst first"
    if len(images) > MAX_ROWS:
        caption += f": {MAX_ROWS} of {len(images)}, the others are in the analysis' JSON"
    columns = [
        *(("Image", "text"), ("Right", "count"), ("False", "count"), ("Missed", "count")),
        *(("Verdict", "text"), ("Badness", "score")),
    ]
    return table(caption, columns, rows, name="image-table", headed=len(images) <= MAX_ROWS)


def chart_tables(analysis: Dict[str, Any]) -> Dict[str, str]:
    """The numbers of the charts, by the name of their place in page.html."""
    ap = [("AP", "ratio"), ("AP50", "ratio")]
    objects = ("Objects", "count")
    bins = analysis["calibration"]["bins"]
    tide = analysis["tide"]
    return {
        "size_table": table(
            "AP by size",
            [("Size", "text"), ("Area from", "count"), ("Area to", "count"), *ap, objects],
            [
                [s["name"], s["low"], s["high"], s["AP"], s["AP50"], s["num_objects"]]
                for s in analysis["ap_by_size"]
            ],
        ),
        "crowding_table": table(
            "AP by objects an image",
            [("Objects an image", "text"), *ap, ("Images", "count"), objects],
            [
                [c["name"], c["AP"], c["AP50"], c["num_images"], c["num_objects"]]
                for c in analysis["ap_by_crowding"]
            ],
        ),
        "iou_table": table(
            "AP by IoU",
            [("IoU", "score"), ("AP", "ratio")],
            [[i["iou"], i["AP"]] for i in analysis["ap_by_iou"]],
        ),
        "tide_table": table(
            "Errors and what they cost",
            [("Error", "text"), ("Count", "count"), ("Cost in points of AP", "points")],
            [[e["name"], e.get("count"), e["AP_cost"]] for e in tide["errors"] + tide["special"]],
        ),
        "calibration_table": table(
            "Calibration",
            [
                *(("Score from", "score"), ("to", "score"), ("Detections", "count")),
                *(("Mean score", "ratio"), ("Precision", "ratio")),
            ],
            [[b["low"], b["high"], b["count"], b["mean_score"], b["precision"]] for b in bins],
        ),
        "ece": _shown(analysis["calibration"]["ece"], "ratio"),
        "mix_ups": _mix_ups(analysis["confusion"]),
    }


def _mix_ups(confusion: Dict[str, Any]) -> str:
    names, matrix = confusion["names"], confusion["matrix"]
    last = len(names) - 1
    found = []
    for i, row in enumerate(matrix):
        for j, count in enumerate(row):
            if i != j and count:
                truth = "nothing" if i == last else names[i]
                predicted = "missed" if j == last else names[j]
                found.append([truth, predicted, count, count / sum(row)])
    found.sort(key=lambda f: -f[2])
    columns = [("Is", "text"), ("Detected as", "text"), ("Count", "count"), ("Share", "ratio")]
    return table("Largest mix-ups", columns, found[:_MAX_MIX_UPS], name="mix-ups")


def comparison_tables(comparison: Dict[str, Any], names: List[str]) -> str:
    a, b = names if len(names) == 2 else (comparison["a"], comparison["b"])
    confidence = f"{comparison['confidence']:.0%}"
    interval = [("Difference, points", "points"), ("from", "points"), ("to", "points")]
    values = [(a, "ratio"), (b, "ratio"), *interval]
    keys = ("name", "a", "b", "difference", "low", "high")
    metrics = table(
        f"Metrics, with {confidence} intervals from {comparison['samples']} samples of the images",
        [("Metric", "text"), *values, ("p", "probability")],
        [
            [m["name"].replace("f1", "F1"), *(m[k] for k in (*keys[1:], "p_value"))]
            for m in comparison["metrics"]
        ],
        name="metric-differences",
        headed=False,
    )
    classes = table(
        "AP of the classes",
        [("Class", "text"), *values],
        [[c[k] for k in keys] for c in comparison["classes"]],
        name="class-differences",
        headed=False,
    )
    return metrics + classes + _changed_table(comparison["images"], a, b)


def _changed_table(images: List[Dict[str, Any]], a: str, b: str) -> str:
    columns = [("Image", "text")]
    for letter in "ab":
        columns += [(f"{word}, {letter}", "count") for word in ("Right", "False", "Missed")]
    columns += [("Change of F1, points", "points")]
    rows = [
        [i["file_name"], *(i[run][k] for run in "ab" for k in ("tp", "fp", "fn")), i["change"]]
        for i in images[:MAX_ROWS]
    ]
    caption = f"Images that changed most (a: {a}; b: {b})"
    return table(caption, columns, rows, name="image-differences", headed=False)


def settings(runs: List[Dict[str, Any]], names: List[str]) -> str:
    found = []
    for name, run in zip(names, runs):
        items = "".join(
            f"<div><dt>{html.escape(k.replace('_', ' '))}</dt><dd>{_setting(v)}</dd></div>"
            for k, v in run["settings"].items()
        )
        found.append(f"<h3>{html.escape(name)}</h3><dl class=settings>{items}</dl>")
    return "".join(found)


def _setting(value: Optional[Any]) -> str:
    return html.escape(_NOTHING if value in (None, "") else str(value))
