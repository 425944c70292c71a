"""Runs a trained detector on images, for use in applications."""

import os
from collections import defaultdict
from collections.abc import Sequence as SequenceOf
from contextlib import contextmanager
from itertools import islice
from typing import (
    TYPE_CHECKING,
    Any,
    BinaryIO,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
from PIL import Image

from ..data.images.reader import read_image
from ..errors import UserError
from .best_thresholds import thresholds_of_detector
from .detector import Detector, Record
from .opening import open_detector
from .slicing import Slicing, merge_instances

if TYPE_CHECKING:
    from detectron2.structures import Instances

ImageLike = Union[np.ndarray, str, os.PathLike, bytes, Image.Image, BinaryIO]
_READABLE = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)


class Predictor:
    """
    Detects objects in images with a trained detector.

    With the folder of a run or a checkpoint, the result equals, bit for bit, what Detectron2's
    `DefaultPredictor` returns in `["instances"]`; in addition, the field `class_names` holds the
    names of the classes. Weights are unpickled safely. An ONNX file that `libra-d2 export` has
    written is run by ONNX Runtime on the CPU; results differ from those of its run by rounding.
    Several threads may call one predictor at the same time.

    >>> predictor = Predictor("output/run", score_threshold=0.2)
    >>> predictor.class_names
    ('cat', 'dog', 'owl')
    >>> instances = predictor("photo.jpg")
    >>> instances.class_names[0], round(instances.scores[0].item(), 2)
    ('cat', 0.25)

    Attributes:
        class_names, category_ids: tuples, in the order of `pred_classes`.
        detector: the :class:`~libra_d2.inference.detector.Detector` that is run.
        cfg: the config of the model; None for an ONNX file.
        score_threshold: detections with a lower score are not returned.
        class_thresholds: lowest score of each class that is returned, in the order of
            `class_names`; None if `score_threshold` holds for all classes.
        model: the network, which must stay in evaluation mode; None for an ONNX file.
    """

    def __init__(
        self,
        model: str = "",
        *,
        config_file: str = "",
        device: str = "",
        score_threshold: Union[float, str, None] = None,
        opts: Sequence[str] = (),
        batch_size: int = 8,
        trust: bool = False,
        slice_size: Optional[int] = None,
        slice_overlap: Optional[float] = None,
    ):
        """
        Args:
            model: folder of a run, a checkpoint, or an ONNX file.
            config_file, device, opts, trust: see :func:`trained_config`. All settings of an ONNX
                file are inside it, so these are refused for it, except the device "cpu".
            score_threshold: in [0, 1]; detections with lower scores are not returned. By default
                that of the config, `MODEL.{ROI_HEADS, RETINANET}.SCORE_THRESH_TEST`, or that inside
                an ONNX file, which is also the lowest for it. "best": the best threshold of each
                class in the run's analysis (`libra-d2 analyze`) or inside an ONNX file. A path:
                those in this `analysis.json`.
            batch_size: largest number of images of a list, or of slices of an image, that go
                through the model at once. They go through an ONNX file one by one.
            slice_size: cut images into slices with sides of this many pixels, and merge what is
                found in them (:func:`merge_slices`). None: images are not cut.
            slice_overlap: in [0, 0.9]; share of its sides that a slice has in common with its
                neighbors. By default 0.2.

        Raises:
            UserError: a file does not exist or cannot be used, or an argument is invalid.
        """
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {batch_size!r}")
        self._slicing = Slicing.of(slice_size, slice_overlap, ("slice_size", "slice_overlap"))
        of_classes = None if isinstance(score_threshold, (float, int)) else score_threshold
        number = score_threshold if isinstance(score_threshold, (float, int)) else None
        self.detector = self._open(
            os.fspath(model),
            score_threshold=number,
            config_file=os.fspath(config_file),
            opts=[str(o) for o in opts],
            device=device,
            trust=trust,
        )
        self.cfg = getattr(self.detector, "cfg", None)
        self.model = getattr(self.detector, "model", None)
        self.class_names = self.detector.class_names
        self.category_ids = self.detector.category_ids
        self.score_threshold = self.detector.score_threshold
        self.class_thresholds: Optional[Tuple[float, ...]] = None
        if of_classes is not None:
            found = thresholds_of_detector(self.detector, os.fspath(of_classes))
            self.class_thresholds = tuple(found.by_label(self.class_names))
            self.score_threshold = max(self.score_threshold, min(self.class_thresholds))
        self.batch_size = batch_size
        if self._slicing:
            self.leave_out_masks()  # masks of slices are not merged

    @property
    def slices_images(self) -> bool:
        """Whether images are cut into slices."""
        return self._slicing is not None

    def __call__(
        self, images: Union[ImageLike, List[ImageLike], Tuple[ImageLike, ...]]
    ) -> Union["Instances", List["Instances"]]:
        """
        Args:
            images: one image, or a list or tuple of images of any types and sizes. An image is

                - an array of uint8: (H, W, 3) in BGR, as OpenCV reads it; (H, W, 4), whose alpha
                  channel is ignored; or (H, W) or (H, W, 1), which is gray;
                - a path, the bytes of a file, or a file opened in binary mode;
                - a PIL image of any mode.

                Files and PIL images are turned upright according to their EXIF data.

        Returns:
            Instances, or for a list of images a list of them, on the model's device: `pred_boxes`
            (XYXY, absolute pixels of the upright image), `scores`, `pred_classes`, `class_names`,
            and `pred_masks` if the model predicts masks. With `slice_size`, there are no masks,
            and an image may have more detections than `TEST.DETECTIONS_PER_IMAGE`, which is the
            limit for a slice.

            Images share a batch only if they have the same size after resizing, so that none is
            padded to the size of another.

        Raises:
            UserError: an image cannot be read or resized. The message names it.
        """
        if not isinstance(images, (list, tuple)):
            return self._detect([images], [_name(images)])[0]
        names = [f"image {i}" + _name(image, ": ") for i, image in enumerate(images)]
        return self._detect(images, names)

    def _open(self, model: str, **options: Any) -> Detector:
        return open_detector(model, **options)

    def leave_out_masks(self) -> None:
        """Do not predict masks, which takes less time."""
        heads = getattr(self.model, "roi_heads", None)
        if heads is not None and getattr(heads, "mask_on", False):
            heads.mask_on = False

    def _detect(self, images: Sequence[ImageLike], names: Sequence[str]) -> List["Instances"]:
        if self._slicing:
            return [self._detect_slices(self._slicing, *i) for i in zip(images, names)]
        return [self._above(x) for x in self._detect_whole(images, names)]

    def _detect_whole(self, images: Sequence[ImageLike], names: Sequence[str]) -> List["Instances"]:
        inputs = []
        for image, name in zip(images, names):
            with _naming(name):
                inputs.append(self.preprocess(image))
        return self.predict(inputs)

    def preprocess(self, image: ImageLike) -> Record:
        """
        Do the first step of a call, reading and resizing an image, for servers that do it in
        threads of their own. Images are not cut into slices.

        Raises:
            ValueError: the image cannot be read or resized.
        """
        return self.detector.preprocess(self._array(image))

    def detect_slices(self, image: ImageLike, slicing: Slicing) -> "Instances":
        """Detect objects in an image in slices, whatever `slice_size` is. See `__call__`."""
        return self._detect_slices(slicing, image, _name(image))

    def _detect_slices(self, slicing: Slicing, image: ImageLike, name: str) -> "Instances":
        with _naming(name):
            array = self._array(image)
        slices, pixels = slicing.cut(array)
        found: List[Instances] = []
        for start in range(0, len(pixels), self.batch_size):
            with _naming(name):
                batch = [
                    self.detector.preprocess(p) for p in pixels[start : start + self.batch_size]
                ]
            found += self.predict(batch)
        merged = self._merge(found, slices, *array.shape[:2])
        merged.class_names = ClassNames(self.class_names[k] for k in merged.pred_classes.tolist())
        return self._above(merged)

    def _above(self, found: Any) -> Any:
        """Return the detections with at least the scores of `class_thresholds`."""
        if self.class_thresholds is None:
            return found
        # Scores are compared in double precision, as in the analysis and in result files.
        scores = found.scores
        if isinstance(scores, np.ndarray):
            scores = scores.astype(np.float64)
            lowest = np.array(self.class_thresholds)
        else:
            scores = scores.double()
            lowest = scores.new_tensor(self.class_thresholds)
        return found[scores >= lowest[found.pred_classes]]

    def _array(self, image: ImageLike) -> np.ndarray:
        wanted = self.detector.image_format
        if isinstance(image, np.ndarray):
            array = _as_bgr(image)
            return array[:, :, ::-1] if wanted == "RGB" else array
        if isinstance(image, _READABLE) or hasattr(image, "read"):
            return read_image(image, wanted)
        raise ValueError(
            f"expected an array, path, bytes, file or PIL image, got {type(image).__name__}"
        )

    _merge = staticmethod(merge_instances)

    def predict(self, inputs: Sequence[Record]) -> List["Instances"]:
        """Do the second step of a call, on images of any sizes that are preprocessed."""
        found: List[Instances] = [None] * len(inputs)
        for batch in self._batches(inputs):
            of_batch = self.detector.predict([inputs[i] for i in batch])
            labels = iter(_joined_labels(of_batch))
            for i, x in zip(batch, of_batch):
                x.class_names = ClassNames(self.class_names[k] for k in islice(labels, len(x)))
                found[i] = x
        return found

    def _batches(self, inputs: Sequence[Record]) -> Iterator[List[int]]:
        by_size = defaultdict(list)
        for i, x in enumerate(inputs):
            by_size[x["image"].shape].append(i)
        for of_size in by_size.values():
            for start in range(0, len(of_size), self.batch_size):
                yield of_size[start : start + self.batch_size]


