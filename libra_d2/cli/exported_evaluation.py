"""The work of `libra-d2 evaluate --model` with an exported file instead of a run."""

import os
from dataclasses import asdict
from typing import Any, Dict, List, Sequence

from detectron2.config import CfgNode

from ..config import load_cfg
from ..data import setup_datasets
from ..data.checks.images import require_readable
from ..engine.evaluating import (
    build_evaluator,
    build_test_loader,
    evaluate_dataset,
    inference_dir,
    require_test_sets,
)
from ..errors import UserError
from ..evaluation.coco_metrics import chosen_backend
from ..inference.exported_file import FileMetadata
from ..inference.onnx_detector import OnnxDetector
from ..inference.opening import open_detector
from ..predictions.saved_predictions import data_hash
from ..utils.arguments import flag
from ..utils.package_versions import package_versions

# Keys that the file does not decide.
_KEYS = (
    "DATASETS.TEST",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.ON_BAD_IMAGE",
    "TEST.EVAL_BACKEND",
    "OUTPUT_DIR",
)


def evaluate_exported(
    model: str,
    *,
    config_file: str = "",
    opts: Sequence[str] = (),
    device: str = "",
    backend: str = "",
    reuse: bool = False,
    trust: bool = False,
) -> Dict[str, str]:
    """
    Evaluate an ONNX file on the data sets that `DATASETS.TEST` in `opts` names.

    Images are read and resized as in the evaluation of a run. Results are written to
    `evaluations/FILE` in the folder of the file, unless `opts` contain an `OUTPUT_DIR`.

    Args:
        model: path of the file.
        opts: keys and values in turn, of the keys in `_KEYS`.
        backend, reuse: see :func:`evaluate_run`.
        config_file, device, trust: see :func:`open_detector`, which refuses them.

    Returns:
        For each data set, the folder of its predictions.

    Raises:
        UserError: the file, the data or an option cannot be used.
    """
    for key in opts[0::2]:
        if key not in _KEYS:
            raise UserError(
                f"--opts {key} cannot be used with {model}: NMS and all settings of the model are "
                f"inside the file. Only {', '.join(_KEYS)} can be set"
            )
    detector = open_detector(model, config_file=config_file, device=device, trust=trust, named=flag)
    assert isinstance(detector, OnnxDetector)
    cfg = load_cfg("", opts)
    _set_from_file(cfg, detector.metadata)
    if "OUTPUT_DIR" not in opts[0::2]:
        cfg.OUTPUT_DIR = os.path.join(detector.folder, "evaluations", os.path.basename(model))
    cfg.TEST.EVAL_BACKEND = backend or cfg.TEST.EVAL_BACKEND
    require_test_sets(cfg)
    setup_datasets(cfg, num_classes_given=True, train=False)
    cfg.freeze()
    chosen_backend(cfg.TEST.EVAL_BACKEND)

    def detect(inputs: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
        return [{"instances": instances} for instances in detector.predict(inputs)]

    for name in cfg.DATASETS.TEST:
        if not reuse:
            require_readable(name)
        loader = build_test_loader(cfg, name)  # first: it loads the data set
        evaluator = build_evaluator(cfg, name)
        evaluator.made_by = {
            "weights": detector.digest,
            "data": data_hash(name, evaluator.images),
            "config": asdict(detector.metadata),
            "versions": {**package_versions(), "onnxruntime": detector.runtime_version},
        }
        evaluate_dataset(detect, name, loader, evaluator, reuse)
    return {name: inference_dir(cfg, name) for name in cfg.DATASETS.TEST}


def _set_from_file(cfg: CfgNode, metadata: FileMetadata) -> None:
    """Set what the loader, the evaluator and the set-up of the data read from a config."""
    resize = metadata.resize
    if resize.size is None:
        cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = resize.min_size, resize.max_size
    else:
        cfg.INPUT.FIXED_SIZE, cfg.INPUT.KEEP_RATIO = tuple(resize.size), bool(resize.keep_ratio)
    cfg.INPUT.FORMAT = metadata.input_format
    cfg.DATASETS.CLASS_NAMES = tuple(metadata.class_names)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(metadata.class_names)
    cfg.MODEL.MASK_ON = "masks" in metadata.outputs
    cfg.TEST.DETECTIONS_PER_IMAGE = metadata.max_detections
