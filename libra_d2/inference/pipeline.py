"""A pipeline that runs a detector on many images while threads decode the next ones."""

from collections import defaultdict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from ..data.images.sources import ImageItem
from ..predictions.detections import Detections
from ..utils.threads import num_threads
from .detector import Detector
from .slicing import Slicing, merge_detections

_NO_MEMORY = "there is not enough memory for this image"


@dataclass(frozen=True)
class ImageResult:
    """The result of one image: either `detections`, or an `error` of one line."""

    item: ImageItem
    detections: Optional[Detections] = None
    error: str = ""
    image: Optional[np.ndarray] = None  # in the model's format, with `keep_images`


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
        detector: Detector,
        *,
        batch_size: int = 1,
        workers: int = 0,
        amp: bool = False,
        fuse: Optional[bool] = None,
        labels: Sequence[int] = (),
        thresholds: Optional[Sequence[float]] = None,
        keep_images: bool = False,
        slicing: Optional[Slicing] = None,
    ):
        """
        Args:
            detector: the detector.
            batch_size, amp, fuse: see :meth:`Detector.runner`.
            workers: number of threads; 0: as many as torch would use, on a GPU 8 at most.
            labels: indices of the classes to keep; () for all.
            thresholds: lowest score to keep of each class; None to keep what the detector returns.
            keep_images: return the decoded images with the results.
            slicing: cut each image into slices, which go through the network in batches.

        Raises:
            UserError: the detector does not have one of the options.
        """
        self.preprocess, self.format = detector.preprocess, detector.image_format
        self.run = detector.runner(batch_size=batch_size, amp=amp, fuse=fuse)
        self.on_cpu, self.batch_size = self.run.on_cpu, self.run.batch_size
        self.labels, self.thresholds = labels, thresholds
        self.keep_images, self.slicing = keep_images, slicing
        cores = num_threads()
        self.workers = workers or (cores if self.on_cpu else min(8, cores))

    @property
    def window(self) -> int:
        """Number of consecutive images from which batches of equal size are formed."""
        return 1 if self.batch_size == 1 or self.slicing else 4 * self.batch_size

    def __call__(self, windows: Iterable[Sequence[ImageItem]]) -> Iterator[List[ImageResult]]:
        """Yield the results of each window, in the order of the input."""
        with self.run.running():
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
                for i, detections in zip(batch, self.run([loaded[i][1] for i in batch])):
                    if detections is not None:
                        found[i] = self._kept(detections.of_classes(self.labels), items[i])
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
                None if x is None else x.of_classes(self.labels)
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
        image = image if self.keep_images else None
        return ImageResult(item, self._kept(merged, item), image=image)

    def _kept(self, detections: Detections, item: ImageItem) -> Detections:
        if self.thresholds is not None:
            detections = detections.above(self.thresholds)
        return replace(detections, time=item.time)
