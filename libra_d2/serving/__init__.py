"""
Run exported detectors in applications and as a web service, without torch and Detectron2.

Importing this package loads neither of them, even where they are installed.
"""

from .predictor import Predictor

__all__ = ["Predictor"]
