"""
An HTTP service around a detector: POST an image to /detect, get the JSON of its predictions.

    LIBRA_D2_MODEL=output/run uvicorn --app-dir examples --factory app:create_app
    curl -F image=@photo.jpg http://127.0.0.1:8000/detect
"""

import os
import threading

from fastapi import FastAPI, HTTPException, UploadFile
from PIL import Image

from libra_d2 import Predictor
from libra_d2.inference.detections import Detections

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # Pillow knows some that run programs


def create_app(predictor=None, max_bytes=20 << 20, max_pixels=50_000_000, at_once=2) -> FastAPI:
    predictor = predictor or Predictor(os.environ.get("LIBRA_D2_MODEL", ""))
    slots = threading.BoundedSemaphore(at_once)  # bounds the memory, not the requests
    app = FastAPI(title="libra_d2")
    app.add_middleware(BodyLimit, max_bytes=max_bytes)

    @app.post("/detect")
    def detect(image: UploadFile):  # not async: runs in a thread and keeps no other one waiting
        try:
            opened = Image.open(image.file, formats=FORMATS)  # reads the header only
            width, height = opened.size
        except Exception:
            raise HTTPException(415, f"not an image in one of the formats {FORMATS}") from None
        if width * height > max_pixels:
            raise HTTPException(413, f"{width}x{height}: more than {max_pixels} pixels")
        try:
            with slots:
                found = predictor(opened)
        except ValueError as e:
            raise HTTPException(422, str(e)) from None
        return Detections.from_instances(found).entry(predictor.class_names, predictor.category_ids)

    return app


class BodyLimit:
    """Refuses a body by the length that it declares, or as soon as more than `max_bytes` came."""

    def __init__(self, app, max_bytes: int):
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope, receive, send):
        declared = int(dict(scope.get("headers", ())).get(b"content-length", 0))
        received = 0

        async def limited():
            nonlocal received
            message = await receive() if declared <= self.max_bytes else {}
            received += len(message.get("body", b""))
            if max(declared, received) > self.max_bytes:
                raise HTTPException(413, f"more than {self.max_bytes} bytes")
            return message

        await self.app(scope, limited, send)
