"""Import optional dependencies."""

import importlib
import importlib.util
from types import ModuleType

from ..errors import UserError


def import_extra(module: str, extra: str, feature: str) -> ModuleType:
    """
    Import a package that only some features need.

    Args:
        module: name of the package, or of a module in it.
        extra: extra of setup.py that installs it.
        feature: features that need it, as the plural subject of the error message.

    Raises:
        UserError: the package is not installed.
    """
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as e:
        if e.name != package:
            raise
        raise UserError(f"{feature} need {package}: pip install libra_d2[{extra}]") from None
    return importlib.import_module(module)


def import_opencv(feature: str) -> ModuleType:
    """
    Import OpenCV, which an installation by requirements-serve.txt leaves out.

    Args:
        feature: see :func:`import_extra`.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("cv2") is None:
        raise UserError(f"{feature} need OpenCV: pip install opencv-python-headless")
    return importlib.import_module("cv2")
