"""Which classes are taken for which."""

from typing import List, NamedTuple, Sequence, Tuple

import numpy as np

from .matched_detections import MatchedDetections


class Confusion(NamedTuple):
    """
    The entries of the confusion matrix that are not 0, row by row. Class `num_classes` stands for
    the background: detections of nothing as truth, missed objects as prediction.
    """

    truth: np.ndarray  # (E,) class of the objects
    predicted: np.ndarray  # (E,) class of the detections
    count: np.ndarray  # type: ignore[assignment]  # (E,); hides tuple.count
    num_classes: int

    def matrix(self, shown: Sequence[int]) -> np.ndarray:
        """
        Args:
            shown: classes with a row and a column of their own, ascending.

        Returns:
            Counts. Rows: the object's class, the last for detections of nothing. Columns: the
            detection's class, the last for missed objects. (S + 1, S + 1) if all classes are shown,
            else (S + 2, S + 2): the last row and column but one are all other classes together.
        """
        others = len(shown) < self.num_classes
        place = np.full(self.num_classes + 1, len(shown))
        place[list(shown)] = np.arange(len(shown))
        place[-1] = len(shown) + others
        ret = np.zeros((place[-1] + 1,) * 2, dtype=np.int64)
        np.add.at(ret, (place[self.truth], place[self.predicted]), self.count)
        return ret

    def largest_mix_ups(self, limit: int) -> List[Tuple[int, int, int]]:
        """(truth, predicted, count), most frequent first; equal ones in the order of the rows."""
        wrong = np.flatnonzero(self.truth != self.predicted)
        wrong = wrong[np.argsort(-self.count[wrong], kind="stable")][:limit]
        return list(zip(*(a[wrong].tolist() for a in self[:3])))


def confusion(matched: MatchedDetections, score_threshold: float) -> Confusion:
    """
    Objects are matched with detections of their own class first, as everywhere; what is left, from
    the highest score to the lowest, with the object of any other class that it overlaps most.
    Detections in crowd regions are left out.
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
