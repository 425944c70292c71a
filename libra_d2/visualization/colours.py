"""Colors of classes, of hits and misses, and of text."""

import colorsys
from typing import Tuple

Colour = Tuple[int, int, int]  # RGB in [0, 255]

# These colors can be told apart with any kind of color vision: M. Okabe and K. Ito, "Color
# Universal Design" (2008), https://jfly.uni-koeln.de/color/
GREEN: Colour = (0, 158, 115)
VERMILION: Colour = (213, 94, 0)
YELLOW: Colour = (240, 228, 66)
GREY: Colour = (170, 170, 170)

_RINGS = ((0.85, 0.95), (0.45, 1.0), (0.9, 0.65))  # saturation and value, each for ten classes


def class_colour(class_id: int) -> Tuple[float, float, float]:
    """
    Return the color of a class as RGB in [0, 1].

    A class has the same color in every picture. Classes with consecutive ids have very different
    colors.
    """
    saturation, value = _RINGS[class_id // 10 % len(_RINGS)]
    return colorsys.hsv_to_rgb((0.13 + class_id * 0.618034) % 1, saturation, value)


def to_bytes(colour: Tuple[float, float, float]) -> Colour:
    """Convert RGB in [0, 1] to RGB in [0, 255]."""
    red, green, blue = (round(255 * v) for v in colour)
    return red, green, blue


def text_colour(background: Colour) -> Colour:
    """
    Return black or white, whichever has more contrast with the background.

    The contrast is at least 4.5 : 1, which WCAG 2.1 requires for text (success criterion 1.4.3).
    """
    return (0, 0, 0) if contrast(background, (0, 0, 0)) >= 4.58 else (255, 255, 255)


def contrast(a: Colour, b: Colour) -> float:
    """Return the contrast ratio of two colors, in [1, 21], as defined by WCAG 2.1."""
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: Colour) -> float:
    linear = [
        v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4
        for v in (c / 255 for c in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
