"""Contents of uploads, good and bad."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def png(seed=0, size=(60, 80)):
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return stored(Image.fromarray(noise), "png")


def stored(image, format):
    content = io.BytesIO()
    image.save(content, format)
    return content.getvalue()


def png_with_header(width, height):
    """A PNG that says that it has this size, but has no pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
