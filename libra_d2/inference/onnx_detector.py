"""Run a detector that was exported to an ONNX file, with ONNX Runtime on the CPU."""

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import ModuleType
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    ContextManager,
    Dict,
    List,
    Optional,
    Sequence,
    Tuple,
)

import numpy as np

from ..errors import UserError
from ..predictions.detections import Detections
from ..utils.extras import import_extra
from ..utils.json_files import read_regular_file
from ..utils.messages import one_line, shown
from ..utils.threads import num_threads
from .exported_file import (
    INPUT,
    METADATA_KEY,
    OUTPUTS,
    FileMetadata,
    Found,
    postprocess,
    preprocess,
    read_metadata,
)

if TYPE_CHECKING:
    from detectron2.structures import Instances

_MAX_BYTES = 2**31  # of a protobuf message


class OnnxDetector:
    """
    An ONNX file that `libra-d2 export` has written.

    Implements :class:`~libra_d2.inference.detector.Detector`. The file is read once, so that it may
    be replaced while the detector is used.

    Attributes:
        path: of the file.
        metadata: what the file says about itself.
        digest: hash of the content of the file.
    """

    def __init__(
        self,
        path: str,
        *,
        score_threshold: Optional[float] = None,
        top_k: Optional[int] = None,
        named: Callable[[str], str] = str,
    ):
        """
        Args:
            path: of the file.
            score_threshold: keep only detections with higher scores; at least the threshold inside
                the file, which is the default.
            top_k: keep this number of detections per image; at most that of the file, which is the
                default.
            named: turns the name of an argument into that of the user's option, for messages.

        Raises:
            UserError: the file cannot be used as a detector, ONNX Runtime is not installed, or an
                argument does not fit the file.
        """
        self.path = path
        self._content = read_regular_file(path, what="ONNX file", max_bytes=_MAX_BYTES)
        self.digest = hashlib.blake2b(self._content, digest_size=20).hexdigest()
        self.metadata = self._read_metadata()
        inside = self.metadata.score_threshold
        self.score_threshold = inside if score_threshold is None else score_threshold
        if self.score_threshold < inside:
            raise UserError(
                f"{named('score_threshold')} must be at least {inside}, the threshold inside "
                f"{path}, got {score_threshold}. Export the detector again with a lower threshold"
            )
        most = self.metadata.max_detections
        self.top_k = most if top_k is None else top_k
        if 0 <= most < self.top_k:
            raise UserError(
                f"{named('top_k')} must be at most {most}, the number of detections per image "
                f"inside {path}, got {top_k}. Export the detector again with a higher number"
            )
        self._lock = threading.Lock()
        self._all_cores: Any = None
        self._one_core: Optional[Tuple[Any, ThreadPoolExecutor]] = None

    def _read_metadata(self) -> FileMetadata:
        # Do not optimize the network for this: `predict` and `runner` need other sessions.
        session = self._session(threads=1, optimized=False)
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        metadata = read_metadata(text, self.path)
        inputs = [(x.name, x.type, len(x.shape)) for x in session.get_inputs()]
        outputs = [x.name for x in session.get_outputs()]
        if inputs != [(INPUT, "tensor(uint8)", 3)] or outputs != metadata.outputs:
            raise UserError(
                f"{self.path} must have the input {INPUT!r}, (3, height, width) uint8, and the "
                f"outputs {metadata.outputs}, as its metadata say, got the inputs {shown(inputs)} "
                f"and the outputs {shown(outputs)}. Export the detector again"
            )
        return metadata

    def _session(self, threads: int, optimized: bool = True, arena: bool = True) -> Any:
        runtime = _runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_cpu_mem_arena = arena
        options.log_severity_level = 3  # errors, which are also raised
        if not optimized:
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            return runtime.InferenceSession(
                self._content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as e:  # the errors of ONNX Runtime have no common class
            raise UserError(
                f"{self.path} cannot be loaded by ONNX Runtime {runtime.__version__}: {one_line(e)}"
            ) from None

    @property
    def class_names(self) -> Tuple[str, ...]:
        return tuple(self.metadata.class_names)

    @property
    def category_ids(self) -> Tuple[int, ...]:
        return tuple(self.metadata.category_ids)

    @property
    def image_format(self) -> str:
        return self.metadata.input_format

    @property
    def files(self) -> List[str]:
        return [self.path]

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path)

    def settings(self) -> Dict[str, Any]:
        return {
            "weights": self.digest,
            "score_threshold": self.score_threshold,
            "top_k": self.top_k,
            "device": "cpu",
            "onnxruntime": self.runtime_version,
        }

    @property
    def runtime_version(self) -> str:
        return _runtime().__version__

    def preprocess(self, image: np.ndarray) -> Dict[str, Any]:
        return preprocess(image, self.metadata.resize)

    def predict(self, inputs: Sequence[Dict[str, Any]]) -> List["Instances"]:
        return [_instances(x, found) for x, found in zip(inputs, self.find_all(inputs))]

    def find_all(self, inputs: Sequence[Dict[str, Any]], masks: bool = True) -> List[Found]:
        """
        Do what :meth:`predict` does, without torch and Detectron2. Masks are not pasted, and left
        out without `masks`.

        All cores work on a single image. Of several images, each core has its own, which takes less
        time. Without ONNX Runtime's arena, which keeps what large images have needed, applications
        that run for long need less memory, in the same time.
        """
        several = len(inputs) > 1 and num_threads() > 1
        session, pool = self._of_one_core() if several else (self._of_all_cores(), None)
        each = map if pool is None else pool.map
        names = self.metadata.outputs if masks else OUTPUTS[:3]
        return list(each(lambda x: self.find(session, x, names), inputs))

    def _of_all_cores(self) -> Any:
        with self._lock:
            if self._all_cores is None:
                self._all_cores = self._session(threads=num_threads(), arena=False)
        return self._all_cores

    def _of_one_core(self) -> Tuple[Any, ThreadPoolExecutor]:
        with self._lock:
            if self._one_core is None:
                session = self._session(threads=1, arena=False)
                self._one_core = session, ThreadPoolExecutor(num_threads())
        return self._one_core

    def find(self, session: Any, record: Dict[str, Any], names: Sequence[str]) -> Found:
        """
        Run the network on an image.

        Args:
            session: an `onnxruntime.InferenceSession` of the file.
            record: see :data:`~libra_d2.inference.detector.Record`.
            names: the outputs to return.

        Raises:
            MemoryError: there is not enough memory for the image.
            UserError: ONNX Runtime cannot run the network on the image.
        """
        image = np.asarray(record["image"])
        height, width = image.shape[1:]
        try:
            outputs = dict(zip(names, session.run(names, {INPUT: image})))
        except Exception as e:  # the errors of ONNX Runtime have no common class
            if any(text in str(e) for text in ("allocate memory", "bad_alloc")):
                raise MemoryError(one_line(e)) from None
            raise UserError(
                f"{self.path} cannot be run on an image of {width}x{height}: {one_line(e)}"
            ) from None
        return postprocess(
            outputs,
            (height, width),
            (record["height"], record["width"]),
            score_threshold=self.score_threshold,
            top_k=self.top_k,
        )

    def runner(
        self, *, batch_size: int = 0, amp: bool = False, fuse: Optional[bool] = None
    ) -> "OnnxRunner":
        if batch_size > 1:
            raise UserError(
                f"--batch-size must be 1 for {self.path}, which takes one image at a time, got "
                f"{batch_size}"
            )
        refused = {
            "--amp": (amp, "the precision is inside the file"),
            "--no-fuse": (fuse is False, "ONNX Runtime fuses batch norms by itself"),
        }
        for option, (is_given, why) in refused.items():
            if is_given:
                raise UserError(f"{option} cannot be used with {self.path}: {why}")
        return OnnxRunner(self, self._session(threads=1))


