"""
Detect objects with an ONNX file written by `libra-d2 export`, without torch and libra_d2.

    python examples/run_onnx.py detector.onnx photo.jpg
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def resized(width: int, height: int, resize: dict) -> tuple:
    """Return (width, height) to which an image must be resized for the detector."""
    if "size" in resize:
        new_height, new_width = resize["size"]
        if not resize["keep_ratio"]:
            return new_width, new_height
        scale = min(new_height / height, new_width / width)
    elif resize["min_size"] == 0:
        return width, height
    else:
        shorter, longer = sorted((width, height))
        scale = min(resize["min_size"] / shorter, resize["max_size"] / longer)
    return int(width * scale + 0.5), int(height * scale + 0.5)


# Formats are limited, because Pillow runs other programs for some formats.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")


def main(model: str, path: str) -> None:
    session = onnxruntime.InferenceSession(model)
    about = json.loads(session.get_modelmeta().custom_metadata_map["libra_d2.json"])
    image = ImageOps.exif_transpose(Image.open(path, formats=FORMATS)).convert("RGB")
    size = resized(*image.size, about["resize"])
    pixels = np.asarray(image.resize(size, Image.BILINEAR))
    if about["input_format"] == "BGR":
        pixels = pixels[:, :, ::-1]
    chw = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    boxes, scores, classes = session.run(["boxes", "scores", "classes"], {"image": chw})
    # Scale boxes from pixels of the resized image to pixels of the photo.
    boxes = boxes * np.array([image.width / size[0], image.height / size[1]] * 2)
    for (x0, y0, x1, y1), score, label in zip(boxes, scores, classes):
        name = about["class_names"][label]
        print(f"{name}\t{score:.4f}\t{x0:.2f}\t{y0:.2f}\t{x1:.2f}\t{y1:.2f}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except Exception as e:  # onnxruntime and Pillow raise many types
        sys.exit(f"run_onnx.py: {e}")
