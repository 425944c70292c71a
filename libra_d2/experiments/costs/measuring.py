"""Measure what configs cost, in alternation, so that drift of the machine affects all of them."""

import copy
import statistics
import tempfile
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Tuple, TypeVar

import torch
from detectron2.config import CfgNode
from torch import nn

from ...errors import UserError
from ...inference.fused_model import fuse_for_cpu
from ...inference.torch_runner import inference_precision
from ...inference.trained_detector import NO_DETECTORS
from ...planning.measuring import measured_by
from ...utils.messages import one_line
from ...utils.progress import announced, progress
from ..results import Cost
from .flops import count_flops
from .made_up_images import Shape, image_shape, made_up_batch
from .random_models import Found, found_in, random_model
from .stages import StageClock, synchronize
from .training_steps import TrainingStep

WARM_UP = 2  # calls before the measured ones

T = TypeVar("T")


@dataclass(frozen=True)
class CostOptions:
    """How to measure. Zeros and None stand for the values of each config."""

    repeats: int = 10  # rounds of the alternation, at least 1
    size: Optional[Shape] = None  # of the images, instead of INPUT.MIN_SIZE_TRAIN and MIN_SIZE_TEST
    batch_size: int = 0  # of steps, instead of SOLVER.IMS_PER_BATCH, and of inference, instead of 1
    num_objects: int = 10  # in each training image
    amp: bool = False  # mixed precision in training and inference
    fuse: bool = False  # fused batch norms and channels-last format in inference, on a CPU
    memory: bool = True  # also measure the peak memory of a training step


@dataclass(frozen=True)
class Measured:
    """What a config costs. Lists have a value for each round, so that rounds can be compared."""

    parameters: int
    flops: Optional[int]  # of one image of the test size, see `count_flops`
    flops_error: str  # why they could not be counted, or ""
    train_shape: Shape
    test_shape: Shape
    step_images: int
    inference_images: int  # in a batch
    found: Found  # in an image
    step_seconds: List[float]
    inference_seconds: List[float]  # per image
    stage_seconds: Dict[str, List[float]]  # per image, in another forward pass than the above
    peak_memory: Optional[int]  # bytes of a training step
    memory_error: str  # why it could not be measured, or "" also if that was not wanted


def measure_costs(cfgs: Dict[str, CfgNode], repeats: int = 10) -> Dict[str, Cost]:
    """
    Measure what variants of a config cost, with their own sizes and batches.

    Args:
        cfgs: by the name of the variant.
        repeats: number of training steps and of inferences of each variant, at least 1.

    Raises:
        UserError: a model cannot be built.
    """
    measured = measure(cfgs, CostOptions(repeats=repeats))
    return {
        name: Cost(
            parameters=m.parameters,
            gflops=None if m.flops is None else m.flops / 1e9,
            step_seconds=statistics.median(m.step_seconds),
            inference_seconds=statistics.median(m.inference_seconds),
            peak_memory_mb=None if m.peak_memory is None else m.peak_memory / 1e6,
        )
        for name, m in measured.items()
    }


def measure(cfgs: Dict[str, CfgNode], options: CostOptions) -> Dict[str, Measured]:
    """
    Measure what configs cost, on made-up images and with random weights (see
    :func:`~.random_models.random_model`). Weights are neither read nor downloaded, and the random
    state of the caller is kept.

    The configs are measured in turn in each round: A, B, A, B, ... All models are in memory at the
    same time, except for the peak memory, which a process of its own measures for each config.

    Args:
        cfgs: by name. Their devices are those of `MODEL.DEVICE`.

    Raises:
        UserError: a model cannot be built, or the training step of a config fails.
    """
    devices = {torch.device(cfg.MODEL.DEVICE) for cfg in cfgs.values()}
    gpus = [device for device in devices if device.type == "cuda"]
    with torch.random.fork_rng(gpus), tempfile.TemporaryDirectory() as folder:
        own = {name: _prepared(cfg, options, folder) for name, cfg in cfgs.items()}
        # First, because memory may not suffice, which the processes survive.
        memory = {name: _peak_memory(name, cfg, options) for name, cfg in own.items()}
        detectors = {name: _Detector(cfg, options) for name, cfg in own.items()}
        infer = {name: detector.seconds_of_inference for name, detector in detectors.items()}
        inferences = _rounds(infer, options.repeats, "Inference")
        by_stage = {name: detector.seconds_by_stage for name, detector in detectors.items()}
        stages = _rounds(by_stage, options.repeats, "Stages of the inference")
        for detector in detectors.values():
            detector.start_training()
        train = {name: detector.seconds_of_step for name, detector in detectors.items()}
        steps = _rounds(train, options.repeats, "Training steps")
    return {
        name: Measured(
            parameters=d.parameters,
            flops=d.flops,
            flops_error=d.flops_error,
            train_shape=d.train_shape,
            test_shape=d.test_shape,
            step_images=d.cfg.SOLVER.IMS_PER_BATCH,
            inference_images=len(d.images),
            found=d.found,
            step_seconds=steps[name],
            inference_seconds=inferences[name],
            stage_seconds={s: [times[s] for times in stages[name]] for s in stages[name][0]},
            peak_memory=memory[name][0],
            memory_error=memory[name][1],
        )
        for name, d in detectors.items()
    }


