"""Detections and objects of which the analysis is known."""

CAT, DOG = [0.0, 0.0, 100.0, 100.0], [200.0, 0.0, 100.0, 100.0]


def dataset(objects, detections, num_images=1):
    """Objects are (image, class, box, more keys), detections (image, class, box, score)."""
    annotations = [
        {"id": i, "image_id": image, "category_id": k, "bbox": box, **more}
        for i, (image, k, box, more) in enumerate(((*o, {})[:4] for o in objects), 1)
    ]
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480}
            for i in range(1, num_images + 1)
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": annotations,
    }
    results = [
        {"image_id": image, "category_id": k, "bbox": box, "score": score}
        for image, k, box, score in detections
    ]
    return content, results


def small_case():
    """
    Image 1: a cat found, and once more, and a dog taken for a cat. 2: a dog missed. 3: nothing.
    4: a crowd of cats with a detection in it, which does not count.
    """
    return dataset(
        [
            (1, 7, CAT),
            (1, 9, DOG),
            (2, 9, [0.0, 0.0, 50.0, 50.0]),
            (4, 7, [0.0, 0.0, 300.0, 300.0], {"iscrowd": 1}),
        ],
        [
            (1, 7, CAT, 0.9),
            (1, 7, [0.0, 0.0, 100.0, 90.0], 0.8),
            (1, 7, DOG, 0.6),
            (4, 7, [50.0, 50.0, 20.0, 20.0], 0.7),
        ],
        num_images=4,
    )
