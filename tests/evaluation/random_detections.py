"""Objects, and detections of every kind: hits, duplicates, near misses, wrong classes."""

import numpy as np


def random_dataset(seed, num_images=30, num_classes=3, crowd=0.1, ties=False):
    """
    Returns:
        COCO annotations, and COCO results with scores that differ, unless `ties`.
    """
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image in range(1, num_images + 1):
        for _ in range(rng.integers(0, 7)):
            side = rng.choice([20, 60, 150])
            x, y, w, h = (*rng.uniform(0, 240, 2), *(side * rng.uniform(0.6, 1.4, 2)))
            k = int(rng.integers(1, num_classes + 1))
            is_crowd = int(rng.random() < crowd)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": k,
                    "bbox": [float(v) for v in (x, y, w, h)],
                    "area": float(w * h),
                    "iscrowd": is_crowd,
                }
            )
            for _ in range(rng.integers(0, 4)):
                noise = rng.normal(0, side * rng.choice([0.02, 0.1, 0.3]), 4)
                nx, ny, nw, nh = np.array([x, y, w, h]) + noise
                c = k if rng.random() < 0.75 else int(rng.integers(1, num_classes + 1))
                results.append(_result(image, c, (nx, ny, max(nw, 1), max(nh, 1)), rng, ties))
        for _ in range(rng.integers(0, 3)):
            box = (*rng.uniform(0, 300, 2), *rng.uniform(10, 90, 2))
            results.append(_result(image, int(rng.integers(1, num_classes + 1)), box, rng, ties))
    content = {
        "images": [
            {"id": i, "file_name": f"{i:03d}.jpg", "width": 400, "height": 400}
            for i in range(1, num_images + 1)
        ],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(1, num_classes + 1)],
        "annotations": annotations,
    }
    return content, results


def _result(image, category, box, rng, ties):
    score = float(rng.random())
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [float(v) for v in box],
        "score": round(score, 1) if ties else score,
    }
