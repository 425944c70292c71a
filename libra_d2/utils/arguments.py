"""Command line options that several programs share. This imports neither torch nor Detectron2."""

import argparse
import os
import sys
from typing import Union

BEST = "best"  # value of --score-threshold


def flag(name: str) -> str:
    """
    Return the option of an argument's name.

    >>> flag("top_k")
    '--top-k'
    """
    return f"--{name.replace('_', '-')}"


def add_trust(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--trust",
        action="store_true",
        help="import the Python modules that IMPORTS lists in a config saved with weights or a "
        "run; this runs their code",
    )


def score_threshold(text: str) -> Union[float, str]:
    """
    Read the value of `--score-threshold`: a number, "best", or the path of an `analysis.json`.

    >>> score_threshold("0.5"), score_threshold("best")
    (0.5, 'best')
    """
    if text == BEST or text.lower().endswith(".json"):
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a number in [0, 1], {BEST}, or the path of an analysis.json, got {text!r}"
        ) from None


def add_opts(
    parser: argparse._ActionsContainer,
    text: str = "config values to change, at the end of the command",
) -> None:
    """Add `--opts KEY VALUE ...` to a command whose positional arguments are something else."""
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help=text
    )


def add_config_of_training(parser: argparse._ActionsContainer) -> None:
    """Add the config of a detector to train, without its options, for commands on its data."""
    parser.add_argument(
        "--config-file", required=True, metavar="FILE", help="config of the detector to train"
    )


def add_values(parser: argparse._ActionsContainer, text: str) -> None:
    """Add `KEY VALUE ...` as the positional arguments."""
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help=text)


def add_plan_arguments(parser: argparse._ActionsContainer) -> None:
    """Add the options of a plan, which is also made before a run with `--plan`."""
    parser.add_argument(
        "--time",
        metavar="DURATION",
        help="plan a run that takes this long on this machine, such as 1h30m",
    )
    parser.add_argument(
        "--any-orientation",
        action="store_true",
        help="plan for images without up and down, such as aerial and microscope images, which "
        "may be flipped and rotated",
    )


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of Detectron2's `default_argument_parser`, and those of libra_d2."""
    add = parser.add_argument
    add("--config-file", default="", metavar="FILE", help="YAML file with the settings")
    add(
        "--resume",
        action="store_true",
        help="continue from the last checkpoint in OUTPUT_DIR, with its optimizer and schedule",
    )
    add("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS instead of training")
    add("--num-gpus", type=int, default=1, help="number of GPUs (and processes) per machine")
    add("--num-machines", type=int, default=1, help="number of machines that train together")
    add("--machine-rank", type=int, default=0, help="number of this machine, counted from 0")
    # Like Detectron2, use a different port for each user of a machine.
    user = os.getuid() if sys.platform != "win32" else 1
    port = 2**15 + 2**14 + hash(user) % 2**14
    add(
        "--dist-url",
        default=f"tcp://127.0.0.1:{port}",
        help="URL at which the processes connect, on the machine with rank 0",
    )
    add(
        "--plan",
        action="store_true",
        help="plan the settings for the training set first, as `libra-d2 plan` does",
    )
    add_plan_arguments(parser)
    add_trust(parser)
    add(
        "--overwrite",
        action="store_true",
        help="if OUTPUT_DIR has files of another run, move them to a subfolder and start",
    )
    add(
        "opts",
        default=None,
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config values to change, at the end of the command: MODEL.WEIGHTS model.pth ...",
    )
