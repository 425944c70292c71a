"""Compute the COCO metrics of a trained detector, or of a file of predictions."""

import argparse
import json
import os
from typing import TYPE_CHECKING, Any, Dict, Optional

from ..config.choices import EVAL_BACKENDS, IOU_TYPES
from ..errors import UserError
from ..utils.arguments import add_trust, score_threshold
from ..utils.files import check_outputs, replacing
from ..utils.messages import make_logs_printable, printable_lines
from .best_thresholds import best_of

if TYPE_CHECKING:
    from ..predictions.score_thresholds import ScoreThresholds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    trained = parser.add_argument_group("evaluate a detector on the test sets of its config")
    trained.add_argument(
        "--model",
        metavar="RUN_OR_FILE",
        help="folder of a run, a checkpoint, or an ONNX file that libra-d2 export has written. "
        "The data for such a file is given with --opts DATASETS.TEST coco:val.json,images",
    )
    trained.add_argument(
        "--config-file",
        default="",
        metavar="FILE",
        help="config of the model (default: config.yaml of the run or next to the checkpoint)",
    )
    add_trust(trained)
    trained.add_argument(
        "--device", default="", help="cpu, cuda, cuda:1, ... (default: MODEL.DEVICE of the config)"
    )
    trained.add_argument(
        "--reuse",
        action="store_true",
        help="evaluate the saved predictions if they were made with the same weights and settings",
    )
    trained.add_argument(
        "--opts", nargs="*", default=[], metavar="KEY VALUE", help="config values to change"
    )
    file = parser.add_argument_group("evaluate a file of predictions")
    file.add_argument(
        "--predictions",
        metavar="FILE",
        help="COCO results, JSON by image (from libra-d2 infer) or CSV",
    )
    file.add_argument(
        "--annotations", metavar="COCO_JSON", help="ground truth, required with --predictions"
    )
    file.add_argument(
        "--max-detections",
        type=int,
        metavar="N",
        help="number of detections to count per image and class (default: 100)",
    )
    file.add_argument(
        "--iou-type", choices=IOU_TYPES, help="evaluate boxes or masks (default: bbox)"
    )
    file.add_argument("--output", metavar="FILE", help="JSON file to write the metrics to")
    parser.add_argument(
        "--score-threshold",
        type=score_threshold,
        metavar="T",
        help="also print precision, recall and F1 of the detections with at least this score: a "
        "number; best, for the best threshold of each class in the run's analysis or inside an "
        "ONNX file; or the path of an analysis.json. COCO's metrics stay as they are",
    )
    parser.add_argument(
        "--backend", choices=EVAL_BACKENDS, help="program that computes the metrics (default: auto)"
    )


def run(args: argparse.Namespace) -> None:
    if bool(args.model) == bool(args.predictions):
        raise UserError("exactly one of --model and --predictions must be given")
    if args.model:
        _of_model(args)
    else:
        _of_file(args)


def _of_model(args: argparse.Namespace) -> None:
    from ..engine.console import setup_logging
    from ..inference.exported_file import is_exported
    from .exported_evaluation import evaluate_exported
    from .run_evaluation import evaluate_run

    of_file = (args.annotations, args.output, args.max_detections, args.iou_type)
    if any(value is not None for value in of_file):
        raise UserError(
            "--annotations, --output, --max-detections and --iou-type can only be used with "
            "--predictions. With --model, DATASETS.TEST and TEST.DETECTIONS_PER_IMAGE (see --opts) "
            "decide, boxes and masks are both evaluated, and the metrics are written to "
            "inference/<data set>/results.json"
        )
    setup_logging()
    make_logs_printable()
    thresholds = _thresholds(args)  # first: the evaluation takes long
    evaluate = evaluate_exported if is_exported(args.model) else evaluate_run
    folders = evaluate(
        args.model,
        config_file=args.config_file,
        opts=args.opts,
        device=args.device,
        backend=args.backend or "",
        reuse=args.reuse,
        trust=args.trust,
    )
    for dataset, folder in folders.items():
        if thresholds:
            print(f"\n{printable_lines(_point_of_model(dataset, folder, thresholds))}\n")
        print(f"Predictions and results: {folder}")


def _point_of_model(dataset: str, folder: str, thresholds: "ScoreThresholds") -> str:
    from detectron2.data import MetadataCatalog

    from ..evaluation.file_evaluation import read_evaluated
    from ..evaluation.operating_point import operating_point
    from ..predictions.saved_predictions import RESULTS
    from ..utils.json_files import read_json

    results = read_json(os.path.join(folder, "results.json"))
    limit = results["bbox"]["max_detections"]
    annotations = MetadataCatalog.get(dataset).json_file
    evaluated = read_evaluated(os.path.join(folder, RESULTS), annotations, limit)
    point = operating_point(*evaluated, thresholds, max_detections=limit)
    return f"{dataset}: {point.table()}"


def _thresholds(args: argparse.Namespace) -> "Optional[ScoreThresholds]":
    from ..evaluation.run_thresholds import given_thresholds

    if args.score_threshold is None:
        return None
    return given_thresholds(args.score_threshold, lambda: best_of(args.predictions, args.model))


def _of_file(args: argparse.Namespace) -> None:
    from ..evaluation.coco_metrics import coco_metrics
    from ..evaluation.file_evaluation import read_evaluated
    from ..evaluation.operating_point import operating_point

    if not args.annotations:
        raise UserError("--predictions needs the ground truth, given with --annotations")
    inputs = {"--predictions": args.predictions, "--annotations": args.annotations}
    check_outputs({"--output": args.output}, inputs)
    limit = 100 if args.max_detections is None else args.max_detections
    iou_type = args.iou_type or "bbox"
    thresholds = _thresholds(args)
    if thresholds and iou_type != "bbox":
        raise UserError(f"--score-threshold can only be used with --iou-type bbox, got {iou_type}")
    truth, results = read_evaluated(args.predictions, args.annotations, limit, iou_type)
    metrics = coco_metrics(
        truth, results, max_detections=limit, backend=args.backend or "auto", iou_type=iou_type
    )
    print(f"Computed by {metrics.backend}:\n\n{printable_lines(metrics.table())}")
    content: Dict[str, Any] = {metrics.iou_type: metrics.to_json()}
    if thresholds:
        point = operating_point(truth, results, thresholds, max_detections=limit)
        print(f"\n{printable_lines(point.table())}")
        content["at_score_thresholds"] = point.to_json()
    if args.output:
        with replacing(args.output) as partial, open(partial, "w", encoding="utf-8") as f:
            json.dump(content, f, indent=1)
