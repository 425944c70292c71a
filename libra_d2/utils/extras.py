"""Packages that only some features need."""

import importlib
from types import ModuleType

from ..errors import UserError


def import_extra(module: str, extra: str, feature: str) -> ModuleType:
    """
    Args:
        module: to import.
        extra: of setup.py, that installs it.
        feature: what needs it, in the plural, to begin a sentence with.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name != module:
            raise
        raise UserError(f"{feature} need {module}: pip install libra_d2[{extra}]") from None
