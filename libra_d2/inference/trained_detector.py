"""Load a trained detector from the folder of a run, or from a checkpoint and a config."""

import copy
import glob
import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import Instances
from torch import nn

from ..checkpoint import LibraCheckpointer, read_checkpoint
from ..checkpoint.checkpoint_files import class_names_in
from ..checkpoint.checkpointer import load_trained
from ..checkpoint.weights_files import check_weights, parse_weights
from ..config import load_cfg
from ..config.checks import check_device
from ..config.detectors import head_name
from ..config.loading import refuse
from ..data.transforms import check_proportions, with_fixed_size
from ..errors import UserError
from ..modeling.build import build_model
from ..predictions.saved_predictions import weights_hash
from .exported_file import is_exported
from .fused_model import fuse_for_cpu
from .torch_runner import TorchRunner

NO_DETECTORS = ("ProposalNetwork", "SemanticSegmentor")  # of Detectron2, return no instances


@dataclass(frozen=True)
class TrainedDetector:
    """
    A model with its config and classes. Implements :class:`~libra_d2.inference.detector.Detector`.

    `class_names` and `category_ids` are in the order of the model's outputs.
    """

    cfg: CfgNode
    model: nn.Module  # in evaluation mode
    class_names: Tuple[str, ...]
    category_ids: Tuple[int, ...]

    @property
    def image_format(self) -> str:
        return self.cfg.INPUT.FORMAT

    @property
    def score_threshold(self) -> float:
        return self.cfg.MODEL[head_name(self.cfg)].SCORE_THRESH_TEST

    @property
    def files(self) -> List[str]:
        weights = parse_weights(self.cfg.MODEL.WEIGHTS).file
        return [weights, os.path.join(os.path.dirname(weights), "config.yaml")] if weights else []

    @property
    def folder(self) -> str:
        weights = self.cfg.MODEL.WEIGHTS
        return os.path.dirname(weights) or "." if weights else ""

    def settings(self) -> Dict[str, Any]:
        cfg = self.cfg
        rest = cfg.clone()
        rest.defrost()
        rest.MODEL.WEIGHTS = rest.MODEL.DEVICE = ""
        dump = f"{rest.MODEL}{rest.INPUT}{rest.TEST}"
        return {
            "weights": weights_hash(self.model),
            "score_threshold": self.score_threshold,
            "nms_threshold": cfg.MODEL[head_name(cfg)].NMS_THRESH_TEST,
            "nms_type": cfg.TEST.NMS.TYPE,
            "top_k": cfg.TEST.DETECTIONS_PER_IMAGE,
            "device": self._device.type,
            "config": hashlib.sha256(dump.encode()).hexdigest(),
        }

    @cached_property
    def _preprocessor(self) -> "Preprocessor":
        return Preprocessor(self.cfg)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def preprocess(self, image: np.ndarray) -> Dict[str, Any]:
        return self._preprocessor(image)

    @torch.no_grad()  # tensors of inference_mode could not be changed in place by the caller
    def predict(self, inputs: Sequence[Dict[str, Any]]) -> List[Instances]:
        outputs = self.model(list(inputs))
        if any("instances" not in output for output in outputs):
            kind = self.cfg.MODEL.META_ARCHITECTURE
            raise UserError(f"MODEL.META_ARCHITECTURE must be a detector, got {kind}")
        return [output["instances"] for output in outputs]

    def runner(
        self, *, batch_size: int = 0, amp: bool = False, fuse: Optional[bool] = None
    ) -> TorchRunner:
        model, fused = self.model, bool(fuse) and self._device.type == "cpu"
        if fused:
            model = copy.deepcopy(model)
            fuse_for_cpu(model)
        return TorchRunner(model, batch_size=batch_size, amp=amp, fused=fused)


def load_detector(
    model: str = "",
    *,
    config_file: str = "",
    opts: Sequence[str] = (),
    device: str = "",
    trust: bool = False,
) -> TrainedDetector:
    """
    Build a trained detector and load its weights.

    Args:
        model, config_file, opts, device, trust: see :func:`trained_config`.

    Raises:
        UserError: a file does not exist or cannot be used, the weights are not those of a whole
            detector, or the detector needs more than images.

    Example::

        detector = load_detector("output/run")
        detector.class_names  # ('cat', 'dog')
    """
    cfg = trained_config(model, config_file=config_file, opts=opts, device=device, trust=trust)
    if cfg.MODEL.LOAD_PROPOSALS:
        raise UserError(
            "MODEL.LOAD_PROPOSALS must be False, got True: this detector needs the proposals of "
            "each image, and cannot be run on images alone. Evaluate it with train_net.py "
            "--eval-only"
        )
    if cfg.MODEL.META_ARCHITECTURE in NO_DETECTORS:
        raise UserError(
            f"MODEL.META_ARCHITECTURE must be a detector, got {cfg.MODEL.META_ARCHITECTURE}"
        )
    names = tuple(cfg.DATASETS.CLASS_NAMES)
    network = build_model(cfg)
    checkpointer = LibraCheckpointer(network, class_names=names, require_classes=True)
    load_trained(checkpointer, cfg.MODEL.WEIGHTS)
    network.eval()
    ids = _category_ids(names, checkpointer.loaded_classes)
    return TrainedDetector(cfg, network, names, ids)


