"""Run detectors on images."""

from typing import TYPE_CHECKING

from ..utils.lazy_imports import lazy_attributes

if TYPE_CHECKING:
    from ..visualization.detection_pictures import draw_boxes, save_prediction_grid

__all__ = ["draw_boxes", "save_prediction_grid"]

# Drawing loads fonts.
__getattr__ = lazy_attributes(
    "libra_d2.visualization", dict.fromkeys(__all__, "detection_pictures")
)
