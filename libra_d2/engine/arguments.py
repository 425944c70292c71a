"""The options of train_net.py."""

import argparse
import os
from pathlib import Path
from typing import Optional

from detectron2.config import CfgNode

from ..config import load_cfg
from ..errors import UserError
from ..utils.arguments import add_train_arguments

CONFIGS = Path(__file__).resolve().parents[2] / "configs"  # of a checkout


def default_argument_parser(epilog: Optional[str] = None) -> argparse.ArgumentParser:
    """Detectron2's options, `--trust` and `--overwrite`."""
    parser = argparse.ArgumentParser(
        epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_train_arguments(parser)
    return parser


def check_arguments(args: argparse.Namespace) -> None:
    """
    Raises:
        UserError: there is no config file. Without one, Detectron2's defaults would be trained.
    """
    if getattr(args, "config_file", ""):
        return
    configs = ", ".join(os.path.relpath(path) for path in sorted(CONFIGS.glob("*.yaml")))
    of_checkout = f", one of {configs}, or your own" if configs else ""
    raise UserError(f"no config is given: add --config-file FILE{of_checkout}")


def check_before_start(args: argparse.Namespace, world_size: int) -> CfgNode:
    """
    The config, of which the mistakes are found before several processes set to work.

    Raises:
        UserError: as :func:`load_cfg`.
    """
    if not args.config_file:  # `main` may have settings of its own; `setup` refuses it
        return load_cfg(opts=args.opts)
    return load_cfg(
        args.config_file,
        args.opts,
        trust=getattr(args, "trust", None) or None,
        purpose="evaluate" if args.eval_only else "train",
        world_size=world_size,
        resume=args.resume,
    )
