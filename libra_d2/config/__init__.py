"""The settings of a run: the keys of libra_d2, how configs are read, and what values make sense."""

from .keys import add_libra_config
from .loading import configured_device, load_cfg, names_num_classes

__all__ = ["add_libra_config", "configured_device", "load_cfg", "names_num_classes"]
