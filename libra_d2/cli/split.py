"""Split a data set into train, val and test, with the same share of each class."""

import argparse
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Sequence

from ..errors import UserError
from ..utils.messages import printable, shown

if TYPE_CHECKING:
    from ..data.splitting.coco_split import Split

_DEFAULT_PARTS = {2: ("train", "val"), 3: ("train", "val", "test")}
_CLASSES_SHOWN = 20
_EXAMPLES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", metavar="DATA", help="data set to split, such as coco:annotations.json,images"
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FOLDER",
        help="folder to write train.json, val.json, test.json and split.json to",
    )
    parser.add_argument(
        "--ratios",
        nargs="+",
        default=["0.8", "0.1", "0.1"],
        metavar="RATIO",
        help="shares of the parts: of train, val and test, of train and val, or with names, such "
        "as train=0.7 val=0.3 (default: 0.8 0.1 0.1)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the random order (default: %(default)s)",
    )
    parser.add_argument(
        "--group-by",
        default="",
        metavar="REGEX_OR_KEY",
        help="keep images of a group in one part: those whose file names have the same match of "
        "a regular expression, such as '(patient\\d+)', or whose entries in the annotations have "
        "the same value of a key, such as video_id",
    )
    parser.add_argument(
        "--near-duplicates",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep images that look alike in one part; this reads all images (default: yes)",
    )
    parser.add_argument(
        "--hash-distance",
        type=int,
        default=4,
        metavar="BITS",
        help="images look alike if at most this many of the 64 bits of their hashes differ "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the files of an earlier split"
    )


def run(args: argparse.Namespace) -> None:
    from ..data.splitting.coco_split import split_dataset

    split = split_dataset(
        args.data,
        args.output,
        parse_ratios(args.ratios),
        seed=args.seed,
        group_by=args.group_by,
        near_duplicates=args.near_duplicates,
        hash_distance=args.hash_distance,
        overwrite=args.overwrite,
    )
    for line in warnings(split.record):
        print(printable(line), file=sys.stderr)
    for line in (*found_groups(split.record), table(split.record), *next_steps(split)):
        print(line)


def parse_ratios(values: Sequence[str]) -> Dict[str, float]:
    """
    >>> parse_ratios(["0.9", "0.1"])
    {'train': 0.9, 'val': 0.1}
    >>> parse_ratios(["train=0.6,val=0.2", "test=0.2"])
    {'train': 0.6, 'val': 0.2, 'test': 0.2}

    Raises:
        UserError: a value is not a number, or names are missing.
    """
    words = [word.strip() for value in values for word in value.split(",") if word.strip()]
    named = [word.rpartition("=") for word in words]
    if any(equals for _, equals, _ in named) and not all(equals for _, equals, _ in named):
        raise UserError(f"--ratios must name all parts or none, got {' '.join(words)}")
    names: Sequence[str] = [name.strip() for name, equals, _ in named if equals]
    if not names:
        if len(words) not in _DEFAULT_PARTS:
            raise UserError(
                "--ratios must be 2 or 3 numbers, or parts with names such as train=0.5 val=0.5, "
                f"got {' '.join(words)}"
            )
        names = _DEFAULT_PARTS[len(words)]
    elif len(names) < 2:
        raise UserError(f"--ratios must name at least two parts, got {' '.join(words)}")
    elif len(set(names)) < len(names):
        raise UserError(f"--ratios must name each part only once, got {' '.join(words)}")
    ratios = {}
    for name, (_, _, number) in zip(names, named):
        try:
            ratios[name] = float(number)
        except ValueError:
            raise UserError(f"--ratios must be numbers, got {shown(number)}") from None
    return ratios


