"""Show training batches as the model will see them, with the anchors that match their objects."""

import argparse

from ..errors import UserError
from ..utils.arguments import add_config_of_training, add_trust, add_values

_MAX_IMAGES = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_of_training(parser)
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        help="folder to write batches.html and batches.png to (default: OUTPUT_DIR/browse)",
    )
    parser.add_argument(
        "--num-images",
        type=int,
        default=16,
        metavar="N",
        help="number of images to show, the first ones of the run (default: %(default)s)",
    )
    add_trust(parser)
    add_values(
        parser,
        "config values to change, such as DATASETS.TRAIN coco:train.json,images",
    )


def run(args: argparse.Namespace) -> None:
    if not 1 <= args.num_images <= _MAX_IMAGES:
        raise UserError(f"--num-images must be from 1 to {_MAX_IMAGES}, got {args.num_images}")
    import os
    import shlex

    from ..config import load_cfg, names_num_classes
    from ..data import setup_datasets
    from ..data.checks.datasets import check_output_path
    from ..engine.browsing import browse
    from ..visualization.batches import PAGE, SHEET

    # Weights are not needed to see batches, as they are not to resume a run.
    cfg = load_cfg(
        args.config_file, args.opts, trust=args.trust or None, purpose="train", resume=True
    )
    setup_datasets(cfg, num_classes_given=names_num_classes(args.config_file, args.opts))
    folder = args.output or os.path.join(cfg.OUTPUT_DIR, "browse")
    outputs = [os.path.join(folder, name) for name in (PAGE, SHEET)]
    for path in outputs:
        check_output_path("--output", path, cfg, args.config_file)
    summary, notes = browse(cfg, folder, args.num_images)
    print(summary.line())
    for note in notes:
        print(note)
    if summary.advised:
        command = shlex.join(["libra-d2", "plan", "--config-file", args.config_file, *args.opts])
        print(f"To get anchors and an input size that fit: {command}")
    print(f"Page: {outputs[0]}, contact sheet: {outputs[1]}")
