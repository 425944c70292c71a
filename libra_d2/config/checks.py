"""
Check the values of a config before anything is built from it.

There is a function for each part of the config. Each returns messages, so that all mistakes can be
reported together.
"""

import os
from typing import Callable, Collection, Dict, List, Tuple

import torch
from detectron2.config import CfgNode

from ..utils.local_paths import is_url
from ..utils.messages import printable
from . import choices
from .augmentations import check_augmentations
from .checks_of_models import check_model
from .schedule import STEPS, check_amount, check_steps, is_off, is_resolved
from .values import choice, number, numbers

Check = Callable[[CfgNode], List[str]]


def check_values(
    cfg: CfgNode,
    purpose: str,
    *,
    world_size: int = 1,
    on_command_line: Collection[str] = (),
    resume: bool = False,
) -> List[str]:
    """
    Return messages about all values that cannot be used for a purpose.

    Args:
        purpose: "train", "evaluate", "infer", "analyze" or "data" (to check data sets). Only the
            settings that matter for it are checked, so that an old run with a bad schedule can
            still be evaluated.
        world_size: number of processes that share a batch.
        on_command_line: keys given on the command line, see :func:`check_schedule`.
        resume: whether training is resumed, for which `MODEL.WEIGHTS` need not exist.
    """
    messages = [m for check in _CHECKS[purpose] for m in check(cfg)]
    if purpose == "train":
        messages += _batch(cfg, world_size)
        messages += check_schedule(cfg, on_command_line)
    if purpose in ("train", "evaluate", "infer"):
        messages += _weights(cfg, must_exist=not resume)
    return messages


def _run(cfg: CfgNode) -> List[str]:
    messages = number("SEED", cfg.SEED, low=0, whole=True, off=-1)
    messages += number("VIS_PERIOD", cfg.VIS_PERIOD, low=0, whole=True)
    if not cfg.OUTPUT_DIR:
        messages.append("OUTPUT_DIR must be a folder to write to, got ''")
    messages += number("BALANCE.PERIOD", cfg.BALANCE.PERIOD, low=0, whole=True)
    return messages


def check_device(cfg: CfgNode) -> List[str]:
    name = cfg.MODEL.DEVICE
    try:
        device = torch.device(name)
    except RuntimeError:
        return [f"MODEL.DEVICE must be a device such as 'cpu', 'cuda' or 'cuda:1', got {name!r}"]
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.index is not None and 0 < count <= device.index:
        return [
            f"MODEL.DEVICE must be one of the {count} CUDA devices of this machine, counted from "
            f"0, got {name!r}"
        ]
    return []


def _weights(cfg: CfgNode, must_exist: bool) -> List[str]:
    path = cfg.MODEL.WEIGHTS
    if is_url(path):
        return check_weights_url(path)
    if not must_exist or not path or os.path.isfile(path):
        return []
    if "#" in path and os.path.isfile(path.rpartition("#")[0]):  # a part of a file
        return []
    what = "is a folder. Give a file of weights" if os.path.isdir(path) else "does not exist"
    return [f"MODEL.WEIGHTS: {path} {what}"]


def check_weights_url(url: str) -> List[str]:
    """Check that a URL given as `MODEL.WEIGHTS` has one of `WEIGHTS_SCHEMES`."""
    scheme = url.strip().partition("://")[0].lower()
    if scheme in choices.WEIGHTS_SCHEMES:
        return []
    if scheme == "file":
        return [f"MODEL.WEIGHTS must be a path without file://, got {printable(url)}"]
    known = ", ".join(f"{s}://" for s in choices.WEIGHTS_SCHEMES)
    return [
        f"MODEL.WEIGHTS must be a path on this machine, or begin with one of {known}, got "
        f"{printable(url)}. Download the file yourself and give its path"
    ]


