"""Export a trained detector to TorchScript or ONNX, and check that the detections are the same."""

import argparse
import glob
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional, Sequence

from ..config.choices import EXPORT_FORMATS
from ..errors import UserError
from ..utils.arguments import add_opts, add_trust
from ..utils.files import check_outputs

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = {".onnx": "onnx", ".pt": "torchscript", ".pth": "torchscript", ".ts": "torchscript"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, metavar="RUN_OR_WEIGHTS", help="folder of a run, or a checkpoint"
    )
    parser.add_argument(
        "--config-file",
        default="",
        metavar="FILE",
        help="config of the model (default: config.yaml of the run or next to the checkpoint)",
    )
    parser.add_argument(
        "--format", choices=EXPORT_FORMATS, help="format to write (default: that of the suffix)"
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="file to write, such as detector.onnx",
    )
    parser.add_argument(
        "--image",
        nargs="+",
        default=[],
        metavar="FILE",
        help="images to compare the detections on (default: images of the built-in data set)",
    )
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        metavar=("H", "W"),
        help="height and width of the input of an ONNX file (default: any size)",
    )
    add_trust(parser)
    parser.add_argument(
        "--device", default="cpu", help="device that a TorchScript file runs on (default: cpu)"
    )
    add_opts(parser)


def run(args: argparse.Namespace) -> None:
    from ..checkpoint.weights_files import parse_weights
    from ..evaluation.run_thresholds import NoBestThresholdsError
    from ..export import export_detector
    from ..inference.best_thresholds import best_thresholds
    from ..inference.trained_detector import load_detector

    format = _format(args.output, args.format)
    if not os.path.isdir(os.path.dirname(args.output) or "."):
        raise UserError(f"--output must be a file in an existing folder, got {args.output}")
    model = parse_weights(args.model).file
    folder = model if os.path.isdir(model) else os.path.dirname(model)
    check_outputs(
        {"--output": args.output},
        {
            "--model": [model, *glob.glob(os.path.join(glob.escape(folder), "*.pth"))],
            "the config": [args.config_file, os.path.join(folder, "config.yaml")],
            "--image": args.image,
        },
    )
    detector = load_detector(
        args.model,
        config_file=args.config_file,
        opts=args.opts,
        device=args.device,
        trust=args.trust,
    )
    images = _images(args.image, detector.cfg.INPUT.FORMAT)
    check_outputs(
        {"--output": args.output}, {"MODEL.WEIGHTS": parse_weights(detector.cfg.MODEL.WEIGHTS).file}
    )
    thresholds, why_none = None, ""
    try:
        thresholds = best_thresholds(detector)
    except NoBestThresholdsError as e:
        why_none = str(e)
    report = export_detector(
        detector, format, args.output, images, size=args.size, thresholds=thresholds
    )
    same = report.detections - report.excused
    print(
        f"{args.output}: finds the same {same} detections in {report.images} images; largest "
        f"differences: boxes {report.box_difference:.1g} px, scores {report.score_difference:.1g}"
    )
    if report.excused:
        print(
            f"{report.excused} more detections differ. This is not an error: their scores equal "
            "the lowest score that is returned, and any of such detections may be returned"
        )
    if report.detections == 0:
        print("There were no detections to compare. Give images with objects with --image")
    if thresholds:
        print(f"Best score thresholds inside: {thresholds}")
    else:
        print(f"No best score thresholds inside: {why_none}")


def _format(output: str, wanted: Optional[str]) -> str:
    suffix = os.path.splitext(output)[1].lower()
    of_suffix = SUFFIXES.get(suffix)
    if wanted and of_suffix not in (None, wanted):
        raise UserError(f"--format must be {of_suffix} for --output {output}, got {wanted}")
    chosen = wanted or of_suffix
    if not chosen:
        raise UserError(
            f"--output must end in one of {', '.join(SUFFIXES)}, got {output}. Rename it, or give "
            "--format"
        )
    return chosen


def _images(paths: Sequence[str], format: str) -> List["np.ndarray"]:
    from ..data.datasets.shapes import write_shapes
    from ..data.images.reader import read_image

    if not paths:
        with tempfile.TemporaryDirectory() as folder:
            write_shapes(Path(folder), "drawn", 4, seed=0)
            return [read_image(p, format) for p in sorted(Path(folder, "drawn").iterdir())]
    images = []
    for path in paths:
        try:
            images.append(read_image(path, format))
        except ValueError as e:
            raise UserError(f"{path}: {e}") from None
    return images
