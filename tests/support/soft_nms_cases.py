"""Cases of Soft-NMS, and a plain reference implementation."""

import numpy as np

FASTER = "configs/libra_mobilenet_v2.yaml"


RETINANET = "configs/libra_retinanet_r50.yaml"


CASCADE = "configs/libra_cascade_r50.yaml"


# Factors of the random weights that spread the scores. Where scores saturate and tie, the order is
# a matter of rounding, and so is the result.
SPREAD = {FASTER: 1e4, CASCADE: 0.1, RETINANET: 1e2}


# With random weights all scores are small; few proposals, so that a pass is short.
LOW = (
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0 MODEL.RETINANET.SCORE_THRESH_TEST 0.0 "
    "MODEL.RPN.POST_NMS_TOPK_TEST 20 MODEL.RPN.NMS_THRESH 0.95 "
    "MODEL.RETINANET.CLIP_BEFORE_NMS True MODEL.RETINANET.TOPK_CANDIDATES_TEST 20 "
    "MODEL.ROI_HEADS.NUM_CLASSES 3 MODEL.RETINANET.NUM_CLASSES 3"
).split()


def iou_of(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    inter = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union > 0 else 0.0


def reference(boxes, scores, idxs, method, iou_thresh, sigma, min_score):
    """The algorithm of the paper's figure 2, class by class, box by box."""
    boxes, scores, idxs = (x.double().numpy() for x in (boxes, scores, idxs))
    found = []
    for k in np.unique(idxs):
        left = {int(i): scores[i] for i in np.flatnonzero(idxs == k)}
        while left:
            best = max(left, key=lambda i: left[i])
            score = left.pop(best)
            if score < min_score:
                break
            found.append((score, best))
            for i in left:
                iou = iou_of(boxes[best], boxes[i])
                if method == "gaussian":
                    left[i] *= np.exp(-(iou**2) / sigma)
                elif iou >= iou_thresh:
                    left[i] *= 1 - iou
    found.sort(reverse=True)
    return [i for _, i in found], [s for s, _ in found]
