"""
Read images for training, evaluation, inference, drawing, reports and packed data.

8-bit images are bit-identical to those that Detectron2 reads. :func:`read_image` lists the
differences for other images.
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

# EXIF orientation (https://www.exiv2.org/tags.html), and the operation that undoes it.
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
# Used to read many files at once.
NUM_THREADS = min(32, 4 * (os.cpu_count() or 1))


def read_image(source: ImageSource, format: str = "BGR") -> np.ndarray:
    """
    Read an image in one of `FORMATS`.

    The EXIF orientation is applied, the alpha channel is dropped, and of several frames the first
    is returned. Gray images with more than 8 bits are scaled to 8 bits, see :func:`to_8_bits`. In
    contrast, Detectron2's `read_image` makes all values above 255 white and rotates TIFF files
    twice.

    >>> read_image(Image.new("RGB", (40, 30))).shape
    (30, 40, 3)

    Args:
        source: a path on this machine or in packed data (`packed://`), the bytes of a file, a file
            opened for reading bytes, or a PIL image.
        format: "RGB", "BGR", or another format of Detectron2's `convert_PIL_to_numpy`.

    Returns:
        (H, W, 3) uint8; (H, W, 1) for "L".

    Raises:
        ValueError: The image cannot be read. The message is one line that says why, without the
            path.
    """
    with _opened(source) as image:
        return _to_array(image, format)


def read_label_map(source: ImageSource) -> np.ndarray:
    """
    Read the classes of pixels (semantic segmentation). Like in Detectron2, values are not scaled.

    Returns:
        (H, W, 1) uint8.

    Raises:
        ValueError: See :func:`read_image`.
    """
    with _opened(source) as image:
        return _to_array(image, "L", scaled=False)


@dataclass(frozen=True)
class ImageHeader:
    """Width and height as of :func:`read_image`, or an `error` if the image cannot be read."""

    width: int = 0
    height: int = 0
    mode: str = ""  # of Pillow
    format: str = ""  # one of FORMATS
    several_frames: bool = False
    orientation: int = 1
    error: str = ""

    @property
    def rotated(self) -> bool:
        return self.orientation in range(2, 9)


def read_header(source: ImageSource, *, decode: bool = False) -> ImageHeader:
    """
    Read the size, mode and format of an image.

    If the image cannot be read, nothing is raised, but the result has an `error`.

    Args:
        source: See :func:`read_image`.
        decode: whether to decode the pixels as well. By default, only the header is read.
    """
    try:
        with _opened(source) as image:
            orientation, (width, height) = _orientation(image), image.size
            tags = getattr(image, "tag_v2", {})  # Pillow may have rotated a TIFF already
            width, height = tags.get(_IMAGE_WIDTH, width), tags.get(_IMAGE_LENGTH, height)
            if orientation in _SWAPS_SIDES:
                width, height = height, width
            header = ImageHeader(
                width=int(width),
                height=int(height),
                mode=image.mode,
                format=image.format or "",
                # n_frames would read the whole file.
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
    """Apply :func:`read_header` to many files. `desc` is the title of the progress bar."""
    read = partial(read_header, decode=decode)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        results = pool.map(read, paths)
        return list(progress(results, desc, total=len(paths)))


def open_image_file(path: Union[str, os.PathLike]) -> BinaryIO:
    """
    Open a file on this machine or in packed data for reading bytes.

    Raises:
        ValueError: The file is empty, or the path is a folder, pipe, socket, device or URL. The
            message is one line without the path.
        OSError: The file does not exist or cannot be opened.
    """
    path = os.fspath(path)
    if path.startswith(PACKED) and not os.path.lexists(path):
        return open_packed_image(path)
    if is_url(path):
        raise ValueError("it must be a path on this machine, not a URL")
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise ValueError("it is a folder, not a file")
    if not stat.S_ISREG(mode):  # reading from a pipe may wait forever
        raise ValueError("it is not a regular file")
    if os.path.getsize(path) == 0:
        raise ValueError("the file is empty")
    return open(path, "rb")


def is_image_file(path: str) -> bool:
    """Return whether the path is that of a file, or of an image in packed data."""
    return is_packed_image(path) if path.startswith(PACKED) else os.path.isfile(path)


@contextlib.contextmanager
def _opened(source: ImageSource) -> Iterator[Image.Image]:
    """Open an image without decoding it. Any error, also in decoding, becomes a ValueError."""
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
        raise ValueError(f"the image must have at most {limit} pixels, and has more") from None
    except MemoryError:
        raise ValueError("there is not enough memory for the image") from None
    except OSError as e:
        raise ValueError(e.strerror or _one_line(e)) from None
    except Exception as e:  # Pillow's decoders raise many types
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
            "its first picture is a thumbnail, as in raw camera files. Convert it to PNG or JPEG"
        )
    return image


@contextlib.contextmanager
def _checked(image: Image.Image) -> Iterator[None]:
    """Apply the checks of a file to a PIL image, which may not have been decoded yet."""
    if not isinstance(image, ImageFile.ImageFile):
        yield
        return
    if image.format not in FORMATS:
        raise ValueError(f"its format, {image.format}, is not supported. Convert it to PNG or JPEG")
    if image.format in ("JPEG", "MPO") and image.tile and image.fp is not None:
        position = image.fp.tell()
        check_jpeg(image.fp)
        image.fp.seek(position)
    # For a TIFF with a file name, Pillow would map the pixels into memory and not rotate them.
    filename, image.filename = image.filename, ""
    try:
        yield
    finally:
        image.filename = filename


def _to_array(image: Image.Image, format: str, scaled: bool = True) -> np.ndarray:
    image.load()  # must come first: Pillow rotates a TIFF here and removes the tag
    upright = _UPRIGHT.get(_orientation(image))
    if scaled and is_deep(image.mode):
        image = to_8_bits(image)
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # converting directly to RGB would cause a warning
    if upright is not None:
        image = image.transpose(upright)
    return np.ascontiguousarray(_converted(image, format))


def _converted(image: Image.Image, format: str) -> np.ndarray:
    """Do what Detectron2's `convert_PIL_to_numpy` does, without Detectron2 for usual formats."""
    if format in ("RGB", "BGR"):
        rgb = np.asarray(image.convert("RGB"))
        return rgb if format == "RGB" else rgb[:, :, ::-1]
    if format == "L":
        return np.asarray(image.convert("L"))[:, :, None]
    from detectron2.data.detection_utils import convert_PIL_to_numpy

    return convert_PIL_to_numpy(image, format)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # like Detectron2, ignore broken EXIF data
        return 1


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or repr(error)
