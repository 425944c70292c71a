"""A trained detector as a file that runs without Detectron2: TorchScript or ONNX."""

import copy
import json
import warnings
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import numpy as np
import torch
from detectron2.export import TracingAdapter

from ..config.choices import EXPORT_FORMATS
from ..config.detectors import head_name
from ..errors import UserError
from ..inference.trained_detector import Preprocessor, TrainedDetector
from ..utils.extras import import_extra
from ..utils.files import replacing
from ..version import __version__
from .agreement import ExportReport, compare
from .traceable_pyramid import make_pyramids_traceable

FORMATS = EXPORT_FORMATS
METADATA_KEY = "libra_d2.json"
_OPSET = 17  # RoiAlign has Detectron2's half-pixel shift since 16
_META_ARCHITECTURES = ("GeneralizedRCNN", "RetinaNet", "LibraRetinaNet")

Tensors = Tuple[torch.Tensor, ...]


def export_detector(
    detector: TrainedDetector,
    format: str,
    path: str,
    images: Sequence[np.ndarray],
    *,
    size: Optional[Tuple[int, int]] = None,
) -> ExportReport:
    """
    Write a file that takes an image, (3, H, W) uint8 in `INPUT.FORMAT`, resized as in evaluation,
    and returns `boxes` (N, 4), XYXY in pixels of that image, `scores` (N,), `classes` (N,) int64
    and, of a model with masks, `masks` (N, 28, 28), probabilities inside of the boxes. The
    threshold of scores and NMS are in it. H and W are any, up to what memory allows.

    The file is read back, and must find on each image what the model finds: see :func:`compare`.

    Args:
        format: one of `FORMATS`.
        path: of the file, which holds a JSON object at `METADATA_KEY` (an extra file of
            TorchScript, a metadata property of ONNX): names and ids of the classes, and what the
            input is to be.
        images: (H, W, 3) uint8 in `INPUT.FORMAT`, to trace the model with, and to compare.
        size: (height, width) if H and W are to be fixed in an ONNX file, for runtimes that need it;
            the images are resized to it.

    Raises:
        UserError: the model or the setting cannot be exported, or the file does not find what the
            model finds; then there is no file.
    """
    _check_exportable(detector.cfg, format, size)
    if not images:
        raise UserError("export needs at least one image to trace the model with")
    inputs = [_preprocess(detector, image, size) for image in images]
    expected = [_find(detector.model, x) for x in inputs]
    # A branch that is taken only without detections must not become the trace.
    example = inputs[max(range(len(inputs)), key=lambda i: len(expected[i][0]))]
    model = copy.deepcopy(detector.model).eval()
    make_pyramids_traceable(model)
    adapter = TracingAdapter(model, (example,), _find).eval()
    metadata = _metadata(detector, size, num_outputs=len(expected[0]))
    cut = {k: metadata[k] for k in ("max_detections", "score_threshold")}
    write, load = _WRITERS[format]
    with replacing(path) as partial:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the tracer, about what is checked below
            write(adapter, example, partial, metadata, size is None)
        run = load(partial)
        report = ExportReport()
        for x, of_model in zip(inputs, expected):
            report.add(compare(of_model, run(x), **cut))
        report.require_equal(path)
    return report


def _find(model: Any, image: torch.Tensor) -> Tensors:
    """Boxes, scores, classes and perhaps masks of a resized image, in its pixels."""
    with torch.no_grad():
        if hasattr(model, "roi_heads"):
            found = model.inference([{"image": image}], do_postprocess=False)[0]
            found = found[found.pred_boxes.nonempty()]
        else:
            found = model([{"image": image}])[0]["instances"]
    ret = (found.pred_boxes.tensor, found.scores, found.pred_classes)
    return (*ret, found.pred_masks[:, 0]) if found.has("pred_masks") else ret


def _preprocess(
    detector: TrainedDetector, image: np.ndarray, size: Optional[Tuple[int, int]]
) -> torch.Tensor:
    cfg = detector.cfg
    if size is not None:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.INPUT.FIXED_SIZE, cfg.INPUT.KEEP_RATIO = tuple(size), False
    return Preprocessor(cfg)(image)["image"].to(cfg.MODEL.DEVICE)


