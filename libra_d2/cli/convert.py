"""Convert mmdetection or torchvision weights to Detectron2's format, or to mmdetection's."""

import argparse

from ..config.choices import WEIGHTS_FORMATS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="checkpoint to read")
    parser.add_argument("destination", metavar="DST", help="file to write, .pth or .pkl")
    parser.add_argument(
        "--to",
        choices=WEIGHTS_FORMATS,
        default="detectron2",
        help="format to write (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    from ..checkpoint.conversion import convert

    print(convert(args.source, args.destination, args.to))
