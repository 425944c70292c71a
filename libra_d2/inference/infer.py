"""The work of `libra-d2 infer`: detect objects in images and videos, and write result files."""

import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
from tqdm import tqdm

from ..data.images.sources import ImageItem, Video, find_images
from ..errors import UserError
from ..evaluation.run_thresholds import thresholds_for_drawing
from ..predictions.score_thresholds import ScoreThresholds
from ..predictions.writing import ImageIds, Journal, ResultFiles
from ..utils.arguments import flag
from ..utils.files import check_outputs, make_folder_of
from ..utils.messages import printable
from ..utils.package_versions import package_versions
from ..utils.progress import progress
from ..version import __version__
from ..visualization.annotated_files import DrawnFiles
from .best_thresholds import best_thresholds, thresholds_of_detector
from .detector import Detector
from .onnx_detector import OnnxDetector
from .pipeline import DetectionPipeline, ImageResult
from .slicing import Slicing


@dataclass(frozen=True)
class InferOptions:
    """The options of `libra-d2 infer`, whose help describes them."""

    config_file: str = ""  # is not read, and is protected from being an output
    output: str = "predictions.json"
    coco: str = ""
    annotations: str = ""
    csv: str = ""
    draw: str = ""
    draw_threshold: Optional[float] = None  # None: see :func:`thresholds_for_drawing`
    thresholds: str = ""  # "best", or path of an analysis.json: keep only detections from them on
    recursive: bool = False
    classes: Sequence[str] = ()
    max_frames: int = 0
    batch_size: int = 0
    workers: int = 0
    amp: bool = False
    fuse: bool = True
    resume: bool = False
    slice: Optional[int] = None
    overlap: Optional[float] = None


@dataclass
class Summary:
    """
    What a run did: `num_images` = `num_done` + `len(skipped)`.

    `num_resumed` of the `num_done` images were taken from an earlier run.
    """

    num_images: int = 0
    num_done: int = 0
    num_resumed: int = 0
    num_detections: int = 0
    skipped: List[Tuple[str, str]] = field(default_factory=list)  # key, error
    num_not_drawn: int = 0
    seconds: float = 0.0
    files: List[str] = field(default_factory=list)

    def __str__(self) -> str:
        new = self.num_done - self.num_resumed
        rate = f"{new / self.seconds:.3g} images/s" if new and self.seconds else "nothing new"
        parts = [f"{self.num_images} images: {self.num_done} done"]
        if self.num_resumed:
            parts[0] += f" ({self.num_resumed} by an earlier run)"
        parts.append(f"{len(self.skipped)} skipped")
        parts.append(f"{self.num_detections} new detections")
        if self.num_not_drawn:
            parts.append(f"{self.num_not_drawn} not drawn")
        return f"{', '.join(parts)}; {self.seconds:.3g} s, {rate}"


def infer(detector: Detector, inputs: Sequence[str], options: InferOptions) -> Summary:
    """
    Run a detector on images and videos, and write the detections to files.

    An image that cannot be read is skipped. Its name and the reason are written to standard error,
    as for an image that cannot be drawn.

    Args:
        detector: see :func:`open_detector`. On a CPU, a faster copy of a model in torch is used,
            see :func:`fuse_for_cpu`, unless `options.fuse` is off.
        inputs: paths, folders, patterns or cameras, see :func:`find_images`.

    Returns:
        What was done.

    Raises:
        UserError: an input or an option is invalid.
        KeyboardInterrupt: the run was interrupted; the detections so far were written.
    """
    run = _Run(detector, inputs, options)
    try:
        run.run()
    finally:
        run.close()
    return run.summary


