"""Cut the images of a data set into slices, with their annotations, as a new data set."""

import json
import logging
import os
import re
import shutil
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import numpy as np

from ...errors import UserError
from ...utils.progress import progress
from ...utils.system_errors import write_error
from ..datasets.coco import usable_annotations
from ..datasets.located import LocatedSet, read_located
from ..images.encoding import encode_image
from ..images.reader import read_header, read_image
from .annotations import SlicedAnnotations, slice_annotations
from .geometry import check_slicing, slice_grid

logger = logging.getLogger(__name__)

ANNOTATIONS, IMAGES, RECORD = "annotations.json", "images", "slices.json"
_LOSSY = ("JPEG", "MPO")  # slices of these are JPEG files, too; those of others are PNG files
_STEM = 100  # characters of the name of an image that the names of its slices begin with


@dataclass(frozen=True)
class SliceOptions:
    """The options of `libra-d2 slice`, whose help describes them."""

    size: int = 640
    overlap: float = 0.2
    min_visible: float = 0.3
    empty: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Sliced:
    """What was written: the folder, and the content of its `slices.json`."""

    folder: str
    record: Dict[str, Any]


def slice_dataset(description: str, output: str, options: SliceOptions) -> Sliced:
    """
    Cut a data set into slices. Writes the folder `images`, `annotations.json` in COCO's format, and
    `slices.json`, which says how it was done; all of them, or none.

    Args:
        description: as in `DATASETS.TRAIN`.
        output: folder to write, which does not exist yet or is empty.

    Raises:
        UserError: an option, the description or a file is wrong, or no image can be read.
    """
    _check_options(options)
    output = os.path.realpath(output)
    _check_folder(output)
    source = read_located(logger, description)
    images = _plan(source, options)
    partial = f"{output}.{uuid.uuid4().hex}.libra-partial"
    try:
        os.makedirs(os.path.join(partial, IMAGES))
        skipped = _write_images(images, os.path.join(partial, IMAGES))
        done = [image for image in images if not image.error]
        if not done:
            path, reason = skipped[0]
            raise UserError(
                f"none of the {len(images)} images can be read. The first is {path}: {reason}"
            )
        content = _content(source, done, options)
        record = _record(source, done, content, options, description, skipped)
        for name, text in ((ANNOTATIONS, json.dumps(content)), (RECORD, json.dumps(record))):
            _write(os.path.join(partial, name), text.encode())
        if os.path.isdir(output):
            os.rmdir(output)  # it is empty
        os.rename(partial, output)
    except OSError as e:
        if e.filename and not os.fsdecode(e.filename).startswith(partial):
            raise
        raise write_error(e, output) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Sliced(output, record)


def _check_options(options: SliceOptions) -> None:
    check_slicing(options.size, options.overlap)
    for name in ("min_visible", "empty"):
        value = getattr(options, name)
        if not 0 <= value <= 1:
            raise UserError(f"--{name.replace('_', '-')} must be in [0, 1], got {value:g}")
    if not 0 <= options.seed < 2**32:
        raise UserError(f"--seed must be from 0 to {2**32 - 1}, got {options.seed}")


def _check_folder(output: str) -> None:
    """This also keeps inputs, and what else the user has in a folder, from being replaced."""
    if os.path.lexists(output) and not os.path.isdir(output):
        raise UserError(f"--output must be a folder, got the file {output}")
    if os.path.isdir(output) and os.listdir(output):
        raise UserError(
            f"--output must be a new or an empty folder, but {output} has files. Give another one, "
            "or delete it"
        )


@dataclass
class _Image:
    """An image with its slices. `chosen` are the indices of the slices to write."""

    path: str
    entry: Dict[str, Any]  # of the annotation file
    stem: str
    slices: np.ndarray  # (S, 4) XYXY
    annotations: SlicedAnnotations
    chosen: List[int]
    suffix: str = ""
    error: str = ""


def _plan(source: LocatedSet, options: SliceOptions) -> List[_Image]:
    of_image: Dict[Any, List[Dict[str, Any]]] = {}
    for annotation in usable_annotations(source.content):
        of_image.setdefault(annotation["image_id"], []).append(annotation)
    images = []
    entries = source.content["images"]
    for entry, path, stem in zip(progress(entries, "Slicing"), source.paths, _stems(source.names)):
        width, height = int(entry["width"]), int(entry["height"])
        slices = slice_grid(width, height, options.size, options.overlap)
        objects = of_image.get(entry["id"], [])
        annotations = slice_annotations(objects, width, height, slices, options.min_visible)
        chosen = [s for s, kept in enumerate(annotations.kept) if kept]
        images.append(_Image(path, entry, stem, slices, annotations, chosen))
    empty = [
        (image, s) for image in images for s, kept in enumerate(image.annotations.kept) if not kept
    ]
    order = np.random.default_rng(options.seed).permutation(len(empty))
    for k in order[: round(options.empty * len(empty))]:
        image, s = empty[k]
        image.chosen.append(s)
    for image in images:
        image.chosen.sort()
    return images


