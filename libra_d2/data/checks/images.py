"""Check that image files can be read, have the annotated size, and are in one split only."""

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

# Before training, the headers of at most this many images of each data set are read, and the
# contents of at most this many images of each split are compared.
QUICK_LIMIT = 200


def check_images(report: DatasetReport, dicts: List[Dict[str, Any]], thorough: bool) -> None:
    """
    Add findings about the image files of a data set to `report`.

    Raises:
        UserError: None of the images can be read.
    """
    chosen = dicts if thorough else _spread(dicts)
    paths = [d["file_name"] for d in chosen]
    desc = f"Checking images, {report.split}"
    images = list(zip(chosen, read_headers(paths, decode=thorough, desc=desc)))
    # If the chosen images are all broken, the others may be as well.
    if len(chosen) < len(dicts) and all(image.error for _, image in images):
        chosen, paths = dicts, [d["file_name"] for d in dicts]
        images = list(zip(chosen, read_headers(paths, decode=False, desc=desc)))
    report.figures["images opened"] = f"{len(chosen)}{'' if thorough else ' (headers)'}"
    broken = [f"{d['file_name']} ({image.error})" for d, image in images if image.error]
    report.add("unreadable_images", "images cannot be read, and are skipped", broken, len(chosen))
    if chosen and len(broken) == len(dicts):
        where = report.json_file or report.dataset
        raise UserError(f"{where}: none of the images can be read. The first is {broken[0]}")
    images = [(d, image) for d, image in images if not image.error]
    wrong = [
        f"{d['file_name']} ({image.width}x{image.height}, annotated {_annotated(d)}"
        f"{', its size before the EXIF rotation' if image.rotated and _swapped(d, image) else ''})"
        for d, image in images
        if _annotated(d) not in ("", f"{image.width}x{image.height}")
    ]
    report.add(
        "wrong_size", "images do not have the annotated size, and are skipped", wrong, len(chosen)
    )
    for check, text, kind, problem in _KINDS:
        found = [d["file_name"] for d, image in images if kind(image)]
        report.add(check, text, found, len(chosen), problem=problem)


def require_readable(dataset: str) -> None:
    """
    Check that a registered data set has an image that can be evaluated, before running a model.

    Such an image can be read and has the annotated size.

    Raises:
        UserError: There is none.
    """
    first = ""
    dicts = [d for d in DatasetCatalog.get(dataset) if d.get("file_name")]
    for d in dicts:
        image = read_header(d["file_name"], decode=True)
        error = image.error
        if not error and _annotated(d) not in ("", size := f"{image.width}x{image.height}"):
            error = f"the image has {size} pixels, but {_annotated(d)} in the annotations"
        if not error:
            return
        first = first or f"{d['file_name']} ({error})"
    if first:
        raise UserError(
            f"{dataset}: none of the {len(dicts)} images can be used. The first is {first}"
        )


# Name of the check, text, whether it applies to an image, whether it is a problem.
_KINDS = (
    ("rotated", "images are rotated according to their EXIF data", lambda i: i.rotated, False),
    (
        "deep",
        "images have more than 8 bits per pixel, and are scaled to 8 bits",
        lambda i: is_deep(i.mode),
        False,
    ),
    ("cmyk", "images are in CMYK, and are converted", lambda i: i.mode == "CMYK", False),
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
    """Return at most `QUICK_LIMIT` items, evenly spread."""
    count = min(len(items), QUICK_LIMIT)
    return [items[i * len(items) // count] for i in range(count)]


def check_both_splits(
    train: List[Tuple[DatasetReport, str]], test: List[Tuple[DatasetReport, str]], thorough: bool
) -> None:
    """
    Find test images that are in the training set as well, by the content of the files.

    Only files with the same number of bytes are read and compared.
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
        report.add("in_both_splits", "images are also in the training set", found, len(files))


def _real_in(path: str, known: Dict[str, str]) -> bool:
    return os.path.realpath(path) in known


def _by_size(files: List[Tuple[DatasetReport, str]]) -> Dict[int, List[str]]:
    """Group paths by number of bytes; -1 for images that are not files, such as packed ones."""
    sizes: Dict[int, List[str]] = {}
    for _, path in files:
        try:
            size = os.stat(path).st_size
        except OSError:
            size = -1
        sizes.setdefault(size, []).append(path)
    return sizes


def _content_hashes(paths: Sequence[str]) -> List[str]:
    """Return a hash of each file's content; an empty string for a file that cannot be read."""
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        hashes = pool.map(_content_hash, paths)
        return list(progress(hashes, "Comparing splits", total=len(paths)))


def _content_hash(path: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open_image_file(path) as f:
            while block := f.read(1 << 20):
                digest.update(block)
    except (OSError, ValueError):  # check_images reports it
        return ""
    return digest.hexdigest()
