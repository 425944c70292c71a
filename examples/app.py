"""
The web application of `libra-d2 serve` in a server of your own, such as one with several processes:

    LIBRA_D2_MODEL=mine.onnx uvicorn --app-dir examples --factory app:create --workers 2

Add routes to the application, or mount it into another one. An ONNX file needs neither torch nor
Detectron2; a run or a checkpoint does.
"""

import os

from fastapi import FastAPI

from libra_d2.serving.app import create_app
from libra_d2.serving.limits import Limits
from libra_d2.serving.server import read_token


def create() -> FastAPI:
    """Build the application for the model in the environment variable LIBRA_D2_MODEL."""
    model = os.environ.get("LIBRA_D2_MODEL", "")
    if model.endswith(".onnx"):
        from libra_d2.serving import Predictor
    else:
        from libra_d2 import Predictor
    return create_app(Predictor(model), limits=Limits(max_images=4), token=read_token())
