"""Which classes are taken for which."""

import numpy as np

from .matched_detections import MatchedDetections


def confusion_matrix(matched: MatchedDetections, score_threshold: float) -> np.ndarray:
    """
    Objects are matched with detections of their own class first, as everywhere; what is left, from
    the highest score to the lowest, with the object of any other class that it overlaps most.

    Returns:
        (K + 1, K + 1) counts. Rows: the object's class, the last for detections of nothing.
        Columns: the detection's class, the last for missed objects. Detections in crowd regions
        are left out.
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

    ret = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    objects = np.flatnonzero(matched.at_iou.counts)
    columns = np.where(found_by >= 0, data.det_class[found_by] if len(strong) else 0, num_classes)
    np.add.at(ret, (data.obj_class[objects], columns[objects]), 1)
    np.add.at(ret, (num_classes, data.det_class[free & ~used]), 1)
    return ret
