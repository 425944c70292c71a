"""`libra-d2 <command>`: one module of this package a command."""

import argparse
import sys
from typing import Optional, Sequence

from .. import __version__
from ..errors import UserError
from . import (
    analyze,
    check_data,
    convert,
    demo,
    doctor,
    draw,
    evaluate,
    export,
    infer,
    pack,
    proposals,
)

COMMANDS = {
    "analyze": analyze,
    "check-data": check_data,
    "convert": convert,
    "demo": demo,
    "doctor": doctor,
    "draw": draw,
    "evaluate": evaluate,
    "export": export,
    "infer": infer,
    "pack": pack,
    "proposals": proposals,
}


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="libra-d2", description="Libra R-CNN for Detectron2")
    parser.add_argument("--version", action="version", version=f"libra_d2 {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        summary = module.__doc__.strip().splitlines()[0]
        subparser = subparsers.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(subparser)
    args = parser.parse_args(argv)
    try:
        return COMMANDS[args.command].run(args) or 0
    except UserError as e:
        print(f"libra-d2 {args.command}: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
