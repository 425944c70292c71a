"""What image files hold, as Detectron2 reads them, found out by many threads at once."""

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Callable, List, Sequence

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from ..local_paths import is_url
from .packed_store import PREFIX, is_packed_image, open_packed_image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
_ORIENTATION = 0x0112  # EXIF tag
_NUM_THREADS = min(32, 4 * (os.cpu_count() or 1))


@dataclass(frozen=True)
class ImageFile:
    """Width and height are those after the rotation that EXIF asks for; `error`: unreadable."""

    width: int = 0
    height: int = 0
    mode: str = ""
    num_frames: int = 1
    orientation: int = 1
    error: str = ""

    @property
    def rotated(self) -> bool:
        return self.orientation in range(2, 9)


def open_image_file(path: str) -> BinaryIO:
    """
    Args:
        path: of this machine, or `packed://<store>/<file name>`.

    Raises:
        ValueError: it is a URL, a folder, or a pipe, from which reading may wait for ever.
        OSError: it is not there, or cannot be opened.
    """
    if path.startswith(PREFIX):
        return open_packed_image(path)
    if is_url(path):
        raise ValueError("it must be a path on this machine, not a URL")
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise ValueError("a folder, not a file")
    if not stat.S_ISREG(mode):
        raise ValueError("no regular file")
    return open(path, "rb")


def is_image_file(path: str) -> bool:
    """Whether there is a file of this path, or an image in packed data."""
    return is_packed_image(path) if path.startswith(PREFIX) else os.path.isfile(path)


def read_image_file(path: str, *, decode: bool = False) -> ImageFile:
    """
    Args:
        path: image file.
        decode: also decode all pixels; otherwise only the header is read.
    """
    try:
        with open_image_file(path) as f, Image.open(f) as image:
            orientation = _orientation(image)
            width, height = image.size
            if orientation in range(5, 9):
                width, height = height, width
            info = ImageFile(
                width=width,
                height=height,
                mode=image.mode,
                num_frames=getattr(image, "n_frames", 1),
                orientation=orientation,
            )
            if decode:
                image.seek(0)
                image.load()
            return info
    except UnidentifiedImageError:
        return ImageFile(error="no image of a known format")
    except Exception as e:  # Pillow's decoders raise many kinds
        return ImageFile(error=" ".join(str(e).split()) or repr(e))


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # as in Detectron2: broken EXIF data is no EXIF data
        return 1


def read_image_files(paths: Sequence[str], *, decode: bool, desc: str) -> List[ImageFile]:
    """:func:`read_image_file` for many files; a progress bar on a terminal is named `desc`."""
    return _in_threads(partial(read_image_file, decode=decode), paths, desc)


def content_hashes(paths: Sequence[str], *, desc: str) -> List[str]:
    """Hash of each file's bytes; an empty string for a file that cannot be read."""
    return _in_threads(_content_hash, paths, desc)


def _content_hash(path: str) -> str:
    try:
        with open_image_file(path) as f:
            return hashlib.blake2b(f.read(), digest_size=16).hexdigest()
    except Exception:  # as said by the check of images
        return ""


def _in_threads(function: Callable, paths: Sequence[str], desc: str) -> List[Any]:
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        results = pool.map(function, paths)
        return list(tqdm(results, total=len(paths), desc=desc, unit="image", disable=None))
