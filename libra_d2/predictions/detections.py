"""Detections of one image, converted from a model's output to the entries of result files."""

from dataclasses import dataclass, replace
from itertools import compress
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Union

import numpy as np

from .array_instances import ArrayInstances
from .supervision_format import supervision_detections

if TYPE_CHECKING:
    from detectron2.structures import Instances


@dataclass(frozen=True)
class Detections:
    """
    Detections of an image of `height` x `width` pixels, best first.

    `boxes` are N lists [x0, y0, x1, y1] in absolute pixels, `scores` N numbers in [0, 1], and
    `labels` N class indices. Numbers have the precision of the model's float32 values. `time` is
    the time of a frame in its video, in seconds.

    >>> found = Detections(60, 80, [[0.0, 0.0, 8.0, 4.0]], [0.5], [1])
    >>> found.entry(["cat", "dog"], [17, 18])["predictions"][0]["class"]
    {'label': 1, 'category_id': 18, 'name': 'dog'}
    """

    height: int
    width: int
    boxes: List[List[float]]
    scores: List[float]
    labels: List[int]
    time: Optional[float] = None

    @classmethod
    def from_instances(cls, instances: Union["Instances", ArrayInstances]) -> "Detections":
        """Convert instances, a model's output for one image."""
        if isinstance(instances, ArrayInstances):
            return cls._from_arrays(instances[np.argsort(-instances.scores, kind="stable")])
        instances = instances.to("cpu")
        instances = instances[instances.scores.argsort(descending=True, stable=True)]
        height, width = instances.image_size
        return cls(
            int(height),
            int(width),
            instances.pred_boxes.tensor.float().tolist(),
            instances.scores.float().tolist(),
            instances.pred_classes.tolist(),
        )

    @classmethod
    def _from_arrays(cls, instances: ArrayInstances) -> "Detections":
        height, width = instances.image_size
        return cls(
            int(height),
            int(width),
            instances.pred_boxes.tensor.tolist(),
            instances.scores.tolist(),
            instances.pred_classes.tolist(),
        )

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score_threshold: Union[float, Sequence[float]]) -> "Detections":
        """Return the detections with at least this score, or with that of their class index."""
        if isinstance(score_threshold, (int, float)):
            return self._only([score >= score_threshold for score in self.scores])
        least = [score_threshold[label] for label in self.labels]
        return self._only([score >= low for score, low in zip(self.scores, least)])

    def of_classes(self, labels: Sequence[int]) -> "Detections":
        """Return the detections of these class indices; () stands for all."""
        return self._only([label in labels for label in self.labels]) if labels else self

    def _only(self, wanted: Sequence[bool]) -> "Detections":
        return replace(
            self,
            boxes=list(compress(self.boxes, wanted)),
            scores=list(compress(self.scores, wanted)),
            labels=list(compress(self.labels, wanted)),
        )

    def to_supervision(self, class_names: Sequence[str]) -> Any:
        """
        Return `supervision.Detections`, with class names in `data["class_name"]`.

        Args:
            class_names: name of each class index.

        Raises:
            UserError: supervision is not installed (extra `supervision`).
        """
        names = [class_names[label] for label in self.labels]
        return supervision_detections(self.boxes, self.scores, self.labels, names)

    def entry(self, class_names: Sequence[str], category_ids: Sequence[int]) -> Dict[str, Any]:
        """
        Return the image's entry in the JSON by image (docs/predictions.schema.json), the format of
        the MindSpore implementation. Widths and heights are computed in double precision.

        Args:
            class_names, category_ids: name and id of each class index.
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
