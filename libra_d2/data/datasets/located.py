"""A described data set with the path of each image, for commands that make another one of it."""

import logging
import os
import tempfile
from dataclasses import dataclass
from typing import Any, Dict, List, Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog

from ...errors import UserError
from ...utils.files import check_outputs
from ..images.names import locate_images, moved_images, places_looked_at, say_moved
from ..images.packed_store import PREFIX as PACKED
from ..images.reader import is_image_file
from .coco import annotation_file_of
from .coco_format import read_coco
from .descriptions import register_descriptions
from .shapes import BUILT_IN


@dataclass(frozen=True)
class LocatedSet:
    """The COCO content of a data set, with the path of each image in `content["images"]`."""

    content: Dict[str, Any]
    image_root: str
    paths: List[str]

    @property
    def names(self) -> List[str]:
        return [image["file_name"] for image in self.content["images"]]

    @property
    def info(self) -> Dict[str, Any]:
        """The section `info` of the file; {} if it is not an object."""
        info = self.content.get("info")
        return info if isinstance(info, dict) else {}

    @property
    def shared(self) -> Dict[str, Any]:
        """
        What a new data set of these images has, too: everything but images and annotations, and
        but what a reader has noted on the whole data set.
        """
        shared = {k: v for k, v in self.content.items() if k not in ("images", "annotations")}
        if isinstance(shared.get("info"), dict):
            own = ("unreadable_images", "notes")
            shared["info"] = {k: v for k, v in shared["info"].items() if k not in own}
        return shared


def read_located(
    logger: logging.Logger, description: str, outputs: Sequence[str] = ()
) -> LocatedSet:
    """
    Read a data set, and find its images.

    Args:
        logger: logger for a warning about images that are not where the annotations say.
        description: as in `DATASETS.TRAIN`.
        outputs: files that `--output` will write.

    Raises:
        UserError: the description or a file is wrong, none of the images exists, or an output
            would replace the annotations or packed data.
    """
    with tempfile.TemporaryDirectory() as folder:  # for annotations that are converted
        ((name,),) = register_descriptions({"data set": [description]}, folder).values()
        if name in BUILT_IN:
            DatasetCatalog.get(name)  # draws it
        metadata = MetadataCatalog.get(name)
        json_file, image_root = annotation_file_of(name), metadata.get("image_root", "")
        if not json_file or not image_root:
            raise UserError(f"data set {name} must have a COCO annotation file and an image folder")
        packed = image_root.removeprefix(PACKED) if image_root.startswith(PACKED) else ""
        check_outputs(
            {"--output": outputs}, {"the annotations": json_file, "the packed data": packed}
        )
        content = read_coco(json_file)
    found = locate_images([image["file_name"] for image in content["images"]], image_root)
    say_moved(logger, json_file, moved_images(found, image_root), len(content["images"]))
    paths = [found[image["file_name"]] for image in content["images"]]
    if not packed:
        paths = list(map(os.path.normpath, paths))
    if not any(map(is_image_file, paths)):
        raise UserError(
            f"data set {description}: none of the {len(paths)} images exists. The first was "
            f"looked for at {places_looked_at(paths[0], '' if packed else image_root)}"
        )
    return LocatedSet(content, image_root, paths)
