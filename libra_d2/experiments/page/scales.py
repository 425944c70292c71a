"""Linear axes with round ticks, in percent of the width or height of a plot."""

import math
from dataclasses import dataclass
from typing import Iterable, List, NamedTuple

MARGIN = 4.0  # percent at both ends, so that marks and labels at the ends are not cut off


class Tick(NamedTuple):
    at: float  # percent
    text: str


@dataclass(frozen=True)
class Scale:
    low: float
    high: float  # greater than `low`
    margin: float = MARGIN

    def at(self, value: float) -> float:
        """Return the place of a value in percent; `margin` for the lowest of the axis."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.margin + share * (100 - 2 * self.margin), 2)

    def ticks(self, number: int = 5, signed: bool = False) -> List[Tick]:
        """Return about `number` ticks at multiples of 1, 2 or 5 times a power of 10."""
        rough = (self.high - self.low) / number
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * next(f for f in (1, 2, 5, 10) if f * power >= rough * (1 - 1e-9))
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step - 1e-6), math.floor(self.high / step + 1e-6)
        form = f"{'+' if signed else ''}.{digits}f"
        return [
            Tick(self.at(i * step), format(i * step, form) if i else "0")
            for i in range(first, last + 1)
        ]


def scale_of(values: Iterable[float], least: float = 1.0, margin: float = MARGIN) -> Scale:
    """
    Return a scale that holds all values.

    Args:
        least: the range of the axis if all values are the same, or if there are none.
    """
    known = list(values) or [0.0]
    low, high = min(known), max(known)
    if high - low < 1e-9 * max(1.0, abs(low)):
        low, high = low - least / 2, high + least / 2
    return Scale(low, high, margin)
