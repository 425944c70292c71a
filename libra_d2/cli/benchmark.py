"""Measure what configs cost: parameters, operations, memory, and time stage by stage."""

import argparse
import json
import os
import re
from typing import TYPE_CHECKING, Dict, List, Optional, Sequence, Tuple

from ..errors import UserError
from ..utils.arguments import add_opts, add_trust
from ..utils.files import check_outputs, replacing

if TYPE_CHECKING:
    from detectron2.config import CfgNode

_MIN_SIDE = 32  # of an image, in pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--config-file",
        nargs="+",
        default=[],
        metavar="FILE",
        help="configs to measure; several are measured in alternation and compared with the first",
    )
    add(
        "--model",
        nargs="+",
        default=[],
        metavar="RUN_OR_WEIGHTS",
        help="folders of runs, or checkpoints, whose configs to measure. Their weights are not "
        "used: all models have random weights",
    )
    add(
        "--size",
        default="",
        metavar="HxW",
        help="height and width of the images in pixels, such as 320x448 (default: those to which "
        "each config resizes an image of 480x640)",
    )
    add(
        "--batch-size",
        type=int,
        metavar="N",
        help="images in a training step and in a batch of inference (default: "
        "SOLVER.IMS_PER_BATCH of the config, and 1)",
    )
    add(
        "--objects",
        type=int,
        default=10,
        metavar="N",
        help="objects in each training image (default: %(default)s)",
    )
    add(
        "--repeats",
        type=int,
        default=10,
        metavar="N",
        help="number of measurements of each time (default: %(default)s)",
    )
    add("--device", default="", help="cpu, cuda, cuda:1, ... (default: MODEL.DEVICE of the config)")
    add(
        "--amp",
        action="store_true",
        help="use mixed precision in training and inference: float16 on a GPU, bfloat16 on a CPU",
    )
    add(
        "--fuse",
        action="store_true",
        help="on a CPU, run inference as `libra-d2 infer` does: with batch norms fused into "
        "convolutions, and in channels-last format",
    )
    add("--no-memory", action="store_true", help="do not measure the memory of a training step")
    add("--output", default="", metavar="FILE", help="also write all measurements to a JSON file")
    add_trust(parser)
    add_opts(parser, "values to change in all configs, at the end of the command")


def run(args: argparse.Namespace) -> None:
    if bool(args.config_file) == bool(args.model):
        raise UserError("exactly one of --config-file and --model must be given")
    size = _size(args.size)
    for option, least in (("repeats", 1), ("batch_size", 1), ("objects", 0)):
        value = getattr(args, option)
        if value is not None and value < least:
            name = option.replace("_", "-")
            raise UserError(f"--{name} must be at least {least}, got {value}")
    check_outputs({"--output": args.output}, {"--config-file": args.config_file})
    cfgs = _configs(args)

    from ..experiments.costs import CostOptions, measure
    from .benchmark_output import as_json, table

    options = CostOptions(
        repeats=args.repeats,
        size=size,
        batch_size=args.batch_size or 0,
        num_objects=args.objects,
        amp=args.amp,
        fuse=args.fuse,
        memory=not args.no_memory,
    )
    measured = measure(cfgs, options)
    devices = {name: cfg.MODEL.DEVICE for name, cfg in cfgs.items()}
    print(table(measured, devices, options))
    if args.output:
        with replacing(args.output) as partial, open(partial, "w", encoding="utf-8") as f:
            json.dump(as_json(measured, devices, options), f, indent=1)


def _size(text: str) -> Optional[Tuple[int, int]]:
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not found or min(size := (int(found[1]), int(found[2]))) < _MIN_SIDE:
        raise UserError(
            f"--size must be HxW, the height and width in pixels, at least {_MIN_SIDE} each, such "
            f"as 320x448, got {text}"
        )
    return size


def _configs(args: argparse.Namespace) -> Dict[str, "CfgNode"]:
    from ..config import load_cfg
    from ..inference.trained_detector import set_device, trained_config

    # Neither data nor weights are read, so those of the config need not be there.
    opts = [*args.opts, "DATASETS.TRAIN", "('made_up',)"]
    opts += ["MODEL.DEVICE", args.device] if args.device else []
    cfgs = []
    for file in args.config_file:
        cfg = load_cfg(
            file, [*opts, "MODEL.WEIGHTS", ""], trust=args.trust or None, purpose="train"
        )
        if args.device:
            set_device(cfg, args.device)
        cfgs.append(cfg)
    for model in args.model:
        trained = trained_config(
            model, opts=opts, device=args.device, trust=args.trust, purpose="train"
        )
        cfgs.append(trained)
    return dict(zip(names_of(args.config_file or args.model), cfgs))


def names_of(paths: Sequence[str]) -> List[str]:
    """
    Return a short name for each path, without folder and suffix where that is clear. A path that
    is given twice, to see how much two measurements of the same differ, gets a number.
    """
    short = [os.path.splitext(os.path.basename(os.path.normpath(path)))[0] for path in paths]
    names: List[str] = []
    for path, name in zip(paths, short):
        same = {os.path.normpath(p) for p, other in zip(paths, short) if other == name}
        full = name if len(same) == 1 else path
        count = sum(p == path for p in paths[: len(names)])
        names.append(f"{full} ({count + 1})" if count else full)
    return names
