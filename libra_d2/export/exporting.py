"""Export a trained detector to TorchScript or ONNX, which run without Detectron2."""

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
from ..inference.exported_file import (
    INPUT,
    METADATA_KEY,
    METADATA_VERSION,
    OUTPUTS,
    FileMetadata,
    Resize,
)
from ..inference.trained_detector import Preprocessor, TrainedDetector
from ..predictions.score_thresholds import ScoreThresholds
from ..utils.dataclass_json import json_fields
from ..utils.extras import import_extra
from ..utils.files import replacing
from ..version import __version__
from .agreement import ExportReport, compare
from .traceable_pyramid import make_pyramids_traceable

FORMATS = EXPORT_FORMATS
_OPSET = 17  # RoiAlign supports Detectron2's half-pixel offset since opset 16
_META_ARCHITECTURES = ("GeneralizedRCNN", "RetinaNet", "LibraRetinaNet")

Tensors = Tuple[torch.Tensor, ...]


def export_detector(
    detector: TrainedDetector,
    format: str,
    path: str,
    images: Sequence[np.ndarray],
    *,
    size: Optional[Tuple[int, int]] = None,
    thresholds: Optional[ScoreThresholds] = None,
) -> ExportReport:
    """
    Write a detector to a TorchScript or ONNX file, and check that its detections are the same.

    The exported model takes an image, (3, H, W) uint8 in `INPUT.FORMAT`, resized as in evaluation.
    It returns `boxes` (N, 4), XYXY in pixels of that image, `scores` (N,), `classes` (N,) int64
    and, if the detector predicts masks, `masks` (N, 28, 28), probabilities within the boxes. It
    includes the score threshold and NMS. H and W can be any size.

    After writing, the file is loaded and run on all images. If its detections differ from those of
    the detector, see :func:`compare`, it is removed.

    Args:
        detector: the trained detector.
        format: one of `FORMATS`.
        path: file to write. It contains a JSON object `METADATA_KEY` (an extra file in TorchScript,
            a metadata property in ONNX) with names and ids of the classes and the format of the
            input.
        images: (H, W, 3) uint8 in `INPUT.FORMAT`, to trace the model and to compare detections.
        size: (height, width), to fix H and W in an ONNX file for runtimes that need it. Images
            are resized to this size.
        thresholds: the best score thresholds of the classes, to be written into the metadata. They
            do not change what the exported model returns.

    Returns:
        The numbers of detections that were compared, and their largest differences.

    Raises:
        UserError: the model or a setting cannot be exported, or the detections differ.
    """
    _check_exportable(detector.cfg, format, size)
    if not images:
        raise UserError("export needs at least one image to trace the model with")
    inputs = [_preprocess(detector, image, size) for image in images]
    expected = [_find(detector.model, x) for x in inputs]
    # Trace with the image that has most detections, because the trace of an image without
    # detections would record the branches for empty outputs.
    example = inputs[max(range(len(inputs)), key=lambda i: len(expected[i][0]))]
    model = copy.deepcopy(detector.model).eval()
    make_pyramids_traceable(model)
    adapter = TracingAdapter(model, (example,), _find).eval()
    metadata = _metadata(detector, size, thresholds, num_outputs=len(expected[0]))
    write, load = _WRITERS[format]
    with replacing(path) as partial:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the tracer; the comparison below checks the file
            write(adapter, example, partial, metadata, size is None)
        run = load(partial)
        report = ExportReport()
        for x, of_model in zip(inputs, expected):
            report.add(
                compare(
                    of_model,
                    run(x),
                    max_detections=metadata.max_detections,
                    score_threshold=metadata.score_threshold,
                )
            )
        report.require_equal(path)
    return report


