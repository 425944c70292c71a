"""What image files hold, as Detectron2 reads them, found out by many threads at once."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, List, Sequence

from detectron2.utils.file_io import PathManager
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

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


def read_image_file(path: str, *, decode: bool = False) -> ImageFile:
    """
    Args:
        path: image file.
        decode: also decode all pixels; otherwise only the header is read.
    """
    try:
        with PathManager.open(path, "rb") as f, Image.open(f) as image:
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
        with PathManager.open(path, "rb") as f:
            return hashlib.blake2b(f.read(), digest_size=16).hexdigest()
    except Exception:  # as said by the check of images
        return ""


def _in_threads(function: Callable, paths: Sequence[str], desc: str) -> List[Any]:
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        results = pool.map(function, paths)
        return list(tqdm(results, total=len(paths), desc=desc, unit="image", disable=None))
