"""Compute the confusion matrix: which classes are detected as which."""

from typing import List, NamedTuple, Sequence, Tuple

import numpy as np

from .matched_detections import MatchedDetections


class Confusion(NamedTuple):
    """
    The nonzero entries of the confusion matrix, row by row.

    Class `num_classes` is the background: the ground truth of detections that match no object, and
    the prediction of missed objects.
    """

    truth: np.ndarray  # (E,) class of the objects
    predicted: np.ndarray  # (E,) class of the detections
    count: np.ndarray  # type: ignore[assignment]  # (E,); it hides tuple.count
    num_classes: int

    def matrix(self, shown: Sequence[int]) -> np.ndarray:
        """
        Args:
            shown: S classes that get a row and a column of their own, ascending.

        Returns:
            Counts, (S + 1, S + 1) if all classes are shown, else (S + 2, S + 2). Rows are the
            classes of the objects, and the last row holds detections that match no object. Columns
            are the classes of the detections, and the last column holds missed objects. If some
            classes are not shown, the next to last row and column are those classes together.
        """
        others = len(shown) < self.num_classes
        place = np.full(self.num_classes + 1, len(shown))
        place[list(shown)] = np.arange(len(shown))
        place[-1] = len(shown) + others
        ret = np.zeros((place[-1] + 1,) * 2, dtype=np.int64)
        np.add.at(ret, (place[self.truth], place[self.predicted]), self.count)
        return ret

    def largest_mix_ups(self, limit: int) -> List[Tuple[int, int, int]]:
        """
        Returns:
            (truth, predicted, count) of at most `limit` pairs of classes, most frequent first, and
            pairs of equal frequency in the order of the rows.
        """
        wrong = np.flatnonzero(self.truth != self.predicted)
        wrong = wrong[np.argsort(-self.count[wrong], kind="stable")][:limit]
        return list(zip(*(a[wrong].tolist() for a in self[:3])))


def confusion(matched: MatchedDetections, score_threshold: float) -> Confusion:
    """
    Match detections with objects, and count the pairs of their classes.

    First, detections are matched within each class, as in COCO's AP. Then each remaining detection,
    from the highest score to the lowest, is matched with the remaining object of another class that
    it overlaps most. Ignored detections (in crowd regions) are left out.

    Args:
        score_threshold: detections with a lower score do not count.
    """
    data = matched.data
    num_classes = data.num_classes
    strong = data.det_scores >= score_threshold
    found_by = np.full(len(data.obj_area), -1)
    hits = np.flatnonzero(matched.hits & strong)
    found_by[matched.at_iou.obj[0][hits]] = hits
    free = matched.counted & ~matched.hits & strong
    det, obj, iou = matched.overlaps
    pairs = free[det] & matched.at_iou.counts[obj] & (found_by[obj] < 0)
    pairs &= iou >= matched.iou_threshold
    used = np.zeros(len(strong), dtype=bool)
    order = np.lexsort((-iou[pairs], det[pairs]))
    for d, o in zip(det[pairs][order].tolist(), obj[pairs][order].tolist()):
        if not used[d] and found_by[o] < 0:
            used[d], found_by[o] = True, d

    objects = np.flatnonzero(matched.at_iou.counts)
    columns = np.where(found_by >= 0, data.det_class[found_by] if len(strong) else 0, num_classes)
    of_nothing = data.det_class[free & ~used]
    truth = np.concatenate([data.obj_class[objects], np.full(len(of_nothing), num_classes)])
    predicted = np.concatenate([columns[objects], of_nothing])
    entries, count = np.unique(truth * (num_classes + 1) + predicted, return_counts=True)
    return Confusion(*np.divmod(entries, num_classes + 1), count, num_classes)
