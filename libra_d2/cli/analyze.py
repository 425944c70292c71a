"""Analyse predictions: errors by kind, class, size and score, the worst images, and two runs."""

import argparse
import os
from dataclasses import replace

from ..errors import UserError
from ..utils.arguments import add_trust
from ..utils.messages import printable, printable_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--predictions", metavar="FILE", help="JSON by image, COCO results or CSV")
    source.add_argument(
        "--model", metavar="RUN_FOLDER", help="predictions of a run's last evaluation, and its data"
    )
    parser.add_argument("--annotations", metavar="COCO_JSON", help="with --predictions")
    parser.add_argument("--images", metavar="FOLDER", help="of the annotations' file names")
    parser.add_argument(
        "--output", metavar="FOLDER", help="to write to (default with --model: RUN_FOLDER/analysis)"
    )
    parser.add_argument(
        "--score-threshold",
        type=float,
        metavar="X",
        help="weaker detections do not count (default: the best F1 over all classes)",
    )
    parser.add_argument("--iou-threshold", type=float, default=0.5, metavar="X")
    parser.add_argument(
        "--max-detections",
        type=int,
        metavar="N",
        help="of an image and class (default: 100, or what the evaluation of the run counts)",
    )
    parser.add_argument("--name", help="of the run, for titles")
    parser.add_argument(
        "--compare", metavar="RUN_OR_FILE", help="another run's folder, or its predictions"
    )
    parser.add_argument("--compare-name", metavar="NAME", help="of the other run")
    parser.add_argument("--samples", type=int, default=1000, metavar="N", help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap")
    add_trust(parser)
    parser.add_argument(
        "--allow-outside",
        action="store_true",
        help="show images outside of the image folder in the report, too",
    )
    parser.add_argument("--no-report", action="store_true", help="no report.html")


def run(args: argparse.Namespace) -> None:
    from .analysis_run import Task, predictions_of_run, run_analysis, tasks_of_run

    if args.model:
        if args.annotations:
            raise UserError("--annotations goes with --predictions; a run has its own")
        tasks = tasks_of_run(args.model, args.output or "", args.trust)
    elif not args.annotations or not args.output:
        raise UserError("--predictions needs --annotations and --output")
    else:
        tasks = [Task(args.predictions, args.annotations, args.output)]
    for task in tasks:
        compare_with, compare_name = args.compare or "", args.compare_name or ""
        if os.path.isdir(compare_with):
            run_name = os.path.basename(os.path.abspath(compare_with))
            compare_with = predictions_of_run(compare_with, task.annotations, args.trust)
            compare_name = compare_name or run_name
        task = replace(
            task,
            images=args.images or task.images,
            name=args.name or task.name,
            score_threshold=args.score_threshold,
            iou_threshold=args.iou_threshold,
            max_detections=(
                task.max_detections if args.max_detections is None else args.max_detections
            ),
            compare_with=compare_with,
            compare_name=compare_name,
            samples=args.samples,
            seed=args.seed,
            report=not args.no_report,
            allow_outside=args.allow_outside,
        )
        print(printable_lines(run_analysis(task)))
        print(f"\nWritten to {printable(task.output)}\n")