class _Run:
    def __init__(self, detector: Detector, inputs, options: InferOptions):
        self.sources = find_images(inputs, recursive=options.recursive)
        self.options, self.summary = options, Summary()
        labels = _labels(detector.class_names, options.classes)
        self._check_options()
        slicing = Slicing.of(options.slice, options.overlap)
        self._check_outputs([*inputs, *detector.files, options.config_file])
        self.kept = self._thresholds_to_keep(detector)
        self.image_ids = ImageIds(options.annotations)
        if options.annotations:  # report mistakes now, not after hours
            for source in self.sources:
                if isinstance(source, ImageItem):
                    self.image_ids.see(source.key)
        self.pipeline = DetectionPipeline(
            detector,
            batch_size=options.batch_size,
            workers=options.workers,
            amp=options.amp,
            fuse=options.fuse,
            labels=labels,
            thresholds=self.kept.by_label(detector.class_names) if self.kept else None,
            keep_images=bool(options.draw),
            slicing=slicing,
        )
        settings = {
            **detector.settings(),
            **self.pipeline.run.settings,
            **_versions(detector),
            "classes": sorted(set(options.classes)),
            "draw": options.draw,
        }
        if slicing:
            settings["slice"] = [slicing.size, slicing.overlap]
        if self.kept:
            settings["thresholds"] = self.pipeline.thresholds
        drawn_from: Union[float, List[float]] = 0.0
        if options.draw:
            drawn_from = settings["draw_threshold"] = self._draw_thresholds(detector)
        self.results = ResultFiles(
            detector.class_names,
            detector.category_ids,
            json_file=options.output,
            coco_file=options.coco,
            csv_file=options.csv,
            image_ids=self.image_ids,
        )
        self.drawn = DrawnFiles(
            options.draw,
            detector.class_names,
            detector.category_ids,
            score_threshold=drawn_from,
            say=_say,
        )
        self.journal = Journal(
            f"{options.output}.journal",
            settings,
            resume=options.resume,
            num_classes=len(detector.class_names),
        )
        if options.resume and self.journal.is_new:
            _say(
                f"{printable(self.journal.path)} has nothing to resume from. Starting from the "
                "beginning"
            )
        self.keys: List[str] = []
        # The number of frames of a camera is unknown, and counts as 0.
        counts = [s.num_frames() if isinstance(s, Video) else 1 for s in self.sources]
        if options.max_frames:
            counts = [min(c, options.max_frames) for c in counts]
        self.progress = progress(desc="Detecting", total=sum(counts) or None)

    def _thresholds_to_keep(self, detector: Detector) -> Optional[ScoreThresholds]:
        if not self.options.thresholds:
            return None
        found = thresholds_of_detector(detector, self.options.thresholds)
        _say(f"keeping detections with scores of at least {found}: {found.source}")
        return found

    def _draw_thresholds(self, detector: Detector) -> Union[float, List[float]]:
        """Return one threshold, or one for each class."""
        given = self.options.draw_threshold
        if given is not None or self.kept:
            return given or 0.0
        found = thresholds_for_drawing(lambda: best_thresholds(detector))
        _say(f"drawing detections with scores of at least {found}: {found.source}")
        return found.by_label(detector.class_names) if found.classes else found.overall

    def _check_options(self) -> None:
        options = self.options
        for name in ("batch_size", "workers", "max_frames"):
            if getattr(options, name) < 0:
                raise UserError(f"{flag(name)} must be at least 0, got {getattr(options, name)}")
        if options.draw and os.path.exists(options.draw) and not os.path.isdir(options.draw):
            raise UserError(f"--draw must name a folder, but {options.draw} is a file")
        if options.annotations and not options.coco:
            raise UserError("--annotations can only be used with --coco, whose image ids it gives")
        videos = [s for s in self.sources if isinstance(s, Video)]
        if options.resume and options.draw and videos:
            raise UserError(
                "--resume cannot be combined with --draw if there are videos, because a drawn "
                "video cannot be continued. Leave out one of them"
            )
        for video in videos:
            if options.resume and video.camera is not None:
                raise UserError(
                    f"--resume cannot be combined with {video.path}, because a camera cannot be "
                    "continued. Leave out one of them"
                )

    def _check_outputs(self, inputs: Sequence[str]) -> None:
        options = self.options
        paths = [*inputs, *(_path_of(s) for s in self.sources)]
        outputs: Dict[str, Any] = {
            "--output": options.output,
            "--coco": options.coco,
            "--csv": options.csv,
        }
        files = [path for path in outputs.values() if path]
        outputs["the journal"] = f"{options.output}.journal"
        if options.draw:
            outputs["--draw"] = [os.path.join(options.draw, s.name) for s in self.sources]
        check_outputs(outputs, {"the input": paths, "--annotations": options.annotations})
        for path in (*files, f"{options.output}.journal"):
            if os.path.isdir(path):
                raise UserError(f"an output must be a file, but {path} is a folder")
        for path in files:
            make_folder_of(path)

    def run(self) -> None:
        start = time.perf_counter()
        if not (self.options.resume and os.path.exists(self.options.output)):
            self.results.write(self.journal, [])
        for results in self.pipeline(self._windows()):
            for result in results:
                self._take(result)
            self.journal.add(
                (r.item.key, r.item.stamp, r.detections)
                for r in results
                if r.detections is not None
            )
            self.results.write_if_due(self.journal, self.keys)
        self.summary.seconds = time.perf_counter() - start
        missing = self.image_ids.missing
        if missing:
            _say(
                f"{len(missing)} images are left out of {printable(self.options.coco)}, because "
                f"they are not in {printable(self.options.annotations)}. The first is "
                f"{printable(missing[0])}"
            )

    def _items(self) -> Iterator[ImageItem]:
        for source in self.sources:
            if isinstance(source, Video):
                yield from source.items(self.options.max_frames)
            else:
                yield source

    def _windows(self) -> Iterator[List[ImageItem]]:
        """
        Yield windows of images that are not done yet. A window is done as a whole or not at all, so
        that its batches are the same as in a run without interruption.
        """
        window: List[ImageItem] = []
        for item in self._items():
            self.summary.num_images += 1
            self.keys.append(item.key)
            self.image_ids.see(item.key)
            window.append(item)
            if len(window) == self.pipeline.window:
                yield from self._unless_done(window)
                window = []
        if window:
            yield from self._unless_done(window)

    def _unless_done(self, window: List[ImageItem]) -> Iterator[List[ImageItem]]:
        if all(self.journal.has(item.key, item.stamp) for item in window):
            self.summary.num_done += len(window)
            self.summary.num_resumed += len(window)
            self.progress.update(len(window))
            return
        for item in window:
            self.journal.forget(item.key)
        yield window

    def _take(self, result: ImageResult) -> None:
        self.progress.update()
        if result.detections is None:
            self.summary.skipped.append((result.item.key, result.error))
            _say(f"skipped {printable(result.item.key)}: {printable(result.error)}")
            return
        if self.options.draw:
            image = _as_rgb(result.image, self.pipeline.format)
            self.drawn.add(result.item, image, result.detections)
        self.summary.num_done += 1
        self.summary.num_detections += len(result.detections)

    def close(self) -> None:
        """Write the detections so far, also after Ctrl-C."""
        self.progress.close()
        try:
            self.drawn.close()
        finally:
            self._write_results()

    def _write_results(self) -> None:
        self.summary.num_not_drawn = self.drawn.num_failed
        self.results.write(self.journal, self.keys)
        self.journal.close()
        self.summary.files = [*self.results.paths, *([self.options.draw] * bool(self.options.draw))]


def _versions(detector: Detector) -> Dict[str, str]:
    # An ONNX file depends on ONNX Runtime only, whose version is in its settings.
    return {"libra_d2": __version__} if isinstance(detector, OnnxDetector) else package_versions()


def _as_rgb(image: Any, format: str) -> np.ndarray:
    if format == "RGB":
        return image
    if format == "BGR":
        return np.ascontiguousarray(image[:, :, ::-1])
    from detectron2.data.detection_utils import convert_image_to_rgb

    return convert_image_to_rgb(image, format)


def _path_of(source: Union[ImageItem, Video]) -> str:
    return source.path if isinstance(source, Video) else source.key


def _labels(class_names: Sequence[str], wanted: Sequence[str]) -> List[int]:
    unknown = [name for name in wanted if name not in class_names]
    if unknown:
        raise UserError(f"--classes must be among {list(class_names)}, got {unknown[0]!r}")
    return sorted({class_names.index(name) for name in wanted})


def _say(line: str) -> None:
    """Write a line to standard error without breaking a progress bar."""
    tqdm.write(line, file=sys.stderr)
