"""The time of an inference, divided among the stages of a detector."""

import time
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import nn

from ...modeling.bfp import BFP
from .random_models import box_predictors

PRE_PROCESSING, POST_PROCESSING = "pre-processing", "post-processing"

# In the order of the work. A detector has some of them.
STAGES = (
    *(PRE_PROCESSING, "backbone", "FPN", "BFP", "semantic head", "RPN", "proposals"),
    *("box head", "mask head", "keypoint head", "head", POST_PROCESSING),
)


class StageClock:
    """
    Divides the time of a forward pass among the stages of a detector.

    Hooks at the modules where one stage ends and the next begins wait for the device and read the
    clock, so that each moment belongs to exactly one stage. On a GPU, waiting makes the sum of the
    stages larger than the time of an undisturbed inference.

    Stages of a two-stage detector: pre-processing, backbone, FPN, BFP, semantic head, RPN,
    proposals (decoding of the boxes and NMS), box head, mask head, keypoint head, post-processing
    (decoding of the boxes, NMS, pasting of masks). Of RetinaNet: pre-processing, backbone, FPN,
    BFP, head, post-processing. Those that a detector does not have are left out.
    """

    def __init__(self, model: nn.Module):
        self._switches = _switches(model)
        self._device = next(model.parameters()).device
        names = [name for _, *pair in self._switches for name in pair if name]
        self.stages = tuple(s for s in STAGES if s in (PRE_PROCESSING, *names))

    def __call__(self, infer: Callable[[], Any]) -> Dict[str, float]:
        """Run an inference of the model, and return the seconds of each stage."""
        handles = []
        for module, before, after in self._switches:
            if before:
                handles.append(module.register_forward_pre_hook(self._hook(before)))
            if after:
                handles.append(module.register_forward_hook(self._hook(after)))
        self._seconds = dict.fromkeys(self.stages, 0.0)
        try:
            synchronize(self._device)
            self._stage, self._start = PRE_PROCESSING, time.perf_counter()
            infer()
            self._enter("")
        finally:
            for handle in handles:
                handle.remove()
        return self._seconds

    def _hook(self, stage: str) -> Callable[..., None]:
        return lambda *_: self._enter(stage)

    def _enter(self, stage: str) -> None:
        synchronize(self._device)
        now = time.perf_counter()
        self._seconds[self._stage] += now - self._start
        self._stage, self._start = stage, now


def _switches(model: Any) -> List[Tuple[nn.Module, Optional[str], Optional[str]]]:
    """Return modules, each with the stages that begin when its forward pass starts and ends."""
    backbone = model.backbone
    fpn = backbone.fpn if isinstance(backbone, BFP) else backbone
    ret: List[Tuple[Any, Optional[str], Optional[str]]]
    if hasattr(fpn, "bottom_up"):
        ret = [(fpn, "FPN", None), (fpn.bottom_up, "backbone", "FPN")]
    else:
        ret = [(fpn, "backbone", None)]
    if isinstance(backbone, BFP):
        ret.append((backbone.bfp, "BFP", None))
    ret.append((getattr(model, "sem_seg_head", None), "semantic head", None))
    rpn = getattr(model, "proposal_generator", None)
    ret += [(rpn, "RPN", None), (getattr(rpn, "rpn_head", None), None, "proposals")]
    heads = getattr(model, "roi_heads", None)
    ret.append((heads, "box head", POST_PROCESSING))
    ret += [(predictor, None, POST_PROCESSING) for predictor in box_predictors(model)[-1:]]
    for name in ("mask", "keypoint"):
        for part in ("pooler", "head"):
            ret.append((getattr(heads, f"{name}_{part}", None), f"{name} head", None))
    ret.append((getattr(model, "head", None), "head", POST_PROCESSING))
    return [switch for switch in ret if switch[0] is not None]


def synchronize(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
