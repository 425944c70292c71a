"""Show training batches as the model sees them, on a contact sheet and an HTML page."""

import os
from typing import Any, Dict, Iterable, List, Sequence

from ...utils.files import make_folder_of
from ...utils.messages import printable
from ...version import __version__
from ..detection_pictures import save_picture
from ..pages import data_uri, page_resource, page_template, save_page
from ..report.pictures import MAX_SIDE
from .pictures import ANCHOR, OBJECT, UNMATCHED, Cell, cell_of, contact_sheet, draw_view
from .views import MAX_WITHOUT, Summary, TrainingView, caption

SHEET, PAGE = "batches.png", "batches.html"

_QUALITY = 82  # of the JPEGs in the page
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_batches(
    folder: str, views: Iterable[TrainingView], summary: Summary, notes: Sequence[str] = ()
) -> None:
    """
    Draw training views, and write the contact sheet (`SHEET`) and the page (`PAGE`) into a folder.

    Args:
        folder: folder to write to. It is created if it does not exist.
        views: at least one view. Each is drawn as soon as it is available, so that they do not
            have to be in memory together.
        summary: summary to which the views are added.
        notes: sentences to show above the pictures.

    Raises:
        UserError: Jinja2 is not installed, or a file cannot be written.
    """
    template = page_template(__name__, "batches.html", "Pages of training batches")
    make_folder_of(os.path.join(folder, SHEET))
    cells: List[Cell] = []
    figures: List[Dict[str, Any]] = []
    for view in views:
        summary.add(view)
        text = caption(view, summary.background_iou)
        cells.append(cell_of(view, text, summary.background_iou))
        figures.append(_figure(view, text, summary))
    page = template.render(
        policy=_POLICY,
        style=page_resource("libra_d2.visualization.report", "report.css")
        + page_resource(__name__, "batches.css"),
        cards=_cards(summary),
        notes=notes,
        figures=figures,
        kinds={"object": OBJECT, "anchor": ANCHOR, "unmatched": UNMATCHED},
        background_iou=summary.background_iou,
        advised=summary.advised,
        max_without=f"{MAX_WITHOUT:.0%}",
        version=__version__,
    )
    save_picture(contact_sheet(cells, summary), os.path.join(folder, SHEET), format="PNG")
    save_page(page, os.path.join(folder, PAGE))


def _figure(view: TrainingView, text: str, summary: Summary) -> Dict[str, Any]:
    height, width = view.image.shape[:2]
    return {
        "batch": view.batch,
        "name": printable(os.path.basename(view.file_name)),
        "path": printable(view.file_name),
        "caption": text,
        "size": f"{width} x {height} pixels, padded to {view.padded[1]} x {view.padded[0]}",
        "picture": data_uri(draw_view(view, summary.background_iou, MAX_SIDE), _QUALITY),
        "objects": _rows(view, summary),
    }


def _rows(view: TrainingView, summary: Summary) -> List[List[str]]:
    """Return a row for each object: its class, its size and, if there are anchors, its best one."""
    rows = []
    levels = list(summary.objects_by_level)
    for i, (name, box) in enumerate(zip(view.class_names, view.boxes)):
        row = [name, _size(box)]
        if view.matches is not None:
            row += [
                f"{view.matches.best_ious[i]:.2f}",
                str(int(view.matches.num_foreground[i])),
                levels[int(view.matches.best_levels[i])],
                _size(view.matches.best_anchors[i].numpy()),
            ]
        rows.append(row)
    return rows


def _size(box: Any) -> str:
    return f"{box[2] - box[0]:.0f} x {box[3] - box[1]:.0f}"


def _cards(summary: Summary) -> List[List[str]]:
    cards = [["Images", str(summary.num_images)], ["Objects", str(summary.num_objects)]]
    if summary.background_iou is not None:
        cards += [
            [f"No anchor of IoU {summary.background_iou:g}", str(summary.num_without)],
            ["Foreground anchors per object, median", f"{summary.median_foreground:g}"],
        ]
        cards += [[f"Best anchor on {k}", str(n)] for k, n in summary.objects_by_level.items()]
    if summary.num_skipped:
        cards.append(["Unreadable images skipped", str(summary.num_skipped)])
    return cards
