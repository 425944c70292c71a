"""Serve a detector over HTTP, with a page for browsers."""

import argparse
import os
import statistics
from typing import Any, Dict

from ..errors import UserError
from ..utils.arguments import add_opts, add_trust, flag
from ..utils.extras import import_extra

_MEGABYTE = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--model",
        required=True,
        metavar="RUN_OR_FILE",
        help="folder of a run, a checkpoint, or an ONNX file that libra-d2 export has written, "
        "which needs neither torch nor Detectron2",
    )
    add("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    add("--port", type=int, default=8000, help="port; 0: any free one (default: %(default)s)")
    add(
        "--token-file",
        default="",
        metavar="FILE",
        help="file with a token that clients must send as `Authorization: Bearer TOKEN` (default: "
        "the environment variable LIBRA_D2_TOKEN, or no token)",
    )
    add(
        "--score-threshold",
        type=float,
        metavar="S",
        help="lowest score of detections (default: that of the model)",
    )
    model = parser.add_argument_group("options of a run or checkpoint")
    model.add_argument("--config-file", default="", metavar="FILE", help="config of the model")
    model.add_argument("--device", default="", help="cpu, cuda, cuda:1, ...")
    add_trust(model)
    batches = parser.add_argument_group("batches")
    batches.add_argument(
        "--max-batch",
        type=int,
        default=8,
        metavar="N",
        help="largest number of images of concurrent requests that are detected together "
        "(default: %(default)s)",
    )
    batches.add_argument(
        "--max-delay",
        type=float,
        default=5,
        metavar="MS",
        help="milliseconds that an image may wait for others (default: %(default)s)",
    )
    limits = parser.add_argument_group("limits")
    for name, (kind, default, text) in _LIMITS.items():
        metavar = "SECONDS" if kind is float else "N"
        limits.add_argument(
            flag(name),
            type=kind,
            default=default,
            metavar=metavar,
            help=f"{text} (default: {default})",
        )
    add_opts(parser)


# The defaults are those of `Limits`, which a test compares; it is not imported for --help.
_LIMITS: Dict[str, Any] = {
    "max_bytes": (int, 20 * _MEGABYTE, "bytes of a request"),
    "max_total_bytes": (int, 256 * _MEGABYTE, "bytes of all requests that are in progress"),
    "max_pixels": (int, 50_000_000, "pixels of an image"),
    "max_images": (int, 16, "images of a request"),
    "max_slices": (int, 100, "slices of an image"),
    "max_queue": (int, 128, "images that wait; more are refused with status 503"),
    "upload_timeout": (float, 30.0, "time in which a request must have arrived"),
    "timeout": (float, 60.0, "time in which a request must have been answered after that"),
}


def needs_detectron2(args: argparse.Namespace) -> bool:
    from ..inference.exported_file import is_exported

    return not is_exported(args.model)


def run(args: argparse.Namespace) -> int:
    """
    Serve until Ctrl-C or SIGTERM. Return 0, or 1 if the server could not start.

    Raises:
        UserError: the model, the address or an option cannot be used.
    """
    for module in ("fastapi", "python_multipart", "uvicorn", "prometheus_client", "jinja2"):
        import_extra(module, "serve", "servers")
    from ..evaluation.run_thresholds import thresholds_for_drawing
    from ..inference.best_thresholds import best_thresholds
    from ..serving.app import create_app
    from ..serving.limits import Limits
    from ..serving.server import address_of, listen, read_token, serve

    limits = Limits(**{name: getattr(args, name) for name in _LIMITS})
    if args.max_batch < 1:
        raise UserError(f"--max-batch must be at least 1, got {args.max_batch}")
    if not args.max_delay >= 0:
        raise UserError(f"--max-delay must be at least 0, got {args.max_delay}")
    token = read_token(args.token_file)
    predictor = _open(args)
    best = thresholds_for_drawing(lambda: best_thresholds(predictor.detector))
    # The slider of the page is for all classes.
    threshold = statistics.median(best.by_label(predictor.class_names))
    app = create_app(
        predictor,
        limits=limits,
        token=token,
        max_batch=args.max_batch,
        max_delay=args.max_delay / 1000,
        draw_threshold=threshold,
        name=os.path.basename(os.path.abspath(args.model)),
    )
    listening = listen(args.host, args.port)
    protected = "with a token" if token else "without a token"
    print(
        f"Serving {args.model} at {address_of(listening)} {protected}. Stop with Ctrl-C", flush=True
    )
    started = serve(
        app,
        listening,
        graceful_seconds=limits.timeout,
        header_seconds=limits.upload_timeout,
    )
    return 0 if started else 1


def _open(args: argparse.Namespace) -> Any:
    given = {
        "score_threshold": args.score_threshold,
        "config_file": args.config_file,
        "opts": args.opts,
        "device": args.device,
        "trust": args.trust,
        "batch_size": args.max_batch,
    }
    if needs_detectron2(args):
        from ..inference.predictor import Predictor

        return Predictor(args.model, **given)
    from ..serving.predictor import Predictor as ExportedPredictor

    return ExportedPredictor(args.model, **given)
