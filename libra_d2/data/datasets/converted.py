"""Convert data sets in other formats to COCO annotation files, and keep these for later runs."""

import hashlib
import json
import logging
import os
from typing import Any, Callable, Dict, Iterable, List, Tuple

from ...errors import UserError
from ...utils.files import file_stamp, replacing
from ...utils.progress import announced

logger = logging.getLogger(__name__)

# Increase this when a reader writes something else for the same files.
_VERSION = 2


def fingerprint(files: Iterable[str], *settings: Any) -> str:
    """Return 12 hex digits that depend on the path, size and time of all files, and `settings`."""
    digest = hashlib.blake2b(repr((_VERSION, settings)).encode(), digest_size=6)
    for file in files:
        digest.update(repr((file, *file_stamp(file))).encode())
    return digest.hexdigest()


def converted(folder: str, stem: str, mark: str, convert: Callable[[], Dict[str, Any]]) -> str:
    """
    Write a converted data set unless it exists already.

    Args:
        folder: folder of converted data sets.
        stem: beginning of the file name.
        mark: :func:`fingerprint` of everything that the result depends on.
        convert: returns the content of the COCO file.

    Returns:
        The path of the file, `folder/<stem>_<mark>.json`.
    """
    path = os.path.join(os.path.abspath(folder), f"{stem}_{mark}.json")
    if os.path.isfile(path):
        logger.info(f"Using {path} again, because nothing has changed since it was written")
        return path
    content = convert()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with (
        announced(f"Writing {path}"),
        replacing(path) as partial,
        open(partial, "w", encoding="utf-8") as f,
    ):
        json.dump(content, f)
    logger.info(
        f"Wrote {path}: {len(content['images'])} images, {len(content['annotations'])} objects"
    )
    return path


def numbered_lines(path: str) -> List[Tuple[int, str]]:
    """Return (number, content) of the lines of a text file that are not blank."""
    try:
        with open(path, encoding="utf-8-sig") as f:
            lines = f.read().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{path} cannot be read: {e}") from None
    return [(i, line.strip()) for i, line in enumerate(lines, start=1) if line.strip()]


class CocoBuilder:
    """Builds the content of a COCO file. Images, objects and categories are numbered from 1."""

    def __init__(self, class_names: Iterable[str]):
        self.images: List[Dict[str, Any]] = []
        self.annotations: List[Dict[str, Any]] = []
        self.unreadable: List[List[str]] = []
        self.class_names = list(class_names)
        self.notes: Dict[Tuple[str, str], List[str]] = {}

    def add_image(self, file_name: str, width: int, height: int) -> None:
        """Add an image. Objects that are added after it belong to it."""
        image_id = len(self.images) + 1
        self.images.append(
            {"id": image_id, "file_name": file_name, "width": width, "height": height}
        )

    def add_unreadable(self, path: str, why: str) -> None:
        """Add an image that cannot be read. It is left out, and the data check reports it."""
        self.unreadable.append([path, why])

    def note(self, check: str, text: str, example: str) -> None:
        """Add a note on something that the reader had to decide. The data check reports it."""
        self.notes.setdefault((check, text), []).append(example)

    def add_object(self, class_index: int, bbox: List[float], *, crowd: bool = False, **kwargs):
        """
        Add an object to the last image.

        Args:
            class_index: index of the class, counted from 0.
            bbox: XYWH, absolute pixels.
            crowd: whether this is a crowd region.
            kwargs: further entries of the annotation.
        """
        self.annotations.append(
            {
                "id": len(self.annotations) + 1,
                "image_id": len(self.images),
                "category_id": class_index + 1,
                "bbox": bbox,
                "area": bbox[2] * bbox[3],
                "iscrowd": int(crowd),
                **kwargs,
            }
        )

    def build(self) -> Dict[str, Any]:
        categories = [{"id": i, "name": n} for i, n in enumerate(self.class_names, start=1)]
        return {
            "info": {
                "unreadable_images": self.unreadable,
                "notes": [
                    {"check": check, "text": text, "found": found}
                    for (check, text), found in self.notes.items()
                ],
            },
            "images": self.images,
            "annotations": self.annotations,
            "categories": categories,
        }
