"""Colours of classes, of what was hit or missed, and of text."""

import colorsys
from typing import Tuple

Colour = Tuple[int, int, int]  # RGB in [0, 255]

# Colours that all kinds of colour vision tell apart: M. Okabe and K. Ito, "Color Universal Design"
# (2008), https://jfly.uni-koeln.de/color/
GREEN: Colour = (0, 158, 115)
VERMILION: Colour = (213, 94, 0)
YELLOW: Colour = (240, 228, 66)
GREY: Colour = (170, 170, 170)

_RINGS = ((0.85, 0.95), (0.45, 1.0), (0.9, 0.65))  # saturation and value of ten classes each


def class_colour(class_id: int) -> Tuple[float, float, float]:
    """RGB in [0, 1]; the same for a class in every picture, and far from that of its neighbours."""
    saturation, value = _RINGS[class_id // 10 % len(_RINGS)]
    return colorsys.hsv_to_rgb((0.13 + class_id * 0.618034) % 1, saturation, value)


def to_bytes(colour: Tuple[float, float, float]) -> Colour:
    """From RGB in [0, 1]."""
    red, green, blue = (round(255 * v) for v in colour)
    return red, green, blue


def text_colour(background: Colour) -> Colour:
    """
    Black or white, whichever has more contrast: at least 4.5 : 1, the ratio that WCAG 2.1 asks of
    text (success criterion 1.4.3), as its formula of the relative luminance gives it.
    """
    return (0, 0, 0) if contrast(background, (0, 0, 0)) >= 4.58 else (255, 255, 255)


def contrast(a: Colour, b: Colour) -> float:
    """Ratio of two colours in [1, 21], by WCAG 2.1."""
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: Colour) -> float:
    linear = [
        v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4
        for v in (c / 255 for c in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
