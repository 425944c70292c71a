"""The values of a config by their full keys, such as "SOLVER.BASE_LR"."""

from typing import Any, Dict

from detectron2.config import CfgNode


def flat(node: Any, prefix: str = "") -> Dict[str, Any]:
    """
    Map the full keys of a `CfgNode`, or of a dict of dicts, to their values.

    Example::

        flat({"SOLVER": {"BASE_LR": 0.02}})  # {"SOLVER.BASE_LR": 0.02}
    """
    ret: Dict[str, Any] = {}
    for key, value in node.items() if isinstance(node, dict) else ():
        if isinstance(value, dict) and value:
            ret.update(flat(value, f"{prefix}{key}."))
        else:
            ret[f"{prefix}{key}"] = value
    return ret


def value_at(cfg: CfgNode, key: str) -> Any:
    """Return the value, or the section, of a full key."""
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def set_value(cfg: CfgNode, key: str, value: Any) -> None:
    """Set the value of a full key."""
    section, _, name = key.rpartition(".")
    (value_at(cfg, section) if section else cfg)[name] = value
