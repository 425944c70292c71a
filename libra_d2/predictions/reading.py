"""Read predictions in any of the formats that `libra-d2 infer` writes."""

import csv
import os
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, TextIO, Tuple

import numpy as np

from ..errors import UserError
from ..utils.csv_files import without_mark
from ..utils.json_files import read_json
from ..utils.messages import one_line

CSV_COLUMNS = (
    "file_name height width x_min y_min box_width box_height label category_id class_name score"
).split()


@dataclass
class ImagePredictions:
    """
    Detections of one image, best first.

    `boxes` is (N, 4), XYXY in absolute pixels; `scores`, `category_ids` and `class_names` have N
    entries. Values that a file does not contain are "", 0 or None.
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
    Read a file of predictions: JSON by image or COCO results, which are told apart by their
    content, or CSV (`.csv`).

    Raises:
        UserError: the file is none of these. The message names the first invalid entry.
    """
    if not path.lower().endswith(".csv"):
        content = read_json(path, what="predictions")
    try:
        if path.lower().endswith(".csv"):
            with open(path, encoding="utf-8-sig", newline="") as f:  # Excel writes a BOM
                return list(_from_csv(f))
        if isinstance(content, list):
            return list(_from_coco_results(content))
        if isinstance(content, dict):
            return list(_from_json(content))
    except OSError as e:
        raise UserError(f"predictions {path} cannot be read: {e.strerror}") from None
    except _WrongEntryError as e:
        raise UserError(f"predictions {path}: {e}") from None
    except (ValueError, csv.Error) as e:
        raise UserError(f"predictions {path} is not a CSV file: {one_line(e)}") from None
    raise UserError(
        f"predictions {path}: the file must be a list of COCO results, or an object of image path "
        f"-> {{height, width, predictions}}, got {type(content).__name__}"
    )


def to_coco_results(
    predictions: Iterable[ImagePredictions],
    images: Sequence[Dict[str, Any]],
    categories: Sequence[Dict[str, Any]],
    notes: Optional[List[str]] = None,
) -> Tuple[List[Dict[str, Any]], List[str]]:
    """
    Convert predictions to COCO results with the ids of COCO annotations.

    A file name belongs to an image if one path is the end of the other, folder by folder; if there
    are several, the longest common end decides. A class is identified by its name if the
    annotations have that name, and otherwise by its category id, which may also be written as a
    string or be a name.

    Args:
        predictions: predictions of images that are identified by id or file name.
        images, categories: the lists of the COCO annotations.
        notes: list to which a sentence is added for each way in which ids had to be converted.

    Returns:
        COCO results, and the names of images that the annotations do not list.

    Raises:
        UserError: a file name fits several images, several entries are of one image, or a category
            is unknown.
    """
    finder = ImageFinder(images)
    said: Dict[Any, str] = {}
    ids = {c["id"]: c["id"] for c in categories}
    ids_by_text = {str(c["id"]): c["id"] for c in categories}
    ids_by_name = {c["name"]: c["id"] for c in categories}
    results, unknown = [], []
    seen: Dict[Any, str] = {}
    for p in predictions:
        own_name = p.file_name or str(p.image_id)
        image_id, how = finder.find(p.image_id, p.file_name)
        if how:
            said.setdefault(how, f"{how}, such as {p.image_id!r}. They were converted to ids")
        if image_id is None:
            unknown.append(own_name)
            continue
        if image_id in seen:
            raise UserError(
                f"{seen[image_id]} and {own_name} are both image {image_id!r} of the annotations. "
                "Remove one of them"
            )
        seen[image_id] = own_name
        for box, score, category, name in zip(
            p.boxes.tolist(), p.scores.tolist(), p.category_ids, p.class_names
        ):
            known = ids_by_name.get(name) if name else None
            known = ids.get(category) if known is None else known
            known = ids_by_text.get(str(category)) if known is None else known
            if known is None and isinstance(category, str) and category in ids_by_name:
                known = ids_by_name[category]
                said.setdefault("names", "category ids are class names. They were converted to ids")
            if known is None:
                raise UserError(
                    f"{own_name}: the category must be one of {sorted(ids_by_name)}, got id "
                    f"{category!r} and name {name!r}"
                )
            x0, y0, x1, y1 = box
            bbox = [x0, y0, x1 - x0, y1 - y0]
            results.append(
                {"image_id": image_id, "category_id": known, "bbox": bbox, "score": score}
            )
    if notes is not None:
        notes.extend(said.values())
    return results, unknown