def _prepared(cfg: CfgNode, options: CostOptions, folder: str) -> CfgNode:
    kind = cfg.MODEL.META_ARCHITECTURE
    if kind in NO_DETECTORS:
        raise UserError(f"MODEL.META_ARCHITECTURE must be a detector, got {kind}")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = "", folder
    solver = cfg.SOLVER
    solver.IMS_PER_BATCH = options.batch_size or solver.IMS_PER_BATCH
    solver.ACCUMULATION_STEPS = min(solver.ACCUMULATION_STEPS, solver.IMS_PER_BATCH)
    if options.amp:
        solver.AMP.ENABLED = True
        solver.AMP.DTYPE = "float16" if cfg.MODEL.DEVICE.startswith("cuda") else "bfloat16"
    return cfg


def _peak_memory(name: str, cfg: CfgNode, options: CostOptions) -> Tuple[Optional[int], str]:
    """Return the bytes at the peak of a training step, and why they are not known or ""."""
    if not options.memory:
        return None, ""
    height, width = options.size or image_shape(cfg, is_train=True)
    numbers = (height, width, cfg.SOLVER.IMS_PER_BATCH, options.num_objects)
    with announced(f"Memory of {name}"):
        module = "libra_d2.experiments.costs.peak_memory"
        peak = measured_by(module, cfg, *map(str, numbers))["peak"]
    return peak, "" if peak is not None else "the memory of the CPU is only measured on Linux"


class _Detector:
    """A detector to measure: first its inference, then its training."""

    def __init__(self, cfg: CfgNode, options: CostOptions):
        self.cfg, self._options = cfg, options
        self.test_shape = options.size or image_shape(cfg, is_train=False)
        self.train_shape = options.size or image_shape(cfg, is_train=True)
        self.images = made_up_batch(cfg, options.batch_size or 1, self.test_shape, 0)
        self._device = torch.device(cfg.MODEL.DEVICE)
        first = self.images[0]
        self._model = random_model(cfg, first, self._precision())
        self.parameters = sum(p.numel() for p in self._model.parameters())
        self.found = found_in(self._model, first, self._precision())
        self.flops, self.flops_error = _flops(self._model, first)
        self._inferring = self._model
        if options.fuse and self._device.type == "cpu":
            self._inferring = copy.deepcopy(self._model)
            fuse_for_cpu(self._inferring)
        self._clock = StageClock(self._inferring)

    def seconds_of_inference(self) -> float:
        """Per image."""
        return self._timed(self._infer) / len(self.images)

    def seconds_by_stage(self) -> Dict[str, float]:
        """Per image."""
        seconds = self._clock(self._infer)
        return {stage: value / len(self.images) for stage, value in seconds.items()}

    def start_training(self) -> None:
        images, objects = self.cfg.SOLVER.IMS_PER_BATCH, self._options.num_objects
        batch = made_up_batch(self.cfg, images, self.train_shape, objects)
        self._step = TrainingStep(self.cfg, self._model, batch)

    def seconds_of_step(self) -> float:
        return self._timed(self._step)

    def _precision(self) -> Any:
        return inference_precision(self._device, self._options.amp)

    def _infer(self) -> None:
        with torch.inference_mode(), self._precision():
            self._inferring(self.images)

    def _timed(self, call: Callable[[], Any]) -> float:
        synchronize(self._device)
        start = time.perf_counter()
        call()
        synchronize(self._device)
        return time.perf_counter() - start


def _flops(model: nn.Module, image: Dict[str, Any]) -> Tuple[Optional[int], str]:
    """Return the number, and why it is not known or ""."""
    try:
        return count_flops(model, [image]), ""
    except Exception as e:  # tracing runs the code of any model
        return None, f"the model cannot be traced: {one_line(e)}"


def _rounds(calls: Dict[str, Callable[[], T]], repeats: int, what: str) -> Dict[str, List[T]]:
    """Call all functions in turn in each round, and return what they return, by name."""
    if repeats < 1:
        raise UserError(f"the number of repeats must be at least 1, got {repeats}")
    ret: Dict[str, List[T]] = {name: [] for name in calls}
    for i in progress(range(WARM_UP + repeats), what, unit="round"):
        for name, call in calls.items():
            value = call()
            if i >= WARM_UP:
                ret[name].append(value)
    return ret
