"""Reading predictions, in any of the forms that `libra-d2 infer` writes."""

import csv
import json
import math
import os
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Sequence, Tuple

import numpy as np

from ..errors import UserError

CSV_COLUMNS = (
    "file_name height width x_min y_min box_width box_height label category_id class_name score"
).split()


@dataclass
class ImagePredictions:
    """
    Detections of one image, best first.

    `boxes` is (N, 4), XYXY in absolute pixels; `scores`, `category_ids` and `class_names` have N
    entries. What a file does not tell is "" or 0 or None.
    """

    file_name: str = ""
    image_id: Any = None
    height: int = 0
    width: int = 0
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0))
    category_ids: List[Any] = field(default_factory=list)
    class_names: List[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.scores)


def read_predictions(path: str) -> List[ImagePredictions]:
    """
    Read the JSON by image, COCO results or CSV, which are told apart by what is in them.

    Raises:
        UserError: the file is none of these; the message names the first entry that is wrong.
    """
    try:
        if path.lower().endswith(".csv"):
            with open(path, encoding="utf-8", newline="") as f:
                return _from_csv(path, csv.DictReader(f))
        with open(path, encoding="utf-8") as f:
            content = json.load(f)
    except OSError as e:
        raise UserError(f"predictions {path} cannot be read: {e.strerror}") from None
    except (ValueError, RecursionError, csv.Error) as e:
        if isinstance(e, UserError):
            raise
        raise UserError(f"predictions {path}: neither JSON nor CSV: {e}") from None
    if isinstance(content, list):
        return _from_coco_results(path, content)
    if isinstance(content, dict) and all(
        isinstance(v, dict) and "predictions" in v for v in content.values()
    ):
        return _from_json(path, content)
    raise UserError(
        f"predictions {path}: expected a list of COCO results, or an object of image path -> "
        "{height, width, predictions}"
    )


def to_coco_results(
    predictions: Iterable[ImagePredictions],
    images: Sequence[Dict[str, Any]],
    categories: Sequence[Dict[str, Any]],
) -> Tuple[List[Dict[str, Any]], List[str]]:
    """
    Args:
        predictions: of images that are known by their id or their file name.
        images, categories: those of COCO annotations. A file name belongs to an image if the one
            is the end of the other, folder by folder. A category id that the annotations do not
            have is replaced by that of the class's name.

    Returns:
        COCO results, and names of images that the annotations do not have.

    Raises:
        UserError: a file name fits several images, or a category none.
    """
    by_id = {image["id"] for image in images}
    by_base = defaultdict(list)
    for image in images:
        by_base[os.path.basename(image["file_name"])].append(image)
    known = {c["id"] for c in categories}
    ids_by_name = {c["name"]: c["id"] for c in categories}
    results, unknown = [], []
    for p in predictions:
        image_id = p.image_id if p.image_id in by_id else None
        if image_id is None and p.file_name:
            fits = [i for i in by_base[os.path.basename(p.file_name)] if _same_file(i, p.file_name)]
            if len(fits) > 1:
                raise UserError(
                    f"{p.file_name} may be {fits[0]['file_name']} or {fits[1]['file_name']} of the "
                    "annotations"
                )
            image_id = fits[0]["id"] if fits else None
        if image_id is None:
            unknown.append(p.file_name or str(p.image_id))
            continue
        for box, score, category, name in zip(p.boxes, p.scores, p.category_ids, p.class_names):
            category = (
                category if category in known and not name else ids_by_name.get(name, category)
            )
            if category not in known:
                raise UserError(
                    f"the annotations have no category {category!r} {name!r}: {sorted(ids_by_name)}"
                )
            x0, y0, x1, y1 = map(float, box)
            bbox = [x0, y0, x1 - x0, y1 - y0]
            results.append(
                {"image_id": image_id, "category_id": category, "bbox": bbox, "score": float(score)}
            )
    return results, unknown


def _same_file(image: Dict[str, Any], file_name: str) -> bool:
    pair = [os.path.normpath(n).split(os.sep) for n in (image["file_name"], file_name)]
    length = min(map(len, pair))
    return pair[0][-length:] == pair[1][-length:]


def _from_json(path: str, content: Dict[str, Any]) -> List[ImagePredictions]:
    ret = []
    for file_name, entry in content.items():
        rows = []
        for i, p in enumerate(entry["predictions"]):
            try:
                box, of_class = p["bbox"], p["class"]
                xywh = [box[k] for k in ("x_min", "y_min", "width", "height")]
                rows.append((xywh, p["score"], of_class["category_id"], of_class.get("name", "")))
            except (TypeError, KeyError) as e:
                raise UserError(f"predictions {path}: {file_name}: [{i}]: lacks {e}") from None
        height, width = entry.get("height", 0), entry.get("width", 0)
        image = ImagePredictions(file_name=file_name, height=height, width=width)
        ret.append(_fill(path, image, rows))
    return ret


def _from_coco_results(path: str, content: List[Any]) -> List[ImagePredictions]:
    rows = defaultdict(list)
    for i, p in enumerate(content):
        try:
            rows[p["image_id"]].append((p["bbox"], p["score"], p["category_id"], ""))
        except (TypeError, KeyError) as e:
            raise UserError(f"predictions {path}: [{i}] is no COCO result: lacks {e}") from None
    return [_fill(path, ImagePredictions(image_id=i), r) for i, r in rows.items()]


def _from_csv(path: str, reader: csv.DictReader) -> List[ImagePredictions]:
    missing = [c for c in CSV_COLUMNS if c not in (reader.fieldnames or ())]
    if missing:
        raise UserError(f"predictions {path}: the CSV lacks the columns {missing}")
    images: Dict[str, ImagePredictions] = {}
    rows = defaultdict(list)
    for line in reader:
        try:
            name = line["file_name"]
            images.setdefault(
                name,
                ImagePredictions(
                    file_name=name, height=int(line["height"]), width=int(line["width"])
                ),
            )
            if not line["score"]:  # an image without detections
                continue
            xywh = [float(line[k]) for k in ("x_min", "y_min", "box_width", "box_height")]
            category = line["category_id"]
            category = int(category) if category.lstrip("-").isdigit() else category
            rows[name].append((xywh, float(line["score"]), category, line["class_name"]))
        except (TypeError, ValueError) as e:
            raise UserError(f"predictions {path}: line {reader.line_num}: {e}") from None
    return [_fill(path, image, rows[name]) for name, image in images.items()]


def _fill(path: str, image: ImagePredictions, rows: List[Tuple]) -> ImagePredictions:
    name = image.file_name or image.image_id
    for xywh, score, _, _ in rows:
        numbers = [*xywh, score] if isinstance(xywh, (list, tuple)) else []
        if len(numbers) != 5 or not all(
            isinstance(v, (int, float)) and math.isfinite(v) for v in numbers
        ):
            raise UserError(
                f"predictions {path}: image {name}: bbox {xywh!r} with score {score!r} is not four "
                "numbers with one"
            )
    rows = sorted(rows, key=lambda row: -row[1])
    boxes = np.array([row[0] for row in rows], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    image.boxes, image.scores = boxes, np.array([row[1] for row in rows], dtype=np.float64)
    image.category_ids = [row[2] for row in rows]
    image.class_names = [row[3] for row in rows]
    return image
