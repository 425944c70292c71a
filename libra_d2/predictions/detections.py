"""Detections of one image, as the model gives them and as result files hold them."""

from dataclasses import dataclass, replace
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
from detectron2.structures import Instances


@dataclass(frozen=True)
class Detections:
    """
    Of an image of `height` x `width` pixels, best first.

    `boxes` are N of [x0, y0, x1, y1] in absolute pixels, `scores` in [0, 1], `labels` indices of
    classes. The numbers are the model's 32-bit ones. `time` is that of a frame in its video, in
    seconds.
    """

    height: int
    width: int
    boxes: List[List[float]]
    scores: List[float]
    labels: List[int]
    time: Optional[float] = None

    @classmethod
    def from_instances(cls, instances: Instances, keep: Sequence[int] = ()) -> "Detections":
        """`keep`: labels that are wanted; () for all."""
        instances = instances.to("cpu")
        instances = instances[instances.scores.argsort(descending=True, stable=True)]
        if keep:
            wanted = [int(label) in keep for label in instances.pred_classes]
            instances = instances[np.flatnonzero(wanted)]
        height, width = instances.image_size
        return cls(
            int(height),
            int(width),
            instances.pred_boxes.tensor.float().tolist(),
            instances.scores.float().tolist(),
            instances.pred_classes.tolist(),
        )

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score_threshold: float) -> "Detections":
        """Those with at least this score."""
        count = sum(score >= score_threshold for score in self.scores)
        lists = {name: getattr(self, name)[:count] for name in ("boxes", "scores", "labels")}
        return replace(self, **lists)

    def entry(self, class_names: Sequence[str], category_ids: Sequence[int]) -> Dict[str, Any]:
        """
        One image of the JSON (docs/predictions.schema.json), whose form is that of the MindSpore
        implementation. Sides are differences in double precision, and so exact.
        """
        predictions = [
            {
                "bbox": {"x_min": x0, "y_min": y0, "width": x1 - x0, "height": y1 - y0},
                "class": {
                    "label": label,
                    "category_id": category_ids[label],
                    "name": class_names[label],
                },
                "score": score,
            }
            for (x0, y0, x1, y1), score, label in zip(self.boxes, self.scores, self.labels)
        ]
        time = {} if self.time is None else {"time": self.time}
        return {"height": self.height, "width": self.width, **time, "predictions": predictions}
