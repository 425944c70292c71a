from typing import TYPE_CHECKING

from ..utils.lazy_imports import lazy_attributes

if TYPE_CHECKING:
    from .coco_evaluator import LibraCOCOEvaluator

__all__ = ["LibraCOCOEvaluator"]

# Saved analyses are read without loading Detectron2.
__getattr__ = lazy_attributes(__name__, {"LibraCOCOEvaluator": "coco_evaluator"})
