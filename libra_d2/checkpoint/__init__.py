from .checkpoint_files import read_checkpoint
from .checkpointer import LibraCheckpointer
from .conversion import convert
from .timm_weights import timm_weights_file
from .torchvision_weights import torchvision_weights_file

__all__ = [
    "LibraCheckpointer",
    "convert",
    "read_checkpoint",
    "timm_weights_file",
    "torchvision_weights_file",
]
