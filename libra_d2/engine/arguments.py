"""The command-line options of train_net.py."""

import argparse
import os
from pathlib import Path
from typing import Optional

from detectron2.config import CfgNode

from ..config import load_cfg
from ..errors import UserError
from ..utils.arguments import add_train_arguments

CONFIGS = Path(__file__).resolve().parents[2] / "configs"  # exists in a checkout only


def default_argument_parser(epilog: Optional[str] = None) -> argparse.ArgumentParser:
    """Build a parser with the options of Detectron2's, `--trust` and `--overwrite`."""
    parser = argparse.ArgumentParser(
        epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_train_arguments(parser)
    return parser


def check_arguments(args: argparse.Namespace) -> None:
    """
    Check that a config file is given. Without one, Detectron2's default model would be trained.

    Raises:
        UserError: there is no config file.
    """
    if getattr(args, "config_file", ""):
        return
    configs = ", ".join(os.path.relpath(path) for path in sorted(CONFIGS.glob("*.yaml")))
    choices = f". FILE can be your own or one of {configs}" if configs else ""
    raise UserError(f"no config file is given. Add --config-file FILE{choices}")


def check_before_start(args: argparse.Namespace, world_size: int) -> CfgNode:
    """
    Load the config to find mistakes in it before several processes are started.

    Raises:
        UserError: see :func:`load_cfg`.
    """
    if not args.config_file:  # a custom `main` may not need one; `setup` raises if it does
        return load_cfg(opts=args.opts)
    return load_cfg(
        args.config_file,
        args.opts,
        trust=getattr(args, "trust", None) or None,
        purpose="evaluate" if args.eval_only else "train",
        world_size=world_size,
        resume=args.resume,
    )
