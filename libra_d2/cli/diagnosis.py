"""The work of `libra-d2 doctor`: list the versions of an installation and check that it works."""

import importlib
import importlib.metadata
import platform
import sys
from typing import List, Tuple

import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from tabulate import tabulate

from ..config import add_libra_config
from ..data.datasets.shapes import shapes_root
from ..version import __version__

PACKAGES = (
    *("torch", "torchvision", "detectron2", "fvcore", "iopath", "omegaconf", "pycocotools"),
    *("cv2", "PIL", "numpy", "matplotlib"),
)
# For each extra of setup.py, a module that it installs.
EXTRAS = {
    "app": "fastapi",
    "export": "onnx",
    "fast-eval": "faster_coco_eval",
    "lmdb": "lmdb",
    "mlflow": "mlflow",
    "report": "plotly",
    "split": "imagehash",
    "test": "pytest",
    "timm": "timm",
}


def diagnose() -> int:
    """
    Print the versions of all packages, and the result of a small training step on each device.

    Returns:
        1 if a package is missing or a training step fails, else 0.
    """
    problems: List[str] = []
    rows: List[Tuple[str, str]] = [
        ("libra_d2", __version__),
        ("Python", f"{platform.python_version()} ({sys.executable})"),
        ("platform", platform.platform()),
    ]
    for name in PACKAGES:
        rows.append((name, _version(name, problems)))
    rows.append(("CUDA", _cuda()))
    rows.append(("compiled operators of Detectron2", _compiled_operators()))
    for extra, module in EXTRAS.items():
        found = importlib.util.find_spec(module) is not None
        rows.append((f"extra [{extra}]", "installed" if found else "not installed"))
    rows.append(
        (
            "built-in data",
            f"{shapes_root()}{'' if shapes_root().exists() else ' (written at the first use)'}",
        )
    )
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    for device in devices:
        rows.append((f"training step on {device}", _try_step(device, problems)))
    print(tabulate(rows))
    print("\n".join(f"problem: {p}" for p in problems) or "No problems found.")
    return 1 if problems else 0


def _version(name: str, problems: List[str]) -> str:
    try:
        module = importlib.import_module(name)
        return str(getattr(module, "__version__", None) or importlib.metadata.version(name))
    except Exception as e:
        problems.append(f"{name} cannot be imported: {e}")
        return "missing"


def _cuda() -> str:
    if not torch.cuda.is_available():
        return f"no device (torch is built for CUDA {torch.version.cuda})"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{torch.version.cuda}: {', '.join(names)}"


def _compiled_operators() -> str:
    try:
        importlib.import_module("detectron2._C")
    except ImportError:
        return "no (only needed for deformable and rotated operators)"
    return "yes"


def _try_step(device: str, problems: List[str]) -> str:
    try:
        losses = tiny_training_step(device)
    except Exception as e:
        problems.append(f"a training step on {device} fails: {e!r}")
        return "fails"
    return f"works (loss {losses:.3f})"


def tiny_training_step(device: str) -> float:
    """Return the loss of a training step of a narrow Libra R-CNN on one gray image."""
    cfg = get_cfg()
    add_libra_config(cfg)
    cfg.MODEL.DEVICE = device
    cfg.MODEL.BACKBONE.NAME = "build_libra_torchvision_fpn_backbone"
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "LibraRPN"
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.ROI_HEADS.NAME = "LibraROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 16
    cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE = "balanced_l1"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(cfg).train()
        target = Instances((64, 64))
        target.gt_boxes = Boxes(torch.tensor([[10.0, 10.0, 40.0, 50.0]]))
        target.gt_classes = torch.tensor([3])
        with EventStorage():
            losses = model([{"image": torch.full((3, 64, 64), 100.0), "instances": target}])
        loss = sum(losses.values())
        loss.backward()
    return loss.item()
