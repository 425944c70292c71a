from detectron2.engine import default_argument_parser

from ..config import load_cfg
from .defaults import setup
from .launch import launch
from .trainer import LibraTrainer

__all__ = ["LibraTrainer", "default_argument_parser", "launch", "load_cfg", "setup"]
