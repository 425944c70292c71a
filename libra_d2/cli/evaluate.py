"""COCO's metrics of a trained detector, or of a file of predictions."""

import argparse
import json

from ..config.choices import EVAL_BACKENDS, IOU_TYPES
from ..errors import UserError
from ..utils.arguments import add_trust
from ..utils.files import check_outputs, replacing
from ..utils.messages import make_logs_printable, printable_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    trained = parser.add_argument_group("a detector, on the test sets of its config")
    trained.add_argument("--model", metavar="RUN", help="folder of a run, or weights")
    trained.add_argument("--config-file", default="", help="default: config.yaml beside the model")
    add_trust(trained)
    trained.add_argument("--device", default="", help="cpu, cuda, ...")
    trained.add_argument(
        "--reuse", action="store_true", help="take saved predictions if their record fits"
    )
    trained.add_argument(
        "--opts", nargs="*", default=[], metavar="KEY VALUE", help="changes to the config"
    )
    file = parser.add_argument_group("a file of predictions")
    file.add_argument("--predictions", metavar="FILE", help="COCO results, JSON by image, or CSV")
    file.add_argument("--annotations", metavar="FILE", help="COCO annotations of the images")
    file.add_argument("--max-detections", type=int, help="of an image and class (default: 100)")
    file.add_argument("--iou-type", choices=IOU_TYPES, help="boxes or masks")
    file.add_argument("--output", metavar="FILE", help="JSON file to write the numbers to")
    parser.add_argument("--backend", choices=EVAL_BACKENDS, help="default: auto")


def run(args: argparse.Namespace) -> None:
    if bool(args.model) == bool(args.predictions):
        raise UserError("name either --model or --predictions")
    if args.model:
        _of_model(args)
    else:
        _of_file(args)


def _of_model(args: argparse.Namespace) -> None:
    from ..engine.console import setup_logging
    from .run_evaluation import evaluate_run

    of_file = (args.annotations, args.output, args.max_detections, args.iou_type)
    if any(value is not None for value in of_file):
        raise UserError(
            "--annotations, --output, --max-detections and --iou-type go with --predictions; a "
            "detector is evaluated on DATASETS.TEST with TEST.DETECTIONS_PER_IMAGE (--opts), "
            "boxes and masks, and its numbers are in inference/<data set>/results.json"
        )
    setup_logging()
    make_logs_printable()
    folders = evaluate_run(
        args.model,
        config_file=args.config_file,
        opts=args.opts,
        device=args.device,
        backend=args.backend or "",
        reuse=args.reuse,
        trust=args.trust,
    )
    for folder in folders.values():
        print(f"Predictions and results: {folder}")


def _of_file(args: argparse.Namespace) -> None:
    from ..evaluation.file_evaluation import evaluate_file

    if not args.annotations:
        raise UserError("--predictions needs --annotations")
    inputs = {"--predictions": args.predictions, "--annotations": args.annotations}
    check_outputs({"--output": args.output}, inputs)
    metrics = evaluate_file(
        args.predictions,
        args.annotations,
        max_detections=100 if args.max_detections is None else args.max_detections,
        backend=args.backend or "auto",
        iou_type=args.iou_type or "bbox",
    )
    print(f"By {metrics.backend}:\n\n{printable_lines(metrics.table())}")
    if args.output:
        with replacing(args.output) as partial, open(partial, "w", encoding="utf-8") as f:
            json.dump({metrics.iou_type: metrics.to_json()}, f, indent=1)
