"""Runs an exported detector on images, without torch and Detectron2."""

from typing import Any, List, Sequence

import numpy as np

from ..errors import UserError
from ..inference import predictor
from ..inference.detector import Record
from ..inference.exported_file import Found, is_exported
from ..inference.onnx_detector import OnnxDetector
from ..inference.opening import open_detector
from ..inference.predictor import ClassNames
from ..inference.slicing import merge_arrays
from ..predictions.array_instances import ArrayBoxes, ArrayInstances, paste_masks


class Predictor(predictor.Predictor):
    """
    Detects objects in images with an ONNX file that `libra-d2 export` has written.

    It takes the same images and options as :class:`libra_d2.inference.predictor.Predictor` does
    for such a file, and returns the same detections. They are :class:`ArrayInstances`, which have
    the fields of Detectron2's `Instances`, but as arrays of NumPy instead of tensors. Several
    threads may call one predictor at the same time.

    >>> predictor = Predictor("detector.onnx", score_threshold=0.2)
    >>> predictor.class_names
    ('cat', 'dog', 'owl')
    >>> found = predictor("photo.jpg")
    >>> found.class_names[0], found.pred_boxes.tensor.shape == (len(found), 4)
    ('cat', True)
    """

    detector: OnnxDetector
    _masks = True

    def _open(self, model: str, **options: Any) -> OnnxDetector:
        if not is_exported(model):
            raise UserError(
                "libra_d2.serving.Predictor must be given an ONNX file, as `libra-d2 export "
                f"--format onnx` writes it, got {model!r}. Use libra_d2.Predictor for other models"
            )
        detector = open_detector(model, **options)
        assert isinstance(detector, OnnxDetector)
        return detector

    def leave_out_masks(self) -> None:
        self._masks = False

    def predict(self, inputs: Sequence[Record]) -> List[ArrayInstances]:
        found = self.detector.find_all(inputs, masks=self._masks)
        return [self._instances(x["height"], x["width"], f) for x, f in zip(inputs, found)]

    def _instances(self, height: int, width: int, found: Found) -> ArrayInstances:
        instances = ArrayInstances(
            (height, width),
            pred_boxes=ArrayBoxes(found.boxes),
            scores=found.scores,
            pred_classes=found.classes,
            class_names=ClassNames(self.class_names[k] for k in found.classes.tolist()),
        )
        if found.masks is not None:
            masks = found.masks.reshape(len(found.scores), *found.masks.shape[-2:])
            instances.pred_masks = paste_masks(masks, found.boxes, (height, width))
        return instances

    @staticmethod
    def _merge(
        parts: Sequence[ArrayInstances], slices: np.ndarray, height: int, width: int
    ) -> ArrayInstances:
        merged = merge_arrays(
            [x.pred_boxes.tensor for x in parts],
            [x.scores for x in parts],
            [x.pred_classes for x in parts],
            slices,
        )
        return ArrayInstances(
            (height, width),
            pred_boxes=ArrayBoxes(merged.boxes),
            scores=merged.scores.astype(np.float32),
            pred_classes=merged.labels.astype(np.int64),
        )
