"""Write the results of many images to files that stay valid, so that a run can be continued."""

import contextlib
import csv
import json
import os
import time
from dataclasses import asdict
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, TextIO, Tuple

from ..errors import UserError
from ..utils.csv_files import text_cells
from ..utils.files import replacing
from ..utils.interrupts import deferring_interrupts
from ..utils.json_files import read_json
from ..utils.system_errors import write_error
from .detections import Detections
from .reading import CSV_COLUMNS, ImageFinder

VERSION = 2
_FIELDS = {"key", "stamp", *Detections.__dataclass_fields__}  # of a line of the journal


class Journal:
    """
    A file to which the detections of each image are appended, so that a run can be resumed.

    The first line contains the settings of the run, and each other line the detections of an image,
    as JSON. A line that was cut off when the process was killed is dropped.
    """

    def __init__(
        self, path: str, settings: Dict[str, Any], *, resume: bool = False, num_classes: int = 0
    ):
        """
        Args:
            path: file to write.
            settings: settings that the detections depend on.
            resume: continue with the content of the file.
            num_classes: with `resume`, ignore lines with other labels; 0 accepts all.

        Raises:
            UserError: the settings differ from those of the run to resume, or the file cannot be
                written.
        """
        self.path = path
        self._num_classes = num_classes
        self._places: Dict[str, Tuple[int, List[int]]] = {}  # offset and stamp, by key
        settings = {"version": VERSION, **settings}
        if os.path.islink(path):  # the file is written in place, so the target would change
            raise UserError(f"{path} is a link. Remove it, or give another output")
        try:
            resume = resume and os.path.exists(path) and os.path.getsize(path) > 0
            self._file = open(path, "r+b" if resume else "w+b")  # noqa: SIM115
        except OSError as e:
            raise write_error(e, path) from None
        if resume:
            resume = self._read(settings)
        self.is_new = not resume
        if not resume:
            self._file.truncate(0)
            self._file.seek(0)
            self._append([settings])

    def _read(self, settings: Dict[str, Any]) -> bool:
        end = 0
        for line in self._file:
            try:
                record = json.loads(line) if line.endswith(b"\n") else None
            except (ValueError, RecursionError):
                break
            if not isinstance(record, dict) or (end and not self._is_line(record)):
                break
            if end == 0:
                self._check(record, settings)
            else:
                self._places[record["key"]] = (end, record["stamp"])
            end += len(line)
        self._file.truncate(end)
        self._file.seek(end)
        return end > 0

    def _check(self, theirs: Dict[str, Any], settings: Dict[str, Any]) -> None:
        for key in {**theirs, **settings}:
            if theirs.get(key) != settings.get(key):
                self.close()
                raise UserError(
                    f"{key} must be {theirs.get(key)!r} to resume the run of {self.path}, got "
                    f"{settings.get(key)!r}. Use the same settings, or leave out --resume"
                )

    def _is_line(self, record: Dict[str, Any]) -> bool:
        """Whether the record is the line of an image, with values of the right types."""
        if record.keys() != _FIELDS or not isinstance(record["key"], str):
            return False
        boxes, scores, labels = parts = [record[name] for name in ("boxes", "scores", "labels")]
        if not all(isinstance(part, list) for part in (*parts, record["stamp"])):
            return False
        integers = (*labels, record["height"], record["width"])
        return (
            len(boxes) == len(scores) == len(labels)
            and all(isinstance(box, list) and len(box) == 4 for box in boxes)
            and all(type(x) in (int, float) for x in (*scores, *(x for box in boxes for x in box)))
            and all(type(n) is int and n >= 0 for n in integers)
            and type(record["time"]) in (int, float, type(None))
            and (not self._num_classes or max(labels, default=0) < self._num_classes)
        )

    def has(self, key: str, stamp: Sequence[int]) -> bool:
        """
        Whether the detections of the image are there and its file has not changed since. Always
        False if there is no stamp (of `packed://` paths), because changes cannot be seen then.
        """
        return bool(stamp) and key in self._places and self._places[key][1] == list(stamp)

    def forget(self, key: str) -> None:
        """Remove the image's detections, because they are out of date."""
        self._places.pop(key, None)

    def add(self, results: Iterable[Tuple[str, Sequence[int], Detections]]) -> None:
        """Append the detections of several images with a single write."""
        lines = [{"key": k, "stamp": list(s), **asdict(d)} for k, s, d in results]
        self._append(lines)

    def _append(self, records: Sequence[Dict[str, Any]]) -> None:
        place = self._file.seek(0, os.SEEK_END)
        lines = [json.dumps(r, separators=(",", ":")).encode() + b"\n" for r in records]
        with deferring_interrupts():  # what is written can also be read
            try:
                self._file.write(b"".join(lines))
                self._file.flush()
            except OSError as e:  # the disk is full
                raise write_error(e, self.path) from None
            for record, line in zip(records, lines):
                if "key" in record:
                    self._places[record["key"]] = (place, record["stamp"])
                place += len(line)

    def read(self, keys: Iterable[str]) -> Iterator[Tuple[str, Detections]]:
        """Yield the detections of those keys that are there, in the order of the keys."""
        with open(self.path, "rb") as f:
            for key in keys:
                if key in self._places:
                    f.seek(self._places[key][0])
                    record = json.loads(f.readline())
                    del record["key"], record["stamp"]
                    yield key, Detections(**record)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # already reported by a write
            self._file.close()


