"""Convert a config to a flat dict."""

from typing import Any, Dict


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