def _stems(names: Sequence[str]) -> List[str]:
    """Names of files that are different on every disk, without folders and suffixes."""
    stems = []
    for name in names:
        stem = os.path.splitext(re.split(r"[/\\]", name)[-1])[0]
        stems.append(re.sub(r"[^\w.-]", "_", stem, flags=re.ASCII)[:_STEM])
    count = Counter(stem.lower() for stem in stems)
    numbers = len(str(len(stems)))
    return [
        f"{i:0{numbers}}_{stem}" if count[stem.lower()] > 1 or not stem else stem
        for i, stem in enumerate(stems, start=1)
    ]


def _write_images(images: Sequence[_Image], folder: str) -> List[Tuple[str, str]]:
    """Write the chosen slices. Return the images that cannot be read, with the reasons."""
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        done = pool.map(lambda image: _write_slices(image, folder), images)
        for _ in progress(done, "Writing slices", total=len(images)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return [(image.path, image.error) for image in images if image.error]


def _write_slices(image: _Image, folder: str) -> None:
    if not image.chosen:  # a file that cannot be read is reported even if nothing is cut out of it
        image.error = read_header(image.path).error
        return
    try:
        pixels = read_image(image.path, "RGB")
        lossy = read_header(image.path).format in _LOSSY
    except ValueError as e:
        image.error = str(e)
        return
    size, expected = pixels.shape[1::-1], (image.entry["width"], image.entry["height"])
    if size != expected:
        image.error = "its size is {}x{}, but {}x{} in the annotations".format(*size, *expected)
        return
    image.suffix = ".jpg" if lossy else ".png"
    for s in image.chosen:
        x0, y0, x1, y1 = image.slices[s]
        _write(os.path.join(folder, _name(image, s)), encode_image(pixels[y0:y1, x0:x1], not lossy))


def _name(image: _Image, s: int) -> str:
    x0, y0 = image.slices[s, :2]
    return f"{image.stem}_{x0}_{y0}{image.suffix}"


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())  # the folder is complete even after a power failure


def _content(source: LocatedSet, images: Sequence[_Image], options: SliceOptions) -> Dict[str, Any]:
    """The COCO content of the slices. Images and annotations keep the keys of the source."""
    slices: List[Dict[str, Any]] = []
    annotations: List[Dict[str, Any]] = []
    for image, s in _chosen(images):
        x0, y0, x1, y1 = image.slices[s].tolist()
        slices.append(
            {
                **image.entry,
                "id": len(slices) + 1,
                "file_name": _name(image, s),
                "width": x1 - x0,
                "height": y1 - y0,
                "offset": [x0, y0],
                "source_id": image.entry["id"],
                "source_file_name": image.entry["file_name"],
                "source_width": int(image.entry["width"]),
                "source_height": int(image.entry["height"]),
            }
        )
        for part in image.annotations.kept[s]:
            own = {"id": len(annotations) + 1, "image_id": len(slices), "source_id": part["id"]}
            annotations.append({**part, **own})
    shared = source.shared
    info = shared.get("info") if isinstance(shared.get("info"), dict) else {}
    info = {**(info or {}), "slices": {"size": options.size, "overlap": options.overlap}}
    return {**shared, "info": info, "images": slices, "annotations": annotations}


def _chosen(images: Sequence[_Image]) -> Iterator[Tuple[_Image, int]]:
    return ((image, s) for image in images for s in image.chosen)


def _record(
    source: LocatedSet,
    images: Sequence[_Image],
    content: Dict[str, Any],
    options: SliceOptions,
    description: str,
    skipped: Sequence[Tuple[str, str]],
) -> Dict[str, Any]:
    kept = [image.annotations.kept for image in images]
    counts = {
        kind: Counter(c for image in images for c in getattr(image.annotations, kind))
        for kind in ("whole", "cut", "dropped", "lost", "crowd")
    }
    num_slices = sum(map(len, kept))
    with_objects = sum(bool(parts) for of_image in kept for parts in of_image)
    return {
        "data": description,
        **vars(options),
        "num_images": len(images),
        "num_slices": num_slices,
        "num_slices_with_objects": with_objects,
        "num_empty_slices": num_slices - with_objects,
        "num_empty_slices_kept": len(content["images"]) - with_objects,
        "classes": {
            category["name"]: {kind: n[category["id"]] for kind, n in counts.items()}
            for category in source.content["categories"]
        },
        "bad_masks": [i for image in images for i in image.annotations.bad_masks],
        "skipped_images": [list(pair) for pair in skipped],
        # What no slice can have: images that a reader of another format could not open, and
        # annotations of images that the file does not list or without a box in their image.
        "left_out_images": source.info.get("unreadable_images") or [],
        "left_out_annotations": _left_out(source.content),
        "notes": source.info.get("notes") or [],
    }


def _left_out(content: Dict[str, Any]) -> List[Any]:
    used = {a["id"] for a in usable_annotations(content)}
    return [a["id"] for a in content["annotations"] if a["id"] not in used]
