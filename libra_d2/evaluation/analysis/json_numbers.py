"""Numbers as JSON knows them."""

import math
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Dicts, lists and arrays with Python's numbers, of six digits, and None for NaN."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
