"""Command line options that several programs share. This imports neither torch nor Detectron2."""

import argparse
import os
import sys


def add_trust(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--trust",
        action="store_true",
        help="run the modules that IMPORTS names in a config that came with weights or a run",
    )


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of Detectron2's `default_argument_parser`, `--trust` and `--overwrite`."""
    add = parser.add_argument
    add("--config-file", default="", metavar="FILE", help="YAML file with the settings")
    add(
        "--resume",
        action="store_true",
        help="continue from the last checkpoint of OUTPUT_DIR, with all of its state",
    )
    add("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS and do not train")
    add("--num-gpus", type=int, default=1, help="GPUs, and processes, of each machine")
    add("--num-machines", type=int, default=1, help="machines that train together")
    add("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    # As in Detectron2, users of one machine get different ports.
    user = os.getuid() if sys.platform != "win32" else 1
    port = 2**15 + 2**14 + hash(user) % 2**14
    add(
        "--dist-url",
        default=f"tcp://127.0.0.1:{port}",
        help="where the processes meet: an address of the machine with rank 0",
    )
    add_trust(parser)
    add(
        "--overwrite",
        action="store_true",
        help="move the files of another run in OUTPUT_DIR to a folder in it, and start",
    )
    add(
        "opts",
        default=None,
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="changes to the config, at the end of the command: MODEL.WEIGHTS model.pth ...",
    )
