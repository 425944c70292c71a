"""A run's settings and names in the form that MLflow takes."""

import posixpath
import re
from typing import Any, Dict, Iterator, Tuple

from detectron2.config import CfgNode, get_cfg

from ..config import add_libra_config

# Of a parameter's value: what servers since MLflow 1.28 take. Newer ones take more.
MAX_PARAM_LENGTH = 500


def settings(cfg: CfgNode) -> Dict[str, str]:
    """The settings that differ from the defaults, cut to the length that MLflow takes."""
    defaults = get_cfg()
    add_libra_config(defaults)
    standard = dict(_flatten(defaults))
    return {
        key: str(value)[:MAX_PARAM_LENGTH]
        for key, value in _flatten(cfg)
        if value != standard.get(key) and not key.startswith("MLFLOW.")
    }


def _flatten(node: CfgNode, prefix: str = "") -> Iterator[Tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def metric_name(name: str) -> str:
    """A scalar's name with what MLflow does not take replaced, such as in "bbox/AP-a (b)"."""
    return posixpath.normpath(re.sub(r"[^\w.\- /]", "_", name)).lstrip("/.")
