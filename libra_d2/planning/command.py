"""The common part of `libra-d2 plan` and `train_net.py --plan`."""

import os
import re
from functools import partial
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence

from detectron2.config import CfgNode, get_cfg

from ..config import load_cfg, names_num_classes
from ..config.config_files import read_config_file
from ..data import setup_datasets
from ..data.datasets.setup import with_descriptions
from ..errors import UserError
from .measuring import measure
from .picture import save_plan_picture
from .plan import Plan
from .planner import make_plan

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


class PlanOptions(NamedTuple):
    """
    Attributes:
        budget: seconds for the whole run.
        measured: whether to train a few steps to measure their time and memory.
        any_orientation: whether the images have no up and down.
        trust: whether to import the `IMPORTS` of the config, see :func:`~libra_d2.config.load_cfg`.
        processes: number of processes that share a batch.
    """

    budget: Optional[float] = None
    measured: bool = True
    any_orientation: bool = False
    trust: Optional[bool] = None
    processes: int = 1


def write_plan(config_file: str, opts: Sequence[str], output: str, options: PlanOptions) -> Plan:
    """
    Plan for the data sets of a config, and write the plan as a config file.

    A picture of the plan is written next to it, see :func:`picture_of`.

    Args:
        config_file: base config.
        opts: changes to the base config as `KEY VALUE` pairs, which the plan keeps.
        output: YAML file to write.

    Raises:
        UserError: the config has mistakes, there is nothing to plan for, or `output` is not a YAML
            file, or one that the plan is made from.
    """
    _check_output(output, config_file)
    cfg = load_cfg(config_file, opts, trust=options.trust, purpose="data")
    if not cfg.DATASETS.TRAIN:
        raise UserError(
            "DATASETS.TRAIN must name the training set, such as coco:train.json,images, got ()"
        )
    if options.budget is not None and not options.measured:
        raise UserError("--time needs measured steps. Leave out --no-measure")
    setup_datasets(cfg, num_classes_given=names_num_classes(config_file, opts))
    plan = make_plan(
        cfg,
        given=list(opts[0::2]),
        measure=partial(measure, processes=options.processes) if options.measured else None,
        mixed_dtype=faster_dtype(cfg),
        budget=options.budget,
        any_orientation=options.any_orientation,
        base_iterations=_iterations_of(config_file),
    )
    plan = plan._replace(given=_as_described(plan, cfg))
    plan.save(output, config_file)
    save_plan_picture(plan.data, cfg, plan.cfg, picture_of(output))
    return plan


def _iterations_of(config_file: str) -> int:
    """Return `SOLVER.MAX_ITER` of a config file, without the user's changes."""
    settings = {setting.key: setting.value for setting in read_config_file(config_file)}
    return int(settings.get("SOLVER.MAX_ITER", get_cfg().SOLVER.MAX_ITER))


def _as_described(plan: Plan, cfg: CfgNode) -> List:
    """Return the user's settings, with descriptions of data sets instead of registered names."""
    described = with_descriptions(cfg)
    return [
        s._replace(value=described.DATASETS[s.key.rpartition(".")[2]])
        if s.key in ("DATASETS.TRAIN", "DATASETS.TEST")
        else s
        for s in plan.given
    ]


def picture_of(output: str) -> str:
    """Return the path of the picture of a plan: the same name with the suffix `.png`."""
    return str(Path(output).with_suffix(".png"))


def faster_dtype(cfg: CfgNode) -> str:
    """Return the dtype with which mixed precision may be faster on the device, or ""."""
    if cfg.MODEL.DEVICE != "cpu":
        return "float16"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    return "bfloat16" if re.search(r"\b(avx512_bf16|amx_bf16)\b", flags) else ""


def seconds(text: str) -> float:
    """
    Convert a duration to seconds.

    Raises:
        UserError: the text is not a duration.

    >>> seconds("90m"), seconds("1h30m"), seconds("45")
    (5400.0, 5400.0, 45.0)
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(min|[smhd]?)\s*", text)
    whole = "".join(f"{n}{u}" for n, u in parts) == re.sub(r"\s", "", text)
    total = sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)
    if not parts or not whole or total <= 0:
        raise UserError(f"--time must be a duration such as 45m or 1h30m, got {text!r}")
    return total


def _check_output(output: str, config_file: str) -> None:
    if not output.endswith((".yaml", ".yml")):
        raise UserError(f"--output must be a .yaml file, got {output!r}")
    # Read before, so that a missing config is the error.
    files = [config_file, *(setting.file for setting in read_config_file(config_file))]
    if not os.path.exists(output):
        return
    for file in dict.fromkeys(files):
        if os.path.samefile(output, file):
            raise UserError(
                f"the plan {output} would replace {file}, which it is made from. Write the plan to "
                "another file"
            )
