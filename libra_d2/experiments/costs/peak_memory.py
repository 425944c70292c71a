"""
The memory of a training step, measured in a process of its own.

`python -m libra_d2.experiments.costs.peak_memory CONFIG RESULT HEIGHT WIDTH IMAGES OBJECTS` trains
two steps of a saved config and writes the bytes at the peak.
"""

import json
import sys
from pathlib import Path
from typing import Optional

import torch
from torch.nn import functional as F

from ...config import load_cfg
from ...inference.torch_runner import inference_precision
from ...utils.memory import resident_memory
from .made_up_images import made_up_batch
from .random_models import random_model
from .training_steps import TrainingStep


def _main(config: str, result: str, *numbers: str) -> None:
    height, width, num_images, num_objects = map(int, numbers)
    cfg = load_cfg(config, trust=True)
    batch = made_up_batch(cfg, num_images, (height, width), num_objects)
    device = torch.device(cfg.MODEL.DEVICE)
    _load_libraries(device)
    before = resident_memory()
    model = random_model(cfg, batch[0], inference_precision(device, False))
    step = TrainingStep(cfg, model, batch)
    for _ in range(2):  # the first one allocates the state of the optimizer
        step()
    peak: Optional[int]
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        after = resident_memory(peak=True)
        peak = None if before is None or after is None else after - before
    Path(result).write_text(json.dumps({"peak": peak}), encoding="utf-8")


def _load_libraries(device: torch.device) -> None:
    """Compute a small convolution, so that the libraries behind it are not measured."""
    x = torch.ones(1, 8, 16, 16, device=device, requires_grad=True)
    F.conv2d(x, torch.ones(8, 8, 3, 3, device=device)).sum().backward()


if __name__ == "__main__":
    _main(*sys.argv[1:])