class ImageFinder:
    """Finds the ids of COCO images from ids in another form or from file names."""

    def __init__(self, images: Sequence[Dict[str, Any]]):
        self._ids = {image["id"]: image["id"] for image in images}
        self._whole = defaultdict(list)  # by all parts of the path
        self._by_end = defaultdict(list)  # by some of the last parts of the path
        self._by_text = defaultdict(list)  # by the id as a string
        self._by_stem = defaultdict(list)  # by the name without suffix, with and without folders
        self._names = {image["id"]: image["file_name"] for image in images}
        for image in images:
            parts = _parts(image["file_name"])
            self._whole[parts].append(image)
            self._by_text[str(image["id"])].append(image["id"])
            stems = {os.path.splitext(name)[0] for name in ("/".join(parts), parts[-1])}
            for stem in {*stems, "/".join(parts), parts[-1]}:
                self._by_stem[stem].append(image["id"])
            for i in range(1, len(parts)):
                self._by_end[parts[i:]].append(image)

    def by_id(self, image_id: Any) -> Any:
        return self._ids.get(image_id)

    def find(self, image_id: Any, file_name: str) -> Tuple[Any, str]:
        """
        Args:
            image_id, file_name: id and file name in a file; None and "" if it does not give them.

        Returns:
            The id of the image or None, and how `image_id` had to be converted or "".

        Raises:
            UserError: id and file name are of different images, or fit several images.
        """
        found, how = None, ""
        if image_id is not None:
            found = self.by_id(image_id)
            if found is None:
                found, how = self._by_other_form(image_id)
        if not file_name:
            return found, how
        named = self.by_name(file_name)
        if found is None:
            return named, "" if image_id is None else "image ids are unknown, file names are not"
        if named is not None and named != found:
            raise UserError(
                f"image_id {image_id!r} is {self._names[found]} in the annotations, but has the "
                f"file_name {file_name}. Correct or remove one of the two"
            )
        return found, how

    def _by_other_form(self, image_id: Any) -> Tuple[Any, str]:
        ways = {
            "image ids are numbers written as strings, or strings as numbers": self._by_text,
            "image ids are file names": self._by_stem,
        }
        fits = {how: ids for how, known in ways.items() if (ids := known.get(str(image_id)))}
        found = list(dict.fromkeys(i for ids in fits.values() for i in ids))
        if len(found) > 1:
            names = " or ".join(self._names[i] for i in found[:2])
            raise UserError(
                f"image_id {image_id!r} fits several images of the annotations: {names}"
            )
        return (found[0], next(iter(fits))) if found else (None, "")

    def by_name(self, file_name: str) -> Any:
        """
        Return the id of the image with this file name, or None.

        Raises:
            UserError: the file name fits several images.
        """
        own = _parts(file_name)
        longest_first = [self._whole.get(own), self._by_end.get(own)]
        longest_first += [self._whole.get(own[i:]) for i in range(1, len(own))]
        fits = next(filter(None, longest_first), [])
        if len(fits) > 1:
            names = [image["file_name"] for image in fits[:2]]
            raise UserError(
                f"{file_name} fits several images of the annotations: {names[0]} or {names[1]}. "
                "Include more of its folders in the name"
            )
        return fits[0]["id"] if fits else None


def _parts(file_name: str) -> Tuple[str, ...]:
    """Split a path into folders and name. Paths may come from Windows."""
    return tuple(os.path.normpath(file_name.replace("\\", "/")).split(os.sep))


class _WrongEntryError(Exception):
    """An entry of a file is invalid."""


def _from_json(content: Dict[str, Any]) -> Iterator[ImagePredictions]:
    for file_name, entry in content.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("predictions"), list):
            if isinstance(content.get("annotations"), list):
                raise _WrongEntryError("the file contains COCO annotations, not predictions")
            raise _WrongEntryError(
                f"{file_name!r} must be an object with height, width and a list of predictions, "
                f"got {entry!r:.60}"
            )
        if not file_name:
            raise _WrongEntryError("the path of an image must not be empty")
        image = ImagePredictions(
            file_name=file_name,
            height=_side(file_name, "height", entry.get("height", 0)),
            width=_side(file_name, "width", entry.get("width", 0)),
        )
        rows = [_json_row(f"{file_name}: [{i}]", p) for i, p in enumerate(entry["predictions"])]
        yield _fill(image, rows)


def _json_row(where: str, p: Any) -> Tuple:
    bbox, of_class, score = (_get(where, p, key) for key in ("bbox", "class", "score"))
    xywh = [_get(f"{where}: bbox", bbox, key) for key in ("x_min", "y_min", "width", "height")]
    if not isinstance(of_class, dict) or not ("category_id" in of_class or "name" in of_class):
        raise _WrongEntryError(f"{where}: class must have category_id or name, got {of_class!r}")
    return _row(where, xywh, score, of_class.get("category_id"), of_class.get("name"))


