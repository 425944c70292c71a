"""
The file of packed data: an LMDB that holds the bytes of image files and their COCO annotations.

Written by :mod:`packing`, read by Detectron2 through :mod:`packed`.
"""

import functools
import hashlib
import io
import os
import re
import threading
from types import ModuleType
from typing import Any, Dict, Optional, Set, Tuple

from ...errors import UserError
from ...utils.extras import import_extra
from ...utils.json_files import parse_json

PREFIX = "packed://"
VERSION = 1
# Keys of a store. Those of images are made by `image_key`.
ANNOTATIONS, SOURCE, COMPLETE = b"annotations", b"source", b"complete"
IMAGE = b"image:"
# An image's value is the SHA-256 of its bytes, and then the bytes.
DIGEST_SIZE = hashlib.sha256().digest_size


def import_lmdb() -> ModuleType:
    """
    Raises:
        UserError: lmdb, an extra of this package, is not installed.
    """
    return import_extra("lmdb", "lmdb", "files of packed data")


def image_key(name: str) -> bytes:
    """A hash, since LMDB's keys end at 511 bytes and file names with folders may be longer."""
    return IMAGE + hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


class PackedStore:
    """A finished store, open for reading."""

    def __init__(self, path: str):
        """
        Raises:
            UserError: there is no store, or it is unfinished, cut off, or of a later version.
        """
        lmdb = import_lmdb()
        if not os.path.isfile(path):
            raise UserError(f"packed data {path} does not exist. `libra-d2 pack` makes it")
        try:
            # Nothing writes to a finished store, so that readers need no lock. Without readahead,
            # the system would fetch an image page by page (see docs/packed_data.md).
            self._env = lmdb.open(path, subdir=False, readonly=True, lock=False, readahead=True)
        except lmdb.Error as e:
            raise UserError(f"{path} cannot be read as packed data: {e}") from None
        try:
            self._open(path)
        except BaseException:
            self.close()
            raise

    def _open(self, path: str) -> None:
        pages, page_size = self._env.info()["last_pgno"] + 1, self._env.stat()["psize"]
        if os.path.getsize(path) < pages * page_size:  # reading would end the process
            raise UserError(
                f"{path} is cut off: {os.path.getsize(path)} of {pages * page_size} bytes"
            )
        self.path = path
        try:
            content = self._get(COMPLETE)
        except import_lmdb().Error as e:
            raise UserError(f"{path} cannot be read as packed data: {e}") from None
        if content is None:
            raise UserError(f"{path} is unfinished: start its `libra-d2 pack` again, which goes on")
        # "version", "images" (their number), "skipped" (names), and two SHA-256: "annotations", and
        # "sha256" of all.
        self.summary: Dict[str, Any] = parse_json(content, f"the summary of {path}")
        if isinstance(self.summary, dict) and self.summary.get("version") not in (VERSION, None):
            raise UserError(f"{path} was packed by a later version of libra_d2")
        if not is_summary(self.summary):
            raise UserError(f"{path} is not as `libra-d2 pack` makes it: its summary is damaged")

    def _get(self, key: bytes):
        with self._env.begin() as transaction:
            return transaction.get(key)

    def annotations(self) -> bytes:
        """COCO JSON."""
        return self._get(ANNOTATIONS)

    def image(self, name: str) -> io.BytesIO:
        """
        The image file of this name in the annotations.

        Raises:
            FileNotFoundError: the store has none.
            OSError: the store is damaged there.
        """
        try:
            with self._env.begin(buffers=True) as transaction:
                value = transaction.get(image_key(name))
                if value is not None:
                    return io.BytesIO(value[DIGEST_SIZE:])
        except import_lmdb().Error as e:
            raise OSError(f"{self.path} is damaged at the image {name}: {e}") from None
        raise FileNotFoundError(f"{self.path} has no image {name}")

    def digest_and_content(self, name: str) -> Optional[Tuple[bytes, bytes]]:
        """SHA-256 that was stored with an image, and its bytes; None if the store has none."""
        value = self._get(image_key(name))
        return None if value is None else (value[:DIGEST_SIZE], value[DIGEST_SIZE:])

    def __contains__(self, name: str) -> bool:
        with self._env.begin(buffers=True) as transaction:
            return transaction.get(image_key(name)) is not None

    def close(self) -> None:
        self._env.close()


def is_summary(summary: Any) -> bool:
    """Whether it is what `libra-d2 pack` notes of a finished store, by the types of all values."""
    texts, numbers = ("annotations", "sha256"), ("version", "images")
    return (
        isinstance(summary, dict)
        and all(isinstance(summary.get(key), str) for key in texts)
        and all(type(summary.get(key)) is int for key in numbers)
        and isinstance(summary.get("skipped"), list)
        and all(isinstance(name, str) for name in summary["skipped"])
    )


# -- One open store a process, by path ------------------------------------------------------------

_stores: Dict[str, PackedStore] = {}
_lock = threading.Lock()
_real = functools.lru_cache(os.path.realpath)  # it asks the system for every folder on the way


def open_store(path: str) -> PackedStore:
    """
    The store of a path, which stays open in this process: LMDB forbids to open one twice.

    Raises:
        UserError: as :class:`PackedStore`.
    """
    path = _real(path)
    with _lock:
        if path not in _stores:
            _stores[path] = PackedStore(path)
        return _stores[path]


_known: Set[str] = set()


def _split(path: str) -> Tuple[str, str]:
    """Store and name of an image. A store is a file, so that no other file lies under its path."""
    path = path[len(PREFIX) :]
    ends = [match.start() for match in re.finditer("/", path)]
    for is_store in (_known.__contains__, os.path.isfile):
        for end in ends:
            if is_store(path[:end]):
                _known.add(path[:end])
                return path[:end], path[end + 1 :]
    raise FileNotFoundError(f"no packed data in {PREFIX}{path}")


def open_packed_image(path: str) -> io.BytesIO:
    """
    Args:
        path: `packed://<store>/<file name>`.

    Raises:
        FileNotFoundError: there is no such store or image.
        UserError: as :class:`PackedStore`.
    """
    store, name = _split(path)
    return open_store(store).image(name)


def is_packed_image(path: str) -> bool:
    """Whether there is an image with the path `packed://<store>/<file name>`."""
    try:
        store, name = _split(path)
    except FileNotFoundError:
        return False
    return name in open_store(store)


def close_store(path: str) -> None:
    """Close what `open_store` has opened in this process, if it has."""
    with _lock:
        store = _stores.pop(_real(path), None)
        if store is not None:
            store.close()


def _leave_to_parent() -> None:
    """An LMDB environment must not be used across a fork: the child opens its own."""
    for store in _stores.values():
        store.close()
    _stores.clear()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_leave_to_parent
    )
