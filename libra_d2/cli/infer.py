"""Run a detector on images, folders, videos or a camera, and write the detections to files."""

import argparse
import sys

from ..errors import UserError
from ..utils.arguments import add_opts, add_trust, flag, score_threshold
from ..utils.interrupts import exit_status
from ..utils.messages import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="image, folder, pattern such as '*.jpg', .txt file with a path per line, video, "
        "camera:0, or - to read paths from standard input",
    )
    add(
        "--model",
        default="",
        metavar="RUN_OR_FILE",
        help="folder of a run, a checkpoint, or an ONNX file that libra-d2 export has written, "
        "which needs neither torch nor Detectron2. NMS and the config are inside such a file, and "
        "options that change them are refused",
    )
    add(
        "--config-file",
        default="",
        metavar="FILE",
        help="config of the model (default: config.yaml of the run or next to the checkpoint)",
    )
    add_trust(parser)
    add("--device", default="", help="cpu, cuda, cuda:1, ... (default: MODEL.DEVICE of the config)")
    add(
        "--output",
        default="predictions.json",
        metavar="FILE",
        help="JSON file to write the detections to, by image (default: %(default)s)",
    )
    add("--coco", default="", metavar="FILE", help="also write COCO results to this file")
    add(
        "--annotations",
        default="",
        metavar="COCO_JSON",
        help="annotations of the same images, whose image ids --coco uses",
    )
    add("--csv", default="", metavar="FILE", help="also write a CSV file, a line per detection")
    add(
        "--draw",
        default="",
        metavar="FOLDER",
        help="also write images and videos with the detections drawn on them",
    )
    add("--recursive", action="store_true", help="also read the subfolders of folders")
    add(
        "--score-threshold",
        type=score_threshold,
        metavar="S",
        help="keep and draw only detections with higher scores. With best, or the path of an "
        "analysis.json, those from the best threshold of their class on, in the run's analysis or "
        "in that one (default: keep those above the threshold of the config; draw those from the "
        "best thresholds on)",
    )
    add(
        "--nms-threshold",
        type=float,
        metavar="IOU",
        help="IoU threshold of non-maximum suppression (default: that of the config)",
    )
    add(
        "--nms",
        default="",
        choices=("hard", "linear", "gaussian"),
        help="hard NMS, or linear or Gaussian Soft-NMS (default: TEST.NMS.TYPE of the config)",
    )
    add(
        "--top-k",
        type=int,
        metavar="K",
        help="keep the K best detections per image, over all classes (default: "
        "TEST.DETECTIONS_PER_IMAGE of the config)",
    )
    add(
        "--slice",
        type=int,
        metavar="PIXELS",
        help="cut images and frames into slices with these sides, and merge what is found in them",
    )
    add(
        "--overlap",
        type=float,
        metavar="SHARE",
        help="with --slice: share of its sides that a slice has in common with its neighbors "
        "(default: 0.2)",
    )
    add("--classes", nargs="+", default=(), metavar="NAME", help="keep only these classes")
    add(
        "--max-frames",
        type=int,
        default=0,
        metavar="N",
        help="read only the first N frames of each video (default: 0, all frames)",
    )
    add(
        "--batch-size",
        type=int,
        default=0,
        metavar="N",
        help="images per batch (default: 1 on a CPU, 8 on a GPU)",
    )
    add(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="number of threads (default: one per core)",
    )
    add(
        "--amp",
        action="store_true",
        help="use mixed precision: float16 on a GPU, bfloat16 on a CPU",
    )
    add(
        "--no-fuse",
        action="store_true",
        help="on a CPU, do not fuse batch norms into convolutions: slower, but without the "
        "rounding differences of fusing",
    )
    add("--resume", action="store_true", help="continue the same command after an interruption")
    add_opts(parser)


def needs_detectron2(args: argparse.Namespace) -> bool:
    from ..inference.exported_file import is_exported

    return not is_exported(args.model)


def run(args: argparse.Namespace) -> int:
    """
    Return the exit status: 0 if all images were done, 1 if some were skipped or not drawn, and 130
    (Ctrl-C) or 143 (SIGTERM) after an interruption, with the detections so far in the files.

    Raises:
        UserError: an argument is invalid, or none of the images can be read.
    """
    from ..data.images.sources import VIDEO_SUFFIXES
    from ..inference.infer import InferOptions, infer
    from ..inference.opening import open_detector

    given = args.score_threshold
    number, thresholds = (None, given) if isinstance(given, str) else (given, "")
    detector = open_detector(
        args.model,
        score_threshold=number,
        top_k=args.top_k,
        nms_threshold=args.nms_threshold,
        nms=args.nms,
        config_file=args.config_file,
        opts=args.opts,
        device=args.device,
        trust=args.trust,
        named=flag,
    )
    names = InferOptions.__dataclass_fields__.keys() - {"fuse", "draw_threshold", "thresholds"}
    options = InferOptions(
        fuse=not args.no_fuse,
        draw_threshold=number,
        thresholds=thresholds,
        **{name: getattr(args, name) for name in names},
    )
    try:
        summary = infer(detector, args.inputs, options)
    except KeyboardInterrupt as e:
        print(
            f"interrupted: the detections so far are in {args.output}. Give --resume to continue",
            file=sys.stderr,
        )
        return exit_status(e)
    images = [(k, e) for k, e in summary.skipped if not k.lower().endswith(VIDEO_SUFFIXES)]
    if images and not summary.num_done:
        key, error = images[0]
        raise UserError(
            f"none of the {summary.num_images} images can be read. The first is {printable(key)}: "
            f"{error}"
        )
    print(f"{summary}\n{', '.join(map(printable, summary.files))}")
    return 1 if summary.skipped or summary.num_not_drawn else 0
