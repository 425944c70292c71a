"""
An HTTP service around a detector: POST an image to /detect, get the JSON of its predictions.

    python examples/app.py --model output/run --port 8000
    curl -F image=@photo.jpg "http://127.0.0.1:8000/detect?score_threshold=0.5"

Or by any ASGI server, such as `LIBRA_D2_MODEL=output/run uvicorn --app-dir examples --factory
app:create_app`. GET /health says whether the service is up.
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
    predictor = predictor or Predictor(os.environ.get("LIBRA_D2_MODEL", ""))
    slots = threading.BoundedSemaphore(at_once)  # bounds the memory, not the requests
    formats = readable_formats()
    app = FastAPI(title="libra_d2")
    app.add_middleware(BodyLimit, max_bytes=max_bytes)

    @app.get("/health")
    def health():
        return {"status": "ok", "classes": list(predictor.class_names)}

    @app.post("/detect")
    def detect(request: Request, image: UploadFile):  # not async: keeps no other request waiting
        threshold = score_threshold(request, predictor)
        try:
            # Reads the header only. Pillow also knows formats that run programs.
            opened = Image.open(image.file, formats=formats)
            width, height = opened.size
        except Exception:
            raise HTTPException(415, f"not an image in one of the formats {formats}") from None
        if width * height > max_pixels:
            raise HTTPException(413, f"{width}x{height}: more than {max_pixels} pixels")
        try:
            with slots:
                found = predictor(opened)
        except ValueError as e:
            raise HTTPException(422, str(e)) from None
        detections = Detections.from_instances(found).above(threshold)
        return detections.entry(predictor.class_names, predictor.category_ids)

    return app


def score_threshold(request: Request, predictor: Predictor) -> float:
    """Of the query; weaker detections are left out. Anything else in the query is a mistake."""
    for name in request.query_params:
        if name not in PARAMETERS:
            known = ", ".join(PARAMETERS)
            raise HTTPException(422, f"unknown parameter {name!r}: the known ones are {known}")
    values = request.query_params.getlist("score_threshold")
    if not values:
        return 0.0
    try:
        threshold = float(values[0])
    except ValueError:
        threshold = -1.0
    if len(values) > 1 or not 0 <= threshold <= 1:  # also of NaN
        raise HTTPException(422, f"score_threshold {values}: give one number in [0, 1]")
    if threshold < predictor.score_threshold:
        raise HTTPException(
            422,
            f"score_threshold {threshold:g}: this service finds scores of at least "
            f"{predictor.score_threshold:g}",
        )
    return threshold


class BodyLimit:
    """Refuses a body by the length that it declares, or as soon as more than `max_bytes` came."""

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
                raise HTTPException(413, f"more than {self.max_bytes} bytes")
            return message

        await self.app(scope, limited, send)


def main(argv=None) -> int:
    """Ends with exit code 2 after a mistake, and with 0 after Ctrl-C or SIGTERM."""
    import uvicorn

    parser = argparse.ArgumentParser(description="An HTTP service around a detector")
    parser.add_argument("--model", default=os.environ.get("LIBRA_D2_MODEL", ""), help="run folder")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args(argv)
    try:
        app = create_app(Predictor(args.model))
    except UserError as e:
        print(f"app.py: {e}", file=sys.stderr)
        return 2
    server = uvicorn.Server(uvicorn.Config(app, host=args.host, port=args.port))
    with contextlib.suppress(KeyboardInterrupt):  # raised again after the shut-down
        server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
