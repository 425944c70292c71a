"""Analyze predictions by type of error, class, size, score and image, or compare two runs."""

import argparse
import os
from dataclasses import replace

from ..errors import UserError
from ..utils.arguments import add_trust
from ..utils.messages import printable, printable_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--predictions",
        metavar="FILE",
        help="predictions to analyze: JSON by image (from libra-d2 infer), COCO results or CSV",
    )
    source.add_argument(
        "--model",
        metavar="RUN_FOLDER",
        help="folder of a run, to analyze the predictions of its last evaluation",
    )
    parser.add_argument(
        "--annotations", metavar="COCO_JSON", help="ground truth, required with --predictions"
    )
    parser.add_argument(
        "--images", metavar="FOLDER", help="image folder, to show the images in the report"
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        help="folder to write to, required with --predictions (default with --model: "
        "RUN_FOLDER/analysis)",
    )
    parser.add_argument(
        "--score-threshold",
        type=float,
        metavar="X",
        help="ignore detections with lower scores (default: the threshold with the best F1 over "
        "all classes)",
    )
    parser.add_argument(
        "--iou-threshold",
        type=float,
        default=0.5,
        metavar="X",
        help="IoU from which a detection can match an object (default: %(default)s)",
    )
    parser.add_argument(
        "--max-detections",
        type=int,
        metavar="N",
        help="number of detections to count per image and class, best first; negative: all "
        "(default: 100, or with --model the number that the run's evaluation counts)",
    )
    parser.add_argument("--name", help="name of the run in titles (default: the file's or run's)")
    parser.add_argument(
        "--compare",
        metavar="RUN_OR_FILE",
        help="second run to compare with: its folder or a file of its predictions",
    )
    parser.add_argument("--compare-name", metavar="NAME", help="name of the second run in titles")
    parser.add_argument(
        "--samples",
        type=int,
        default=1000,
        metavar="N",
        help="number of bootstrap samples for the confidence intervals of a comparison "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the bootstrap (default: 0)"
    )
    add_trust(parser)
    parser.add_argument(
        "--allow-outside",
        action="store_true",
        help="also show images in the report that lie outside of the image folder",
    )
    parser.add_argument("--no-report", action="store_true", help="do not write report.html")


def run(args: argparse.Namespace) -> None:
    from .analysis_run import Task, predictions_of_run, run_analysis, tasks_of_run

    if args.model:
        if args.annotations:
            raise UserError(
                "--annotations can only be used with --predictions. With --model, the annotations "
                "of the run's test set are used"
            )
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
