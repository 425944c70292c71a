"""Draw predictions, annotations, or what was hit and missed, onto images."""

import argparse
import sys

from ..config.choices import PICTURE_FORMATS
from ..errors import UserError
from ..utils.messages import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--predictions", metavar="FILE", default="", help="JSON by image, COCO results or CSV"
    )
    parser.add_argument(
        "--annotations",
        metavar="COCO_JSON",
        default="",
        help="ground truth; with predictions: hits, false detections and misses are marked",
    )
    parser.add_argument(
        "--images",
        metavar="FOLDER",
        default="",
        help="that names of images are relative to (default: the working folder)",
    )
    parser.add_argument("--output", metavar="FOLDER", required=True, help="for the pictures")
    parser.add_argument(
        "--score-threshold",
        type=float,
        metavar="T",
        help="weaker detections are left out (default: the best one of the run's analysis, or 0.5)",
    )
    parser.add_argument(
        "--model",
        metavar="RUN_FOLDER",
        default="",
        help="whose analysis has the threshold (default: the run that the predictions lie in)",
    )
    parser.add_argument("--iou-threshold", type=float, default=0.5, metavar="T", help="of a hit")
    parser.add_argument(
        "--side-by-side", action="store_true", help="ground truth left, detections right"
    )
    parser.add_argument("--classes", nargs="+", default=(), metavar="NAME", help="no others")
    parser.add_argument(
        "--limit", type=int, default=0, metavar="N", help="only the first images; 0 (default): all"
    )
    parser.add_argument("--format", choices=PICTURE_FORMATS, default="jpg")


def run(args: argparse.Namespace) -> int:
    """0: all images were drawn; 1: some could not be."""
    from ..visualization.picture_folder import draw_files

    threshold = args.score_threshold
    if threshold is None:
        threshold = _default_threshold(args.predictions, args.model)
    drawn = draw_files(
        args.output,
        predictions=args.predictions,
        annotations=args.annotations,
        images=args.images,
        score_threshold=threshold,
        iou_threshold=args.iou_threshold,
        side_by_side=args.side_by_side,
        classes=args.classes,
        limit=args.limit,
        image_format=args.format,
    )
    for line in drawn.problems:
        print(printable(line), file=sys.stderr)
    if drawn.problems and not drawn.num_drawn:
        raise UserError(
            f"none of the {len(drawn.problems)} images could be drawn, the first is "
            f"{printable(drawn.problems[0])}"
        )
    print(f"{drawn.num_drawn} pictures in {printable(args.output)}")
    if drawn.counts is not None:
        c = drawn.counts
        print(f"{c.hits} hits, {c.false} false detections, {c.missed} missed objects")
    if drawn.problems:
        print(f"{len(drawn.problems)} images were left out", file=sys.stderr)
    return 1 if drawn.problems else 0


def _default_threshold(predictions: str, model: str) -> float:
    from ..visualization.draw_threshold import DEFAULT, draw_threshold, run_of_predictions

    if not predictions:
        return DEFAULT  # nothing has a score
    run, dataset = run_of_predictions(predictions)
    threshold, source = draw_threshold(model or run, "" if model else dataset)
    print(f"drawn are scores of {threshold:.3g} or more: {source}", file=sys.stderr)
    return threshold