class ClassNames(SequenceOf):
    """Class names as a field of Instances, which can be indexed and concatenated like a tensor."""

    def __init__(self, names):
        self._names = tuple(names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, item):
        if isinstance(item, int):
            return self._names[item]
        chosen = np.arange(len(self))[item.cpu().numpy() if hasattr(item, "cpu") else item]
        return ClassNames(self._names[i] for i in np.atleast_1d(chosen))

    def __eq__(self, other) -> bool:
        return isinstance(other, (ClassNames, list, tuple)) and tuple(other) == self._names

    __hash__ = None  # type: ignore[assignment]  # Python's way to say that it has no hash

    def __repr__(self) -> str:
        return repr(list(self._names))

    @staticmethod
    def cat(parts: Sequence["ClassNames"]) -> "ClassNames":
        return ClassNames(name for part in parts for name in part)


def _joined_labels(parts: Sequence["Instances"]) -> List[int]:
    """Return the labels of several images, read together, so that the host waits once."""
    labels = [x.pred_classes for x in parts]
    if not hasattr(labels[0], "cpu"):
        return np.concatenate(labels).tolist()
    import torch

    return torch.cat(labels).tolist()


def _as_bgr(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8:
        raise ValueError(f"the array must have the type uint8, got {image.dtype}")
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise ValueError(
            f"the array must have the shape (H, W) or (H, W, 1, 3 or 4), got {image.shape}"
        )
    if 0 in image.shape:
        raise ValueError(f"the array must have at least one pixel, got the shape {image.shape}")
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[:, :, :3]


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Let messages about an image begin with its name."""
    try:
        yield
    except ValueError as e:
        raise UserError(f"{name or 'image'}: {e}") from None


def _name(image: ImageLike, before: str = "") -> str:
    return before + os.fspath(image) if isinstance(image, (str, os.PathLike)) else ""
