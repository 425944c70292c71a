"""A pipeline that runs a detector on many images while threads decode the next ones."""

import logging
import threading
from collections import defaultdict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, ContextManager, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch.nn import functional as F

from ..data.images.sources import ImageItem
from ..predictions.detections import Detections
from .slicing import Slicing, merge_detections
from .trained_detector import Preprocessor, TrainedDetector

_NO_MEMORY = "there is not enough memory for this image"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageResult:
    """The result of one image: either `detections`, or an `error` of one line."""

    item: ImageItem
    detections: Optional[Detections] = None
    error: str = ""
    image: Optional[np.ndarray] = None  # in the model's format, with `keep_images`


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


class DetectionPipeline:
    """
    Runs a detector on many images, with several threads.

    On a CPU, each of `workers` threads decodes an image and runs the network on it with one core,
    which is faster than batches and than a network that uses all cores. On a GPU, `workers` threads
    decode images for one thread that runs the network in batches.

    All images of a batch have the same size after resizing. None is padded to the size of another,
    so that results are those of single images up to rounding.
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
        slicing: Optional[Slicing] = None,
    ):
        """
        Args:
            detector: the trained detector.
            batch_size: number of images that go through the network at once.
            workers: number of threads; 0: as many as torch would use, on a GPU 8 at most.
            amp: use mixed precision (float16 on a GPU, bfloat16 on a CPU).
            labels: indices of the classes to keep; () for all.
            keep_images: return the decoded images with the results.
            slicing: cut each image into slices, which go through the network in batches.
        """
        self.preprocess = Preprocessor(detector.cfg)
        self.format = detector.cfg.INPUT.FORMAT
        self.run = BatchRunner(detector.model, amp)
        self.on_cpu = self.run.device.type == "cpu"
        self.batch_size, self.labels, self.keep_images = batch_size, labels, keep_images
        self.slicing = slicing
        cores = torch.get_num_threads()
        self.workers = workers or (cores if self.on_cpu else min(8, cores))

    @property
    def window(self) -> int:
        """Number of consecutive images from which batches of equal size are formed."""
        return 1 if self.batch_size == 1 or self.slicing else 4 * self.batch_size

    def __call__(self, windows: Iterable[Sequence[ImageItem]]) -> Iterator[List[ImageResult]]:
        """Yield the results of each window, in the order of the input."""
        with _threads_of_one_core(self.on_cpu), _without_masks(self.run.model):
            networks = ThreadPoolExecutor(self.workers if self.on_cpu else 1)
            # On a GPU, these load images or slices. On a CPU, they run the network on slices.
            helpers = ThreadPoolExecutor(self.workers)
            pending: deque = deque()
            depth = self.workers + 2 if self.on_cpu else 3
            try:
                windows = iter(windows)
                while True:
                    for items in islice(windows, depth - len(pending)):
                        loading = (
                            [] if self.on_cpu else [helpers.submit(self._load, i) for i in items]
                        )
                        pending.append(networks.submit(self._detect, items, loading, helpers))
                    if not pending:
                        return
                    yield pending.popleft().result()
            finally:
                for pool in (helpers, networks):
                    pool.shutdown(wait=True, cancel_futures=True)

    def _load(self, item: ImageItem) -> Tuple[Any, Any, str]:
        """Return the image (if kept), the model's input, and an error message or ""."""
        try:
            image = item.read(self.format)
            if self.slicing:
                return image, None, ""
            return image if self.keep_images else None, self.preprocess(image), ""
        except ValueError as e:
            return None, None, str(e)
        except MemoryError:
            return None, None, _NO_MEMORY

    def _detect(
        self, items: Sequence[ImageItem], loading: Sequence[Future], helpers: ThreadPoolExecutor
    ) -> List[ImageResult]:
        loaded = [f.result() for f in loading] or [self._load(item) for item in items]
        if self.slicing:
            return [self._of_slices(*i, helpers) for i in zip(items, loaded)]
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

    def _of_slices(
        self, item: ImageItem, loaded: Tuple[Any, Any, str], helpers: ThreadPoolExecutor
    ) -> ImageResult:
        image, _, error = loaded
        if error or self.slicing is None:
            return ImageResult(item, error=error)
        slices, pixels = self.slicing.cut(image)
        batches = [
            pixels[start : start + self.batch_size]
            for start in range(0, len(pixels), self.batch_size)
        ]
        # On a CPU, threads run batches; on a GPU, they resize the slices of a batch.
        each, of_batch = (helpers.map, map) if self.on_cpu else (map, helpers.map)
        try:
            found = [
                None if x is None else Detections.from_instances(x, self.labels)
                for of_one in each(lambda b: self.run(list(of_batch(self.preprocess, b))), batches)
                for x in of_one
            ]
        except ValueError as e:  # too elongated to be resized
            return ImageResult(item, error=str(e))
        except MemoryError:
            return ImageResult(item, error=_NO_MEMORY)
        parts = [part for part in found if part is not None]
        if len(parts) < len(found):
            return ImageResult(item, error=_NO_MEMORY)
        merged = merge_detections(parts, slices, *image.shape[:2])
        kept = image if self.keep_images else None
        return ImageResult(item, replace(merged, time=item.time), image=kept)


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
