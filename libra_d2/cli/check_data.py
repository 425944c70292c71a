"""Check the data sets of a config: annotations, images, splits, classes, sizes and anchors."""

import argparse

from ..data import setup_datasets
from ..data.checks import check_datasets, default_report
from ..engine import load_cfg
from ..engine.defaults import names_num_classes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config-file", required=True, help="config of the detector to train")
    parser.add_argument(
        "--report", metavar="FILE", help="JSON file to write (default: OUTPUT_DIR/data_check.json)"
    )
    parser.add_argument(
        "opts",
        nargs="*",
        metavar="KEY VALUE",
        help="changes to the config, such as the data sets",
    )


def run(args: argparse.Namespace) -> int:
    """0: all is well; 1: there are problems."""
    cfg = load_cfg(args.config_file, args.opts)
    setup_datasets(cfg, num_classes_given=names_num_classes(args.config_file, args.opts))
    report = check_datasets(cfg, thorough=True)
    path = args.report or default_report(cfg)
    report.save(path)
    print(report.table(), *report.lines(), f"Report: {path}", sep="\n")
    return 1 if report.num_problems else 0
