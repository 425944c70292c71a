"""Import optional dependencies."""

import importlib
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
