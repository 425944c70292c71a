"""Configs: the keys that libra_d2 adds, how config files are read, and checks of the values."""

import importlib
from typing import Any

_MODULES = {
    "add_libra_config": "keys",
    "check_for_detectron2": "detectron2_only",
    "configured_device": "loading",
    "load_cfg": "loading",
    "names_num_classes": "loading",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    """
    Import modules on first use, so that `libra-d2 --help` can read :mod:`.choices` without loading
    Detectron2.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
