"""Write an analysis as a single HTML file that needs neither a server nor a network."""

import logging
import math
from dataclasses import is_dataclass, replace
from typing import Any, Dict, List, Optional

from ...evaluation.analysis.result_json import json_fields
from ...evaluation.analysis.results import Analysis, RunComparison
from ...utils.extras import import_extra
from ...version import __version__
from ..pages import (
    page_resource,
    page_scripts,
    page_template,
    save_page,
    script_json,
    script_policy,
)
from .advice import advice
from .bounds import bounded, shown_classes
from .pictures import Pictures
from .sections import (
    cards,
    chart_tables,
    class_table,
    comparison_tables,
    image_table,
    label_tables,
    mix_ups,
    settings,
    shown,
)

logger = logging.getLogger(__name__)

_DIGITS = 5  # to which floats in the embedded data are rounded
_MAX_CHANGED = 12  # pairs of images
_CHARTS = (
    *("curves", "score_histogram", "ap_by_size", "ap_by_crowding", "ap_by_iou"),
    *("confusion", "tide", "calibration"),
)


def write_report(
    path: str,
    analysis: Analysis,
    *,
    other: Optional[Analysis] = None,
    comparison: Optional[RunComparison] = None,
    num_images: int = 24,
    allow_outside: bool = False,
) -> None:
    """
    Write a report of one run, or of two runs that are compared.

    Args:
        path: HTML file to write.
        analysis: result of :func:`~libra_d2.evaluation.analysis.detector_analysis.analyze`. In a
            comparison, this is run a.
        other: the analysis of run b, which is drawn into the same charts.
        comparison: result of :func:`libra_d2.evaluation.analysis.run_comparison.compare` for runs a
            and b.
        num_images: maximum number of images in the gallery, which shows the worst ones. It also
            limits the pairs of images that differ most between two runs, of which there are at
            most 12.
        allow_outside: whether to show images whose path or link leads outside of the image folder.
            By default they are left out with a warning, because annotations from others may name
            private files.

    Raises:
        UserError: plotly or Jinja2 is not installed, or the file cannot be written.
    """
    plotly = import_extra("plotly.offline", "report", "HTML reports")
    template = page_template(__name__, "page.html", "HTML reports")
    pictures = Pictures("" if allow_outside else analysis.settings.images)
    content = _content(plotly.get_plotlyjs(), analysis, other, comparison, num_images, pictures)
    page = template.render(content)
    if pictures.outside:
        names = list(pictures.outside.values())
        logger.warning(
            f"{len(names)} images are left out of the report because they are outside of the image "
            f"folder {pictures.root}. The first is {names[0]}. Use --allow-outside to include them"
        )
    save_page(page, path)


def _content(
    plotly_js: str,
    analysis: Analysis,
    other: Optional[Analysis],
    comparison: Optional[RunComparison],
    num_images: int,
    pictures: Pictures,
) -> Dict[str, Any]:
    """Return the variables of page.html, which escapes all but style, scripts and data."""
    names = _run_names([analysis, *([other] if other else [])], comparison)
    kept, num_classes = shown_classes(analysis), len(analysis.classes)
    runs = [bounded(run, kept) for run in (analysis, other) if run]
    if comparison and len(kept) < num_classes:
        wanted = set(kept)
        of_classes = [c for c in comparison.classes if c.name in wanted]
        comparison = replace(comparison, classes=of_classes)
    scripts = [plotly_js, *page_scripts(__name__, "report.js")]
    run_settings = analysis.settings
    return {
        "policy": script_policy(scripts),
        "title": " and ".join(names),
        "style": page_resource(__name__, "report.css"),
        "scripts": scripts,
        "data": script_json(_compact(_data(runs, names, comparison, num_images, pictures))),
        "cards": cards(runs, names),
        "advice": advice(analysis),
        "class_table": class_table(runs[0]),
        "num_shown": len(kept),
        "num_classes": num_classes,
        "image_table": image_table(analysis),
        "label_tables": label_tables(analysis),
        "comparison_tables": comparison_tables(comparison, names) if comparison else [],
        "chart_tables": chart_tables(runs[0]),
        "mix_ups": mix_ups(runs[0].confusion),
        "ece": shown(runs[0].calibration.ece, "ratio"),
        "settings": settings(runs, names),
        "version": __version__,
        "score_threshold": f"{run_settings.score_threshold:.2f}",
        "other_threshold": _other_threshold(runs, names),
        "iou_threshold": f"{run_settings.iou_threshold:.2f}",
        "of_first": names[0] if other else "",
    }


def _run_names(runs: List[Analysis], comparison: Optional[RunComparison]) -> List[str]:
    names = [run.settings.name or "detections" for run in runs]
    if comparison:
        names = [comparison.a, comparison.b][: len(runs)]
    if len(set(names)) < len(names):
        names = [f"{name} ({letter})" for name, letter in zip(names, "ab")]
    return names


def _other_threshold(runs: List[Analysis], names: List[str]) -> str:
    """Return the name and score threshold of run b if it differs from that of run a, else ""."""
    first, last = (runs[i].settings.score_threshold for i in (0, -1))
    return "" if first == last else f"{names[1]}: {last:.2f}"


def _data(
    runs: List[Analysis],
    names: List[str],
    comparison: Optional[RunComparison],
    num_images: int,
    pictures: Pictures,
) -> Dict[str, Any]:
    """Return the data that report.js reads."""
    gallery = [pictures.frame(image) for image in runs[0].images[:num_images]]
    by_id = [{image.image_id: image for image in run.images} for run in runs]
    changed = []
    differing = comparison.images if comparison and len(runs) == 2 else []
    for entry in differing[: min(num_images, _MAX_CHANGED)]:
        if all(entry.image_id in images for images in by_id):
            changed.append([pictures.frame(images[entry.image_id]) for images in by_id])
    return {
        "threshold": runs[0].settings.score_threshold,
        "iou_threshold": runs[0].settings.iou_threshold,
        "runs": [
            {"name": n, **{k: getattr(run, k) for k in _CHARTS}} for n, run in zip(names, runs)
        ],
        "best": {c.name: c.best_threshold for c in runs[0].classes}
        | {"": runs[0].overall.best_threshold},
        "classes": [c.name for c in runs[0].classes],
        "metrics": comparison.metrics if comparison else [],
        "gallery": gallery,
        "changed": changed,
        "pictures": pictures.by_key,
    }


def _compact(value: Any) -> Any:
    if is_dataclass(value):
        value = json_fields(value)
    if isinstance(value, dict):
        return {k: _compact(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_compact(v) for v in value]
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    return value
