"""Versions of the packages that determine what a model computes."""

from typing import Dict

from ..version import __version__


def package_versions() -> Dict[str, str]:
    import detectron2
    import torch
    import torchvision

    return {
        "libra_d2": __version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "detectron2": detectron2.__version__,
    }
