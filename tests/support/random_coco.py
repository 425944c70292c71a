"""Random annotations and results in COCO's format."""

import numpy as np
from pycocotools import mask as mask_util


def random_content(seed, on_grid=False, masks=False):
    """
    Annotations with crowds, images without objects or detections, classes without objects, areas
    at the limits of the sizes; detections with equal scores, without area, and over 100 an image.
    Boxes on a grid have many equal IoUs, and some that are exactly a threshold.
    """
    rng = np.random.default_rng(seed)
    height, width = 160, 200
    images = [
        {"id": int(7 * i % 101), "file_name": f"{i}.jpg", "height": height, "width": width}
        for i in rng.permutation(8)
    ]
    categories = [{"id": 3 * i + 1, "name": f"class {i}"} for i in range(4)]
    annotations, results = [], []

    def new_box():
        box = np.concatenate([rng.uniform(0, 120, 2), rng.uniform(1, 80, 2)])
        if on_grid:
            box = np.round(box / 8) * 8
            box[2:] = np.maximum(box[2:], 8)
        return box

    def entry(box, image, category):
        ret = {"image_id": image["id"], "category_id": category, "bbox": box.tolist()}
        if masks:
            x, y, w, h = box.astype(int)
            mask = np.zeros((height, width), np.uint8, order="F")
            mask[y : y + h + 1, x : x + w + 1] = 1
            rle = mask_util.encode(mask)
            ret["segmentation"] = {"size": [height, width], "counts": rle["counts"].decode()}
        return ret

    for image in images:
        for _ in range(rng.choice([0, 1, 3, 20])):
            box = new_box()
            annotation = entry(box, image, int(rng.choice([1, 4, 7])))
            annotation["id"] = len(annotations)
            annotation["iscrowd"] = int(rng.random() < 0.15)
            annotation["area"] = float(rng.choice([box[2] * box[3], 32**2, 96**2]))
            annotations.append(annotation)
        own = [a for a in annotations if a["image_id"] == image["id"]]
        for _ in range(rng.choice([0, 5, 20 if masks else 150])):
            box, category = new_box(), int(rng.choice([1, 4, 7, 10]))
            if own and rng.random() < 0.7:
                truth = own[rng.integers(len(own))]
                noise = rng.integers(-1, 2, 4) * 8 if on_grid else rng.normal(0, 3, 4)
                box, category = np.maximum(np.array(truth["bbox"]) + noise, 0), truth["category_id"]
            result = entry(box, image, category)
            result["score"] = float(rng.choice([round(rng.random(), 1), rng.random()]))
            results.append(result)
    content = {"images": images, "annotations": annotations, "categories": categories}
    return content, results
