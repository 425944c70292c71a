"""Run a model in torch on many images."""

import logging
import threading
from contextlib import contextmanager, nullcontext
from typing import Any, ContextManager, Dict, Iterator, List, Optional, Sequence

import torch
from torch.nn import functional as F

from ..predictions.detections import Detections

logger = logging.getLogger(__name__)


class TorchRunner:
    """Implements :class:`~libra_d2.inference.detector.Runner` with a model in torch."""

    def __init__(
        self, model: torch.nn.Module, *, batch_size: int = 0, amp: bool = False, fused: bool = False
    ):
        """
        Args:
            model: a model in evaluation mode.
            batch_size: 0: 1 on a CPU and 8 on a GPU.
            amp: use mixed precision (float16 on a GPU, bfloat16 on a CPU).
            fused: whether batch norms of the model were fused.
        """
        self.model, self._run = model, BatchRunner(model, amp)
        self.on_cpu = self._run.device.type == "cpu"
        self.batch_size = batch_size or (1 if self.on_cpu else 8)
        self.settings: Dict[str, Any] = {"batch_size": self.batch_size, "fuse": fused, "amp": amp}

    def __call__(self, inputs: Sequence[Dict[str, Any]]) -> List[Optional[Detections]]:
        return [x if x is None else Detections.from_instances(x) for x in self._run(inputs)]

    @contextmanager
    def running(self) -> Iterator[None]:
        with _threads_of_one_core(self.on_cpu), _without_masks(self.model):
            yield


class BatchRunner:
    """
    Runs a model on batches of images, and uses less memory if there is not enough.

    When memory runs out, the batch is halved, down to single images, which are then resized to half
    their size. Later batches keep the batch size that worked.
    """

    def __init__(self, model: torch.nn.Module, amp: bool = False):
        self.model = model
        self.device = next(model.parameters()).device
        self.amp = amp
        self.largest = 0  # batch size that the memory allows; 0: not yet known
        self._lock = threading.Lock()

    def __call__(self, inputs: Sequence[Dict[str, Any]]) -> List[Any]:
        """
        Returns:
            `Instances` of each image; None for an image that does not fit at half its size.
        """
        step = self.largest or len(inputs)
        ret: List[Any] = []
        for start in range(0, len(inputs), step):
            ret += self._run(inputs[start : start + step])
        return ret

    def _run(self, inputs: Sequence[Dict[str, Any]]) -> List[Any]:
        found = self._try(inputs)
        if found is not None:
            return found
        if len(inputs) > 1:
            half = (len(inputs) + 1) // 2
            with self._lock:
                self.largest = min(self.largest or half, half)
            logger.warning(f"A batch of {len(inputs)} images does not fit in memory. Trying {half}")
            return self._run(inputs[:half]) + self._run(inputs[half:])
        height, width = inputs[0]["image"].shape[1:]
        logger.warning(f"An image of {width}x{height} does not fit in memory. Trying half its size")
        return self._try([_half_size(inputs[0])]) or [None]

    def _try(self, inputs: Sequence[Dict[str, Any]]) -> Optional[List[Any]]:
        try:
            with torch.inference_mode(), inference_precision(self.device, self.amp):
                return [output["instances"].to("cpu") for output in self.model(list(inputs))]
        except torch.OutOfMemoryError:
            pass  # the error's frames hold memory until it is gone, so continue outside
        except RuntimeError as e:
            if "not enough memory" not in str(e) and "can't allocate memory" not in str(e):
                raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None


def inference_precision(device: torch.device, amp: bool) -> ContextManager[Any]:
    """With `amp`, a context of mixed precision: float16 on a GPU, bfloat16 on a CPU."""
    if not amp:
        return nullcontext()
    dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype)


def _half_size(record: Dict[str, Any]) -> Dict[str, Any]:
    """Halve the sides of the image. The model still scales its boxes to `height` and `width`."""
    image = record["image"][None].float()
    size = [max(1, side // 2) for side in image.shape[2:]]
    small = F.interpolate(image, size, mode="bilinear", antialias=True)
    return {**record, "image": small[0].round().clamp(0, 255).to(record["image"].dtype)}


@contextmanager
def _without_masks(model: torch.nn.Module) -> Iterator[None]:
    """Switch masks off, which need an image-sized array per detection and are not written."""
    heads = getattr(model, "roi_heads", None)
    if heads is None or not getattr(heads, "mask_on", False):
        yield
        return
    heads.mask_on = False
    try:
        yield
    finally:
        heads.mask_on = True


@contextmanager
def _threads_of_one_core(really: bool) -> Iterator[None]:
    before = torch.get_num_threads()
    if really:
        torch.set_num_threads(1)  # also holds for threads that start later
    try:
        yield
    finally:
        torch.set_num_threads(before)
