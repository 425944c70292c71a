"""
Libra R-CNN for Detectron2: IoU-balanced sampling, balanced feature pyramid, Balanced L1 loss.

Importing this package registers its components with Detectron2. Only `libra_d2.serving`, which runs
exported files, can be imported without Detectron2 and torch, and loads neither.
"""

import importlib
import logging
import sys
import warnings
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from . import checkpoint, data, modeling  # noqa: F401
    from .config import add_libra_config
    from .inference.predictor import Predictor

__all__ = ["Predictor", "__version__", "add_libra_config"]

_TORCH_FREE = "libra_d2.serving"
_PACKAGES = ("checkpoint", "data", "modeling")
_LAZY = {"Predictor": ".inference.predictor", "add_libra_config": ".config"}


def _register() -> None:
    """Import Detectron2, and register the components of this package with it."""
    try:
        with warnings.catch_warnings():
            # Detectron2 scripts two functions on import. torch's warning is for its authors.
            warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
            import detectron2.modeling  # noqa: F401
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] not in ("detectron2", "torch", "torchvision"):
            raise
        raise ImportError(
            f"libra_d2 needs Detectron2, but {e.name!r} is not installed. Run `make setup` in a "
            "checkout of libra_d2, which installs tested versions into .venv without a compiler, "
            "or install Detectron2 into this environment: "
            "https://detectron2.readthedocs.io/tutorials/install.html. ONNX files do "
            "without: `from libra_d2.serving import Predictor`, `libra-d2 infer`, `libra-d2 serve`"
        ) from None

    # These warnings are about Detectron2's code, which users cannot change: it calls deprecated
    # functions and looks for a compiler on machines that have the CUDA toolkit but no GPU.
    warnings.filterwarnings("ignore", "torch.meshgrid: in an upcoming release", UserWarning)
    for name in ("torch.fx._symbolic_trace", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)

    for name in _PACKAGES:  # `from . import` would ask __getattr__
        importlib.import_module(f"{__name__}.{name}")
    importlib.import_module(f"{__name__}.data.datasets.shapes").register_shapes()


def _is_parent_of_torch_free() -> bool:
    """
    Whether this package is imported only because Python imports the parents of a module first, and
    that module does without Detectron2. Python tells the parent nothing about it, but the functions
    of importlib that lead here have the names of the modules.
    """
    frame = sys._getframe(1).f_back
    while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        name = frame.f_locals.get("name")
        if isinstance(name, str) and f"{name}.".startswith(f"{_TORCH_FREE}."):
            return True
        frame = frame.f_back
    return False


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        _register()
        return getattr(importlib.import_module(_LAZY[name], __name__), name)
    if name in _PACKAGES:  # not loaded if `serving` was imported first
        _register()
        return sys.modules[f"{__name__}.{name}"]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if not _is_parent_of_torch_free():
    _register()
