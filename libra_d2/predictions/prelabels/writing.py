"""Write annotations in the format of a tool."""

import os
import shutil
from typing import Any, Callable, Dict, List, Optional

from ...config.choices import PRELABEL_FORMATS
from ...errors import UserError
from ...utils.files import check_outputs, make_folder_of, replacing
from ...utils.progress import progress
from .coco import write_coco
from .cvat import write_cvat
from .fiftyone import write_fiftyone
from .label_studio import LOCAL_FILES, config_file, write_label_studio
from .selection import Prelabels
from .voc import voc_files, write_voc
from .yolo import write_yolo, yolo_files

COCO, CVAT, LABEL_STUDIO, VOC, YOLO, FIFTYONE = PRELABEL_FORMATS
# Formats of one file; the others are folders.
ONE_FILE = (COCO, CVAT, LABEL_STUDIO)
# Formats of data sets that contain their images.
_FILES: Dict[str, Callable[[Prelabels, str], Dict[str, str]]] = {VOC: voc_files, YOLO: yolo_files}


def write_prelabels(
    prelabels: Prelabels,
    format: str,
    output: str,
    *,
    image_prefix: str = LOCAL_FILES,
    copy_images: bool = True,
    truth: Optional[Dict[str, Any]] = None,
    inputs: Optional[Dict[str, Any]] = None,
) -> None:
    """
    Write annotations.

    Args:
        format: "coco", "cvat" and "label-studio" write one file; "voc", "yolo" and "fiftyone" a
            folder, which must not exist or be empty.
        output: the file or folder.
        image_prefix: for Label Studio, text before the name of an image, which gives its URL.
        copy_images: copy the images into a data set in VOC's or YOLO's layout.
        truth: for FiftyOne, see :func:`write_fiftyone`.
        inputs: paths by option that the outputs must not replace.

    Raises:
        UserError: the output or an image cannot be used.
    """
    files = _FILES[format](prelabels, output) if format in _FILES else {}
    if format in ONE_FILE:
        if os.path.isdir(output):
            raise UserError(f"--output must be a file for --format {format}, got folder {output}")
        outputs = [output, *([config_file(output)] if format == LABEL_STUDIO else [])]
        images = [image.path for image in prelabels.images]
        check_outputs({"--output": outputs}, {"the image": images, **(inputs or {})})
        make_folder_of(output)
    elif os.path.exists(output) and (not os.path.isdir(output) or os.listdir(output)):
        raise UserError(f"--output must be a new or empty folder for --format {format}: {output}")
    _make_folders(files, output, format)
    if copy_images:
        _copy(prelabels, files)
    if format == LABEL_STUDIO:
        write_label_studio(prelabels, output, image_prefix)
    elif format == FIFTYONE:
        write_fiftyone(prelabels, output, truth)
    else:
        {COCO: write_coco, CVAT: write_cvat, VOC: write_voc, YOLO: write_yolo}[format](
            prelabels, output
        )


def description(format: str, output: str, images: str) -> str:
    """Return how to name the annotations as a data set; "" if the format cannot be read."""
    return {
        COCO: f"coco:{output},{images or 'FOLDER'}",
        VOC: f"voc:{output},train",
        YOLO: f"yolo:{output}/data.yaml,train",
    }.get(format, "")


def _make_folders(files: Dict[str, str], output: str, format: str) -> None:
    folders: List[str] = [os.path.dirname(path) for path in files.values()]
    if format == VOC:
        folders += [os.path.join(output, *p) for p in (("Annotations",), ("ImageSets", "Main"))]
    if format not in ONE_FILE:
        folders.append(output)
    for folder in dict.fromkeys(folders):
        make_folder_of(os.path.join(folder, "file"))


def _copy(prelabels: Prelabels, files: Dict[str, str]) -> None:
    for image in progress(prelabels.images if files else [], "Copying images"):
        if not os.path.isfile(image.path):
            raise UserError(
                f"{image.path} does not exist. Give the folder of the images with --images, or "
                "leave them out with --no-images"
            )
        with replacing(files[image.name]) as partial:
            shutil.copyfile(image.path, partial)
