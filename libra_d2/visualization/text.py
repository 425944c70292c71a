"""Draw text in any script on pictures."""

import os
import unicodedata
from functools import cache, lru_cache
from typing import FrozenSet, List, Optional, Tuple

import matplotlib
from matplotlib.font_manager import FontEntry, fontManager
from matplotlib.ft2font import FT2Font
from PIL import ImageDraw, ImageFont

from .colours import Colour

_DEJAVU = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
_MIDDLE = "…"


def text_height(size: int) -> int:
    """Return the height of a line in pixels, for a font of `size` pixels."""
    return sum(_font(_DEJAVU, size).getmetrics())


@lru_cache(maxsize=4096)
def text_width(text: str, size: int) -> int:
    """Return the width of a text in pixels, rounded up."""
    return -int(-sum(font.getlength(part) for font, part in _runs(text, size)) // 1)


@lru_cache(maxsize=4096)
def shortened(text: str, size: int, width: int) -> str:
    """
    Shorten a text to fit into `width` pixels. The middle is left out, because the end of a label is
    its score.
    """
    if text_width(text, size) <= width:
        return text
    low, high = 0, len(text)  # numbers of letters that fit, and that do not
    while high - low > 1:
        count = (low + high) // 2
        fits = text_width(_without_middle(text, count), size) <= width
        low, high = (count, high) if fits else (low, count)
    return _without_middle(text, low) if low else ""


def draw_text(
    draw: ImageDraw.ImageDraw, xy: Tuple[int, int], text: str, size: int, colour: Colour
) -> None:
    """
    Draw a line of text.

    Letters that DejaVu Sans does not have are taken from the fonts of the system. Letters that no
    font has are written as their Unicode number, such as `\\u732b`, so that names stay different.

    Args:
        xy: upper left corner of the line, in pixels.
        size: size of the font, in pixels.
    """
    x, baseline = float(xy[0]), xy[1] + _font(_DEJAVU, size).getmetrics()[0]
    for font, part in _runs(text, size):
        draw.text((x, baseline), part, fill=colour, font=font, anchor="ls")
        x += font.getlength(part)


def _without_middle(text: str, count: int) -> str:
    tail = min(5, count // 2)
    return text[: count - tail] + _MIDDLE + text[len(text) - tail :]


@lru_cache(maxsize=4096)
def _runs(text: str, size: int) -> Tuple[Tuple[ImageFont.FreeTypeFont, str], ...]:
    runs: List[List[str]] = []
    for letter in unicodedata.normalize("NFC", " ".join(text.split())):
        path = _font_with(letter)
        if path is None:
            path, letter = _DEJAVU, f"\\u{ord(letter):04x}"
        if runs and runs[-1][0] == path:
            runs[-1][1] += letter
        else:
            runs.append([path, letter])
    return tuple((_font(path, size), part) for path, part in runs)


@lru_cache(maxsize=256)
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@lru_cache(maxsize=4096)
def _font_with(letter: str) -> Optional[str]:
    if ord(letter) in _letters(_DEJAVU):
        return _DEJAVU
    if unicodedata.category(letter).startswith("C"):  # control, surrogate or private use
        return None
    for path in sorted({f.fname for f in fontManager.ttflist if not _is_last_resort(f)}):
        if ord(letter) in _letters(path):
            return path
    return None


def _is_last_resort(font: FontEntry) -> bool:
    """Whether this is the font of matplotlib that has the same few signs for all letters."""
    return font.name.startswith("Last Resort")


@cache
def _letters(path: str) -> FrozenSet[int]:
    try:
        ImageFont.truetype(path, 10)
        return frozenset(FT2Font(path).get_charmap())
    except Exception:  # the font file is missing or broken
        return frozenset()
