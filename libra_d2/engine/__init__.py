from detectron2.engine import default_argument_parser

from .defaults import load_cfg, setup
from .launch import launch
from .trainer import LibraTrainer

__all__ = ["LibraTrainer", "default_argument_parser", "launch", "load_cfg", "setup"]
