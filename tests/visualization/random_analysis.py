"""Random analyses and comparisons, in the form that the report reads, consistent in themselves."""

import random

ERRORS = ["classification", "localisation", "both", "duplicate", "background", "missed"]
SIZE = (320, 240)


def random_analysis(
    *,
    num_images=6,
    names=("cat", "dog"),
    num_detections=8,
    seed=0,
    threshold=0.3,
    paths=(),
    gaps=False,
):
    """`gaps`: every number that can be undefined is null."""
    rng = random.Random(seed)
    number = (lambda: None) if gaps or not num_images else (lambda: round(rng.random(), 6))
    images = [
        random_image(rng, i, names, num_detections, threshold, paths) for i in range(num_images)
    ]
    images.sort(key=lambda image: -image["badness"])
    overall = {k: sum(i[k] for i in images) for k in ("tp", "fp", "fn")}
    objects = sum(len(i["objects"]) for i in images)
    rates = ("precision", "recall", "f1", "best_threshold", "best_f1")
    class_rates = ("AP", "AP50", "AP75", *rates, "best_precision", "best_recall")
    score = sorted((round(0.05 + 0.95 * rng.random(), 6) for _ in range(20)), reverse=True)
    curve = {
        "score": score if num_images and num_detections else [],
        "precision": [round(1 - i / 40, 6) for i in range(len(score))],
        "recall": [round(i / 20, 6) for i in range(len(score))],
        "f1": [round(i / 25, 6) for i in range(len(score))],
    }
    if not curve["score"]:
        curve = {key: [] for key in curve}
    bars = {
        "hits": [rng.randrange(9) for _ in range(20)],
        "misses": [rng.randrange(9) for _ in range(20)],
    }
    return {
        "version": 1,
        "settings": {
            "predictions": "results.json",
            "annotations": "annotations.json",
            "images": "",
            "iou_threshold": 0.5,
            "score_threshold": threshold,
            "max_detections": 100,
            "name": f"run {seed}",
        },
        "coco": {
            k: number() for k in "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()
        },
        "overall": {
            "num_images": num_images,
            "num_objects": objects,
            "num_detections": overall["tp"] + overall["fp"],
            **overall,
            **{k: number() for k in rates},
        },
        "classes": [
            {
                "name": name,
                "category_id": i + 1,
                "num_objects": rng.randrange(1, 50),
                "num_detections": rng.randrange(50),
                **{k: rng.randrange(30) for k in ("tp", "fp", "fn")},
                **{k: number() for k in class_rates},
            }
            for i, name in enumerate(names)
        ],
        "best_thresholds": {
            "overall": 0.5,
            "classes": dict.fromkeys(names, 0.5),
            "from_overall": {},
        },
        "curves": dict.fromkeys(("", *names), curve),
        "score_histogram": {
            "edges": [i / 20 for i in range(21)],
            "classes": dict.fromkeys(("", *names), bars),
        },
        "ap_by_size": [
            {"name": n, "low": lo, "high": hi, "AP": number(), "AP50": number(), "num_objects": 3}
            for n, lo, hi in (("small", 0, 1024), ("medium", 1024, 9216), ("large", 9216, None))
        ],
        "ap_by_crowding": [
            {"name": n, "AP": number(), "AP50": number(), "num_images": 2, "num_objects": 9}
            for n in ("1", "2-4", "5-9", "10-19", "20+")
        ],
        "ap_by_iou": [{"iou": 0.5 + 0.05 * i, "AP": number()} for i in range(10)],
        "confusion": {
            "names": [*names, "background"],
            "matrix": [
                [rng.randrange(20) for _ in range(len(names) + 1)] for _ in range(len(names) + 1)
            ],
        },
        "tide": {
            "AP": number(),
            "errors": [{"name": n, "count": rng.randrange(9), "AP_cost": number()} for n in ERRORS],
            "special": [
                {"name": n, "AP_cost": number()} for n in ("false positives", "false negatives")
            ],
        },
        "calibration": {
            "bins": [
                {
                    "low": i / 10,
                    "high": (i + 1) / 10,
                    "count": rng.randrange(30),
                    "mean_score": number(),
                    "precision": number(),
                }
                for i in range(10)
            ],
            "ece": number(),
        },
        "images": images,
    }


def random_image(rng, index, names, num_detections, threshold, paths):
    width, height = SIZE

    def box():
        x, y = rng.uniform(0, width - 20), rng.uniform(0, height - 20)
        return [x, y, rng.uniform(5, width - x), rng.uniform(5, height - y)]

    detections = []
    for kind in ["hit", "hit", *ERRORS[:-1], "ignored"][:num_detections]:
        score, class_name = round(rng.uniform(0.05, 1), 6), rng.choice(names)
        detections.append(
            {"bbox": box(), "class": class_name, "score": score, "kind": kind, "iou": rng.random()}
        )
    detections.sort(key=lambda d: -d["score"])
    objects = [
        {"bbox": d["bbox"], "class": d["class"], "found_score": d["score"], "crowd": False}
        for d in detections
        if d["kind"] == "hit"
    ]
    for crowd in (False, True):
        objects.append(
            {"bbox": box(), "class": rng.choice(names), "found_score": None, "crowd": crowd}
        )
    tally = tally_at(objects, detections, threshold)
    return {
        "image_id": index,
        "file_name": f"image_{index}.jpg",
        "path": str(paths[index]) if index < len(paths) else "",
        "width": width,
        "height": height,
        **tally,
        "verdict": "noisy" if tally["fp"] else "right",
        "badness": float(tally["fp"] + tally["fn"]),
        "objects": objects,
        "detections": detections,
    }


def tally_at(objects, detections, threshold):
    """What the report must say of an image at a threshold."""
    kinds = [d["kind"] for d in detections if d["score"] >= threshold]
    return {
        "tp": kinds.count("hit"),
        "fp": sum(kinds.count(k) for k in ERRORS),
        "fn": sum(
            o["found_score"] is None or o["found_score"] < threshold
            for o in objects
            if not o["crowd"]
        ),
    }


def random_comparison(a, b):
    def difference(one, two):
        if one is None or two is None:
            return {"a": one, "b": two, "difference": None, "low": None, "high": None}
        by = two - one
        return {"a": one, "b": two, "difference": by, "low": by - 0.05, "high": by + 0.08}

    metrics = [(k, "coco") for k in ("AP", "AP50", "AP75")]
    metrics += [(k, "overall") for k in ("precision", "recall", "f1")]
    images = {i["image_id"]: i for i in b["images"]}
    counts = ("tp", "fp", "fn")
    return {
        "version": 1,
        "a": a["settings"]["name"],
        "b": b["settings"]["name"],
        "samples": 1000,
        "confidence": 0.95,
        "score_thresholds": [run["settings"]["score_threshold"] for run in (a, b)],
        "metrics": [
            {"name": k, **difference(a[part][k], b[part][k]), "p_value": 0.04}
            for k, part in metrics
        ],
        "classes": [
            {"name": c["name"], **difference(c["AP"], d["AP"])}
            for c, d in zip(a["classes"], b["classes"])
        ],
        "images": [
            {
                "image_id": i["image_id"],
                "file_name": i["file_name"],
                "a": {k: i[k] for k in counts},
                "b": {k: images[i["image_id"]][k] for k in counts},
                "change": 0.5 - 0.1 * n,
            }
            for n, i in enumerate(a["images"])
        ],
    }
