"""Data sets packed into one file: writing. See :mod:`packed_store`."""

import errno
import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from detectron2.data import MetadataCatalog
from detectron2.data import detection_utils as utils

from ...errors import UserError
from ...utils.files import check_outputs
from ...utils.json_files import parse_json
from ...utils.local_paths import is_inside
from ...utils.progress import progress
from ...utils.system_errors import write_error
from ..datasets.coco import load_coco
from ..images.names import locate_images
from ..images.packed_store import (
    ANNOTATIONS,
    COMPLETE,
    DIGEST_SIZE,
    IMAGE,
    SOURCE,
    VERSION,
    close_store,
    image_key,
    import_lmdb,
    is_summary,
)
from ..images.reader import open_image_file, read_header, read_image
from .downscaling import downscale_annotations, downscale_image

# Images that are written at once: so many are packed again after an interruption, at most.
COMMIT_IMAGES = 32
LOSSLESS = ("PNG", "BMP", "TIFF")


@dataclass
class Packed:
    """What `pack` has done."""

    num_images: int
    sha256: str
    # Images left out, with the reason: (name, reason).
    skipped: List[Tuple[str, str]] = field(default_factory=list)


def pack(
    json_file: str, image_root: str, out: str, max_side: int = 0, allow_outside: bool = False
) -> Packed:
    """
    Put a COCO data set into one file, or go on where this was interrupted.

    Images that Detectron2's loader cannot use are left out; their annotations stay, so that an
    evaluation counts their objects as missed, as it does with the folder.

    Args:
        json_file: annotations in COCO's detection format.
        image_root: folder that the file names of the annotations are relative to.
        out: store to write.
        max_side: images with a longer side, in pixels, are scaled down to it, and their annotations
            with them; 0: all images keep their bytes.
        allow_outside: also pack images that lie outside of `image_root`, by their names or by
            links: annotations of strangers may name private files.

    Raises:
        UserError: a path is wrong, the file is not COCO, no image can be used, or `out` is
            something else or was begun from other annotations or with another `max_side`.
    """
    lmdb = import_lmdb()
    if max_side < 0:
        raise UserError(f"--max-side {max_side} is negative: name a number of pixels, or 0 for all")
    _check_output(out, json_file)
    annotations, images = _read(json_file, image_root, max_side)
    paths = locate_images(images, image_root)  # said when the annotations were read
    check_outputs({"--out": out}, {"the image": list(paths.values())})
    close_store(out)
    try:
        with lmdb.open(out, subdir=False, map_size=1 << 28) as env:
            root = ImageRoot(image_root, allow_outside, paths)
            return _fill(env, out, annotations, images, root, max_side)
    except lmdb.Error as e:
        reason = str(e).rpartition(": ")[2]
        for number in (errno.EROFS, errno.EACCES):
            if reason == os.strerror(number):
                raise write_error(OSError(number, reason), out) from None
        raise UserError(
            f"{out} cannot be written as packed data: {reason}. Free disk space and "
            "run the same command again to continue, or write to another file"
        ) from None


@dataclass(frozen=True)
class ImageRoot:
    """The folder of the images."""

    folder: str
    allow_outside: bool = False
    # Name in the annotations -> path, where it is known.
    paths: Mapping[str, str] = field(default_factory=dict)

    def path(self, name: str) -> str:
        """
        Raises:
            ValueError: the image lies elsewhere.
        """
        path = self.paths.get(name) or os.path.join(self.folder, name)
        if not self.allow_outside and not is_inside(path, self.folder):
            raise ValueError("it lies outside of the image folder; --allow-outside packs it")
        return path


def _check_output(out: str, json_file: str) -> None:
    check_outputs({"--out": out}, {"--json": json_file})
    folder = os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(folder):
        raise UserError(f"folder {folder} of the packed data does not exist")
    if os.path.isdir(out):
        raise UserError(
            f"{out} is a folder: name a file, such as {os.path.join(out, 'train.lmdb')}"
        )
    if os.path.exists(out) and not os.path.isfile(out):
        raise UserError(f"{out} is a pipe or device: name a file to write")


