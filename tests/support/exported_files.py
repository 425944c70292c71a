"""ONNX files of detectors with random weights."""

from libra_d2.export import export_detector
from libra_d2.inference.trained_detector import load_detector

from ..inference.small_detector import blots
from .detector_runs import write_run

SPREAD = 3000.0  # scores from 0.3 to 0.9


def write_exported(folder, opts=(), spread=SPREAD, **kwargs):
    """Return the folder of a run, and the path of the ONNX file in it."""
    run = write_run(folder, opts, spread=spread)
    path = str(run / "mine.onnx")
    images = [blots(i, (96, 128)) for i in range(2)]
    report = export_detector(load_detector(str(run)), "onnx", path, images, **kwargs)
    assert report.detections > 10
    return str(run), path