def _from_coco_results(content: List[Any]) -> Iterator[ImagePredictions]:
    rows: Dict[Any, List[Any]] = defaultdict(list)
    names: Dict[Any, str] = {}
    for i, p in enumerate(content):
        where = f"[{i}] of the COCO results"
        image_id, category, bbox, score = (
            _get(where, p, key) for key in ("image_id", "category_id", "bbox", "score")
        )
        if image_id is None or not _is_id(image_id):
            raise _WrongEntryError(
                f"{where}: image_id must be a number or string, got {image_id!r}"
            )
        name = p.get("file_name") or ""
        if not isinstance(name, str) or names.setdefault(image_id, name) != name:
            raise _WrongEntryError(
                f"{where}: file_name of image_id {image_id!r} must be {names.get(image_id)!r}, as "
                f"before, got {name!r}"
            )
        rows[image_id].append(_row(where, bbox, score, category, None))
    for image_id, of_image in rows.items():
        yield _fill(ImagePredictions(image_id=image_id, file_name=names[image_id]), of_image)


def _from_csv(f: TextIO) -> Iterator[ImagePredictions]:
    reader = csv.DictReader(f)
    missing = [c for c in CSV_COLUMNS if c not in (reader.fieldnames or ())]
    if missing:
        raise _WrongEntryError(f"the CSV file must have the columns {missing}")
    images: Dict[str, ImagePredictions] = {}
    rows = defaultdict(list)
    for line in reader:
        where = f"line {reader.line_num}"
        if None in line or None in line.values():
            raise _WrongEntryError(f"{where} must have {len(reader.fieldnames or ())} columns")
        texts = ("file_name", "category_id", "class_name")
        line.update({key: without_mark(line[key]) for key in texts})
        name = line["file_name"]
        if not name:
            raise _WrongEntryError(f"{where}: file_name must not be empty")
        size = [_side(where, k, _number(where, k, line[k])) for k in ("height", "width")]
        image = images.setdefault(name, ImagePredictions(name, None, size[0], size[1]))
        if [image.height, image.width] != size:
            raise _WrongEntryError(
                f"{where}: height and width of {name} must be {[image.height, image.width]}, as "
                f"before, got {size}"
            )
        if not line["score"]:  # an image without detections
            continue
        keys = ("x_min", "y_min", "box_width", "box_height", "score")
        *xywh, score = (_number(where, k, line[k]) for k in keys)
        category = line["category_id"]
        if category.isdecimal() and str(int(category)) == category:
            category = int(category)
        rows[name].append(_row(where, xywh, score, category, line["class_name"]))
    for name, image in images.items():
        yield _fill(image, rows[name])


def _get(where: str, entry: Any, key: str) -> Any:
    if not isinstance(entry, dict):
        raise _WrongEntryError(f"{where} must be an object, got {entry!r}")
    if key not in entry:
        raise _WrongEntryError(f"{where} must have the key {key!r}")
    return entry[key]


def _number(where: str, key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _WrongEntryError(f"{where}: {key} must be a number, got {text!r}") from None


def _side(where: str, key: str, value: Any) -> int:
    if not _is_finite(value) or value < 0 or value != int(value):
        raise _WrongEntryError(f"{where}: {key} must be a whole number of pixels, got {value!r}")
    return int(value)


def _is_finite(value: Any) -> bool:
    # math.isfinite fails for very large integers.
    return type(value) in (int, float) and -1e300 < value < 1e300


def _is_id(value: Any) -> bool:
    return isinstance(value, str) or _is_finite(value)


def _row(where: str, xywh: Any, score: Any, category: Any, name: Any) -> Tuple:
    if not isinstance(xywh, list) or len(xywh) != 4 or not all(map(_is_finite, xywh)):
        raise _WrongEntryError(f"{where}: bbox must be four finite numbers, got {xywh!r}")
    if xywh[2] < 0 or xywh[3] < 0:
        raise _WrongEntryError(f"{where}: sides of bbox must be at least 0, got {xywh!r}")
    if not _is_finite(score):
        raise _WrongEntryError(f"{where}: score must be a finite number, got {score!r}")
    if category is not None and not _is_id(category):
        raise _WrongEntryError(f"{where}: category_id must be a number or string, got {category!r}")
    if name is not None and not isinstance(name, str):
        raise _WrongEntryError(f"{where}: the class name must be a string, got {name!r}")
    return xywh, score, category, name or ""


def _fill(image: ImagePredictions, rows: List[Tuple]) -> ImagePredictions:
    rows = sorted(rows, key=lambda row: -row[1])
    boxes = np.array([row[0] for row in rows], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    image.boxes, image.scores = boxes, np.array([row[1] for row in rows], dtype=np.float64)
    image.category_ids = [row[2] for row in rows]
    image.class_names = [row[3] for row in rows]
    return image
