"""Checks of image files: readable, of the annotated size, of one split only."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Sequence, Tuple

from detectron2.data import DatasetCatalog

from ...errors import UserError
from ...utils.progress import progress
from ..images.grey_levels import is_deep
from ..images.reader import NUM_THREADS, ImageHeader, open_image_file, read_header, read_headers
from .findings import DatasetReport

# Before training, this many images of each data set are opened (their headers), and this many
# of a split compared with the other split.
QUICK_LIMIT = 200


def check_images(report: DatasetReport, dicts: List[Dict[str, Any]], thorough: bool) -> None:
    """
    Add what is wrong with the image files of a data set to `report`.

    Raises:
        UserError: no image can be read.
    """
    chosen = dicts if thorough else _spread(dicts)
    paths = [d["file_name"] for d in chosen]
    desc = f"Checking images, {report.split}"
    images = list(zip(chosen, read_headers(paths, decode=thorough, desc=desc)))
    if len(chosen) < len(dicts) and all(image.error for _, image in images):  # perhaps all are
        chosen, paths = dicts, [d["file_name"] for d in dicts]
        images = list(zip(chosen, read_headers(paths, decode=False, desc=desc)))
    report.figures["images opened"] = f"{len(chosen)}{'' if thorough else ' (headers)'}"
    broken = [f"{d['file_name']} ({image.error})" for d, image in images if image.error]
    report.add("unreadable_images", "images cannot be read, and are skipped", broken, len(chosen))
    if chosen and len(broken) == len(dicts):
        where = report.json_file or report.dataset
        raise UserError(f"{where}: none of its images can be read, the first: {broken[0]}")
    images = [(d, image) for d, image in images if not image.error]
    wrong = [
        f"{d['file_name']} ({image.width}x{image.height}, annotated {_annotated(d)}"
        f"{', as before the rotation by EXIF' if image.rotated and _swapped(d, image) else ''})"
        for d, image in images
        if _annotated(d) not in ("", f"{image.width}x{image.height}")
    ]
    report.add("wrong_size", "images have another size, and are skipped", wrong, len(chosen))
    for check, text, kind, problem in _KINDS:
        found = [d["file_name"] for d, image in images if kind(image)]
        report.add(check, text, found, len(chosen), problem=problem)


def require_readable(dataset: str) -> None:
    """
    Look for an image of a registered data set that can be evaluated, before a model is run on all:
    one that can be read and has the size that the annotations say.

    Raises:
        UserError: there is none.
    """
    first = ""
    dicts = [d for d in DatasetCatalog.get(dataset) if d.get("file_name")]
    for d in dicts:
        image = read_header(d["file_name"], decode=True)
        error = image.error
        if not error and _annotated(d) not in ("", size := f"{image.width}x{image.height}"):
            error = f"it is {size} pixels large, but the annotations say {_annotated(d)}"
        if not error:
            return
        first = first or f"{d['file_name']} ({error})"
    if first:
        raise UserError(
            f"{dataset}: none of its {len(dicts)} images can be used, the first: {first}"
        )


# Check, text, whether an image is such a one, whether that is a problem.
_KINDS = (
    ("rotated", "images are rotated as their EXIF data says", lambda i: i.rotated, False),
    (
        "deep",
        "images have more than 8 bits a pixel, and are scaled to 8 bits",
        lambda i: is_deep(i.mode),
        False,
    ),
    ("cmyk", "images are CMYK, and converted", lambda i: i.mode == "CMYK", False),
    (
        "several_frames",
        "images have several frames, of which the first is used",
        lambda i: i.several_frames,
        False,
    ),
    (
        "tiny_images",
        "images have a side below 8 pixels",
        lambda i: min(i.width, i.height) < 8,
        True,
    ),
)


def _annotated(d: Dict[str, Any]) -> str:
    return f"{d['width']:g}x{d['height']:g}" if "width" in d and "height" in d else ""


def _swapped(d: Dict[str, Any], image: ImageHeader) -> bool:
    return _annotated(d) == f"{image.height}x{image.width}"


def _spread(items: Sequence[Any]) -> List[Any]:
    """At most `QUICK_LIMIT` of the items, evenly."""
    count = min(len(items), QUICK_LIMIT)
    return [items[i * len(items) // count] for i in range(count)]


def check_both_splits(
    train: List[Tuple[DatasetReport, str]], test: List[Tuple[DatasetReport, str]], thorough: bool
) -> None:
    """
    Find test images whose content is in the training set, too. Only files of the same number of
    bytes can be the same, so few are read.
    """
    train_sizes, test_sizes = _by_size(train), _by_size(test)
    shared = sorted(train_sizes.keys() & test_sizes.keys())
    if -1 in train_sizes or -1 in test_sizes:
        shared = sorted(train_sizes.keys() | test_sizes.keys())
    train_paths = [path for size in shared for path in train_sizes.get(size, ())]
    test_paths = [path for size in shared for path in test_sizes.get(size, ())]
    known = {os.path.realpath(path): path for path in train_paths}
    same = {path: known[os.path.realpath(path)] for path in test_paths if _real_in(path, known)}
    if not thorough:
        train_paths, test_paths = train_paths[:QUICK_LIMIT], test_paths[:QUICK_LIMIT]
    hashes = dict(zip(_content_hashes(train_paths), train_paths))
    for path, content in zip(test_paths, _content_hashes(test_paths)):
        if content and content in hashes:
            same.setdefault(path, hashes[content])
    for report in {id(r): r for r, _ in test}.values():
        files = [path for r, path in test if r is report]
        found = [f"{path} = {same[path]}" for path in files if path in same]
        report.add("in_both_splits", "images are in the training set, too", found, len(files))


def _real_in(path: str, known: Dict[str, str]) -> bool:
    return os.path.realpath(path) in known


def _by_size(files: List[Tuple[DatasetReport, str]]) -> Dict[int, List[str]]:
    """Paths by number of bytes; -1: unknown, since the image is no file of its own."""
    sizes: Dict[int, List[str]] = {}
    for _, path in files:
        try:
            size = os.stat(path).st_size
        except OSError:
            size = -1
        sizes.setdefault(size, []).append(path)
    return sizes


def _content_hashes(paths: Sequence[str]) -> List[str]:
    """Hash of each file's bytes; an empty string for a file that cannot be read."""
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        hashes = pool.map(_content_hash, paths)
        return list(progress(hashes, "Comparing splits", total=len(paths)))


def _content_hash(path: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open_image_file(path) as f:
            while block := f.read(1 << 20):
                digest.update(block)
    except (OSError, ValueError):  # as said by the check of images
        return ""
    return digest.hexdigest()
