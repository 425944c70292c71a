from .coco_evaluator import LibraCOCOEvaluator

__all__ = ["LibraCOCOEvaluator"]