class OnnxRunner:
    """Implements :class:`~libra_d2.inference.detector.Runner` with a session of one core."""

    batch_size, on_cpu = 1, True

    def __init__(self, detector: OnnxDetector, session: Any):
        self._detector, self._session = detector, session
        self.settings: Dict[str, Any] = {"batch_size": 1}

    def __call__(self, inputs: Sequence[Dict[str, Any]]) -> List[Optional[Detections]]:
        return [self._detect(record) for record in inputs]

    def _detect(self, record: Dict[str, Any]) -> Optional[Detections]:
        try:
            found = self._detector.find(self._session, record, OUTPUTS[:3])
        except MemoryError:
            return None
        return Detections(
            record["height"],
            record["width"],
            found.boxes.tolist(),
            found.scores.tolist(),
            found.classes.tolist(),
        )

    def running(self) -> ContextManager[Any]:
        return nullcontext()


def _runtime() -> ModuleType:
    return import_extra("onnxruntime", "onnx", "ONNX files")


def _instances(record: Dict[str, Any], found: Found) -> "Instances":
    import torch
    from detectron2.structures import Boxes, Instances, ROIMasks

    size = (record["height"], record["width"])
    instances = Instances(
        size,
        pred_boxes=Boxes(torch.from_numpy(found.boxes)),
        scores=torch.from_numpy(found.scores),
        pred_classes=torch.from_numpy(found.classes),
    )
    if found.masks is not None:
        masks = ROIMasks(torch.from_numpy(found.masks))
        instances.pred_masks = masks.to_bitmasks(instances.pred_boxes, *size, 0.5).tensor
    return instances
