"""
An HTTP service for a detector: POST an image to /detect, and get its detections as JSON.

    python examples/app.py --model output/run --port 8000
    curl -F image=@photo.jpg "http://127.0.0.1:8000/detect?score_threshold=0.5"

Any ASGI server can run it as well, for example `LIBRA_D2_MODEL=output/run uvicorn --app-dir
examples --factory app:create_app`. GET /health says whether the service is up.
"""

import argparse
import contextlib
import os
import sys
import threading

from fastapi import FastAPI, HTTPException, Request, UploadFile
from PIL import Image

from libra_d2 import Predictor
from libra_d2.data.images.formats import readable_formats
from libra_d2.errors import UserError
from libra_d2.predictions.detections import Detections

PARAMETERS = ("score_threshold",)


def create_app(predictor=None, max_bytes=20 << 20, max_pixels=50_000_000, at_once=2) -> FastAPI:
    """
    Build the application.

    Args:
        predictor: by default, a predictor of the run in the environment variable LIBRA_D2_MODEL.
        max_bytes: largest size of a request.
        max_pixels: largest number of pixels of an image.
        at_once: number of images that go through the model at the same time.
    """
    predictor = predictor or Predictor(os.environ.get("LIBRA_D2_MODEL", ""))
    slots = threading.BoundedSemaphore(at_once)  # limits memory, not requests
    formats = readable_formats()
    app = FastAPI(title="libra_d2")
    app.add_middleware(BodyLimit, max_bytes=max_bytes)

    @app.get("/health")
    def health():
        return {"status": "ok", "classes": list(predictor.class_names)}

    @app.post("/detect")
    def detect(request: Request, image: UploadFile):  # not async, to run in a thread pool
        threshold = score_threshold(request, predictor)
        try:
            # This reads only the header. Formats are limited, because some run programs.
            opened = Image.open(image.file, formats=formats)
            width, height = opened.size
        except Exception:
            raise HTTPException(415, f"the image must be in one of the formats {formats}") from None
        if width * height > max_pixels:
            raise HTTPException(
                413, f"the image must have at most {max_pixels} pixels, got {width}x{height}"
            )
        try:
            with slots:
                found = predictor(opened)
        except ValueError as e:
            raise HTTPException(422, str(e)) from None
        detections = Detections.from_instances(found).above(threshold)
        return detections.entry(predictor.class_names, predictor.category_ids)

    return app


def score_threshold(request: Request, predictor: Predictor) -> float:
    """Return the `score_threshold` of the query. Other parameters are refused."""
    for name in request.query_params:
        if name not in PARAMETERS:
            known = ", ".join(PARAMETERS)
            raise HTTPException(422, f"a parameter must be one of {known}, got {name!r}")
    values = request.query_params.getlist("score_threshold")
    if not values:
        return 0.0
    try:
        threshold = float(values[0])
    except ValueError:
        threshold = -1.0
    if len(values) > 1 or not 0 <= threshold <= 1:  # also of NaN
        raise HTTPException(422, f"score_threshold must be one number in [0, 1], got {values}")
    if threshold < predictor.score_threshold:
        raise HTTPException(
            422,
            f"score_threshold must be at least {predictor.score_threshold:g}, the threshold of "
            f"this service, got {threshold:g}",
        )
    return threshold


class BodyLimit:
    """Refuses a body whose declared length, or received part, is larger than `max_bytes`."""

    def __init__(self, app, max_bytes: int):
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope, receive, send):
        declared = dict(scope.get("headers", ())).get(b"content-length", b"0")
        declared = int(declared) if declared.isdigit() else 0
        received = 0

        async def limited():
            nonlocal received
            message = await receive() if declared <= self.max_bytes else {}
            received += len(message.get("body", b""))
            if max(declared, received) > self.max_bytes:
                raise HTTPException(413, f"a request must have at most {self.max_bytes} bytes")
            return message

        await self.app(scope, limited, send)


def main(argv=None) -> int:
    """Run the service. Return 2 if the model is invalid, and 0 after Ctrl-C or SIGTERM."""
    import uvicorn

    parser = argparse.ArgumentParser(description="Run an HTTP service for a detector.")
    parser.add_argument(
        "--model",
        default=os.environ.get("LIBRA_D2_MODEL", ""),
        help="folder of a run, or a checkpoint (default: environment variable LIBRA_D2_MODEL)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="port to listen on (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    try:
        app = create_app(Predictor(args.model))
    except UserError as e:
        print(f"app.py: {e}", file=sys.stderr)
        return 2
    server = uvicorn.Server(uvicorn.Config(app, host=args.host, port=args.port))
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after the shutdown
        server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