def _category_ids(
    names: Tuple[str, ...], of_checkpoint: Tuple[Sequence[str], Sequence[int]]
) -> Tuple[int, ...]:
    """
    Return the category ids of the checkpoint if it has these classes, else COCO's ids for COCO's
    classes, else the indices of the classes.
    """
    theirs, ids = of_checkpoint
    if ids and tuple(theirs) == names and len(ids) == len(names):
        return tuple(ids)
    coco = MetadataCatalog.get("coco_2017_val")
    if names == tuple(coco.thing_classes):
        return tuple(coco.thing_dataset_id_to_contiguous_id)
    return tuple(range(len(names)))


def trained_config(
    model: str = "",
    *,
    config_file: str = "",
    opts: Sequence[str] = (),
    device: str = "",
    trust: bool = False,
    purpose: str = "infer",
) -> CfgNode:
    """
    Load the config of a trained detector.

    Args:
        model: folder of a run, or path or URL of a checkpoint; "" for `MODEL.WEIGHTS` of the
            config. Of a run, the best checkpoint is used, see :func:`best_checkpoint`.
        config_file: by default `config.yaml` in the run's folder or next to the checkpoint.
        opts: KEY VALUE pairs, merged into the config last.
        device: "cpu", "cuda", "cuda:1", ...; by default that of the config, or the CPU if there is
            no CUDA device.
        trust: whether a config that was not given with `config_file` may import the Python modules
            in its `IMPORTS`. Their code can do everything that the user can do.
        purpose: "infer" or "evaluate", see :func:`check_values`.

    Returns:
        A config with `MODEL.WEIGHTS` and the names of all classes. Names that the config lacks are
        those in the checkpoint, or COCO's if there are 80 classes, or "class 0", "class 1", ...

    Raises:
        UserError: a file does not exist or cannot be used, or a value is invalid.
    """
    if is_exported(model):
        raise UserError(
            f"the model must be the folder of a run or a checkpoint here, got the exported file "
            f"{model}. Only infer, evaluate and Predictor run ONNX files"
        )
    weights = best_checkpoint(model) if os.path.isdir(model) else model
    of_user = bool(config_file)
    if weights:
        check_weights(weights)
    if not config_file and model:
        folder = model if os.path.isdir(model) else os.path.dirname(model)
        config_file = os.path.join(folder, "config.yaml")
        if not os.path.isfile(config_file):
            raise UserError(f"{config_file} does not exist. Give the config with --config-file")
    if not config_file:
        raise UserError("the folder of a run, or a checkpoint and a config, must be given")
    cfg = load_cfg(
        config_file,
        [*(["MODEL.WEIGHTS", weights] if weights else []), *opts],
        trust=True if trust else (None if of_user else False),
        purpose=purpose,
    )
    if device:
        set_device(cfg, device)
    _settle_classes(cfg)
    return cfg


def best_checkpoint(folder: str) -> str:
    """
    Return the path of a run's `model_best.pth`, else of `model_final.pth`, else of the checkpoint
    that was saved last.

    Raises:
        UserError: the folder has no checkpoint.
    """
    for name in ("model_best.pth", "model_final.pth"):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    saved = glob.glob(os.path.join(glob.escape(folder), "model_*.pth"))
    if not saved:
        raise UserError(
            f"{folder} must contain model_best.pth, model_final.pth or another model_*.pth, but "
            "has none"
        )
    return max(saved, key=os.path.getmtime)


def set_device(cfg: CfgNode, device: str) -> None:
    """
    Set `MODEL.DEVICE`.

    Raises:
        UserError: `device` is not the name of a device, or this machine does not have it.
    """
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise UserError(
            f"the device must be one such as 'cpu', 'cuda' or 'cuda:1', got {device!r}"
        ) from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"the device must be 'cpu', because this machine has no CUDA device, got {device!r}"
        )
    cfg.MODEL.DEVICE = device
    refuse(check_device(cfg))


def _settle_classes(cfg: CfgNode) -> None:
    names = tuple(cfg.DATASETS.CLASS_NAMES)
    weights = parse_weights(cfg.MODEL.WEIGHTS)
    if not names and os.path.isfile(weights.file):
        names = tuple(class_names_in(read_checkpoint(weights.file, weights.part)))
        if names:
            cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = len(names)
    count = cfg.MODEL[head_name(cfg)].NUM_CLASSES
    coco = MetadataCatalog.get("coco_2017_val")
    if not names and count == len(coco.thing_classes):
        names = tuple(coco.thing_classes)
    names = names or tuple(f"class {i}" for i in range(count))
    if len(names) != count:
        raise UserError(
            f"DATASETS.CLASS_NAMES must have {count} names, as many as NUM_CLASSES of the model, "
            f"got {len(names)}: {list(names)}"
        )
    cfg.DATASETS.CLASS_NAMES = names


class Preprocessor:
    """Turns an image into the input of a Detectron2 model, as evaluation does."""

    def __init__(self, cfg: CfgNode):
        self.image_format = cfg.INPUT.FORMAT
        self.resize = T.AugmentationList(
            with_fixed_size(cfg, utils.build_augmentation(cfg, is_train=False))
        )

    def __call__(self, image: np.ndarray) -> Dict[str, Any]:
        """
        Args:
            image: (H, W, 3) uint8, in `INPUT.FORMAT`.

        Returns:
            `image`, (3, H', W') uint8, the resized image; and `height` and `width` of the given
            image, to which the model scales its boxes.

        Raises:
            ValueError: the image is too elongated to be resized.
        """
        height, width = image.shape[:2]
        for augmentation in self.resize.augs:
            check_proportions(augmentation, height, width)
        resized = self.resize(T.AugInput(image)).apply_image(image)
        tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}
