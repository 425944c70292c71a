"""Plan the settings of a detector for a training set, with a reason for each."""

import argparse

from ..utils.arguments import add_plan_arguments, add_trust, add_values


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config-file",
        required=True,
        metavar="FILE",
        help="config that the plan changes",
    )
    parser.add_argument(
        "--output",
        default="plan.yaml",
        metavar="FILE",
        help="config to write; a picture next to it shows the objects (default: %(default)s)",
    )
    add_plan_arguments(parser)
    parser.add_argument(
        "--no-measure",
        action="store_true",
        help="do not measure the time and memory of training steps",
    )
    add_trust(parser)
    add_values(
        parser,
        "data sets, such as DATASETS.TRAIN coco:train.json,images, and other config values, "
        "which the plan does not change",
    )


def run(args: argparse.Namespace) -> None:
    from ..planning.command import PlanOptions, picture_of, seconds, write_plan

    options = PlanOptions(
        budget=seconds(args.time) if args.time else None,
        measured=not args.no_measure,
        any_orientation=args.any_orientation,
        trust=args.trust or None,
    )
    plan = write_plan(args.config_file, args.opts, args.output, options)
    print(plan.table())
    print(f"\nConfig: {args.output}, picture: {picture_of(args.output)}")
    print(f"Train with: libra-d2 train --config-file {args.output}")
