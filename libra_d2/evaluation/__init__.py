from .coco_evaluation import LibraCOCOEvaluator

__all__ = ["LibraCOCOEvaluator"]
