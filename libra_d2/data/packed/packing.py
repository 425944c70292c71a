"""Pack a data set into one file. :mod:`packed_store` describes and reads the file."""

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

# Number of images per transaction. After an interruption, at most this many are packed again.
COMMIT_IMAGES = 32
LOSSLESS = ("PNG", "BMP", "TIFF")


@dataclass
class Packed:
    """The result of :func:`pack`."""

    num_images: int
    sha256: str
    # Images that were left out: (name, reason).
    skipped: List[Tuple[str, str]] = field(default_factory=list)


def pack(
    json_file: str, image_root: str, out: str, max_side: int = 0, allow_outside: bool = False
) -> Packed:
    """
    Pack a COCO data set into one file, or continue a call that was interrupted.

    Images that Detectron2's loader cannot use are left out. Their annotations are kept, so that an
    evaluation counts their objects as missed, as it does for a folder.

    Args:
        json_file: annotations in COCO's detection format.
        image_root: folder that the file names of the annotations are relative to.
        out: path of the store to write.
        max_side: if not 0, images whose longer side exceeds this length in pixels are scaled down
            to it, together with their annotations. With 0, the bytes of all images are kept.
        allow_outside: whether to pack images that are outside of `image_root`, by their names or
            by links. By default they are left out, because the annotations may come from strangers
            and name private files.

    Raises:
        UserError: A path is wrong, the annotations are not in COCO's format, no image can be used,
            or `out` is another file or was packed from other annotations or with another
            `max_side`.
    """
    lmdb = import_lmdb()
    if max_side < 0:
        raise UserError(f"--max-side must be at least 0, got {max_side}. 0 keeps all sizes")
    _check_output(out, json_file)
    annotations, images = _read(json_file, image_root, max_side)
    paths = locate_images(images, image_root)  # `_read` has warned about moved images
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
    """The folder of the images, and the paths of its images."""

    folder: str
    allow_outside: bool = False
    # Name in the annotations -> path, if it is known.
    paths: Mapping[str, str] = field(default_factory=dict)

    def path(self, name: str) -> str:
        """
        Return the path of an image.

        Raises:
            ValueError: The image is outside of the folder, and this is not allowed.
        """
        path = self.paths.get(name) or os.path.join(self.folder, name)
        if not self.allow_outside and not is_inside(path, self.folder):
            raise ValueError("it is outside of the image folder. Use --allow-outside to pack it")
        return path


def _check_output(out: str, json_file: str) -> None:
    check_outputs({"--out": out}, {"--json": json_file})
    folder = os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(folder):
        raise UserError(f"folder {folder} of the packed data does not exist")
    if os.path.isdir(out):
        raise UserError(
            f"--out must be a file, such as {os.path.join(out, 'train.lmdb')}, got the folder {out}"
        )
    if os.path.exists(out) and not os.path.isfile(out):
        raise UserError(f"--out must be a file, got the pipe or device {out}")


def _fill(
    env, out: str, annotations: bytes, images: Dict[str, Any], root: "ImageRoot", max_side: int
) -> Packed:
    digest = hashlib.sha256(annotations).hexdigest()
    source = json.dumps({"sha256": digest, "max_side": max_side}).encode()
    with env.begin() as transaction:
        known, complete = transaction.get(SOURCE), transaction.get(COMPLETE)
    if known != source and env.stat()["entries"]:
        raise UserError(
            f"{out} was packed from other annotations or with another --max-side. Give another "
            "--out, or delete the file"
        )
    if complete is not None:
        summary = parse_json(complete, f"the summary of {out}")
        if (
            is_summary(summary) and not summary["skipped"]
        ):  # complete; do not write, as it may be in use
            return Packed(summary["images"], summary["sha256"])
    _put(env, {SOURCE: source, ANNOTATIONS: annotations, COMPLETE: None})
    skipped = _put_images(env, images, root, max_side)
    digests = _digests(env, images)
    if not digests:
        name, reason = skipped[0]
        raise UserError(
            f"none of the {len(images)} images can be used. The first is "
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
    """Return the annotations to store, and the images of the original annotations by name."""
    for path, is_there, what in (
        (json_file, os.path.isfile, "annotation file"),
        (image_root, os.path.isdir, "image folder"),
    ):
        if not is_there(path):
            raise UserError(f"{what} {path} does not exist")
    load_coco(json_file, image_root, json_file)  # raises if the file is not in COCO's format
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
    """Pack the images that are missing. Return those that cannot be used, with the reasons."""
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
        except Exception as e:  # one bad image must not end the run, and decoders raise many types
            skipped.append((name, " ".join(str(e).split()) or repr(e)))
            continue
        batch[key] = hashlib.sha256(content).digest() + content
        if len(batch) == COMMIT_IMAGES:
            _put(env, batch)
            batch = {}
    _put(env, batch)
    return skipped


def _image_file(path: str, record: Dict[str, Any], max_side: int) -> bytes:
    """Return the bytes to store for an image. It is checked as in Detectron2's loader."""
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
    Write items in one transaction. The file grows as needed.

    Args:
        items: key -> value, or None to delete the key.
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
    """Return the SHA-256 of the annotations and the hashes of the images, in their order."""
    total = hashlib.sha256(hashlib.sha256(annotations).digest())
    for digest in digests:
        total.update(digest)
    return total.hexdigest()
