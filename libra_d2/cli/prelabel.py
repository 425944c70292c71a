"""Write predictions as annotations for CVAT, Label Studio, FiftyOne and others, to be corrected."""

import argparse
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Sequence, Tuple

from ..config.choices import PRELABEL_FORMATS
from ..errors import UserError
from ..utils.arguments import add_trust, score_threshold
from ..utils.messages import printable
from .best_thresholds import given_or_best

if TYPE_CHECKING:
    from ..predictions.score_thresholds import ScoreThresholds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "inputs",
        nargs="*",
        metavar="IMAGE",
        help="images or folders to run --model on, as in libra-d2 infer; not with --predictions",
    )
    add(
        "--predictions",
        default="",
        metavar="FILE",
        help="predictions: JSON by image (from libra-d2 infer), COCO results or CSV",
    )
    add(
        "--model",
        default="",
        metavar="RUN_OR_FILE",
        help="run, checkpoint or ONNX file to find objects with; with --predictions, the one whose "
        "best score thresholds are used",
    )
    add_trust(parser)
    add("--device", default="", help="cpu, cuda, cuda:1, ... (default: MODEL.DEVICE of the config)")
    add(
        "--format",
        required=True,
        choices=PRELABEL_FORMATS,
        help="format of the annotations: one file of coco, cvat or label-studio; or a folder of "
        "voc, yolo or fiftyone",
    )
    add("--output", required=True, metavar="PATH", help="file or folder to write")
    add(
        "--score-threshold",
        type=score_threshold,
        metavar="T",
        help="leave out detections with lower scores: a number; best, for the best threshold of "
        "each class in the run's analysis; or the path of an analysis.json (default: best, or 0.5 "
        "if the run has no analysis)",
    )
    add(
        "--class-threshold",
        nargs="+",
        default=[],
        metavar="CLASS=T",
        help="other score thresholds for some classes, such as cat=0.3 dog=0.6",
    )
    add("--classes", nargs="+", default=(), metavar="NAME", help="write only these classes")
    add(
        "--images",
        default="",
        metavar="FOLDER",
        help="with --predictions: folder that the names of the images are relative to (default: "
        "the working folder)",
    )
    add(
        "--annotations",
        default="",
        metavar="COCO_JSON",
        help="with --predictions: file that lists the images, which COCO results need. Its objects "
        "are written for FiftyOne only, as ground truth",
    )
    add(
        "--image-prefix",
        metavar="TEXT",
        help="for label-studio: text before the name of an image that makes it a URL (default: "
        "/data/local-files/?d=, of its local storage)",
    )
    add(
        "--no-images",
        action="store_true",
        help="for voc and yolo: do not copy the images into the data set",
    )


def run(args: argparse.Namespace) -> int:
    """Return 0 if all images were used, and 1 if some could not be read."""
    from ..predictions.prelabels.label_studio import LOCAL_FILES
    from ..predictions.prelabels.selection import select
    from ..predictions.prelabels.writing import (
        LABEL_STUDIO,
        VOC,
        YOLO,
        description,
        write_prelabels,
    )

    _check(args)
    if args.image_prefix is not None and args.format != LABEL_STUDIO:
        raise UserError(f"--image-prefix can only be used with --format {LABEL_STUDIO}")
    if args.no_images and args.format not in (VOC, YOLO):
        raise UserError(f"--no-images can only be used with --format {VOC} or {YOLO}")
    truth: Dict[str, Any] = {}
    skipped: List[Tuple[str, str]] = []
    if args.predictions:
        predictions, known, truth = _of_file(args)
        thresholds = given_or_best(args.score_threshold, args.predictions, args.model)
    else:
        predictions, known, thresholds, skipped = _of_model(args)
    thresholds = _with_own(thresholds, args.class_threshold, predictions, known)
    prelabels = select(
        predictions, thresholds, images=args.images, classes=args.classes, known=known
    )
    write_prelabels(
        prelabels,
        args.format,
        args.output,
        image_prefix=LOCAL_FILES if args.image_prefix is None else args.image_prefix,
        copy_images=not args.no_images,
        truth=truth or None,
        inputs={"--predictions": args.predictions, "--annotations": args.annotations},
    )
    for note in prelabels.notes:
        print(printable(note), file=sys.stderr)
    counts = ", ".join(f"{name} {n}" for name, n in prelabels.objects_by_class().items())
    print(
        f"{prelabels.num_objects} boxes in {len(prelabels.images)} images ({printable(counts)}): "
        f"{printable(args.output)}"
    )
    read_by = description(args.format, args.output, args.images)
    if read_by and not args.no_images:
        print(f"To train on them once they are corrected: DATASETS.TRAIN {printable(read_by)}")
    return 1 if skipped else 0


