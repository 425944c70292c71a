"""Split a data set into COCO annotation files. The images stay where they are."""

import json
import logging
import os
import re
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Sequence, Set, Tuple

import numpy as np

from ...errors import UserError
from ...utils.files import make_folder_of, replacing
from ...utils.json_files import read_json
from ...utils.messages import printable, shown
from ...utils.progress import announced
from ..datasets.annotation_arrays import Annotations
from ..datasets.located import LocatedSet, read_located
from ..images.names import candidate_paths
from ..images.packed_store import PREFIX as PACKED
from ..images.reader import is_image_file
from .groups import join, join_equal, join_near, no_groups
from .image_hashes import hash_images, import_imagehash
from .stratification import stratify

logger = logging.getLogger(__name__)

RECORD = "split.json"
MAX_HASH_DISTANCE = 16  # of 64 bits; images that have nothing in common are rarely nearer than 20
_PART = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Split:
    files: Dict[str, str]  # part -> annotation file
    images: str  # folder, or file of packed data
    record: Dict[str, Any]  # the content of split.json


def split_dataset(
    description: str,
    output: str,
    ratios: Mapping[str, float],
    *,
    seed: int = 0,
    group_by: str = "",
    near_duplicates: bool = True,
    hash_distance: int = 4,
    overwrite: bool = False,
) -> Split:
    """
    Split a data set so that every part has its share of each class (:func:`stratify`). Writes
    `PART.json` of each part, and `split.json`, which says how it was done; all of them, or none.

    Args:
        description: as in `DATASETS.TRAIN`.
        output: folder to write to.
        ratios: part -> its share of the data. The shares sum to 1.
        seed: the same one gives the same parts.
        group_by: images of the same group stay in one part. A group is a value of this key of the
            images in the annotation file, or what this regular expression finds in their file names
            (its first group, or else the whole match). "": none.
        near_duplicates: keep images that look alike in one part.
        hash_distance: the bits, of 64, in which the perceptual hashes of such images may differ.
        overwrite: replace the files of an earlier split.

    Raises:
        UserError: an argument or a file is wrong, or there are too few images or groups of them.
    """
    _check_arguments(ratios, seed, hash_distance)
    if near_duplicates:
        import_imagehash()
    files = {part: os.path.join(output, f"{part}.json") for part in ratios}
    _check_existing(output, files, overwrite)
    source = read_located(logger, description, [*files.values(), os.path.join(output, RECORD)])
    images, names = source.content["images"], source.names
    if len(images) < len(ratios):
        raise UserError(f"{len(images)} images cannot be divided into {len(ratios)} parts")

    missing = {path for path in source.paths if not is_image_file(path)}
    # An image may be listed twice, also by names whose ends are the same: read alone, as in a part,
    # each of these would be taken for it.
    groups = join_equal(no_groups(len(images)), _places(source, missing))
    if group_by:
        groups = join_equal(groups, group_keys(images, group_by))
    alike: List[List[str]] = []
    unreadable = [(path, "there is no such file") for path in source.paths if path in missing]
    if near_duplicates:
        hashed, hashes, unreadable = hash_images(source.paths)
        if not len(hashed):
            path, reason = unreadable[0]
            raise UserError(
                f"none of the {len(images)} images can be read. The first is {path}: {reason}"
            )
        look_alike = join_near(no_groups(len(images)), hashed, hashes, hash_distance)
        alike = _names_of_groups(look_alike, names)
        groups = join(groups, no_groups(len(images)), look_alike)
    num_groups = len(np.unique(groups))
    if num_groups < len(ratios):
        hint = ". --no-near-duplicates separates images that look alike" if alike else ""
        raise UserError(
            f"{len(images)} images, in {num_groups} group{'s' * (num_groups != 1)} that must stay "
            f"together, cannot be divided into {len(ratios)} parts{hint}"
        )
    objects = Annotations.of_coco(source.content)
    counted = objects.without_crowd()
    with announced(f"Splitting {len(images)} images"):
        part_of = stratify(groups, counted.image, counted.classes, list(ratios.values()), seed)

    contents = _contents(source, part_of, ratios)
    known = {image["id"] for image in images}
    record: Dict[str, Any] = {
        "data": description,
        "images": source.image_root.removeprefix(PACKED),
        "ratios": dict(ratios),
        "seed": seed,
        "group_by": group_by,
        "hash_distance": hash_distance if near_duplicates else None,
        "num_images": len(images),
        "num_groups": num_groups,
        "largest_group": int(np.bincount(groups).max()),
        "parts": _figures(contents, objects, part_of, ratios),
        "classes": _class_counts(source.content, counted, part_of, ratios),
        "near_duplicates": alike,
        "unreadable_images": [list(pair) for pair in unreadable],
        # What is in no part: images that a reader of another format could not open, and annotations
        # of images that the file does not list.
        "left_out_images": source.info.get("unreadable_images") or [],
        "left_out_annotations": [
            a["id"] for a in source.content["annotations"] if a["image_id"] not in known
        ],
        "notes": source.info.get("notes") or [],
    }
    _write(output, files, contents, record)
    return Split(files, record["images"], record)


