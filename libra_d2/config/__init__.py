"""The settings of a run: the keys of libra_d2, how configs are read, and what values make sense."""

from .detectron2_only import check_for_detectron2
from .keys import add_libra_config
from .loading import configured_device, load_cfg, names_num_classes

__all__ = [
    "add_libra_config",
    "check_for_detectron2",
    "configured_device",
    "load_cfg",
    "names_num_classes",
]
