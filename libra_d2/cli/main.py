"""`libra-d2 COMMAND`: each command is a module of this package."""

import argparse
import difflib
import gc
import os
import sys
from typing import Optional, Sequence

from ..errors import UserError
from ..utils.interrupts import exit_status, raising_interrupts, workers_end_quietly
from ..utils.messages import make_logs_printable
from ..utils.system_errors import describe
from ..version import __version__
from . import (
    analyze,
    benchmark,
    browse,
    check_data,
    convert,
    demo,
    doctor,
    draw,
    evaluate,
    experiment,
    export,
    infer,
    pack,
    plan,
    prelabel,
    proposals,
    serve,
    slice,
    split,
    train,
)

COMMANDS = {
    "analyze": analyze,
    "benchmark": benchmark,
    "browse": browse,
    "check-data": check_data,
    "convert": convert,
    "demo": demo,
    "doctor": doctor,
    "draw": draw,
    "evaluate": evaluate,
    "experiment": experiment,
    "export": export,
    "infer": infer,
    "pack": pack,
    "plan": plan,
    "prelabel": prelabel,
    "proposals": proposals,
    "serve": serve,
    "slice": slice,
    "split": split,
    "train": train,
}


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run(parse(argv))


def parse(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line. This imports neither torch nor Detectron2."""
    parser = argparse.ArgumentParser(prog="libra-d2", description="Libra R-CNN for Detectron2")
    parser.add_argument("--version", action="version", version=f"libra_d2 {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        summary = (module.__doc__ or name).strip().splitlines()[0]
        subparser = subparsers.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(subparser)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        _refuse(subparsers.choices[args.command], unknown)
    return args


def needs_detectron2(args: argparse.Namespace) -> bool:
    """Whether the command needs Detectron2. Those that run an ONNX file do not."""
    does = getattr(COMMANDS[args.command], "needs_detectron2", None)
    return True if does is None else does(args)


def run(args: argparse.Namespace) -> int:
    """
    Run the command.

    Returns:
        The exit status: 2 for a user's mistake, 130 or 143 for an interruption.
    """
    make_logs_printable()
    if hasattr(sys.stdout, "reconfigure"):
        # File names may not be valid text. Standard error escapes them by default.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with workers_end_quietly(), raising_interrupts():
            return COMMANDS[args.command].run(args) or 0
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except UserError as e:
        print(f"libra-d2 {args.command}: {e}", file=sys.stderr)
        return 2
    except OSError as e:
        if not e.filename:  # not about a file or folder that the user could check
            raise
        print(f"libra-d2 {args.command}: {describe(e)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as e:
        print(f"libra-d2 {args.command}: interrupted", file=sys.stderr)
        return exit_status(e)


def _refuse(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> None:
    options = [option for action in parser._actions for option in action.option_strings]
    close = difflib.get_close_matches(unknown[0].partition("=")[0], options, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")


if __name__ == "__main__":
    gc.freeze()  # searching the imported modules for garbage at exit would take a second
    sys.exit(main())
