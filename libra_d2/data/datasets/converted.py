"""COCO annotation files that are made from data sets in other formats, and kept."""

import hashlib
import json
import logging
import os
from typing import Any, Callable, Dict, Iterable, List, Tuple

from ...errors import UserError
from ...utils.files import file_stamp, replacing
from ...utils.progress import announced

logger = logging.getLogger(__name__)

# To be raised when a reader writes something else for the same files.
_VERSION = 2


def fingerprint(files: Iterable[str], *settings: Any) -> str:
    """Twelve hex digits that change with the path, size or time of a file, and with `settings`."""
    digest = hashlib.blake2b(repr((_VERSION, settings)).encode(), digest_size=6)
    for file in files:
        digest.update(repr((file, *file_stamp(file))).encode())
    return digest.hexdigest()


def converted(folder: str, stem: str, mark: str, convert: Callable[[], Dict[str, Any]]) -> str:
    """
    Args:
        folder: where such files are kept.
        stem: what the file name begins with.
        mark: :func:`fingerprint` of all that the result depends on.
        convert: makes the content of the COCO file.

    Returns:
        Path of `folder/<stem>_<mark>.json`, which is written unless it is there already.
    """
    path = os.path.join(os.path.abspath(folder), f"{stem}_{mark}.json")
    if os.path.isfile(path):
        logger.info(f"{path} is used again: nothing has changed since it was made")
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
    """Number and content of the lines that are not blank."""
    try:
        with open(path, encoding="utf-8-sig") as f:
            lines = f.read().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{path} cannot be read: {e}") from None
    return [(i, line.strip()) for i, line in enumerate(lines, start=1) if line.strip()]


class CocoBuilder:
    """Numbers images, objects and categories from 1."""

    def __init__(self, class_names: Iterable[str]):
        self.images: List[Dict[str, Any]] = []
        self.annotations: List[Dict[str, Any]] = []
        self.unreadable: List[List[str]] = []
        self.class_names = list(class_names)
        self.notes: Dict[Tuple[str, str], List[str]] = {}

    def add_image(self, file_name: str, width: int, height: int) -> None:
        """The image that the next objects are in."""
        image_id = len(self.images) + 1
        self.images.append(
            {"id": image_id, "file_name": file_name, "width": width, "height": height}
        )

    def add_unreadable(self, path: str, why: str) -> None:
        """An image whose size is unknown, which is left out and named by the checks."""
        self.unreadable.append([path, why])

    def note(self, check: str, text: str, example: str) -> None:
        """What the reader had to decide, which is told as a finding of the checks."""
        self.notes.setdefault((check, text), []).append(example)

    def add_object(self, class_index: int, bbox: List[float], *, crowd: bool = False, **kwargs):
        """
        Args:
            bbox: XYWH, absolute pixels.
            kwargs: more entries of the annotation.
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
