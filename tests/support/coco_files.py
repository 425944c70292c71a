"""A small data set in COCO's format, with its images, as files."""

import json

import cv2
import numpy as np


def write_dataset(folder, boxes=((10, 10, 20, 20),), num_images=3, classes=("cat", "dog")):
    """`num_images` images of 60x40 with the same boxes, categories 10, 20, ..."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for i in range(1, num_images + 1):
        cv2.imwrite(str(folder / f"images/{i}.jpg"), np.full((40, 60, 3), 40 * i % 256, np.uint8))
        images.append({"id": i, "file_name": f"{i}.jpg", "width": 60, "height": 40})
        for box in boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": 10,
                    "bbox": list(box),
                    "area": float(box[2] * box[3]),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 10 * i, "name": n} for i, n in enumerate(classes, start=1)]
    data = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "coco.json").write_text(json.dumps(data))
    return str(folder / "coco.json"), str(folder / "images")
