"""Pack a COCO data set into one file, for DATASETS.TRAIN packed:FILE, or check one."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from ..errors import UserError
from ..utils.messages import printable

if TYPE_CHECKING:
    from ..data.packed.packing import Packed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", help="annotations in COCO format")
    parser.add_argument("--images", help="image folder")
    parser.add_argument("--out", help="file to write, such as train.lmdb")
    parser.add_argument(
        "--max-side",
        type=int,
        default=0,
        metavar="PIXELS",
        help="scale larger images down to this length of their longer side (0: none)",
    )
    parser.add_argument(
        "--allow-outside",
        action="store_true",
        help="also images that lie outside of the image folder, by their names or by links",
    )
    parser.add_argument("--verify", metavar="FILE", help="check a packed file by its checksums")


def run(args: argparse.Namespace) -> int:
    from ..data.packed.packing import pack

    wanted = {"--json": args.json, "--images": args.images, "--out": args.out}
    if args.verify:
        if any(wanted.values()) or args.max_side:
            raise UserError("--verify FILE checks a packed file and takes no other option")
        return _verify(args.verify)
    missing = [option for option, value in wanted.items() if not value]
    if missing:
        raise UserError(
            f"{', '.join(missing)} missing: --json, --images and --out, or --verify FILE"
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
        print(f"{path} is damaged: pack it again")
        return 1
    print(f"{_describe(path, packed)}: as it was packed")
    return 0


def _describe(path: str, packed: "Packed") -> str:
    skipped = f", {len(packed.skipped)} skipped" if packed.skipped else ""
    size = os.path.getsize(path) / 1e6
    return f"{path}: {packed.num_images} images{skipped}, {size:.1f} MB, SHA-256 {packed.sha256}"
