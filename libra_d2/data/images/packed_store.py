"""
Read packed data: an LMDB file with the bytes of image files and their COCO annotations.

:mod:`packing` writes such a file, and :mod:`packed` lets Detectron2 read it.
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
from ...utils.messages import shown

PREFIX = "packed://"
VERSION = 1
# Keys in a store. `image_key` returns those of images.
ANNOTATIONS, SOURCE, COMPLETE = b"annotations", b"source", b"complete"
IMAGE = b"image:"
# The value of an image is the SHA-256 of its bytes, followed by the bytes.
DIGEST_SIZE = hashlib.sha256().digest_size


def import_lmdb() -> ModuleType:
    """
    Import lmdb, which is an optional dependency.

    Raises:
        UserError: lmdb is not installed.
    """
    return import_extra("lmdb", "lmdb", "files of packed data")


def image_key(name: str) -> bytes:
    """Return the key of an image, a hash, because LMDB limits keys to 511 bytes."""
    return IMAGE + hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


class PackedStore:
    """A finished store, opened for reading."""

    def __init__(self, path: str):
        """
        Raises:
            UserError: The store does not exist, or is unfinished, truncated, damaged or of another
                version.
        """
        lmdb = import_lmdb()
        if not os.path.isfile(path):
            raise UserError(f"packed data {path} does not exist. Create it with `libra-d2 pack`")
        try:
            # Nothing writes to a finished store, so readers need no lock. Without readahead, the
            # system would read an image page by page (see docs/packed_data.md).
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
        if os.path.getsize(path) < pages * page_size:  # reading would crash the process
            raise UserError(
                f"{path} is truncated: it has {os.path.getsize(path)} of {pages * page_size} "
                "bytes. Copy or pack it again"
            )
        self.path = path
        try:
            content = self._get(COMPLETE)
        except import_lmdb().Error as e:
            raise UserError(f"{path} cannot be read as packed data: {e}") from None
        if content is None:
            raise UserError(
                f"{path} is unfinished. Run the same `libra-d2 pack` command again to continue"
            )
        # Keys: "version", "images" (number of images), "skipped" (names of images), "annotations"
        # (SHA-256 of the annotations) and "sha256" (of everything).
        self.summary: Dict[str, Any] = parse_json(content, f"the summary of {path}")
        if isinstance(self.summary, dict) and self.summary.get("version") not in (VERSION, None):
            raise UserError(
                f"{path} was packed by another version of libra_d2 (format "
                f"{shown(self.summary['version'])}, expected {VERSION}). Pack it again"
            )
        if not is_summary(self.summary):
            raise UserError(f"{path} was not written by `libra-d2 pack`, or its summary is damaged")

    def _get(self, key: bytes):
        with self._env.begin() as transaction:
            return transaction.get(key)

    def annotations(self) -> bytes:
        """Return the annotations, as COCO JSON."""
        return self._get(ANNOTATIONS)

    def image(self, name: str) -> io.BytesIO:
        """
        Return the image file that has this name in the annotations.

        Raises:
            FileNotFoundError: The store has no such image.
            OSError: The store is damaged at this image.
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
        """Return the stored SHA-256 of an image and its bytes; None if there is no such image."""
        value = self._get(image_key(name))
        return None if value is None else (value[:DIGEST_SIZE], value[DIGEST_SIZE:])

    def __contains__(self, name: str) -> bool:
        with self._env.begin(buffers=True) as transaction:
            return transaction.get(image_key(name)) is not None

    def close(self) -> None:
        self._env.close()


def is_summary(summary: Any) -> bool:
    """Return whether this has the form of the summary that `libra-d2 pack` writes."""
    texts, numbers = ("annotations", "sha256"), ("version", "images")
    return (
        isinstance(summary, dict)
        and all(isinstance(summary.get(key), str) for key in texts)
        and all(type(summary.get(key)) is int for key in numbers)
        and isinstance(summary.get("skipped"), list)
        and all(isinstance(name, str) for name in summary["skipped"])
    )


# -- Each process opens a store only once ----------------------------------------------------------

_stores: Dict[str, PackedStore] = {}
_lock = threading.Lock()
# Cached, because `realpath` looks up every folder of the path.
_resolved = functools.lru_cache(os.path.realpath)


def _real(path: str) -> str:
    return _resolved(os.path.abspath(path))  # the working folder may change


def open_store(path: str) -> PackedStore:
    """
    Return the store of a path. It stays open, because LMDB must not open a file twice in a process.

    Raises:
        UserError: See :class:`PackedStore`.
    """
    path = _real(path)
    with _lock:
        if path not in _stores:
            _stores[path] = PackedStore(path)
        return _stores[path]


_known: Set[str] = set()


def _split(path: str) -> Tuple[str, str]:
    """Split the path of an image into store and name. The store is the part that is a file."""
    path = path[len(PREFIX) :]
    ends = [match.start() for match in re.finditer("/", path)]
    for is_store in (_known.__contains__, os.path.isfile):
        for end in ends:
            if is_store(path[:end]):
                _known.add(path[:end])
                return path[:end], path[end + 1 :]
    raise FileNotFoundError(f"no file of packed data on the path {PREFIX}{path}")


def open_packed_image(path: str) -> io.BytesIO:
    """
    Open an image of packed data.

    Args:
        path: `packed://<store>/<file name>`.

    Raises:
        FileNotFoundError: There is no such store or image.
        UserError: See :class:`PackedStore`.
    """
    store, name = _split(path)
    return open_store(store).image(name)


def is_packed_image(path: str) -> bool:
    """Return whether there is an image with the path `packed://<store>/<file name>`."""
    try:
        store, name = _split(path)
    except FileNotFoundError:
        return False
    return name in open_store(store)


def close_store(path: str) -> None:
    """Close a store if :func:`open_store` opened it in this process."""
    with _lock:
        store = _stores.pop(_real(path), None)
        if store is not None:
            store.close()


def _leave_to_parent() -> None:
    """After a fork, close the stores, because a child process must open its own."""
    for store in _stores.values():
        store.close()
    _stores.clear()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_leave_to_parent
    )
