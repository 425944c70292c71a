"""Perceptual hashes, by which images that look alike are found."""

from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import List, Sequence, Tuple, Union

import numpy as np
from PIL import Image

from ...utils.extras import import_extra
from ...utils.progress import progress
from ..images.reader import NUM_THREADS, read_image

HASH_BITS = 64


def import_imagehash() -> ModuleType:
    """
    Raises:
        UserError: imagehash, an extra of this package, is not installed.
    """
    return import_extra("imagehash", "split", "near-duplicates (--no-near-duplicates: none)")


def hash_images(paths: Sequence[str]) -> Tuple[np.ndarray, np.ndarray, List[Tuple[str, str]]]:
    """
    Hash the low frequencies of images: `phash` of https://github.com/JohannesBuchner/imagehash.

    Args:
        paths: of I images.

    Returns:
        (K,) indices of the images that can be read, their (K,) uint64 hashes, and (path, reason) of
        the others.

    Raises:
        UserError: as :func:`import_imagehash`.
    """
    phash = import_imagehash().phash
    phash(Image.new("L", (8, 8)))  # imports parts of SciPy, which threads had better not do at once

    def hash_image(path: str) -> Union[int, str]:
        try:
            grey = read_image(path, "L")[:, :, 0]
        except ValueError as e:
            return str(e)
        bits = phash(Image.fromarray(grey)).hash
        return int.from_bytes(np.packbits(bits).tobytes(), "big")

    images, hashes, unreadable = [], [], []
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        results = progress(pool.map(hash_image, paths), "Comparing images", total=len(paths))
        for i, (path, result) in enumerate(zip(paths, results)):
            if isinstance(result, str):
                unreadable.append((path, result))
            else:
                images.append(i)
                hashes.append(result)
    return np.array(images, dtype=np.int64), np.array(hashes, dtype=np.uint64), unreadable
