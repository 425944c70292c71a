"""
Libra R-CNN for Detectron2: IoU-balanced sampling, balanced feature pyramid, Balanced L1 loss.

Importing this package registers its components with Detectron2.
"""

import logging
import warnings

from .version import __version__

try:
    with warnings.catch_warnings():
        # Detectron2 scripts two functions on import. torch's warning is for Detectron2's authors.
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        import detectron2.modeling  # noqa: F401
except ModuleNotFoundError as e:
    if (e.name or "").partition(".")[0] not in ("detectron2", "torch", "torchvision"):
        raise
    raise ImportError(
        f"libra_d2 needs Detectron2, but {e.name!r} is not installed. Run `make setup` in a "
        "checkout of libra_d2, which installs tested versions into .venv without a compiler, or "
        "install Detectron2 into this environment: "
        "https://detectron2.readthedocs.io/tutorials/install.html"
    ) from None

# These warnings are about Detectron2's code, which users cannot change: it calls deprecated
# functions and looks for a compiler on machines that have the CUDA toolkit but no GPU.
warnings.filterwarnings("ignore", "torch.meshgrid: in an upcoming release", UserWarning)
for name in ("torch.fx._symbolic_trace", "torch.utils.cpp_extension"):
    logging.getLogger(name).setLevel(logging.ERROR)

from . import checkpoint, data, modeling  # noqa: F401
from .config import add_libra_config

__all__ = ["Predictor", "__version__", "add_libra_config"]


def __getattr__(name: str):
    if name == "Predictor":  # imported on first use, because its imports take time
        from .inference.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
