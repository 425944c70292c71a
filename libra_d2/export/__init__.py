from .exporting import FORMATS, ExportReport, export_detector
from .traceable_pyramid import TraceablePyramid, make_pyramids_traceable

__all__ = [
    "FORMATS",
    "ExportReport",
    "TraceablePyramid",
    "export_detector",
    "make_pyramids_traceable",
]