def _check(args: argparse.Namespace) -> None:
    if bool(args.predictions) == bool(args.inputs):
        raise UserError("either images or --predictions must be given")
    if args.inputs:
        if not args.model:
            raise UserError("images need the detector to find objects with, given with --model")
        if args.images or args.annotations:
            raise UserError("--images and --annotations can only be used with --predictions")
    elif args.device or args.trust:
        raise UserError("--device and --trust can only be used with images, not with --predictions")


def _of_file(args: argparse.Namespace) -> Tuple[List[Any], List[Tuple[str, Any]], Dict[str, Any]]:
    """Return the predictions, the known classes, and the annotations or {}."""
    from ..data.datasets.coco_format import read_coco
    from ..predictions.prelabels.annotated import predictions_of_images
    from ..predictions.reading import read_predictions

    if not args.annotations:
        return read_predictions(args.predictions), [], {}
    truth = read_coco(args.annotations)
    predictions, unknown = predictions_of_images(args.predictions, truth, args.annotations)
    if unknown:
        print(
            f"{len(unknown)} images are left out, because they are not in "
            f"{printable(args.annotations)}. The first is {printable(unknown[0])}",
            file=sys.stderr,
        )
    return predictions, [(c["name"], c["id"]) for c in truth["categories"]], truth


def _of_model(
    args: argparse.Namespace,
) -> Tuple[List[Any], List[Tuple[str, Any]], "ScoreThresholds", List[Tuple[str, str]]]:
    """Return what is found, all classes, the thresholds, and the images that cannot be read."""
    from ..evaluation.run_thresholds import thresholds_for_drawing
    from ..inference.best_thresholds import best_thresholds, thresholds_of_detector
    from ..inference.found_in_images import predictions_in_images
    from ..inference.opening import open_detector

    detector = open_detector(args.model, device=args.device, trust=args.trust)
    if args.score_threshold is None:
        thresholds = thresholds_for_drawing(lambda: best_thresholds(detector))
    else:
        thresholds = thresholds_of_detector(detector, args.score_threshold)
    known = list(zip(detector.class_names, detector.category_ids))
    predictions, skipped = predictions_in_images(detector, args.inputs)
    for name, why in skipped:
        print(f"skipped {printable(name)}: {printable(why)}", file=sys.stderr)
    if not predictions:
        raise UserError("none of the images can be read")
    return predictions, known, thresholds, skipped


def _with_own(
    thresholds: "ScoreThresholds",
    given: Sequence[str],
    predictions: Sequence[Any],
    known: Sequence[Tuple[str, Any]],
) -> "ScoreThresholds":
    """Replace the thresholds of the classes that the user has named, and say which are used."""
    from dataclasses import replace

    names = {name for name, _ in known} | {n for p in predictions for n in p.class_names}
    own = {}
    for text in given:
        name, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not equals or not 0 <= value <= 1:
            raise UserError(f"--class-threshold must be CLASS=T with T in [0, 1], got {text!r}")
        if name not in names:
            raise UserError(f"--class-threshold must name one of {sorted(names)}, got {name!r}")
        own[name] = value
    note = thresholds.note_on_missing(sorted(names - own.keys() - {""}))
    if note:
        print(printable(note), file=sys.stderr)
    if own:
        named = {name: thresholds.of(name) for name in sorted(names)}
        thresholds = replace(
            thresholds,
            classes={**named, **thresholds.classes, **own},
            source=f"{thresholds.source}, and --class-threshold",
        )
    print(
        f"boxes with scores of at least {printable(str(thresholds))}: "
        f"{printable(thresholds.source)}",
        file=sys.stderr,
    )
    return thresholds
