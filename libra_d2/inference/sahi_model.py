"""
Run a detector in SAHI, which shows it slices of large images (https://github.com/obss/sahi).

This module needs the package: pip install libra_d2[sahi]. :class:`Predictor` can cut images without
it (`slice_size`), and merges what it finds by other rules, see docs/other_tools.md.
"""

import os
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from ..errors import UserError
from ..predictions.detections import Detections
from ..utils.extras import import_extra
from .predictor import Predictor

_base: Any = import_extra("sahi.models.base", "sahi", "SAHI models")
_prediction: Any = import_extra("sahi.prediction", "sahi", "SAHI models")


class LibraDetectionModel(_base.DetectionModel):
    """
    A detection model of SAHI with a detector of libra_d2.

    Only boxes are returned, without masks. Category ids are those of the training data.

    Example::

        from sahi.predict import get_sliced_prediction
        model = LibraDetectionModel("output/run", confidence_threshold=0.5)
        result = get_sliced_prediction("large.jpg", model, slice_height=640, slice_width=640)
    """

    def __init__(
        self,
        model_path: str = "",
        *,
        model: Optional[Predictor] = None,
        config_path: str = "",
        device: str = "",
        confidence_threshold: Optional[float] = None,
        category_mapping: Optional[dict] = None,
        category_remapping: Optional[dict] = None,
        load_at_init: bool = True,
        image_size: Optional[int] = None,
        opts: Sequence[str] = (),
        batch_size: int = 8,
        trust: bool = False,
    ):
        """
        Args:
            model_path: folder of a run, a checkpoint, or an ONNX file.
            model: a predictor to use instead, without `slice_size`. The arguments about loading
                cannot be given with it.
            config_path, device, opts, batch_size, trust: see :class:`Predictor`, where the first is
                called `config_file`.
            confidence_threshold: detections with lower scores are left out. By default the
                `score_threshold` of the predictor.
            category_mapping: names by category id as a string, by default those of the detector.
            category_remapping: other category ids by category id as a string, as in SAHI.
            load_at_init: load the detector now, rather than by `load_model`.
            image_size: must be None. The config of the detector says to which size images and
                slices are resized; change it with `opts`.

        Raises:
            UserError: the detector cannot be used, or an argument is invalid.
        """
        if image_size is not None:
            raise UserError(
                f"image_size must be None, got {image_size}. Set INPUT.MIN_SIZE_TEST and "
                "INPUT.MAX_SIZE_TEST with opts"
            )
        if model is not None and (model_path or config_path or device or opts or trust):
            raise UserError(
                "model_path, config_path, device, opts and trust cannot be used with a model, "
                "which is already loaded"
            )
        self._loading: Dict[str, Any] = {"config_file": config_path, "opts": opts, "trust": trust}
        self._loading.update(device=device, batch_size=batch_size)
        self.category_mapping: Optional[Dict[str, str]] = None
        self._given_threshold = confidence_threshold
        self._found: List[Detections] = []
        super().__init__(
            model_path=os.fspath(model_path),
            model=model,
            config_path=os.fspath(config_path),
            device=device,
            confidence_threshold=confidence_threshold or 0.0,
            category_mapping=category_mapping,
            category_remapping=category_remapping,
            load_at_init=load_at_init,
        )

    def set_device(self, device: Optional[str] = None) -> None:
        self.device = device or ""  # the predictor chooses if it is not given

    def load_model(self) -> None:
        self.set_model(Predictor(self.model_path, **self._loading))

    def set_model(self, model: Predictor, **kwargs: Any) -> None:
        if not isinstance(model, Predictor):
            raise UserError(f"the model must be a Predictor, got {type(model).__name__}")
        if model.slices_images:
            raise UserError("the model must be a Predictor without slice_size, because SAHI slices")
        self.model = model
        names = dict(zip(map(str, model.category_ids), model.class_names))
        self.category_mapping = self.category_mapping or names
        if self._given_threshold is None:
            self.confidence_threshold = model.score_threshold

    @property
    def num_categories(self) -> int:
        return len(self.category_mapping or {})

    @property
    def category_names(self) -> List[str]:
        return list((self.category_mapping or {}).values())

    def perform_inference(self, image: np.ndarray) -> None:
        """
        Args:
            image: (H, W, 3) uint8, RGB, or an array that :class:`Predictor` takes as gray.
        """
        self._batch_images = None
        self._run([image])

    def perform_batch_inference(self, images: List[np.ndarray]) -> None:
        self._batch_images = None
        self._run(images)

    def _run(self, images: Sequence[np.ndarray]) -> None:
        if self.model is None:
            raise UserError("the model is not loaded. Call load_model")
        bgr: List[Any] = [image[:, :, 2::-1] if image.ndim == 3 else image for image in images]
        self._original_predictions = self.model(bgr)
        self._found = list(map(Detections.from_instances, self._original_predictions))

    def _create_object_prediction_list_from_original_predictions(
        self, shift_amount_list: Any = None, full_shape_list: Any = None
    ) -> None:
        shifts = _per_image(shift_amount_list, len(self._found)) or [[0, 0]] * len(self._found)
        shapes = _per_image(full_shape_list, len(self._found)) or [None] * len(self._found)
        self._object_prediction_list_per_image = [
            self._object_predictions(found, shift, shape)
            for found, shift, shape in zip(self._found, shifts, shapes)
        ]

    def _object_predictions(self, found: Detections, shift: Any, shape: Any) -> List[Any]:
        ids, names = self.model.category_ids, self.category_mapping or {}
        above = found.above(self.confidence_threshold)
        return [
            _prediction.ObjectPrediction(
                bbox=box,
                category_id=ids[label],
                category_name=names[str(ids[label])],
                score=score,
                shift_amount=list(shift),
                full_shape=shape and list(shape),
            )
            for box, score, label in zip(above.boxes, above.scores, above.labels)
        ]


def _per_image(values: Any, count: int) -> Optional[list]:
    """Return a list with an entry for each image; SAHI gives a single one without its list."""
    if not values:
        return None
    values = list(values)
    return [values] if count == 1 and not isinstance(values[0], (list, tuple)) else values