def group_keys(images: Sequence[Dict[str, Any]], group_by: str) -> List[str]:
    """
    The group of each image.

    >>> images = [{"file_name": f"p{i}/a.jpg", "video_id": 7} for i in (1, 2)]
    >>> group_keys(images, "video_id"), group_keys(images, r"p(\\d+)")
    (['7', '7'], ['1', '2'])

    Args:
        images: records of a COCO annotation file.
        group_by: a key of the records if one of them has it, or else a regular expression, whose
            first group, or whole match, in the file name counts.

    Raises:
        UserError: an image has no such key, or no match; the first ones are named.
    """
    if any(group_by in image for image in images):
        values = [_key(image.get(group_by)) for image in images]
        lacks = f"have no number or text under the key {group_by!r}"
    else:
        try:
            pattern = re.compile(group_by)
        except re.error as e:
            raise UserError(
                "--group-by must be a key of the images or a regular expression, got "
                f"{group_by!r}: {e}"
            ) from None
        matches = [pattern.search(image["file_name"]) for image in images]
        values = [(m[1 if pattern.groups else 0] or "") if m else "" for m in matches]
        lacks = f"have a file name that {group_by!r} does not match"
        if not any(matches):
            lacks += (
                f", and {group_by!r} is not one of their keys ({', '.join(map(str, images[0]))})"
            )
    bad = [image["file_name"] for image, value in zip(images, values) if not value]
    if bad:
        first = ", ".join(map(printable, bad[:3])) + ", ..." * (len(bad) > 3)
        raise UserError(f"--group-by: {len(bad)} of {len(images)} images {lacks}: {first}")
    return values


