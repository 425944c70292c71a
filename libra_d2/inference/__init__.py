from .drawing import draw_boxes, save_prediction_grid

__all__ = ["draw_boxes", "save_prediction_grid"]