class ResultFiles:
    """The result files that the user requested, each written as a whole from a journal."""

    def __init__(
        self,
        class_names: Sequence[str],
        category_ids: Sequence[int],
        *,
        json_file: str,
        coco_file: str = "",
        csv_file: str = "",
        image_ids: Optional["ImageIds"] = None,
    ):
        self.classes = (class_names, category_ids)
        self.image_ids = image_ids or ImageIds()
        writers = ((json_file, _write_json), (coco_file, self._write_coco), (csv_file, _write_csv))
        self.writers = [(path, write) for path, write in writers if path]
        self._next, self._last = 0.0, 0.0

    @property
    def paths(self) -> List[str]:
        return [path for path, _ in self.writers]

    def write(self, journal: Journal, keys: Sequence[str]) -> None:
        """
        Write all files with the detections of these images.

        Raises:
            UserError: a file cannot be written.
        """
        start = time.monotonic()
        for path, write in self.writers:
            with (
                replacing(path) as partial,
                open(partial, "w", encoding="utf-8", newline="") as f,
            ):
                write(f, ((k, d.entry(*self.classes)) for k, d in journal.read(keys)))
        # Files grow with the number of images. Spend at most a twentieth of the time on them.
        self._next = time.monotonic() + max(0.2, 20 * (time.monotonic() - start))

    def write_if_due(self, journal: Journal, keys: Sequence[str]) -> None:
        if time.monotonic() >= self._next:
            self.write(journal, keys)

    def _write_coco(self, f: TextIO, entries: Iterator[Tuple[str, Dict]]) -> None:
        separator = "["
        for key, entry in entries:
            image_id = self.image_ids.of(key)
            for p in entry["predictions"] if image_id is not None else ():
                result = {
                    "image_id": image_id,
                    "category_id": self.image_ids.category(p["class"]),
                    "bbox": list(p["bbox"].values()),
                    "score": p["score"],
                }
                f.write(f"{separator}{json.dumps(result)}")
                separator = ",\n"
        f.write("[]\n" if separator == "[" else "]\n")


def _write_json(f: TextIO, entries: Iterator[Tuple[str, Dict]]) -> None:
    """Write the same bytes as `json.dump(..., indent=1)`, but one image after the other."""
    separator = "{\n "
    for key, entry in entries:
        text = json.dumps(entry, indent=1).replace("\n", "\n ")
        f.write(f"{separator}{json.dumps(key)}: {text}")
        separator = ",\n "
    f.write("{}\n" if separator == "{\n " else "\n}\n")


def _write_csv(f: TextIO, entries: Iterator[Tuple[str, Dict]]) -> None:
    writer = csv.writer(f)
    writer.writerow(CSV_COLUMNS)
    for key, entry in entries:
        # Escape file names that are not valid UTF-8. JSON can represent them.
        key = key.encode("utf-8", "backslashreplace").decode()
        image = (key, entry["height"], entry["width"])
        for p in entry["predictions"]:
            of_class = p["class"]
            row = (*image, *p["bbox"].values(), *of_class.values(), p["score"])
            writer.writerow(text_cells(row))
        if not entry["predictions"]:
            writer.writerow(text_cells((*image, *[""] * (len(CSV_COLUMNS) - len(image)))))


class ImageIds:
    """
    Ids of images and categories for COCO results.

    Ids are those of the annotations. Without annotations, an image's id is its position in the
    input, counted from 1, and category ids are the detector's.
    """

    def __init__(self, annotations_file: str = ""):
        """
        Raises:
            UserError: the file does not contain COCO annotations.
        """
        self._file = annotations_file
        self._known: Dict[str, Any] = {}  # id of each key
        self._keys: Dict[Any, str] = {}  # key of each id
        if not annotations_file:
            return
        content = read_json(annotations_file, what="annotations")
        try:
            self._categories = {c["name"]: c["id"] for c in content["categories"]}
            self._finder = ImageFinder(content["images"])
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise UserError(
                f"annotations {annotations_file} must be in COCO format, with images and "
                f"categories: {e}"
            ) from None

    def see(self, key: str) -> None:
        """
        Register the next image of the input, unless it is registered already.

        Raises:
            UserError: it fits several images of the annotations, or another key has the same id.
        """
        if key in self._known:
            return
        image_id = self._finder.by_name(key) if self._file else len(self._known) + 1
        other = self._keys.setdefault(image_id, key) if image_id is not None else key
        if other != key:
            raise UserError(
                f"{other} and {key} are both image {image_id!r} of annotations {self._file}. "
                "Leave out one of them"
            )
        self._known[key] = image_id

    def of(self, key: str) -> Any:
        """Return the id of a registered image, or None if the annotations do not list it."""
        return self._known.get(key)

    @property
    def missing(self) -> List[str]:
        return [key for key, image_id in self._known.items() if image_id is None]

    def category(self, of_class: Dict[str, Any]) -> Any:
        own = of_class["category_id"]
        return self._categories.get(of_class["name"], own) if self._file else own
