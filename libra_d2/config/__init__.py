"""Configs: the keys that libra_d2 adds, how config files are read, and checks of the values."""

from ..utils.lazy_imports import lazy_attributes

_MODULES = {
    "add_libra_config": "keys",
    "check_for_detectron2": "detectron2_only",
    "configured_device": "loading",
    "load_cfg": "loading",
    "names_num_classes": "loading",
}

__all__ = sorted(_MODULES)

# `libra-d2 --help` reads `choices` without loading Detectron2.
__getattr__ = lazy_attributes(__name__, _MODULES)