def _check_exportable(cfg, format: str, size) -> None:
    if format not in FORMATS:
        raise UserError(f"format {format!r} is not one of {FORMATS}")
    if size is not None and format != "onnx":
        raise UserError("a fixed size is for ONNX; a TorchScript file takes images of any size")
    if size is not None and min(size) < 1:
        raise UserError(f"size {tuple(size)} is not a height and width of at least one pixel")
    refused = {
        f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE}": (
            cfg.MODEL.META_ARCHITECTURE not in _META_ARCHITECTURES
        ),
        f"TEST.NMS.TYPE {cfg.TEST.NMS.TYPE} (only hard)": cfg.TEST.NMS.TYPE != "hard",
        "MODEL.KEYPOINT_ON True": cfg.MODEL.KEYPOINT_ON,
    }
    for setting, is_set in refused.items():
        if is_set:
            raise UserError(f"{setting} cannot be exported")


def _metadata(detector: TrainedDetector, size, num_outputs: int) -> Dict[str, Any]:
    cfg = detector.cfg
    if size is not None:
        resize: Dict[str, Any] = {"size": list(size), "keep_ratio": False}
    elif any(cfg.INPUT.FIXED_SIZE):
        resize = {"size": list(cfg.INPUT.FIXED_SIZE), "keep_ratio": cfg.INPUT.KEEP_RATIO}
    else:
        resize = {"min_size": cfg.INPUT.MIN_SIZE_TEST, "max_size": cfg.INPUT.MAX_SIZE_TEST}
    node = cfg.MODEL[head_name(cfg)]
    return {
        "libra_d2": __version__,
        "class_names": list(detector.class_names),
        "category_ids": list(detector.category_ids),
        "input_format": cfg.INPUT.FORMAT,
        "resize": resize,
        "outputs": ["boxes", "scores", "classes", "masks"][:num_outputs],
        "score_threshold": node.SCORE_THRESH_TEST,
        "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
    }


def _write_torchscript(adapter, example, path, metadata, any_size) -> None:
    traced = torch.jit.trace(adapter, (example,), check_trace=False)
    # By way of memory: torch ends the process if the disk is full.
    content = traced.save_to_buffer(_extra_files={METADATA_KEY: json.dumps(metadata)})
    with open(path, "wb") as f:
        f.write(content)


def _load_torchscript(path: str) -> Callable[[torch.Tensor], Tensors]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that torch.jit is deprecated
        loaded = torch.jit.load(path)

    def run(image: torch.Tensor) -> Tensors:
        with torch.no_grad():
            loaded(image)
            return loaded(image)  # the second run is of an optimised graph

    return run


def _write_onnx(adapter, example, path, metadata, any_size) -> None:
    onnx = import_extra("onnx", "export", "ONNX files")
    names = metadata["outputs"]
    axes: Dict[str, Any] = {name: {0: "detections"} for name in names}
    if any_size:
        axes["image"] = {1: "height", 2: "width"}
    torch.onnx.export(
        adapter,
        (example,),
        path,
        dynamo=False,  # torch.export refuses decisions by values, which Detectron2 makes
        opset_version=_OPSET,
        input_names=["image"],
        output_names=names,
        dynamic_axes=axes,
    )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata)})
    onnx.save(model, path)


def _load_onnx(path: str) -> Callable[[torch.Tensor], Tensors]:
    session = import_extra("onnxruntime", "export", "ONNX files").InferenceSession(
        path, providers=["CPUExecutionProvider"]
    )

    def run(image: torch.Tensor) -> Tensors:
        found = session.run(None, {"image": image.cpu().numpy()})
        return tuple(torch.from_numpy(x) for x in found)

    return run


_WRITERS = {
    "torchscript": (_write_torchscript, _load_torchscript),
    "onnx": (_write_onnx, _load_onnx),
}
