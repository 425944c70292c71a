"""
Let Detectron2 read data sets that are packed into one file.

An image has the path `packed://<path of the store>/<file name in the annotations>`.
"""

import hashlib
import os
import zlib
from typing import Any, Dict, List, Sequence

from detectron2.utils.file_io import PathHandler, PathManager

from ...errors import UserError
from ...utils.cache import make_cache_folder
from ...utils.files import replacing
from ..images.packed_store import (
    PREFIX,
    PackedStore,
    import_lmdb,
    is_packed_image,
    open_packed_image,
    open_store,
)
from .coco import load_coco, register_annotations


class PackedHandler(PathHandler):
    """Lets Detectron2's PathManager read `packed://<store>/<file name>`."""

    def _get_supported_prefixes(self):
        return [PREFIX]

    def _open(self, path, mode="r", buffering=-1, **kwargs):
        if mode != "rb":
            raise ValueError(f"the mode must be 'rb' to open {path}, got {mode!r}")
        return open_packed_image(path)

    def _isfile(self, path, **kwargs):
        return is_packed_image(path)

    _exists = _isfile

    def _isdir(self, path, **kwargs):
        return False


PathManager.register_handler(PackedHandler(), allow_override=True)


def register_packed(path: str, json_file: str = "") -> str:
    """
    Register packed data with Detectron2. Calling this again is allowed.

    The annotations are written to a file in `$LIBRA_D2_CACHE/packed`, so that COCO's evaluation can
    read them.

    Args:
        path: a store that `libra-d2 pack` has finished.
        json_file: annotations to use instead of those in the store.

    Returns:
        The name to put into `DATASETS.TRAIN` or `DATASETS.TEST`.

    Raises:
        UserError: The store cannot be read (see :class:`PackedStore`), or `json_file` does not
            exist.
    """
    path, store = os.path.abspath(path), open_store(path)
    if json_file and not os.path.isfile(json_file):
        raise UserError(f"annotation file {json_file} does not exist")
    json_file = os.path.abspath(json_file) if json_file else _annotation_file(store)
    stem = os.path.splitext(os.path.basename(path))[0]
    name = f"{stem}_{zlib.crc32(f'{json_file}:{path}'.encode()):08x}"
    register_annotations(name, json_file, PREFIX + path, _load)
    return name


def _load(
    json_file: str, image_root: str, name: str, class_names: Sequence[str] = ()
) -> List[Dict[str, Any]]:
    dicts = load_coco(json_file, image_root, name, class_names)
    for record in dicts:
        if not record["file_name"].startswith(image_root):  # an absolute path in the annotations
            record["file_name"] = f"{image_root}/{record['file_name']}"
    return dicts


def _annotation_file(store: PackedStore) -> str:
    """
    Write the annotations of a store to the cache and return the path.

    The file is named after the hash of its content, so that it is never out of date. The hash is
    computed, because the one in the store could be that of another store, or a path.
    """
    try:
        content = store.annotations()
    except import_lmdb().Error as e:
        raise UserError(f"the annotations of {store.path} cannot be read: {e}") from None
    digest = hashlib.sha256(content or b"").hexdigest()
    if digest != store.summary["annotations"]:
        raise UserError(
            f"{store.path} is damaged: its annotations are not those that it was packed with. "
            "Copy or pack it again"
        )
    stem = os.path.splitext(os.path.basename(store.path))[0][:50]
    path = str(make_cache_folder("packed") / f"{stem}_{digest[:32]}.json")
    if not os.path.isfile(path):
        with replacing(path) as partial, open(partial, "wb") as f:
            f.write(content)
    return path
