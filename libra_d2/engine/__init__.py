from ..config import load_cfg
from .arguments import default_argument_parser
from .defaults import setup
from .launch import launch
from .trainer import LibraTrainer

__all__ = ["LibraTrainer", "default_argument_parser", "launch", "load_cfg", "setup"]
