"""Find objects in images, folders, lists, videos or a camera, and write them to files."""

import argparse
import sys

from ..errors import UserError
from ..utils.arguments import add_trust
from ..utils.interrupts import exit_status
from ..utils.messages import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="image, folder, pattern, .txt list of paths, video, camera:0, or - for standard input",
    )
    add("--model", default="", metavar="RUN_OR_WEIGHTS", help="folder of a run, or a checkpoint")
    add("--config-file", default="", help="default: config.yaml of the run or beside the weights")
    add_trust(parser)
    add("--device", default="", help="cpu, cuda, cuda:1, ... (default: as configured)")
    add("--output", default="predictions.json", metavar="FILE", help="JSON by image (%(default)s)")
    add("--coco", default="", metavar="FILE", help="also write COCO results")
    add("--annotations", default="", metavar="COCO_JSON", help="whose image ids --coco takes")
    add("--csv", default="", metavar="FILE", help="also write a line for each detection")
    add("--draw", default="", metavar="FOLDER", help="also write annotated images and videos")
    add("--recursive", action="store_true", help="also folders in the folders")
    add("--score-threshold", type=float, metavar="S", help="keep, and draw, scores above it")
    add("--nms-threshold", type=float, metavar="IOU", help="of non-maximum suppression")
    add("--nms", default="", choices=("hard", "linear", "gaussian"), help="or Soft-NMS")
    add("--top-k", type=int, metavar="K", help="keep the best K of an image, of all classes")
    add("--classes", nargs="+", default=(), metavar="NAME", help="keep only these")
    add("--max-frames", type=int, default=0, metavar="N", help="of each video (0: all)")
    add("--batch-size", type=int, default=0, metavar="N", help="default: 1 on a CPU, 8 on a GPU")
    add("--workers", type=int, default=0, metavar="N", help="threads; default: a core each")
    add("--amp", action="store_true", help="mixed precision: float16, on a CPU bfloat16")
    add("--no-fuse", action="store_true", help="leave batch norms and memory layout as they are")
    add("--resume", action="store_true", help="go on where the same command was interrupted")
    add("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config changes")


def run(args: argparse.Namespace) -> int:
    """
    0: all is well; 1: images were skipped or not drawn; 2: all of them were skipped, or a mistake;
    130: Ctrl-C, or 143: SIGTERM, with what was found in the files.
    """
    from ..data.images.sources import VIDEO_SUFFIXES
    from ..inference.infer import InferOptions, infer, threshold_opts
    from ..inference.trained_detector import load_detector

    opts = threshold_opts(args.score_threshold, args.nms_threshold, args.nms, args.top_k)
    detector = load_detector(
        args.model,
        config_file=args.config_file,
        opts=[*opts, *args.opts],
        device=args.device,
        trust=args.trust,
    )
    names = InferOptions.__dataclass_fields__.keys() - {"fuse", "draw_threshold"}
    options = InferOptions(
        fuse=not args.no_fuse,
        draw_threshold=args.score_threshold,
        **{name: getattr(args, name) for name in names},
    )
    try:
        summary = infer(detector, args.inputs, options)
    except KeyboardInterrupt as e:
        print(f"interrupted: {args.output} has what was found; --resume goes on", file=sys.stderr)
        return exit_status(e)
    images = [(k, e) for k, e in summary.skipped if not k.lower().endswith(VIDEO_SUFFIXES)]
    if images and not summary.num_done:
        key, error = images[0]
        raise UserError(
            f"none of the {summary.num_images} images can be read, the first is {printable(key)}: "
            f"{error}"
        )
    print(f"{summary}\n{', '.join(map(printable, summary.files))}")
    return 1 if summary.skipped or summary.num_not_drawn else 0
