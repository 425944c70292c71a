"""Draw predictions or ground truth on images, or mark hits, false detections and misses."""

import argparse
import sys
from typing import TYPE_CHECKING

from ..config.choices import PICTURE_FORMATS
from ..errors import UserError
from ..utils.arguments import score_threshold
from ..utils.messages import printable
from .best_thresholds import given_or_best

if TYPE_CHECKING:
    from ..predictions.score_thresholds import ScoreThresholds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--predictions",
        metavar="FILE",
        default="",
        help="predictions to draw: JSON by image (from libra-d2 infer), COCO results or CSV",
    )
    parser.add_argument(
        "--annotations",
        metavar="COCO_JSON",
        default="",
        help="ground truth to draw; together with --predictions, hits, false detections and "
        "misses are marked",
    )
    parser.add_argument(
        "--images",
        metavar="FOLDER",
        default="",
        help="image folder, to which file names are relative (default: the working folder)",
    )
    parser.add_argument(
        "--output", metavar="FOLDER", required=True, help="folder to write the pictures to"
    )
    parser.add_argument(
        "--score-threshold",
        type=score_threshold,
        metavar="T",
        help="leave out detections with lower scores: a number; best, for the best threshold of "
        "each class in the run's analysis; or the path of an analysis.json (default: best, or 0.5 "
        "if the run has no analysis)",
    )
    parser.add_argument(
        "--model",
        metavar="RUN_OR_FILE",
        default="",
        help="run, or ONNX file, that gives the best score thresholds (default: the run that "
        "contains the predictions)",
    )
    parser.add_argument(
        "--iou-threshold",
        type=float,
        default=0.5,
        metavar="T",
        help="IoU from which a detection can be a hit (default: %(default)s)",
    )
    parser.add_argument(
        "--side-by-side",
        action="store_true",
        help="draw the ground truth on the left and the detections on the right",
    )
    parser.add_argument(
        "--classes", nargs="+", default=(), metavar="NAME", help="draw only these classes"
    )
    parser.add_argument(
        "--limit",
        type=int,
        default=0,
        metavar="N",
        help="draw only the first N images (default: 0, all images)",
    )
    parser.add_argument(
        "--format",
        choices=PICTURE_FORMATS,
        default="jpg",
        help="format of the pictures (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Return 0 if all images were drawn, and 1 if some could not be."""
    from ..visualization.picture_folder import draw_files

    drawn = draw_files(
        args.output,
        predictions=args.predictions,
        annotations=args.annotations,
        images=args.images,
        score_threshold=_thresholds(args),
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
            f"none of the {len(drawn.problems)} images could be drawn. The first problem is: "
            f"{printable(drawn.problems[0])}"
        )
    print(f"{drawn.num_drawn} pictures in {printable(args.output)}")
    if drawn.counts is not None:
        c = drawn.counts
        print(f"{c.hits} hits, {c.false} false detections, {c.missed} missed objects")
    if drawn.problems:
        print(f"{len(drawn.problems)} images were left out", file=sys.stderr)
    return 1 if drawn.problems else 0


def _thresholds(args: argparse.Namespace) -> "ScoreThresholds":
    from ..predictions.score_thresholds import ScoreThresholds

    given = args.score_threshold
    if not args.predictions and not isinstance(given, float):
        if given is not None:
            raise UserError(f"--score-threshold {given} can only be used with --predictions")
        return ScoreThresholds(0.0)  # annotations have no scores

    found = given_or_best(given, args.predictions, args.model)
    if not isinstance(given, float):
        print(
            f"drawing detections with scores of at least {found}: {found.source}", file=sys.stderr
        )
    return found
