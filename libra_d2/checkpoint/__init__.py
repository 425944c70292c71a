from .checkpointer import LibraCheckpointer
from .torchvision_weights import torchvision_weights_file

__all__ = ["LibraCheckpointer", "torchvision_weights_file"]
