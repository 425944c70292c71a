"""
Merge the detections of overlapping slices of an image.

The overlap shows objects a second time, and borders cut objects into parts. What belongs together
is found by greedy merging as in SAHI (Akyon et al., "Slicing Aided Hyper Inference and Fine-tuning
for Small Object Detection", 2022, arXiv:2202.06934), which compares parts by their intersection
over the smaller area. In contrast to SAHI, only detections of different slices are compared, and
parts only on the pixels that both slices show. Therefore small objects in front of a large one of
the same class are kept, and parts of an object that is larger than a slice are found although they
share little of their area.

In shapes, N is the number of detections and S of slices.
"""

from dataclasses import dataclass
from typing import Iterator, List, NamedTuple, Set, Tuple

import numpy as np

from ..data.slicing.geometry import box_areas, clip_boxes

# A box is cut if it ends this near to the border of its slice: pixels, and share of its own side.
# Detectors do not place the ends of a part exactly on the border.
_NEAR, _NEAR_SHARE = 2.0, 0.1
# A part shares at least this share of the union, of the pixels that both slices show. Without it,
# a strip of few pixels would belong to anything.
_LEAST_IOU = 0.1


@dataclass(frozen=True)
class Merged:
    """
    Merged detections, best first: `boxes` (M, 4) XYXY, `scores` and `labels` (M,). `group` (N,) is
    the index of the merged detection to which each given one belongs.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    group: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)


def merge_slices(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    slice_of: np.ndarray,
    slices: np.ndarray,
    threshold: float = 0.5,
) -> Merged:
    """
    Merge detections of the slices of one image. Every given detection becomes part of exactly one
    merged detection of its class.

    - A detection that a border cuts belongs to the detection of the neighbor that it shares most
      with, if that contains a share of `threshold` of it. Only the pixels that both slices show
      are compared, because there both see the same.
    - Detections that no border between their slices cuts are duplicates if their IoU is at least
      `threshold` and each is the other's best, as in non-maximum suppression for each class.
    - Detections of the same slice are not compared: the detector has done that. Two that are not
      cut never become one.

    The merged box is the one with the best score of those that are not cut, or else of all,
    extended to contain those that reach beyond its slice. The merged score is the best one.

    >>> slices = np.array([[0, 0, 100, 100], [80, 0, 180, 100]])
    >>> boxes = np.array([[50, 10, 100, 30], [80, 10, 130, 30], [82, 50, 96, 60], [82, 50, 97, 60]])
    >>> merged = merge_slices(boxes, np.array([0.9, 0.8, 0.7, 0.6]), np.zeros(4, int),
    ...                       np.array([0, 1, 0, 1]), slices)
    >>> merged.boxes.tolist(), merged.scores.tolist()
    ([[50.0, 10.0, 130.0, 30.0], [82.0, 50.0, 96.0, 60.0]], [0.9, 0.7])

    Args:
        boxes: (N, 4) XYXY in pixels of the image.
        scores, labels: (N,); labels are class indices.
        slice_of: (N,) index of the slice of each detection.
        slices: (S, 4) XYXY in pixels of the image.
        threshold: in (0, 1].
    """
    boxes, slices = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(slices, np.float64)
    scores, labels, slice_of = np.asarray(scores), np.asarray(labels), np.asarray(slice_of)
    cut = np.zeros(len(boxes), dtype=bool)
    links: List[_Links] = []
    members = [np.flatnonzero(slice_of == s) for s in range(len(slices))]
    for a, b in _overlapping(slices, members):
        found, cut_a, cut_b = _links(
            boxes, labels, members[a], members[b], slices[a], slices[b], threshold
        )
        cut[members[a][cut_a]] = cut[members[b][cut_b]] = True
        links.append(found)
    root = _joined(links, cut, slice_of)
    by_score = np.lexsort((np.arange(len(boxes)), cut, -scores))
    _, first, group = np.unique(root[by_score], return_index=True, return_inverse=True)
    group_of = np.empty(len(boxes), dtype=np.int64)
    group_of[by_score] = np.argsort(np.argsort(first))[group]  # groups by their best score
    best = by_score[np.sort(first)]
    merged = _boxes_of_groups(boxes, group_of, by_score, cut, slices[slice_of])
    return Merged(merged, scores[best], labels[best], group_of)


class _Links(NamedTuple):
    """Pairs of detections that belong together, with the IoU of what both slices show of them."""

    first: np.ndarray
    second: np.ndarray
    iou: np.ndarray


def _overlapping(slices: np.ndarray, members: List[np.ndarray]) -> Iterator[Tuple[int, int]]:
    """Yield pairs of slices that share pixels and have detections."""
    used = np.flatnonzero([len(m) > 0 for m in members])
    for i, a in enumerate(used):
        others = used[i + 1 :]
        shared = clip_boxes(slices[others], slices[a])
        for b in others[box_areas(shared) > 0]:
            yield int(a), int(b)


def _links(
    boxes: np.ndarray,
    labels: np.ndarray,
    of_a: np.ndarray,
    of_b: np.ndarray,
    slice_a: np.ndarray,
    slice_b: np.ndarray,
    threshold: float,
) -> Tuple[_Links, np.ndarray, np.ndarray]:
    """
    Find what belongs together in two slices.

    Args:
        of_a, of_b: indices of the detections of the slices.

    Returns:
        Pairs, and masks of the detections that the border to the other slice cuts.
    """
    a, b = clip_boxes(boxes[of_a], slice_a), clip_boxes(boxes[of_b], slice_b)
    cut_a, cut_b = _is_cut(a, slice_a, slice_b), _is_cut(b, slice_b, slice_a)
    both = clip_boxes(slice_a, slice_b)
    area_a, area_b = box_areas(clip_boxes(a, both))[:, None], box_areas(clip_boxes(b, both))[None]
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = np.where((sides > 0).all(-1), sides[..., 0] * sides[..., 1], 0.0)
    shared[labels[of_a][:, None] != labels[of_b][None]] = 0

    part_iou = _ratio(shared, area_a + area_b - shared)
    fits = part_iou >= _LEAST_IOU
    a_of_b = _best(part_iou, fits & cut_a[:, None] & (shared >= threshold * area_a), 1)
    b_of_a = _best(part_iou, fits & cut_b[None] & (shared >= threshold * area_b), 0)
    iou = _ratio(shared, box_areas(a)[:, None] + box_areas(b)[None] - shared)
    same = _best(iou, iou >= threshold, 0) & _best(iou, iou >= threshold, 1)
    same &= ~cut_a[:, None] & ~cut_b[None]
    i, j = np.nonzero(a_of_b | b_of_a | same)
    return _Links(of_a[i], of_b[j], part_iou[i, j]), cut_a, cut_b


def _is_cut(boxes: np.ndarray, own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """
    Whether the objects of a slice probably continue in another slice: their boxes end at a border
    beyond which the other slice goes on, and a part of them is in both slices.
    """
    near = np.maximum(_NEAR, _NEAR_SHARE * np.tile(boxes[:, 2:] - boxes[:, :2], 2))
    at_border = np.abs(boxes - own) <= near
    beyond = np.concatenate([other[:2] < own[:2], other[2:] > own[2:]])
    return (at_border & beyond).any(1) & (box_areas(clip_boxes(boxes, other)) > 0)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros_like(a), where=a > 0)


def _best(values: np.ndarray, allowed: np.ndarray, axis: int) -> np.ndarray:
    """Mark the largest allowed value along an axis, if there is one; of equal ones, the first."""
    best = np.zeros(values.shape, dtype=bool)
    where = np.expand_dims(np.where(allowed, values, -1.0).argmax(axis), axis)
    np.put_along_axis(best, where, True, axis)
    return best & allowed


def _joined(links: List[_Links], cut: np.ndarray, slice_of: np.ndarray) -> np.ndarray:
    """
    Join detections by their links, those that share most first, unless two detections of one slice
    that are not cut would become one.

    Returns:
        (N,) equal numbers for detections that belong together.
    """
    root = np.arange(len(cut))
    members: List[List[int]] = [[i] for i in range(len(cut))]
    slices_of_whole: List[Set[int]] = [
        set() if c else {s} for c, s in zip(cut.tolist(), slice_of.tolist())
    ]
    if not links:
        return root
    first, second, iou = (np.concatenate(parts) for parts in zip(*links))
    order = np.lexsort((second, first, -iou))
    for i, j in zip(first[order].tolist(), second[order].tolist()):
        a, b = int(root[i]), int(root[j])
        if a == b or slices_of_whole[a] & slices_of_whole[b]:
            continue
        if len(members[a]) < len(members[b]):
            a, b = b, a
        root[members[b]] = a
        members[a] += members[b]
        slices_of_whole[a] |= slices_of_whole[b]
    return root


def _boxes_of_groups(
    boxes: np.ndarray,
    group: np.ndarray,
    by_score: np.ndarray,
    cut: np.ndarray,
    slices: np.ndarray,
) -> np.ndarray:
    """
    Args:
        group: (N,) index of the group of each detection.
        by_score: (N,) indices of the detections, best first.
        slices: (N, 4) XYXY, the slice of each detection.
    """
    wholes_first = by_score[np.argsort(cut[by_score], kind="stable")]
    _, first = np.unique(group[wholes_first], return_index=True)
    main = wholes_first[first]  # of each group
    own = slices[main[group]]
    beyond = (boxes[:, :2] < own[:, :2]).any(1) | (boxes[:, 2:] > own[:, 2:]).any(1)
    merged = boxes[main]
    np.minimum.at(merged[:, :2], group[beyond], boxes[beyond, :2])
    np.maximum.at(merged[:, 2:], group[beyond], boxes[beyond, 2:])
    return merged