def _find(model: Any, image: torch.Tensor) -> Tensors:
    """Return boxes, scores, classes and, if there are any, masks of a resized image."""
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
        raise UserError(f"the format must be one of {FORMATS}, got {format!r}")
    if size is not None and format != "onnx":
        raise UserError(
            "a fixed size can only be used for ONNX. A TorchScript file takes images of any size"
        )
    if size is not None and min(size) < 1:
        raise UserError(
            f"size must be a height and width of at least 1 pixel each, got {tuple(size)}"
        )
    meta, nms = cfg.MODEL.META_ARCHITECTURE, cfg.TEST.NMS.TYPE
    refused = {
        f"MODEL.META_ARCHITECTURE must be one of {_META_ARCHITECTURES}, got {meta!r}": (
            meta not in _META_ARCHITECTURES
        ),
        f"TEST.NMS.TYPE must be 'hard', got {nms!r}": nms != "hard",
        "MODEL.KEYPOINT_ON must be False, got True": cfg.MODEL.KEYPOINT_ON,
    }
    for message, is_set in refused.items():
        if is_set:
            raise UserError(f"to export a detector, {message}")


def _metadata(
    detector: TrainedDetector, size, thresholds: Optional[ScoreThresholds], num_outputs: int
) -> FileMetadata:
    cfg = detector.cfg
    if size is not None:
        resize = Resize(size=list(size), keep_ratio=False)
    elif any(cfg.INPUT.FIXED_SIZE):
        resize = Resize(size=list(cfg.INPUT.FIXED_SIZE), keep_ratio=cfg.INPUT.KEEP_RATIO)
    else:
        resize = Resize(min_size=cfg.INPUT.MIN_SIZE_TEST, max_size=cfg.INPUT.MAX_SIZE_TEST)
    return FileMetadata(
        libra_d2=__version__,
        metadata_version=METADATA_VERSION,
        class_names=list(detector.class_names),
        category_ids=list(detector.category_ids),
        input_format=cfg.INPUT.FORMAT,
        resize=resize,
        outputs=list(OUTPUTS[:num_outputs]),
        score_threshold=detector.score_threshold,
        nms_threshold=cfg.MODEL[head_name(cfg)].NMS_THRESH_TEST,
        max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
        best_thresholds=thresholds.by_label(detector.class_names) if thresholds else None,
    )


def _as_json(metadata: FileMetadata) -> str:
    return json.dumps(metadata, default=json_fields)


def _write_torchscript(adapter, example, path, metadata, any_size) -> None:
    traced = torch.jit.trace(adapter, (example,), check_trace=False)
    # Save to memory first, because torch ends the process if the disk is full.
    content = traced.save_to_buffer(_extra_files={METADATA_KEY: _as_json(metadata)})
    with open(path, "wb") as f:
        f.write(content)


def _load_torchscript(path: str) -> Callable[[torch.Tensor], Tensors]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit is deprecated
        loaded = torch.jit.load(path)

    def run(image: torch.Tensor) -> Tensors:
        with torch.no_grad():
            loaded(image)
            return loaded(image)  # from the second run on, the graph is optimized

    return run


def _write_onnx(adapter, example, path, metadata, any_size) -> None:
    onnx = import_extra("onnx", "export", "ONNX files")
    names = metadata.outputs
    axes: Dict[str, Any] = {name: {0: "detections"} for name in names}
    if any_size:
        axes[INPUT] = {1: "height", 2: "width"}
    torch.onnx.export(
        adapter,
        (example,),
        path,
        dynamo=False,  # torch.export does not support Detectron2's data-dependent branches
        opset_version=_OPSET,
        input_names=[INPUT],
        output_names=names,
        dynamic_axes=axes,
    )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_KEY: _as_json(metadata)})
    onnx.save(model, path)


def _load_onnx(path: str) -> Callable[[torch.Tensor], Tensors]:
    session = import_extra("onnxruntime", "export", "ONNX files").InferenceSession(
        path, providers=["CPUExecutionProvider"]
    )

    def run(image: torch.Tensor) -> Tensors:
        found = session.run(None, {INPUT: image.cpu().numpy()})
        return tuple(torch.from_numpy(x) for x in found)

    return run


_WRITERS = {
    "torchscript": (_write_torchscript, _load_torchscript),
    "onnx": (_write_onnx, _load_onnx),
}
