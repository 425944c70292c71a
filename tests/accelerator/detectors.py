"""Narrow detectors on the simulated accelerator: those of this package, and Detectron2's own."""

import copy
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode
from detectron2.engine import HookBase, SimpleTrainer, hooks
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler as build_detectron2_lr_scheduler
from detectron2.solver import build_optimizer as build_detectron2_optimizer
from detectron2.utils.events import EventStorage
from torch import nn

from libra_d2.engine import load_cfg
from libra_d2.engine.ema import EMA
from libra_d2.engine.reproducibility import SeededSteps
from libra_d2.engine.solver import build_lr_scheduler, build_optimizer
from libra_d2.engine.train_loop import build_train_loop
from libra_d2.engine.trainer_hooks import build_step_hooks
from libra_d2.modeling.default_trainer import allow_training

from ..support.models import NARROW, batch
from ..support.simulated_accelerator import NAME, Wait, recorded_waits

# A config of this package, and its counterpart in Detectron2's model zoo.
FAMILY = {
    "Faster R-CNN": ("libra_r50", "COCO-Detection/faster_rcnn_R_50_FPN_1x"),
    "Fast R-CNN": ("libra_fast_r50", "COCO-Detection/fast_rcnn_R_50_FPN_1x"),
    "Cascade R-CNN": ("libra_cascade_r50", "Misc/cascade_mask_rcnn_R_50_FPN_1x"),
    "Mask R-CNN": ("libra_mask_r50", "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x"),
    "RetinaNet": ("libra_retinanet_r50", "COCO-Detection/retinanet_R_50_FPN_1x"),
}
# Few layers and few boxes, but more proposals than are sampled, and scores that random weights
# reach.
SMALL = [
    *NARROW,
    *"MODEL.RESNETS.DEPTH 18 MODEL.ROI_HEADS.NUM_CLASSES 3 MODEL.RETINANET.NUM_CLASSES 3".split(),
    *"MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0 MODEL.RETINANET.SCORE_THRESH_TEST 0.0".split(),
    *"MODEL.RPN.POST_NMS_TOPK_TRAIN 200 MODEL.RPN.POST_NMS_TOPK_TEST 40".split(),
    *"MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 32 MODEL.RPN.BATCH_SIZE_PER_IMAGE 64".split(),
    *"MODEL.RETINANET.TOPK_CANDIDATES_TEST 40 TEST.AUG.MIN_SIZES (64,)".split(),
    *"SOLVER.BASE_LR 1e-4 INPUT.MIN_SIZE_TEST 96 DATALOADER.NUM_WORKERS 0".split(),
    *("MODEL.WEIGHTS", ""),
]


def our_config(member: str, *options: str, device: str = NAME) -> CfgNode:
    of_device = ["MODEL.DEVICE", device]
    return load_cfg(f"configs/{FAMILY[member][0]}.yaml", [*SMALL, *of_device, *options])


def their_config(member: str, *options: str) -> CfgNode:
    cfg = model_zoo.get_config(f"{FAMILY[member][1]}.yaml")
    cfg.MODEL.MASK_ON = member == "Mask R-CNN"
    cfg.merge_from_list([*SMALL, "MODEL.DEVICE", NAME, *options])
    return cfg


def build(cfg: CfgNode) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(cfg)
    with torch.no_grad():
        for name, module in model.named_modules():
            if name.endswith("conv2.norm"):  # else every block of a ResNet adds, without a limit
                module.weight.fill_(0.1)
    return model


@torch.no_grad()
def infer(model: nn.Module, images: Sequence[Dict[str, Any]]) -> List[Any]:
    return model.eval()(copy.deepcopy(list(images)))


class Batches:
    """Two images, one with three objects and one without, again and again."""

    def __init__(self, images_per_batch: int = 2):
        self.size = images_per_batch

    def __iter__(self) -> Iterator[List[Dict[str, Any]]]:
        while True:
            images = batch()
            for i in range(0, len(images), self.size):
                yield images[i : i + self.size]


def our_loop(cfg: CfgNode) -> Tuple[SimpleTrainer, List[HookBase]]:
    """Build the training loop of LibraTrainer, and the hooks that act in each step."""
    model = build(cfg)
    allow_training(model)
    optimizer = build_optimizer(cfg, model)
    loop = build_train_loop(cfg, model, Batches(), optimizer, after_backward=lambda: None)
    loop.scheduler = build_lr_scheduler(cfg, optimizer)
    decay = cfg.SOLVER.EMA_DECAY
    ema = EMA(model, optimizer, decay=decay) if decay else None
    return loop, build_step_hooks(cfg, model, SeededSteps(1), ema)


def their_loop(cfg: CfgNode, images_per_batch: int = 2) -> Tuple[SimpleTrainer, List[HookBase]]:
    model = build(cfg)
    optimizer = build_detectron2_optimizer(cfg, model)
    loop = SimpleTrainer(model, Batches(images_per_batch), optimizer)
    loop.scheduler = build_detectron2_lr_scheduler(cfg, optimizer)
    return loop, [SeededSteps(1), hooks.IterationTimer(), hooks.LRScheduler()]


def run_steps(
    loop: SimpleTrainer, of_loop: List[HookBase], count: int
) -> Tuple[List[List[Wait]], EventStorage]:
    """Return the waits of each step, and the scalars that were written."""
    loop.register_hooks(of_loop)
    loop.start_iter, loop.max_iter = 0, count
    waits = []
    with EventStorage(0) as loop.storage:
        loop.before_train()
        for loop.iter in range(count):
            loop.storage.iter = loop.iter
            with recorded_waits() as of_step:
                loop.before_step()
                loop.run_step()
                loop.after_step()
            waits.append(of_step)
        loop.after_train()
    return waits, loop.storage
