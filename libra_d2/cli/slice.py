"""Cut a data set of large images into slices, or merge predictions on slices."""

import argparse
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Tuple

from ..errors import UserError
from ..utils.messages import printable

if TYPE_CHECKING:
    from ..data.slicing.coco_slices import Sliced

_COLUMNS = {
    "whole": "whole in a slice",
    "cut": "cut",
    "dropped": "dropped",
    "lost": "in no slice",
    "crowd": "crowd",
}
# Option -> default, of the options that say how to cut.
_CUTTING = {"size": 640, "overlap": 0.2, "min_visible": 0.3, "empty": 0.1, "seed": 0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "data",
        metavar="DATA",
        help="data set to cut, such as coco:annotations.json,images; with --merge, data set of "
        "slices",
    )
    add(
        "--output",
        required=True,
        metavar="PATH",
        help="new folder to write images, annotations.json and slices.json to; with --merge, file "
        "of COCO results",
    )
    add("--size", type=int, metavar="PIXELS", help="sides of a slice (default: 640)")
    add(
        "--overlap",
        type=float,
        metavar="SHARE",
        help="share of its sides that a slice has in common with its neighbors (default: 0.2)",
    )
    add(
        "--min-visible",
        type=float,
        metavar="SHARE",
        help="drop parts of objects if a slice shows less than this share of the object "
        "(default: 0.3)",
    )
    add(
        "--empty",
        type=float,
        metavar="SHARE",
        help="share of the slices without objects to keep; 1 keeps all, which --merge needs "
        "(default: 0.1)",
    )
    add("--seed", type=int, metavar="N", help="seed of the choice of empty slices (default: 0)")
    add(
        "--merge",
        default="",
        metavar="PREDICTIONS",
        help="instead of cutting, map predictions on slices back to the images, and merge what "
        "belongs to one object",
    )


def run(args: argparse.Namespace) -> int:
    given = {name: value for name in _CUTTING if (value := getattr(args, name)) is not None}
    if args.merge:
        if given:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UserError(
                f"--merge cannot be combined with {options}: the data set of slices says how it "
                "was cut"
            )
        return _merge(args)
    from ..data.slicing.coco_slices import SliceOptions, slice_dataset

    sliced = slice_dataset(args.data, args.output, SliceOptions(**{**_CUTTING, **given}))
    for line in warnings(sliced.record):
        print(printable(line), file=sys.stderr)
    for line in (*summary(sliced.record), "", table(sliced.record), "", *next_steps(sliced)):
        print(line)
    return 1 if sliced.record["skipped_images"] else 0


def warnings(record: Dict[str, Any]) -> List[str]:
    """What is not as one would expect."""
    lines = []
    pairs: Tuple[Tuple[str, str], ...] = (
        ("images that are skipped", "skipped_images"),
        ("images that are left out, since they cannot be read", "left_out_images"),
    )
    for text, key in pairs:
        if record[key]:
            path, reason = record[key][0]
            lines.append(f"{text}: {len(record[key])}, the first is {path}: {reason}")
    for text, key in (
        (
            "annotations that are left out, since their image is not listed or their box covers no "
            "part of it",
            "left_out_annotations",
        ),
        ("annotations that are kept without their masks, which are not valid", "bad_masks"),
    ):
        ids = record[key]
        if ids:
            lines.append(f"{text}: {len(ids)}, the first has the id {ids[0]}")
    for note in record["notes"]:
        lines.append(f"{len(note['found'])} {note['text']}, the first is {note['found'][0]}")
    return lines


def summary(record: Dict[str, Any]) -> List[str]:
    return [
        f"{record['num_images']} images: {record['num_slices']} slices of {record['size']} pixels "
        f"that overlap by {record['overlap']:.0%}",
        f"{record['num_slices_with_objects']} slices with objects; of {record['num_empty_slices']} "
        f"without, {record['num_empty_slices_kept']} are kept",
    ]


def table(record: Dict[str, Any]) -> str:
    """Parts of each class, and its objects that no slice shows enough of."""
    from tabulate import tabulate

    columns = {k: v for k, v in _COLUMNS.items() if k != "crowd" or _total(record, "crowd")}
    rows = [
        [f"class {printable(name)}", *(counts[kind] for kind in columns)]
        for name, counts in record["classes"].items()
    ]
    rows.append(["all", *(_total(record, kind) for kind in columns)])
    return tabulate(rows, headers=["", *columns.values()])


def _total(record: Dict[str, Any], kind: str) -> int:
    return sum(counts[kind] for counts in record["classes"].values())


def next_steps(sliced: "Sliced") -> List[str]:
    from ..data.slicing.coco_slices import ANNOTATIONS, IMAGES

    folder = os.path.relpath(sliced.folder)
    folder = sliced.folder if folder.startswith(os.pardir) else folder
    files = (os.path.join(folder, name) for name in (ANNOTATIONS, IMAGES))
    return ["To train on the slices:", f"  DATASETS.TRAIN {shlex.quote('coco:' + ','.join(files))}"]


def _merge(args: argparse.Namespace) -> int:
    from ..predictions.slice_predictions import merge_file

    merged = merge_file(args.data, args.merge, args.output)
    for note in merged.notes:
        print(printable(note), file=sys.stderr)
    for text, names in (
        ("predictions are left out whose images the data set does not have", merged.unknown),
        (
            "images lack slices, in which nothing can be found. Cut them with --empty 1",
            merged.incomplete,
        ),
    ):
        if names:
            print(f"{len(names)} {text}. The first is {printable(names[0])}", file=sys.stderr)
    print(
        f"{merged.num_slices} slices of {merged.num_images} images: {merged.num_before} detections "
        f"merged into {merged.num_detections}\n{printable(args.output)}"
    )
    return 0
