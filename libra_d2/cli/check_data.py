"""Check the data sets of a config: annotations, images, splits, classes, sizes and anchors."""

import argparse

from ..errors import UserError
from ..utils.arguments import add_config_of_training, add_trust, add_values


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_of_training(parser)
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="JSON file to write the results to (default: OUTPUT_DIR/data_check.json)",
    )
    add_trust(parser)
    add_values(
        parser,
        "config values to change, such as DATASETS.TRAIN coco:train.json,images",
    )


def run(args: argparse.Namespace) -> int:
    """Return 0 if there are no problems, else 1."""
    from ..config import load_cfg, names_num_classes
    from ..data import setup_datasets
    from ..data.checks.datasets import check_datasets, check_output_path, default_report

    cfg = load_cfg(args.config_file, args.opts, trust=args.trust or None, purpose="data")
    setup_datasets(cfg, num_classes_given=names_num_classes(args.config_file, args.opts))
    if not cfg.DATASETS.TRAIN and not cfg.DATASETS.TEST:
        raise UserError(
            "DATASETS.TRAIN or DATASETS.TEST must name the data to check, such as "
            "coco:train.json,images"
        )
    path = args.report or default_report(cfg)
    check_output_path("--report", path, cfg, args.config_file)
    report = check_datasets(cfg, thorough=True)
    print(report.table(), *report.lines(), sep="\n")
    report.save(path)
    print(f"Report: {path}")
    return 1 if report.num_problems else 0