def _key(value: Any) -> str:
    """1, 1.0 and "1" are the same group: to keep too much together does no harm."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, (int, float, str)) else ""


def _check_arguments(ratios: Mapping[str, float], seed: int, hash_distance: int) -> None:
    for part, ratio in ratios.items():
        if not _PART.fullmatch(part) or part.lower() == "split":
            raise UserError(
                "--ratios must name parts by letters, digits, - and _, but not 'split', got "
                f"{shown(part)}"
            )
        if not 0 < ratio < 1:
            raise UserError(f"--ratios must each be above 0 and below 1, got {part}={ratio:g}")
    if len({part.lower() for part in ratios}) < len(ratios):  # the same file on some disks
        raise UserError(f"--ratios must name each part only once, got {' '.join(ratios)}")
    if abs(sum(ratios.values()) - 1) > 1e-6:
        raise UserError(f"--ratios must sum to 1, got a sum of {sum(ratios.values()):.6g}")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed must be from 0 to {2**32 - 1}, got {seed}")
    if not 0 <= hash_distance <= MAX_HASH_DISTANCE:
        raise UserError(
            f"--hash-distance must be from 0 to {MAX_HASH_DISTANCE} bits, got {hash_distance}"
        )


def _check_existing(output: str, files: Mapping[str, str], overwrite: bool) -> None:
    """
    Raises:
        UserError: files would be replaced without `overwrite`, or an earlier split in the folder
            has a part that would stay, though its images are now in other parts, too.
    """
    record = os.path.join(output, RECORD)
    if os.path.lexists(output) and not os.path.isdir(output):
        raise UserError(f"--output must be a folder, got the file {output}")
    there = [path for path in (*files.values(), record) if os.path.lexists(path)]
    if there and not overwrite:
        raise UserError(f"{there[0]} exists. Give another --output, or --overwrite to replace it")
    if not os.path.isfile(record):
        return
    earlier = read_json(record)
    parts = earlier.get("parts") if isinstance(earlier, dict) else None
    for part in parts if isinstance(parts, dict) else ():
        path = os.path.join(output, f"{part}.json")
        if part not in files and _PART.fullmatch(part) and os.path.lexists(path):
            raise UserError(
                f"{path} belongs to an earlier split, which had other parts. Delete it, or give "
                "another --output"
            )


def _places(source: LocatedSet, missing: Set[str]) -> List[str]:
    """The path of each image; of a missing one, the path that it would have without the others."""
    places = []
    for name, path in zip(source.names, source.paths):
        if path in missing:
            others = map(os.path.normpath, candidate_paths(name, source.image_root))
            path = next(filter(is_image_file, others), path)
        places.append(path)
    return places


def _names_of_groups(groups: np.ndarray, names: Sequence[str]) -> List[List[str]]:
    """Of the groups of two images or more."""
    of_group: Dict[int, List[str]] = {}
    for group, name in zip(groups.tolist(), names):
        of_group.setdefault(group, []).append(name)
    return [members for members in of_group.values() if len(members) > 1]


def _contents(
    source: LocatedSet, part_of: np.ndarray, ratios: Mapping[str, float]
) -> Dict[str, Dict[str, Any]]:
    """COCO content of each part. What belongs to no image, such as the categories, is in each."""
    images: Dict[str, List[Dict[str, Any]]] = {part: [] for part in ratios}
    annotations: Dict[str, List[Dict[str, Any]]] = {part: [] for part in ratios}
    parts, of_image = list(ratios), {}
    packed = source.image_root.startswith(PACKED)
    for image, path, index in zip(source.content["images"], source.paths, part_of.tolist()):
        name = image["file_name"]
        if not packed and path != os.path.normpath(os.path.join(source.image_root, name)):
            name = os.path.relpath(path, source.image_root)  # found by the end of the name
        images[parts[index]].append({**image, "file_name": name})
        of_image[image["id"]] = parts[index]
    for annotation in source.content["annotations"]:
        if annotation["image_id"] in of_image:
            annotations[of_image[annotation["image_id"]]].append(annotation)
    shared = source.shared
    return {p: {**shared, "images": images[p], "annotations": annotations[p]} for p in ratios}


def _figures(
    contents: Mapping[str, Dict[str, Any]],
    objects: Annotations,
    part_of: np.ndarray,
    ratios: Mapping[str, float],
) -> Dict[str, Dict[str, Any]]:
    counted = objects.without_crowd()
    empty = np.ones(len(part_of), dtype=bool)
    empty[counted.image] = False
    figures = {}
    for i, part in enumerate(ratios):
        num_objects = int((part_of[counted.image] == i).sum())
        figures[part] = {
            "annotations": f"{part}.json",
            "num_images": len(contents[part]["images"]),
            "share": len(contents[part]["images"]) / len(part_of),
            "num_images_without_objects": int((empty & (part_of == i)).sum()),
            "num_objects": num_objects,
            "num_crowd": int((part_of[objects.image] == i).sum()) - num_objects,
            "num_annotations": len(contents[part]["annotations"]),
        }
    return figures


def _class_counts(
    content: Dict[str, Any], counted: Annotations, part_of: np.ndarray, ratios: Mapping[str, float]
) -> Dict[str, Dict[str, int]]:
    """Class -> part -> number of objects."""
    names = [category["name"] for category in content["categories"]]
    numbers = np.zeros((len(names), len(ratios)), dtype=np.int64)
    np.add.at(numbers, (counted.classes, part_of[counted.image]), 1)
    return {name: dict(zip(ratios, row)) for name, row in zip(names, numbers.tolist())}


def _write(
    output: str,
    files: Mapping[str, str],
    contents: Mapping[str, Dict[str, Any]],
    record: Dict[str, Any],
) -> None:
    outputs: List[Tuple[str, str]] = [(files[p], json.dumps(contents[p])) for p in files]
    outputs.append((os.path.join(output, RECORD), json.dumps(record, indent=1)))
    make_folder_of(os.path.join(output, RECORD))
    with announced(f"Writing to {output}"), ExitStack() as stack:
        # All are written before the first one is put in its place.
        for path, text in outputs:
            partial = stack.enter_context(replacing(path))
            with open(partial, "w", encoding="utf-8") as f:
                f.write(text)
