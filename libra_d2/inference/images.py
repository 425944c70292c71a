"""Reading an image of any kind for a detector, or saying in one line why it cannot be read."""

import io
import os
from typing import BinaryIO, Union

import numpy as np
from detectron2.data.detection_utils import convert_PIL_to_numpy
from PIL import Image, UnidentifiedImageError

from ..data.image_files import open_image_file

# EXIF's orientation (https://www.exiv2.org/tags.html) and what undoes it.
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS_PER_SAMPLE = 258  # TIFF tag


def read_image(
    source: Union[str, os.PathLike, bytes, BinaryIO, Image.Image], format: str = "BGR"
) -> np.ndarray:
    """
    As Detectron2's `read_image`, with the rotation of EXIF applied, alpha dropped and the first of
    several frames; but grey images of more than 8 bits are scaled to 8 bits by their range instead
    of clipped at 255: 16 bits by 65535, 12 bits by 4095, floats of [0, 1] by 1 and of [0, 255] by
    255, and other floats and 32-bit integers by their least and greatest value.

    Args:
        source: path, or `packed://<store>/<file name>`, or the bytes of a
            file, or a file opened for reading bytes, or a PIL image.
        format: "RGB", "BGR", or another that Detectron2 knows.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: it cannot be read; one line, which says why and does not repeat the path.
    """
    try:
        if isinstance(source, Image.Image):
            return _to_array(source, format)
        if isinstance(source, (bytes, bytearray, memoryview)):
            source = io.BytesIO(source)
        if hasattr(source, "read"):
            return _decode(source, format)
        with open_image_file(os.fspath(source)) as f:
            if not f.read(1):
                raise ValueError("the file is empty")
            f.seek(0)
            return _decode(f, format)
    except UnidentifiedImageError:
        raise ValueError("no image of a known format") from None
    except Image.DecompressionBombError:
        limit = 2 * Image.MAX_IMAGE_PIXELS
        raise ValueError(f"more than {limit} pixels, the most that are read") from None
    except MemoryError:
        raise ValueError("there is not enough memory for it") from None
    except OSError as e:
        raise ValueError(e.strerror or _one_line(e)) from None
    except Exception as e:  # Pillow's decoders raise many kinds
        raise ValueError(_one_line(e)) from None


def _decode(file: BinaryIO, format: str) -> np.ndarray:
    with Image.open(file) as image:
        return _to_array(image, format)


def _to_array(image: Image.Image, format: str) -> np.ndarray:
    image.load()  # first: Pillow turns a TIFF itself, and then takes the tag away
    upright = _UPRIGHT.get(_orientation(image))
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = _to_8_bits(image)
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns
    if upright is not None:
        image = image.transpose(upright)
    return np.ascontiguousarray(convert_PIL_to_numpy(image, format))


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # as in Detectron2: broken EXIF data is no EXIF data
        return 1


def _to_8_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    values = np.nan_to_num(values, posinf=np.finfo(np.float32).max, neginf=0)
    low, high = 0.0, 65535.0
    if image.mode.startswith("I;"):
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))
        high = 2.0 ** bits[0] - 1
    elif image.mode == "F" and values.min() >= 0 and values.max() <= 255:
        high = 1.0 if values.max() <= 1 else 255.0
    elif image.mode == "F" or values.min() < 0 or values.max() > high:  # "I" may hold 16 bits
        low, high = values.min(), max(values.max(), values.min() + 1)
    return Image.fromarray(np.rint((values - low) * (255 / (high - low))).astype(np.uint8))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or repr(error)
