"""
The one reader of images: for training, evaluation, inference, drawing, reports and packed data.

8-bit images are read as by Detectron2, to the bit. What differs is written at :func:`read_image`.
"""

import contextlib
import io
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Iterator, List, Sequence, Union, cast

import numpy as np
from detectron2.data.detection_utils import convert_PIL_to_numpy
from PIL import Image, ImageFile, UnidentifiedImageError

from ...utils.local_paths import is_url
from ...utils.progress import progress
from .formats import (
    FORMATS,
    HEAD,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    check_jpeg,
    readable_formats,
    why_not_read,
)
from .grey_levels import is_deep, to_8_bits
from .packed_store import PREFIX as PACKED
from .packed_store import is_packed_image, open_packed_image

__all__ = [
    "FORMATS",
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "ImageHeader",
    "is_image_file",
    "open_image_file",
    "read_header",
    "read_headers",
    "read_image",
    "read_label_map",
    "readable_formats",
]

ImageSource = Union[str, os.PathLike, bytes, bytearray, memoryview, BinaryIO, Image.Image]

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
_SWAPS_SIDES = range(5, 9)
# TIFF tags
_NEW_SUBFILE_TYPE, _IMAGE_WIDTH, _IMAGE_LENGTH = 254, 256, 257
# For many files at once.
NUM_THREADS = min(32, 4 * (os.cpu_count() or 1))


def read_image(source: ImageSource, format: str = "BGR") -> np.ndarray:
    """
    Read an image of one of `FORMATS`: upright by its EXIF orientation, which is applied once in
    every format; without alpha; the first one of several frames.

    Grey images of more than 8 bits are scaled to 8 bits by a range that belongs to the whole file:
    16 bits by 65535, 12 bits by 4095, floats of [0, 1] by 1 and of [0, 255] by 255, and other
    floats and 32-bit integers from their least to their greatest value. (Detectron2's `read_image`
    makes all values above 255 white, and turns TIFF files twice.)

    Args:
        source: a path of this machine or in packed data (`packed://`), the bytes of a file, a file
            opened for reading bytes, or a PIL image.
        format: "RGB", "BGR", or another one that Detectron2 knows.

    Returns:
        (H, W, 3) uint8; for "L", (H, W, 1).

    Raises:
        ValueError: it cannot be read; one line, which says why and does not repeat the path.
    """
    with _opened(source) as image:
        return _to_array(image, format)


def read_label_map(source: ImageSource) -> np.ndarray:
    """
    Read the classes of pixels (semantic segmentation), as Detectron2 does: values are not scaled.

    Returns:
        (H, W, 1) uint8.

    Raises:
        ValueError: as :func:`read_image`.
    """
    with _opened(source) as image:
        return _to_array(image, "L", scaled=False)


@dataclass(frozen=True)
class ImageHeader:
    """Width and height are those of :func:`read_image`; `error`: the image cannot be read."""

    width: int = 0
    height: int = 0
    mode: str = ""  # Pillow's
    format: str = ""  # one of FORMATS
    several_frames: bool = False
    orientation: int = 1
    error: str = ""

    @property
    def rotated(self) -> bool:
        return self.orientation in range(2, 9)


def read_header(source: ImageSource, *, decode: bool = False) -> ImageHeader:
    """
    What an image file holds. An image that cannot be read is no error, but has one.

    Args:
        source: as for :func:`read_image`.
        decode: also decode all pixels; otherwise only the header is read.
    """
    try:
        with _opened(source) as image:
            orientation, (width, height) = _orientation(image), image.size
            tags = getattr(image, "tag_v2", {})  # TIFF, which Pillow may have turned already
            width, height = tags.get(_IMAGE_WIDTH, width), tags.get(_IMAGE_LENGTH, height)
            if orientation in _SWAPS_SIDES:
                width, height = height, width
            header = ImageHeader(
                width=int(width),
                height=int(height),
                mode=image.mode,
                format=image.format or "",
                # Not n_frames: it goes through the whole file.
                several_frames=bool(getattr(image, "is_animated", False)),
                orientation=orientation,
            )
            if decode:
                image.seek(0)
                image.load()
            return header
    except ValueError as e:
        return ImageHeader(error=str(e))