def _solver(cfg: CfgNode) -> List[str]:
    solver = cfg.SOLVER
    name = solver.LR_SCHEDULER_NAME
    messages = [
        *choice("SOLVER.OPTIMIZER", solver.OPTIMIZER, choices.OPTIMIZERS),
        *choice("SOLVER.LR_SCHEDULER_NAME", name, choices.SCHEDULERS),
        *choice("SOLVER.WARMUP_METHOD", solver.WARMUP_METHOD, choices.WARMUP_METHODS),
        *number("SOLVER.EPOCHS", solver.EPOCHS, low=0),
        *number("SOLVER.BASE_LR", solver.BASE_LR, above=0),
        *number("SOLVER.GAMMA", solver.GAMMA, above=0),
        *number("SOLVER.MOMENTUM", solver.MOMENTUM, low=0, below=1),
        *number("SOLVER.WEIGHT_DECAY", solver.WEIGHT_DECAY, low=0),
        *number("SOLVER.WEIGHT_DECAY_NORM", solver.WEIGHT_DECAY_NORM, low=0),
        *number("SOLVER.BIAS_LR_FACTOR", solver.BIAS_LR_FACTOR, above=0),
        *check_amount("SOLVER.WARMUP_ITERS", solver.WARMUP_ITERS, low=0),
        *number("SOLVER.WARMUP_FACTOR", solver.WARMUP_FACTOR, low=0, high=1),
        *check_amount("SOLVER.CHECKPOINT_PERIOD", solver.CHECKPOINT_PERIOD, low=1),
        *number("SOLVER.CHECKPOINTS_TO_KEEP", solver.CHECKPOINTS_TO_KEEP, low=0, whole=True),
        *number("SOLVER.REFERENCE_WORLD_SIZE", solver.REFERENCE_WORLD_SIZE, low=0, whole=True),
    ]
    if solver.EPOCHS == 0:  # otherwise, MAX_ITER is not known yet
        messages += number("SOLVER.MAX_ITER", solver.MAX_ITER, low=1, whole=True)
    if solver.WEIGHT_DECAY_BIAS is not None:
        messages += number("SOLVER.WEIGHT_DECAY_BIAS", solver.WEIGHT_DECAY_BIAS, low=0)
    if name == "WarmupCosineLR" and not 0 <= solver.BASE_LR_END <= solver.BASE_LR:
        messages.append(
            f"SOLVER.BASE_LR_END must be from 0 to SOLVER.BASE_LR {solver.BASE_LR:g}, got "
            f"{solver.BASE_LR_END:g}"
        )
    if name == "WarmupMultiStepLR":
        messages += check_steps(solver.STEPS)
    if name == "WarmupStepWithFixedGammaLR":
        messages += number("SOLVER.NUM_DECAYS", solver.NUM_DECAYS, low=1, whole=True)
    return messages + _clipping(cfg) + _average_and_non_finite(cfg) + _amp(cfg)


def check_schedule(cfg: CfgNode, on_command_line: Collection[str]) -> List[str]:
    """
    Check that steps and warm-up end before the run does, if the schedule is in iterations.

    Args:
        on_command_line: keys given on the command line. A value beyond `MAX_ITER` is a mistake only
            if it is one of them, because it is common to shorten a config's schedule by `MAX_ITER`
            alone.
    """
    solver = cfg.SOLVER
    if not is_resolved(cfg) or solver.MAX_ITER < 1:
        return []
    messages = []
    below = f"must be below SOLVER.MAX_ITER {solver.MAX_ITER}"
    of_steps = solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR" and not check_steps(solver.STEPS)
    if STEPS in on_command_line and of_steps and max(solver.STEPS, default=0) >= solver.MAX_ITER:
        messages.append(f"{STEPS} {below}, got {tuple(solver.STEPS)}")
    key, warmup = "SOLVER.WARMUP_ITERS", solver.WARMUP_ITERS
    of_warmup = key in on_command_line and not check_amount(key, warmup, low=0)
    if of_warmup and warmup >= solver.MAX_ITER:
        messages.append(f"{key} {below}, got {warmup}")
    return messages


def _clipping(cfg: CfgNode) -> List[str]:
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if not clip.ENABLED:
        return []
    node = "SOLVER.CLIP_GRADIENTS"
    messages = choice(f"{node}.CLIP_TYPE", clip.CLIP_TYPE, choices.CLIP_TYPES)
    messages += number(f"{node}.CLIP_VALUE", clip.CLIP_VALUE, above=0)
    if float("inf") != clip.NORM_TYPE:
        messages += number(f"{node}.NORM_TYPE", clip.NORM_TYPE, above=0)
    return messages


def _average_and_non_finite(cfg: CfgNode) -> List[str]:
    solver = cfg.SOLVER
    return [
        *number("SOLVER.NON_FINITE_SKIPS", solver.NON_FINITE_SKIPS, low=0, whole=True),
        *number("SOLVER.EMA_DECAY", solver.EMA_DECAY, low=0, below=1),
    ]


def _amp(cfg: CfgNode) -> List[str]:
    amp = cfg.SOLVER.AMP
    if not amp.ENABLED:
        return []
    unknown = choice("SOLVER.AMP.DTYPE", amp.DTYPE, choices.AMP_DTYPES)
    if unknown:
        return unknown
    on_cuda = cfg.MODEL.DEVICE.startswith("cuda") and torch.cuda.is_available()
    if amp.DTYPE == "float16" and not on_cuda:
        return [
            "SOLVER.AMP.ENABLED with SOLVER.AMP.DTYPE float16 needs a CUDA device. On a CPU, set "
            "DTYPE to bfloat16"
        ]
    if amp.DTYPE == "bfloat16" and on_cuda and not torch.cuda.is_bf16_supported():
        return ["SOLVER.AMP.DTYPE must be float16, because this GPU does not support bfloat16"]
    return []