def table(record: Dict[str, Any]) -> str:
    """Numbers of each part, with its share of all."""
    from tabulate import tabulate

    parts = record["parts"]

    def row(label: str, numbers: Sequence[int]) -> List[str]:
        total = sum(numbers)
        return [label, *(f"{n} ({n / total:.1%})" if total else "0" for n in numbers)]

    rows = [["wanted", *(f"{ratio:.1%}" for ratio in record["ratios"].values())]]
    for label, key in (
        ("images", "num_images"),
        ("images without objects", "num_images_without_objects"),
        ("objects", "num_objects"),
        ("crowd regions", "num_crowd"),
    ):
        numbers = [part[key] for part in parts.values()]
        if any(numbers) or key == "num_images":
            rows.append(row(label, numbers))
    classes = {name: list(counts.values()) for name, counts in record["classes"].items()}
    listed = list(classes)
    if len(listed) > _CLASSES_SHOWN:  # the rarest, which are the hardest to split
        listed = sorted(classes, key=lambda name: sum(classes[name]))[:_CLASSES_SHOWN]
    rows += [row(f"class {printable(name)}", classes[name]) for name in listed]
    text = tabulate(rows, headers=["", *parts], disable_numparse=True)
    if len(listed) < len(classes):
        text += f"\n(the {len(listed)} rarest of {len(classes)} classes; all are in split.json)"
    return text


def found_groups(record: Dict[str, Any]) -> List[str]:
    alike, lines = record["near_duplicates"], []
    if record["hash_distance"] is not None:
        groups = _count(len(alike), "group")
        lines.append(f"Images that look like others: {sum(map(len, alike))}, in {groups}")
        for group in alike[:_EXAMPLES]:
            names = ", ".join(map(printable, group[:_EXAMPLES]))
            lines.append(f"  {names}" + ", ..." * (len(group) > _EXAMPLES))
        lines += ["  ..."] * (len(alike) > _EXAMPLES)
    if record["group_by"]:
        lines.append(
            f"{_count(record['num_images'], 'image')} in {_count(record['num_groups'], 'group')} "
            f"that stay together; the largest has {record['largest_group']}"
        )
    return [*lines, ""] if lines else []


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def warnings(record: Dict[str, Any]) -> List[str]:
    """What is not as one would expect."""
    lines = []
    for text, key in (
        ("images that cannot be read, and are compared with no others", "unreadable_images"),
        ("images that are in no part, since they cannot be read", "left_out_images"),
    ):
        if record[key]:
            path, reason = record[key][0]
            lines.append(f"{text}: {len(record[key])}, the first is {path}: {reason}")
    ids = record["left_out_annotations"]
    if ids:
        lines.append(
            "annotations that are in no part, since the file does not list their images: "
            f"{len(ids)}, the first has the id {ids[0]}"
        )
    for note in record["notes"]:
        lines.append(f"{len(note['found'])} {note['text']}, the first is {note['found'][0]}")
    missing = {
        name: [part for part, count in counts.items() if not count]
        for name, counts in record["classes"].items()
        if any(counts.values()) and not all(counts.values())
    }
    if missing:
        some = [f"{name} (not in {', '.join(parts)})" for name, parts in missing.items()]
        more = ", ..." * (len(some) > _EXAMPLES)
        lines.append(
            f"classes that too few groups of images have to be in every part: {len(missing)}, "
            f"{', '.join(some[:_EXAMPLES])}{more}"
        )
    shares = [part["share"] for part in record["parts"].values()]
    off = max(abs(share - r) for share, r in zip(shares, record["ratios"].values()))
    if off > 0.05:
        lines.append(
            f"the shares of the images differ from --ratios by up to {off:.0%}: the largest group "
            f"of images has {record['largest_group']} of {record['num_images']}"
        )
    return lines


def next_steps(split: "Split") -> List[str]:
    """The values of `DATASETS.TRAIN` and `DATASETS.TEST`."""
    parts = list(split.files)
    train = "train" if "train" in parts else parts[0]
    others = [part for part in parts if part != train]
    val = "val" if "val" in others else others[0]
    images = _short(split.images)

    def value(part: str) -> str:
        return shlex.quote(f"coco:{_short(split.files[part])},{images}")

    lines = ["", "To train and evaluate on the parts:"]
    lines += [f"  DATASETS.TRAIN {value(train)} DATASETS.TEST {value(val)}"]
    for part in others:
        if part != val:
            lines += [f"For {part}, with --eval-only:", f"  DATASETS.TEST {value(part)}"]
    return lines


def _short(path: str) -> str:
    """Relative to the working folder, if the path is in it."""
    relative = os.path.relpath(path)
    return os.path.abspath(path) if relative.startswith(os.pardir) else relative
