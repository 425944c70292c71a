"""
Checks of single values. Each returns a list of error messages, which is empty for a good value, so
that a caller can collect the messages of many settings.
"""

import difflib
import math
from typing import Any, List, Optional, Sequence

from ..utils.messages import shown


def choice(key: str, value: Any, choices: Sequence[Any]) -> List[str]:
    """Check that a value is one of the choices. The message suggests a similar choice."""
    if value in choices and not isinstance(value, bool):
        return []
    by_lower = {str(c).lower(): c for c in choices}
    close = difflib.get_close_matches(str(value).lower(), list(by_lower), n=1)
    hint = f"; did you mean {by_lower[close[0]]!r}?" if close else ""
    return [f"{key} must be one of {tuple(choices)}, got {shown(value)}{hint}"]


def number(
    key: str,
    value: Any,
    *,
    low: Optional[float] = None,
    high: Optional[float] = None,
    above: Optional[float] = None,
    below: Optional[float] = None,
    whole: bool = False,
    off: Optional[float] = None,
) -> List[str]:
    """
    Check that a value is a finite number within bounds.

    Args:
        low, high: inclusive bounds.
        above, below: exclusive bounds.
        whole: whether the value must be an integer.
        off: a further allowed value, which usually disables something.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and off is not None and value == off:
        return []
    bounds = []
    if low is not None and high is not None:
        bounds.append(f"from {low:g} to {high:g}")
    elif low is not None:
        bounds.append(f"at least {low:g}")
    elif high is not None:
        bounds.append(f"at most {high:g}")
    if above is not None:
        bounds.append(f"above {above:g}")
    if below is not None:
        bounds.append(f"below {below:g}")
    good = (
        is_number
        and math.isfinite(value)
        and (not whole or isinstance(value, int))
        and (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
    )
    if good:
        return []
    kind = "an integer" if whole else "a number"
    text = " and ".join(bounds)
    if not is_number or not math.isfinite(value) or not text:
        text = f"{kind} {text}".rstrip()
    elif whole and not isinstance(value, int):
        text = f"an integer {text}"
    if off is not None:
        text += f", or {off:g}"
    return [f"{key} must be {text}, got {shown(value)}"]


def numbers(key: str, values: Sequence[Any], **bounds: Any) -> List[str]:
    """Check each element with :func:`number`. The message names the first bad one and the list."""
    for value in values:
        if number(key, value, **bounds):
            message = number(f"each number of {key}", value, **bounds)[0]
            return [f"{message} in {shown(values)}"]
    return []
