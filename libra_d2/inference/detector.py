"""The interface of detectors, whatever runs their network."""

from typing import (
    TYPE_CHECKING,
    Any,
    ContextManager,
    Dict,
    List,
    Optional,
    Protocol,
    Sequence,
    Tuple,
)

import numpy as np

from ..predictions.detections import Detections

if TYPE_CHECKING:
    from detectron2.structures import Instances

Record = Dict[str, Any]
"""
An image as the input of a network: `image` (3, H', W') uint8, resized, as a tensor or array; and
`height` and `width` of the original image, in whose pixels boxes are returned.
"""


class Runner(Protocol):
    """Runs the network of a detector on many images, see :class:`DetectionPipeline`."""

    batch_size: int  # largest number of images to give it at once
    on_cpu: bool
    settings: Dict[str, Any]  # those of the runner that detections depend on, as JSON

    def __call__(self, inputs: Sequence[Record]) -> List[Optional[Detections]]:
        """
        Args:
            inputs: at most `batch_size` images, which have the same size after resizing.

        Returns:
            Detections of each image; None if there is not enough memory for the image.
        """

    def running(self) -> ContextManager[Any]:
        """
        Return a context around all calls. On a CPU, several threads may call the runner within it,
        each of which uses one core.
        """


class Detector(Protocol):
    """
    A detector with its classes and settings.

    :class:`TrainedDetector` runs in torch, and :class:`OnnxDetector` in ONNX Runtime. `Predictor`,
    :class:`DetectionPipeline` and :func:`infer` accept either, and any other class that has these
    attributes and methods.
    """

    @property
    def class_names(self) -> Tuple[str, ...]:
        """In the order of the labels."""

    @property
    def category_ids(self) -> Tuple[int, ...]:
        """In the order of the labels."""

    @property
    def image_format(self) -> str:
        """Order of the channels: "RGB" or "BGR"."""

    @property
    def score_threshold(self) -> float:
        """Only detections with higher scores are returned."""

    @property
    def files(self) -> Sequence[str]:
        """Files that the detector was read from, which outputs must not replace."""

    @property
    def folder(self) -> str:
        """Folder of the weights, where the analysis of the run is; "" if it is not known."""

    def settings(self) -> Dict[str, Any]:
        """Return what detections depend on, apart from the runner, as JSON."""

    def preprocess(self, image: np.ndarray) -> Record:
        """
        Resize an image, (H, W, 3) uint8 in `image_format`.

        Raises:
            ValueError: the image is too elongated to be resized.
        """

    def predict(self, inputs: Sequence[Record]) -> List["Instances"]:
        """
        Detect objects in images that have the same size after resizing. Several threads may call
        this at the same time.

        Returns:
            For each image, `pred_boxes` (XYXY, absolute pixels of the original image), `scores`,
            `pred_classes`, and `pred_masks` if the detector predicts masks.
        """

    def runner(
        self, *, batch_size: int = 0, amp: bool = False, fuse: Optional[bool] = None
    ) -> Runner:
        """
        Return a runner for many images, without masks.

        Args:
            batch_size: number of images that go through the network at once; 0: as many as are
                fast on the device.
            amp: use mixed precision.
            fuse: on a CPU, fuse batch norms into convolutions. None leaves it to the detector.

        Raises:
            UserError: the detector does not have one of these options.
        """
