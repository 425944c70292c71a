"""Scale down images together with their COCO annotations."""

from typing import Any, Dict, Tuple

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as mask_util

from ..images.encoding import encode_image


def downscaled_size(width: int, height: int, max_side: int) -> Tuple[int, int]:
    """Return (width, height) in pixels, scaled so that the longer side is at most `max_side`."""
    ratio = min(1.0, max_side / max(width, height))
    return max(1, round(width * ratio)), max(1, round(height * ratio))


def downscale_image(image: np.ndarray, lossless: bool, max_side: int) -> bytes:
    """
    Scale down an image and encode it.

    Args:
        image: (H, W, 3) uint8, RGB.
        lossless: whether to encode it as PNG instead of JPEG.
        max_side: maximum length of the longer side, in pixels.

    Returns:
        The content of the image file.
    """
    height, width = image.shape[:2]
    scaled = Image.fromarray(image).resize(
        downscaled_size(width, height, max_side), Image.Resampling.LANCZOS
    )
    return encode_image(np.asarray(scaled), lossless)


def downscale_annotations(data: Dict[str, Any], max_side: int) -> None:
    """
    Scale the sizes, boxes, areas, segmentations and keypoints of annotations in place.

    Args:
        data: content of a COCO annotation file.
        max_side: maximum length of the longer side, in pixels. Annotations of images that are not
            larger stay as they are.
    """
    scaled = {}
    for image in data["images"]:
        width, height = image["width"], image["height"]
        if max(width, height) > max_side:
            image["width"], image["height"] = downscaled_size(width, height, max_side)
            scale = image["width"] / width, image["height"] / height
            scaled[image["id"]] = (image["width"], image["height"], *scale)
    for annotation in data["annotations"]:
        if annotation["image_id"] in scaled:
            _downscale(annotation, *scaled[annotation["image_id"]])


def _downscale(annotation: Dict[str, Any], width: int, height: int, x: float, y: float) -> None:
    """Scale an annotation by factors `x` and `y`, which differ because sizes are rounded."""
    left, top, box_width, box_height = annotation["bbox"]
    annotation["bbox"] = [left * x, top * y, box_width * x, box_height * y]
    if "area" in annotation:
        annotation["area"] *= x * y
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        annotation["segmentation"] = _downscale_rle(segmentation, width, height)
    elif segmentation:
        annotation["segmentation"] = [
            (np.reshape(p, (-1, 2)) * (x, y)).ravel().tolist() for p in segmentation
        ]
    if annotation.get("keypoints"):
        keypoints = np.reshape(annotation["keypoints"], (-1, 3)) * (x, y, 1)
        annotation["keypoints"] = keypoints.ravel().tolist()


def _downscale_rle(rle: Dict[str, Any], width: int, height: int) -> Dict[str, Any]:
    if isinstance(rle["counts"], list):
        rle = mask_util.frPyObjects(rle, *rle["size"])
    mask = cv2.resize(mask_util.decode(rle), (width, height), interpolation=cv2.INTER_NEAREST)
    rle = mask_util.encode(np.asfortranarray(mask))
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}
