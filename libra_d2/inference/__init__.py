from ..visualization.detection_pictures import draw_boxes, save_prediction_grid

__all__ = ["draw_boxes", "save_prediction_grid"]