def read_headers(paths: Sequence[str], *, decode: bool, desc: str) -> List[ImageHeader]:
    """:func:`read_header` of many files; a progress bar on a terminal is named `desc`."""
    read = partial(read_header, decode=decode)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        results = pool.map(read, paths)
        return list(progress(results, desc, total=len(paths)))


def open_image_file(path: Union[str, os.PathLike]) -> BinaryIO:
    """
    Open a file of this machine or one in packed data for reading its bytes.

    Raises:
        ValueError: it is empty, a folder, pipe, socket or device, or a URL; one line without the
            path.
        OSError: it is not there, or cannot be opened.
    """
    path = os.fspath(path)
    if path.startswith(PACKED) and not os.path.lexists(path):
        return open_packed_image(path)
    if is_url(path):
        raise ValueError("it must be a path on this machine, not a URL")
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise ValueError("it is a folder, not a file")
    if not stat.S_ISREG(mode):  # reading from a pipe may wait for ever
        raise ValueError("it is not a regular file")
    if os.path.getsize(path) == 0:
        raise ValueError("the file is empty")
    return open(path, "rb")


def is_image_file(path: str) -> bool:
    """Whether there is a file of this path, or an image in packed data."""
    return is_packed_image(path) if path.startswith(PACKED) else os.path.isfile(path)


@contextlib.contextmanager
def _opened(source: ImageSource) -> Iterator[Image.Image]:
    """The image, not yet decoded; whatever goes wrong with it becomes a ValueError of one line."""
    try:
        if isinstance(source, Image.Image):
            with _checked(source):
                yield source
            return
        if isinstance(source, (bytes, bytearray, memoryview)):
            source = io.BytesIO(source)
        if hasattr(source, "read"):
            with _open_pillow(cast(BinaryIO, source)) as image:
                yield image
        else:
            with (
                open_image_file(source) as f,
                _open_pillow(f) as image,
            ):
                yield image
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(f"more than {limit} pixels, the most that are read") from None
    except MemoryError:
        raise ValueError("there is not enough memory for it") from None
    except OSError as e:
        raise ValueError(e.strerror or _one_line(e)) from None
    except Exception as e:  # Pillow's decoders raise many kinds
        raise ValueError(_one_line(e)) from None


def _open_pillow(file: BinaryIO) -> Image.Image:
    if not file.seekable():
        file = io.BytesIO(file.read())
    file.seek(0)
    head = file.read(HEAD)
    if not head:
        raise ValueError("the file is empty")
    if head.startswith(b"\xff\xd8"):
        check_jpeg(file)
    file.seek(0)
    try:
        image = Image.open(file, formats=readable_formats())
    except UnidentifiedImageError:
        raise ValueError(why_not_read(head)) from None
    if getattr(image, "tag_v2", {}).get(_NEW_SUBFILE_TYPE, 0) & 1:
        raise ValueError(
            "its first picture is a thumbnail, as in a camera's raw data: convert it to PNG or JPEG"
        )
    return image


@contextlib.contextmanager
def _checked(image: Image.Image) -> Iterator[None]:
    """Check a PIL image that was opened, but perhaps not decoded, as a file would be."""
    if not isinstance(image, ImageFile.ImageFile):
        yield
        return
    if image.format not in FORMATS:
        raise ValueError(f"its format, {image.format}, is not read: convert it to PNG or JPEG")
    if image.format in ("JPEG", "MPO") and image.tile and image.fp is not None:
        position = image.fp.tell()
        check_jpeg(image.fp)
        image.fp.seek(position)
    # Of a TIFF with a name, Pillow maps the pixels into memory as if they were upright.
    filename, image.filename = image.filename, ""
    try:
        yield
    finally:
        image.filename = filename


def _to_array(image: Image.Image, format: str, scaled: bool = True) -> np.ndarray:
    image.load()  # first: Pillow turns a TIFF itself, and then takes the tag away
    upright = _UPRIGHT.get(_orientation(image))
    if scaled and is_deep(image.mode):
        image = to_8_bits(image)
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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or repr(error)
