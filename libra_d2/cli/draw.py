"""Draw predictions or ground truth on images, or mark hits, false detections and misses."""

import argparse
import sys

from ..config.choices import PICTURE_FORMATS
from ..errors import UserError
from ..utils.messages import printable


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
        type=float,
        metavar="T",
        help="leave out detections with lower scores (default: the best threshold in the run's "
        "analysis, or 0.5 without one)",
    )
    parser.add_argument(
        "--model",
        metavar="RUN_FOLDER",
        default="",
        help="run whose analysis gives the default score threshold (default: the run that "
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


def _default_threshold(predictions: str, model: str) -> float:
    from ..visualization.draw_threshold import DEFAULT, draw_threshold, run_of_predictions

    if not predictions:
        return DEFAULT  # annotations have no scores
    run, dataset = run_of_predictions(predictions)
    threshold, source = draw_threshold(model or run, "" if model else dataset)
    print(f"drawing detections with scores of at least {threshold:.3g}: {source}", file=sys.stderr)
    return threshold