def _batch(cfg: CfgNode, world_size: int) -> List[str]:
    """Check that the images of a step can be divided evenly among processes and parts."""
    solver = cfg.SOLVER
    images, parts = solver.IMS_PER_BATCH, solver.ACCUMULATION_STEPS
    messages = [
        *number("SOLVER.IMS_PER_BATCH", images, low=1, whole=True),
        *number("SOLVER.ACCUMULATION_STEPS", parts, low=1, whole=True),
    ]
    if messages:
        return messages
    # Scaling to another number of processes keeps the number of images per process.
    processes = max(solver.REFERENCE_WORLD_SIZE or world_size, 1)
    if images % processes:
        return [
            f"SOLVER.IMS_PER_BATCH must be a multiple of the number of processes, {processes}, got "
            f"{images}"
        ]
    if images // processes % parts:
        return [
            f"SOLVER.ACCUMULATION_STEPS must divide the {images // processes} images per process "
            f"(of SOLVER.IMS_PER_BATCH {images}), got {parts}"
        ]
    return []


def _names_of_data(cfg: CfgNode) -> List[str]:
    data = cfg.DATASETS
    messages = []
    for split in ("TRAIN", "TEST"):
        for key in (split, f"PROPOSAL_FILES_{split}"):
            messages += _texts(f"DATASETS.{key}", data[key])
    return messages + _texts("DATASETS.CLASS_NAMES", data.CLASS_NAMES)


def _texts(key: str, values: Tuple[str, ...]) -> List[str]:
    if all(isinstance(value, str) for value in values):
        return []
    return [f"{key} must be a tuple of strings, got {tuple(values)}"]


def _train_data(cfg: CfgNode) -> List[str]:
    data, loader = cfg.DATASETS, cfg.DATALOADER
    messages = [
        *number("DATASETS.TRAIN_NUM", data.TRAIN_NUM, low=0, whole=True),
        *number("DATASETS.TRAIN_DIVIDER", data.TRAIN_DIVIDER, low=1, whole=True),
        *choice("DATALOADER.SAMPLER_TRAIN", loader.SAMPLER_TRAIN, choices.TRAIN_SAMPLERS),
        *number("DATALOADER.REPEAT_THRESHOLD", loader.REPEAT_THRESHOLD, low=0, high=1),
        *number("DATALOADER.RANDOM_SUBSET_RATIO", loader.RANDOM_SUBSET_RATIO, above=0, high=1),
    ]
    if not data.TRAIN:
        messages.append(
            "DATASETS.TRAIN must name the training data, such as coco:train.json,images, got ()"
        )
    return messages


def _loader(cfg: CfgNode) -> List[str]:
    loader = cfg.DATALOADER
    return [
        *number("DATALOADER.NUM_WORKERS", loader.NUM_WORKERS, low=0, whole=True),
        *choice("DATALOADER.ON_BAD_IMAGE", loader.ON_BAD_IMAGE, choices.ON_BAD_IMAGE),
    ]


def _train_input(cfg: CfgNode) -> List[str]:
    node = cfg.INPUT
    messages = check_augmentations(cfg)
    messages += choice("INPUT.RANDOM_FLIP", node.RANDOM_FLIP, choices.FLIPS)
    messages += choice("INPUT.MASK_FORMAT", node.MASK_FORMAT, choices.MASK_FORMATS)
    if node.CROP.ENABLED:
        messages += choice("INPUT.CROP.TYPE", node.CROP.TYPE, choices.CROP_TYPES)
        high = {} if node.CROP.TYPE.startswith("absolute") else {"high": 1}
        messages += numbers("INPUT.CROP.SIZE", node.CROP.SIZE, low=0, **high)
        if len(node.CROP.SIZE) != 2:
            messages.append(f"INPUT.CROP.SIZE must be (height, width), got {node.CROP.SIZE}")
    if any(node.FIXED_SIZE):
        return messages
    sampling = node.MIN_SIZE_TRAIN_SAMPLING
    messages += choice("INPUT.MIN_SIZE_TRAIN_SAMPLING", sampling, choices.MIN_SIZE_SAMPLING)
    if sampling == "range" and len(node.MIN_SIZE_TRAIN) != 2:
        messages.append(
            "INPUT.MIN_SIZE_TRAIN must be (smallest, largest) for MIN_SIZE_TRAIN_SAMPLING "
            f"'range', got {tuple(node.MIN_SIZE_TRAIN)}"
        )
    if not node.MIN_SIZE_TRAIN:
        messages.append(
            'INPUT.MIN_SIZE_TRAIN must have at least one size, such as "(800,)", got ()'
        )
    return messages + _sizes("TRAIN", node.MIN_SIZE_TRAIN, node.MAX_SIZE_TRAIN)


