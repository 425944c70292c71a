"""
Find objects that overlap others.

Shapes: N: number of objects in all images; P: number of pairs of objects.
"""

from typing import NamedTuple, Tuple

import numpy as np

from ..datasets.annotation_arrays import Annotations

# Boxes of one class with a higher IoU are taken as one object that was annotated twice.
_SAME_OBJECT = 0.95


class Overlaps(NamedTuple):
    """Pairs of overlapping objects."""

    first: np.ndarray  # (P,) indices of the first objects
    ious: np.ndarray  # (P,)


def overlapping_objects(
    objects: Annotations, threshold: float, *, any_class: bool = False
) -> Overlaps:
    """
    Like :func:`overlapping_pairs`, but leave out objects that were annotated twice, and the indices
    of the second objects.
    """
    first, _, ious = overlapping_pairs(objects, threshold, any_class=any_class)
    apart = ious <= _SAME_OBJECT
    return Overlaps(first[apart], ious[apart])


def overlapping_pairs(
    objects: Annotations, threshold: float, *, any_class: bool = False
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Return the pairs of objects in one image whose IoU is larger than `threshold`.

    Args:
        objects: N objects.
        threshold: IoU, in [0, 1].
        any_class: whether to also return pairs of objects of different classes.

    Returns:
        (P,) indices of the first objects, (P,) indices of the second ones, and (P,) IoUs.
    """
    classes = np.zeros_like(objects.classes) if any_class else objects.classes
    order = np.lexsort((objects.boxes[:, 0], classes, objects.image))
    boxes, image, classes = objects.boxes[order], objects.image[order], classes[order]
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    found = []
    one = np.arange(len(boxes))
    for step in range(1, len(boxes)):
        # Boxes are sorted by x1: if `other` begins to the right of `one`, so do all later boxes.
        one = one[one + step < len(boxes)]
        other = one + step
        near = (image[one] == image[other]) & (classes[one] == classes[other])
        near &= boxes[other, 0] < boxes[one, 2]
        one, other = one[near], other[near]
        if not len(one):
            break
        sides = np.minimum(boxes[one, 2:], boxes[other, 2:])
        sides = np.maximum(sides - np.maximum(boxes[one, :2], boxes[other, :2]), 0)
        shared = sides.prod(1)
        iou = shared / np.maximum(area[one] + area[other] - shared, 1e-12)
        over = iou > threshold
        found.append((order[one[over]], order[other[over]], iou[over]))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    first, second, ious = (np.concatenate(part) for part in zip(*found))
    return first, second, ious
