"""A trained detector, from the folder of a run or from weights and a config."""

import glob
import os
from dataclasses import dataclass
from typing import Any, Dict, Sequence, Tuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from torch import nn

from ..checkpoint import LibraCheckpointer, read_checkpoint
from ..checkpoint.checkpoint_files import class_names_in
from ..checkpoint.checkpointer import load_trained
from ..checkpoint.weights_files import check_weights, parse_weights
from ..config import load_cfg
from ..config.detectors import head_name
from ..data.transforms import check_proportions, with_fixed_size
from ..errors import UserError
from ..modeling.build import build_model

NO_DETECTORS = ("ProposalNetwork", "SemanticSegmentor")  # of Detectron2: they give no instances


@dataclass(frozen=True)
class TrainedDetector:
    """`class_names` and `category_ids` are in the order of the model's outputs."""

    cfg: CfgNode
    model: nn.Module  # in evaluation mode
    class_names: Tuple[str, ...]
    category_ids: Tuple[int, ...]


def load_detector(
    model: str = "",
    *,
    config_file: str = "",
    opts: Sequence[str] = (),
    device: str = "",
    trust: bool = False,
) -> TrainedDetector:
    """
    Args:
        See :func:`trained_config`.

    Raises:
        UserError: nothing is there to be loaded, or it is no whole detector, or one that needs more
            than images.
    """
    cfg = trained_config(model, config_file=config_file, opts=opts, device=device, trust=trust)
    if cfg.MODEL.LOAD_PROPOSALS:
        raise UserError(
            "MODEL.LOAD_PROPOSALS: this detector needs proposals for each image, and finds nothing "
            "from images alone; evaluate it by train_net.py --eval-only"
        )
    if cfg.MODEL.META_ARCHITECTURE in NO_DETECTORS:
        raise UserError(f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} is not a detector")
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
    """Those of the checkpoint, if it has these classes; else COCO's, or the indices."""
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
    Args:
        model: folder of a run, of which `config.yaml` and the best checkpoint are taken (or the
            final one, or the last); or a checkpoint, or its URL; or nothing: `MODEL.WEIGHTS`.
        config_file: by default `config.yaml` in the folder of the run, or beside the checkpoint.
        opts: KEY VALUE pairs, merged into the config last.
        device: "cpu", "cuda", "cuda:1", ...; by default that of the config, or the CPU where there
            is no CUDA.
        trust: the config may run the Python modules that its `IMPORTS` names, though it came with
            the model. They can do whatever you can.
        purpose: that values are checked for: "infer" or "evaluate".

    Returns:
        A config with weights, and with names for all classes: its own, or the checkpoint's, or
        COCO's if there are 80, or "class 0", ...

    Raises:
        UserError: something is not there, or does not fit.
    """
    weights = best_checkpoint(model) if os.path.isdir(model) else model
    of_user = bool(config_file)
    if weights:
        check_weights(weights)
    if not config_file and model:
        folder = model if os.path.isdir(model) else os.path.dirname(model)
        config_file = os.path.join(folder, "config.yaml")
        if not os.path.isfile(config_file):
            raise UserError(f"{config_file} does not exist: name the config with --config-file")
    if not config_file:
        raise UserError("name the folder of a run, or weights and a config")
    cfg = load_cfg(
        config_file,
        [*(["MODEL.WEIGHTS", weights] if weights else []), *opts],
        trust=True if trust else (None if of_user else False),
        purpose=purpose,
    )
    if device:
        _set_device(cfg, device)
    _settle_classes(cfg)
    return cfg


def best_checkpoint(folder: str) -> str:
    """
    `model_best.pth` of a run, or `model_final.pth`, or the one that was saved last.

    Raises:
        UserError: there is none.
    """
    for name in ("model_best.pth", "model_final.pth"):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    saved = glob.glob(os.path.join(glob.escape(folder), "model_*.pth"))
    if not saved:
        raise UserError(f"{folder} holds no model_best.pth, model_final.pth or other model_*.pth")
    return max(saved, key=os.path.getmtime)


def _set_device(cfg: CfgNode, device: str) -> None:
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise UserError(f"device {device!r} is not one such as cpu, cuda or cuda:1") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {device!r}: this machine has no CUDA device")
    cfg.MODEL.DEVICE = device


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
        raise UserError(f"the config has {count} classes, but names {len(names)}: {list(names)}")
    cfg.DATASETS.CLASS_NAMES = names


class Preprocessor:
    """From an image to what Detectron2's models take, as in the evaluation of the run."""

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
            `image`, (3, H', W') uint8, and `height` and `width` of what was given, which the
            model's boxes will fit.

        Raises:
            ValueError: the image is too elongated to be resized.
        """
        height, width = image.shape[:2]
        for augmentation in self.resize.augs:
            check_proportions(augmentation, height, width)
        resized = self.resize(T.AugInput(image)).apply_image(image)
        tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}
