"""Convert gray images with more than 8 bits per pixel to 8 bits."""

import numpy as np
from PIL import Image

_BITS_PER_SAMPLE = 258  # TIFF tag
_PIXELS_AT_ONCE = 1 << 22
_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


def is_deep(mode: str) -> bool:
    """Return whether the values of one of Pillow's modes do not fit into 8 bits."""
    return mode in ("I", "F") or mode.startswith("I;")


def to_8_bits(image: Image.Image) -> Image.Image:
    """
    Scale a gray image with more than 8 bits per pixel to [0, 255].

    The range that is mapped to [0, 255] depends on the type of the image: [0, 65535] for 16 bits,
    [0, 4095] for 12 bits, [0, 1] or [0, 255] for floats within it, and minimum to maximum for other
    floats and 32-bit integers. NaN counts as 0.
    """
    pixels = np.asarray(image)
    # Work in blocks of rows, because a large image would take gigabytes as float64.
    rows = max(1, _PIXELS_AT_ONCE // max(1, image.width))
    blocks = [slice(start, start + rows) for start in range(0, image.height, rows)]
    least = min(_finite(pixels[b]).min() for b in blocks)
    greatest = max(_finite(pixels[b]).max() for b in blocks)
    low, high = 0.0, 65535.0
    if image.mode.startswith("I;"):
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))
        high = 2.0 ** bits[0] - 1
    elif image.mode == "F" and least >= 0 and greatest <= 255:
        high = 1.0 if greatest <= 1 else 255.0
    elif image.mode == "F" or least < 0 or greatest > high:  # 16-bit images may also have mode "I"
        low, high = least, max(greatest, least + 1)
    scaled = np.empty(pixels.shape, np.uint8)
    for b in blocks:
        scaled[b] = np.rint((_finite(pixels[b]) - low) * (255 / (high - low)))
    return Image.fromarray(scaled)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values.astype(np.float64), posinf=_LARGEST_FLOAT32, neginf=0)