def _fill(
    env, out: str, annotations: bytes, images: Dict[str, Any], root: "ImageRoot", max_side: int
) -> Packed:
    digest = hashlib.sha256(annotations).hexdigest()
    source = json.dumps({"sha256": digest, "max_side": max_side}).encode()
    with env.begin() as transaction:
        known, complete = transaction.get(SOURCE), transaction.get(COMPLETE)
    if known != source and env.stat()["entries"]:
        raise UserError(
            f"{out} was packed from other annotations or with another --max-side: name another "
            "file, or delete it"
        )
    if complete is not None:
        summary = parse_json(complete, f"the summary of {out}")
        if is_summary(summary) and not summary["skipped"]:  # whole, and perhaps being read
            return Packed(summary["images"], summary["sha256"])
    _put(env, {SOURCE: source, ANNOTATIONS: annotations, COMPLETE: None})
    skipped = _put_images(env, images, root, max_side)
    digests = _digests(env, images)
    if not digests:
        name, reason = skipped[0]
        raise UserError(
            f"none of the {len(images)} images can be used, the first is "
            f"{os.path.join(root.folder, name)}: {reason}"
        )
    packed = Packed(len(digests), content_hash(annotations, digests.values()), skipped)
    summary = {
        "version": VERSION,
        "images": packed.num_images,
        "skipped": [name for name, _ in skipped],
        "annotations": digest,
        "sha256": packed.sha256,
    }
    _put(env, {COMPLETE: json.dumps(summary).encode()})
    return packed


def _read(json_file: str, image_root: str, max_side: int) -> Tuple[bytes, Dict[str, Any]]:
    """Annotations as they will be stored, and the images of the original ones by name."""
    for path, is_there, what in (
        (json_file, os.path.isfile, "annotation file"),
        (image_root, os.path.isdir, "image folder"),
    ):
        if not is_there(path):
            raise UserError(f"{what} {path} does not exist")
    load_coco(json_file, image_root, json_file)  # refuses what is not COCO
    MetadataCatalog.pop(json_file)
    with open(json_file, "rb") as f:
        content = f.read()
    data = json.loads(content)
    images = {image["file_name"]: dict(image) for image in data["images"]}
    if max_side and any(max(i["width"], i["height"]) > max_side for i in images.values()):
        downscale_annotations(data, max_side)
        content = json.dumps(data).encode()
    return content, images


def _put_images(
    env, images: Dict[str, Any], root: "ImageRoot", max_side: int
) -> List[Tuple[str, str]]:
    """Pack the images that are not there yet; returns those that cannot be used, and why."""
    with env.begin() as transaction:
        done = {key for key in transaction.cursor().iternext(values=False) if key.startswith(IMAGE)}
    skipped: List[Tuple[str, str]] = []
    batch: Dict[bytes, bytes] = {}
    for name, record in progress(images.items(), "Packing"):
        key = image_key(name)
        if key in done:
            continue
        try:
            content = _image_file(root.path(name), record, max_side)
        except Exception as e:  # decoders raise all kinds; one bad image does not end the run
            skipped.append((name, " ".join(str(e).split()) or repr(e)))
            continue
        batch[key] = hashlib.sha256(content).digest() + content
        if len(batch) == COMMIT_IMAGES:
            _put(env, batch)
            batch = {}
    _put(env, batch)
    return skipped


def _image_file(path: str, record: Dict[str, Any], max_side: int) -> bytes:
    """Bytes to store, of an image that is read, turned and checked as Detectron2's loader does."""
    with open_image_file(path) as f:
        content = f.read()
    image = read_image(content, format="RGB")
    size = {"width": record["width"], "height": record["height"]}
    utils.check_image_size({"file_name": path, **size}, image)
    height, width = image.shape[:2]
    if not max_side or max(height, width) <= max_side:
        return content
    return downscale_image(image, read_header(content).format in LOSSLESS, max_side)


def _put(env, items: Mapping[bytes, Optional[bytes]]) -> None:
    """
    Write all or none, whenever the process ends; the file grows as it is needed.

    Args:
        items: values by key; None deletes a key.
    """
    lmdb = import_lmdb()
    while True:
        try:
            with env.begin(write=True) as transaction:
                for key, value in items.items():
                    if value is None:
                        transaction.delete(key)
                    else:
                        transaction.put(key, value)
            return
        except lmdb.MapFullError:
            env.set_mapsize(2 * env.info()["map_size"])


def _digests(env, names: Iterable[str]) -> Dict[str, bytes]:
    with env.begin(buffers=True) as transaction:
        values = {name: transaction.get(image_key(name)) for name in names}
        return {n: bytes(v[:DIGEST_SIZE]) for n, v in values.items() if v is not None}


def content_hash(annotations: bytes, digests: Iterable[bytes]) -> str:
    """SHA-256 of the annotations and of the images' hashes, in the order of the annotations."""
    total = hashlib.sha256(hashlib.sha256(annotations).digest())
    for digest in digests:
        total.update(digest)
    return total.hexdigest()
