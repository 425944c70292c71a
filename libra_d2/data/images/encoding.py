"""Encode images that commands make of others."""

import io

import numpy as np
from PIL import Image


def encode_image(image: np.ndarray, lossless: bool) -> bytes:
    """
    Encode an image as PNG, or as JPEG of a quality at which differences can hardly be seen.

    Args:
        image: (H, W, 3) uint8, RGB.
        lossless: whether to encode it as PNG.

    Returns:
        The content of the image file.
    """
    output = io.BytesIO()
    if lossless:
        Image.fromarray(image).save(output, "PNG")
    else:
        Image.fromarray(image).save(output, "JPEG", quality=95, subsampling=0)
    return output.getvalue()
