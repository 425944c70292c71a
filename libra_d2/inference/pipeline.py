"""Many images through a detector: decoded in threads while the network runs, in batches."""

import logging
import threading
from collections import defaultdict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch.nn import functional as F

from ..data.images.sources import ImageItem
from ..predictions.detections import Detections
from .trained_detector import Preprocessor, TrainedDetector

_NO_MEMORY = "there is not enough memory for it"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageResult:
    """Either `detections`, or an `error` of one line. `image` is there if it was asked for."""

    item: ImageItem
    detections: Optional[Detections] = None
    error: str = ""
    image: Optional[np.ndarray] = None  # in the model's format


class BatchRunner:
    """
    Runs a model on a batch, and with less memory if that runs out: on half of the batch, down to
    single images, and these at half their size. Later batches keep the size that went well.
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
            `Instances` of each image; None where even half the size needs too much memory.
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
            logger.warning(f"out of memory with {len(inputs)} images at once: going on with {half}")
            return self._run(inputs[:half]) + self._run(inputs[half:])
        height, width = inputs[0]["image"].shape[1:]
        logger.warning(f"out of memory with one image of {width}x{height}: taking half its size")
        return self._try([_half_size(inputs[0])]) or [None]

    def _try(self, inputs: Sequence[Dict[str, Any]]) -> Optional[List[Any]]:
        try:
            with torch.inference_mode(), self._autocast():
                return [output["instances"].to("cpu") for output in self.model(list(inputs))]
        except torch.OutOfMemoryError:
            pass  # the memory is free once the error, with its frames, is gone
        except RuntimeError as e:
            if "not enough memory" not in str(e) and "can't allocate memory" not in str(e):
                raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _autocast(self):
        if not self.amp:
            return nullcontext()
        dtype = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype)


def _half_size(record: Dict[str, Any]) -> Dict[str, Any]:
    """The model still scales its boxes to `height` and `width`."""
    image = record["image"][None].float()
    size = [max(1, side // 2) for side in image.shape[2:]]
    small = F.interpolate(image, size, mode="bilinear", antialias=True)
    return {**record, "image": small[0].round().clamp(0, 255).to(record["image"].dtype)}


class DetectionPipeline:
    """
    On a CPU, each of `workers` threads decodes an image and runs the network on it, with one core;
    this beats both batches and a network that shares all cores. On a GPU, `workers` threads decode
    for one that runs the network in batches.

    Images of a batch have the same size after resizing: none is padded to another's, and so the
    results are those of single images up to rounding.
    """

    def __init__(
        self,
        detector: TrainedDetector,
        *,
        batch_size: int = 1,
        workers: int = 0,
        amp: bool = False,
        labels: Sequence[int] = (),
        keep_images: bool = False,
    ):
        """
        Args:
            workers: threads; 0: as many as torch would use, on a GPU 8 at most.
            labels: indices of the classes that are wanted; () for all.
            keep_images: give the decoded images with the results.
        """
        self.preprocess = Preprocessor(detector.cfg)
        self.format = detector.cfg.INPUT.FORMAT
        self.run = BatchRunner(detector.model, amp)
        self.on_cpu = self.run.device.type == "cpu"
        self.batch_size, self.labels, self.keep_images = batch_size, labels, keep_images
        cores = torch.get_num_threads()
        self.workers = workers or (cores if self.on_cpu else min(8, cores))

    @property
    def window(self) -> int:
        """Consecutive images among which batches are formed, by size."""
        return self.batch_size if self.batch_size == 1 else 4 * self.batch_size

    def __call__(self, windows: Iterable[Sequence[ImageItem]]) -> Iterator[List[ImageResult]]:
        """Results of each window, in the order of the input."""
        with _threads_of_one_core(self.on_cpu), _without_masks(self.run.model):
            networks = ThreadPoolExecutor(self.workers if self.on_cpu else 1)
            loaders = None if self.on_cpu else ThreadPoolExecutor(self.workers)
            pending: deque = deque()
            depth = self.workers + 2 if self.on_cpu else 3
            try:
                windows = iter(windows)
                while True:
                    for items in islice(windows, depth - len(pending)):
                        loading = [loaders.submit(self._load, i) for i in items] if loaders else ()
                        pending.append(networks.submit(self._detect, items, loading))
                    if not pending:
                        return
                    yield pending.popleft().result()
            finally:
                for pool in (networks, loaders):
                    if pool is not None:
                        pool.shutdown(wait=True, cancel_futures=True)

    def _load(self, item: ImageItem) -> Tuple[Any, Any, str]:
        """Image, record for the model, error."""
        try:
            image = item.read(self.format)
            return image if self.keep_images else None, self.preprocess(image), ""
        except ValueError as e:
            return None, None, str(e)
        except MemoryError:
            return None, None, _NO_MEMORY

    def _detect(self, items: Sequence[ImageItem], loading: Sequence[Future]) -> List[ImageResult]:
        loaded = [f.result() for f in loading] or [self._load(item) for item in items]
        by_size = defaultdict(list)
        for i, (_, record, _) in enumerate(loaded):
            if record is not None:
                by_size[record["image"].shape].append(i)
        found: Dict[int, Detections] = {}
        for indices in by_size.values():
            for start in range(0, len(indices), self.batch_size):
                batch = indices[start : start + self.batch_size]
                for i, instances in zip(batch, self.run([loaded[i][1] for i in batch])):
                    if instances is not None:
                        found[i] = replace(
                            Detections.from_instances(instances, self.labels), time=items[i].time
                        )
        return [
            ImageResult(item, found[i], image=image)
            if i in found
            else ImageResult(item, error=error or _NO_MEMORY)
            for i, (item, (image, _, error)) in enumerate(zip(items, loaded))
        ]


@contextmanager
def _without_masks(model: torch.nn.Module) -> Iterator[None]:
    """They are as large as the image, one for each detection, and no result has them."""
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
        torch.set_num_threads(1)  # also of threads that start from now on
    try:
        yield
    finally:
        torch.set_num_threads(before)