def _sizes(split: str, smallest: Tuple[int, ...], largest: int) -> List[str]:
    """Check the sizes of the shorter side, where 0 keeps an image's size, and of the longer one."""
    key = f"INPUT.MIN_SIZE_{split}"
    messages = numbers(key, smallest, low=0, whole=True)
    messages += number(f"INPUT.MAX_SIZE_{split}", largest, low=1, whole=True)
    if not messages and smallest and max(smallest) > largest:
        messages.append(
            f"INPUT.MAX_SIZE_{split} (longer side) must be at least {key} {max(smallest)} (shorter "
            f"side), got {largest}"
        )
    return messages


def _test_input(cfg: CfgNode) -> List[str]:
    node, model = cfg.INPUT, cfg.MODEL
    messages = choice("INPUT.FORMAT", node.FORMAT, choices.IMAGE_FORMATS)
    messages += number("INPUT.DIVIDER", node.DIVIDER, low=0, whole=True)
    fixed = tuple(node.FIXED_SIZE)
    if len(fixed) != 2 or (any(fixed) and numbers("", fixed, low=1, whole=True)):
        messages.append(
            "INPUT.FIXED_SIZE must be (height, width) in pixels, both at least 1, or (0, 0) to "
            f"disable it, got {fixed}"
        )
    elif not any(fixed):
        messages += _sizes("TEST", (node.MIN_SIZE_TEST,), node.MAX_SIZE_TEST)
    for key in ("PIXEL_MEAN", "PIXEL_STD"):
        if len(model[key]) != 3:
            messages.append(f"MODEL.{key} must have 3 numbers, got {list(model[key])}")
    messages += numbers("MODEL.PIXEL_MEAN", model.PIXEL_MEAN)
    return messages + numbers("MODEL.PIXEL_STD", model.PIXEL_STD, above=0)


def _detections(cfg: CfgNode) -> List[str]:
    test = cfg.TEST
    nms = test.NMS
    return [
        *number("TEST.DETECTIONS_PER_IMAGE", test.DETECTIONS_PER_IMAGE, low=1, whole=True, off=-1),
        *choice("TEST.NMS.TYPE", nms.TYPE, choices.NMS_TYPES),
        *number("TEST.NMS.SIGMA", nms.SIGMA, above=0),
        *number("TEST.NMS.MIN_SCORE", nms.MIN_SCORE, low=0, below=1),
    ]


def _evaluation(cfg: CfgNode) -> List[str]:
    test = cfg.TEST
    messages = choice("TEST.EVAL_BACKEND", test.EVAL_BACKEND, choices.EVAL_BACKENDS)
    if test.AUG.ENABLED:
        messages += numbers("TEST.AUG.MIN_SIZES", test.AUG.MIN_SIZES, low=1, whole=True)
        messages += number("TEST.AUG.MAX_SIZE", test.AUG.MAX_SIZE, low=1, whole=True)
    return messages


def _evaluation_while_training(cfg: CfgNode) -> List[str]:
    test = cfg.TEST
    key, patience = "TEST.EARLY_STOPPING_PATIENCE", test.EARLY_STOPPING_PATIENCE
    messages = [
        *check_amount("TEST.EVAL_PERIOD", test.EVAL_PERIOD, low=0),
        *number("TEST.BEST_TO_KEEP", test.BEST_TO_KEEP, low=1, whole=True),
        *number(key, patience, low=0, whole=True),
    ]
    if patience > 0 and (not test.BEST_METRIC or is_off(test.EVAL_PERIOD)):
        messages.append(
            f"{key} needs TEST.BEST_METRIC, got {test.BEST_METRIC!r}, and a TEST.EVAL_PERIOD of at "
            f"least 1, got {test.EVAL_PERIOD}"
        )
    if test.PRECISE_BN.ENABLED:
        messages += number("TEST.PRECISE_BN.NUM_ITER", test.PRECISE_BN.NUM_ITER, low=1, whole=True)
    return messages


_OF_DETECTOR = (check_device, check_model, _test_input, _detections)
_OF_TRAINING = (_run, _solver, _train_data, _train_input, _evaluation_while_training)
_CHECKS: Dict[str, Tuple[Check, ...]] = {
    "train": (*_OF_TRAINING, *_OF_DETECTOR, _names_of_data, _loader, _evaluation),
    "evaluate": (*_OF_DETECTOR, _names_of_data, _loader, _evaluation),
    "infer": _OF_DETECTOR,
    "analyze": (_names_of_data, _detections, _evaluation),
    "data": (_names_of_data, _loader, _train_input, _test_input),
}
