"""Time of COCO's metrics, also per class, with faster-coco-eval next to pycocotools."""

import numpy as np
from common import parser, table, time_all, title

from libra_d2.evaluation.coco_metrics import BACKENDS, coco_metrics


def random_set(num_images, num_objects, num_detections, num_classes, seed=0):
    """Return random annotations, and detections of which half are near an object."""
    rng = np.random.default_rng(seed)
    size = 640
    images = [
        {"id": i, "file_name": f"{i}.jpg", "width": size, "height": size} for i in range(num_images)
    ]
    objects, found = [], []
    for image in images:
        corner = rng.uniform(0, 500, (num_objects, 2))
        boxes = np.hstack([corner, np.exp(rng.uniform(2, 5, (num_objects, 2)))])
        classes = rng.integers(num_classes, size=num_objects)
        base = {"image_id": image["id"]}
        objects += [
            {**base, "id": len(objects) + i, "category_id": int(c), "bbox": b.tolist()}
            for i, (b, c) in enumerate(zip(boxes, classes))
        ]
        near = rng.integers(num_objects, size=num_detections)
        moved = boxes[near] + rng.normal(0, 4, (num_detections, 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], 1)
        far = rng.random(num_detections) < 0.5
        moved[far, :2] = rng.uniform(0, 500, (far.sum(), 2))
        found += [
            {**base, "category_id": int(classes[n]), "bbox": b.tolist(), "score": float(s)}
            for n, b, s in zip(near, moved, rng.random(num_detections))
        ]
    categories = [{"id": i, "name": f"class {i}"} for i in range(num_classes)]
    return {"images": images, "annotations": objects, "categories": categories}, found


def main():
    args = parser(__doc__).parse_args()
    for num_images, num_detections, num_classes in ((1000, 50, 5), (1000, 50, 80), (40, 300, 1)):
        content, found = random_set(num_images, num_detections // 5, num_detections, num_classes)
        run = lambda backend: (
            lambda: coco_metrics(content, found, max_detections=300, backend=backend)
        )
        title(
            f"{num_images} images, {num_detections} detections each, {num_classes} classes",
            args.device,
        )
        one, other = (run(backend)().numbers for backend in BACKENDS)
        print(f"largest difference: {max(abs(one[k] - other[k]) for k in one):.1e}\n")
        times = time_all({b: run(b) for b in BACKENDS[::-1]}, args.device, args.rounds, 1)
        print(table(times, "faster-coco-eval"))


if __name__ == "__main__":
    main()
