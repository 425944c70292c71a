"""Pack a COCO data set into one file, for DATASETS.TRAIN packed:FILE, or verify such a file."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from ..errors import UserError
from ..utils.messages import printable

if TYPE_CHECKING:
    from ..data.packed.packing import Packed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="COCO_JSON", help="annotations in COCO format")
    parser.add_argument("--images", metavar="FOLDER", help="image folder")
    parser.add_argument("--out", metavar="FILE", help="file to write, such as train.lmdb")
    parser.add_argument(
        "--max-side",
        type=int,
        default=0,
        metavar="PIXELS",
        help="scale down images whose longer side exceeds N pixels (default: 0, no image)",
    )
    parser.add_argument(
        "--allow-outside",
        action="store_true",
        help="also pack images outside of the image folder, to which file names or links lead",
    )
    parser.add_argument(
        "--verify", metavar="FILE", help="verify the checksums of a packed file instead of packing"
    )


def run(args: argparse.Namespace) -> int:
    from ..data.packed.packing import pack

    wanted = {"--json": args.json, "--images": args.images, "--out": args.out}
    if args.verify:
        if any(wanted.values()) or args.max_side:
            raise UserError("--verify FILE cannot be combined with other options")
        return _verify(args.verify)
    missing = [option for option, value in wanted.items() if not value]
    if missing:
        raise UserError(
            f"pack needs --json, --images and --out, or --verify FILE. Missing here: "
            f"{', '.join(missing)}"
        )
    packed = pack(args.json, args.images, args.out, args.max_side, args.allow_outside)
    for name, reason in packed.skipped:
        print(f"skipped {printable(name)}: {printable(reason)}", file=sys.stderr)
    print(_describe(args.out, packed))
    return 1 if packed.skipped else 0


def _verify(path: str) -> int:
    from ..data.packed.verification import verify

    packed, problems = verify(path)
    for problem in problems:
        print(f"{path}: {problem}", file=sys.stderr)
    if problems:
        print(f"{path} is damaged. Pack the data set again")
        return 1
    print(f"{_describe(path, packed)}: all checksums match")
    return 0


def _describe(path: str, packed: "Packed") -> str:
    skipped = f", {len(packed.skipped)} skipped" if packed.skipped else ""
    size = os.path.getsize(path) / 1e6
    return f"{path}: {packed.num_images} images{skipped}, {size:.1f} MB, SHA-256 {packed.sha256}"
