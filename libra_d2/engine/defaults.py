"""From the command line to a checked config."""

import difflib
import logging
import os
from pathlib import Path
from typing import Iterable, Iterator, List, Optional, Sequence, Tuple

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from fvcore.common.config import BASE_KEY

from ..config import add_libra_config
from ..data import setup_datasets
from ..data.checks import check_before_training
from ..errors import UserError
from ..local_paths import is_url, local_path
from ..messages import shown
from ..yaml_files import read_yaml
from .reproducibility import set_determinism
from .run_folder import run_folder
from .run_record import write_run_record

logger = logging.getLogger(__name__)

AMP_DTYPES = ("float16", "bfloat16")


def setup(args) -> CfgNode:
    """
    Config, data sets, device and log of a run.

    Args:
        args: as parsed by Detectron2's `default_argument_parser`.

    Returns:
        A frozen config, which is also written to `OUTPUT_DIR/config.yaml`. `OUTPUT_DIR` is the
        folder that the run goes to.

    Raises:
        UserError: a mistake in the config or in what it points to.
    """
    cfg = _merge(args.config_file, args.opts)
    resume = getattr(args, "resume", False)
    _enter_run_folder(cfg, args, resume)
    configured_device = cfg.MODEL.DEVICE
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="libra_d2")
    if _without_cuda(cfg):
        logger.info("No CUDA device: running on the CPU")
    _check_solver(cfg)
    setup_datasets(
        cfg,
        num_classes_given=names_num_classes(args.config_file, args.opts),
        train=not args.eval_only,
    )
    saved = cfg.clone()
    saved.MODEL.DEVICE = configured_device  # the saved config may go to another machine
    kept = _config_of_training(cfg, args)
    default_setup(saved, args)
    if kept is not None:
        kept[0].write_bytes(kept[1])
    set_determinism(cfg)
    if comm.is_main_process() and not args.eval_only:
        if cfg.DATASETS.CHECK:
            check_before_training(cfg)
        write_run_record(cfg, resume=resume)
    cfg.freeze()
    return cfg


def _config_of_training(cfg: CfgNode, args) -> Optional[Tuple[Path, bytes]]:
    """`config.yaml` of a run, which an evaluation in its folder must not replace."""
    path = Path(cfg.OUTPUT_DIR, "config.yaml")
    if args.eval_only and comm.is_main_process() and path.is_file():
        return path, path.read_bytes()
    return None


def _enter_run_folder(cfg: CfgNode, args, resume: bool) -> None:
    """
    Put the folder of `OUTPUT_BRIEF` into `OUTPUT_DIR`. An evaluation gets one of its own only if
    its command line has a brief, and not because that of training is in the config file.
    """
    local_path(cfg.OUTPUT_DIR, "OUTPUT_DIR")
    asked = not args.eval_only or resume or "OUTPUT_BRIEF" in args.opts[0::2]
    if cfg.OUTPUT_BRIEF and asked:
        cfg.OUTPUT_DIR = run_folder(cfg.OUTPUT_DIR, cfg.OUTPUT_BRIEF, resume)
    # The saved config leads to this folder, not to one in it.
    cfg.OUTPUT_BRIEF = ""


def load_cfg(config_file: str = "", opts: Sequence[str] = ()) -> CfgNode:
    """
    Detectron2's config with libra_d2's keys, a file and `KEY VALUE` pairs merged into it.

    On a machine without CUDA, `MODEL.DEVICE` is "cpu" whatever the file says.

    Raises:
        UserError: the file does not exist or is not YAML, or a key is unknown (the message
            suggests a similar one) or has a value of the wrong type.
    """
    cfg = _merge(config_file, opts)
    _without_cuda(cfg)
    return cfg


def configured_device(config_file: str = "", opts: Sequence[str] = ()) -> str:
    """`MODEL.DEVICE` as configured, whatever devices this machine has."""
    return _merge(config_file, opts).MODEL.DEVICE


def _without_cuda(cfg: CfgNode) -> bool:
    """Put a config for CUDA on the CPU where there is no CUDA; whether that was the case."""
    missing = cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available()
    if missing:
        cfg.MODEL.DEVICE = "cpu"
    return missing


def _check_solver(cfg: CfgNode) -> None:
    solver = cfg.SOLVER
    if solver.AMP.ENABLED:
        if solver.AMP.DTYPE not in AMP_DTYPES:
            raise UserError(f"SOLVER.AMP.DTYPE {solver.AMP.DTYPE!r} is not one of {AMP_DTYPES}")
        on_cuda = cfg.MODEL.DEVICE.startswith("cuda")
        if solver.AMP.DTYPE == "float16" and not on_cuda:
            raise UserError(
                "SOLVER.AMP.ENABLED with SOLVER.AMP.DTYPE float16 needs a CUDA device; "
                "bfloat16 runs on a CPU"
            )
        if solver.AMP.DTYPE == "bfloat16" and on_cuda and not torch.cuda.is_bf16_supported():
            raise UserError("SOLVER.AMP.DTYPE bfloat16 is not supported by this CUDA device")
    parts = solver.ACCUMULATION_STEPS
    if parts < 1:
        raise UserError(f"SOLVER.ACCUMULATION_STEPS is {parts}; 1 is the least")
    # Scaling to the number of processes keeps the images of each process.
    images, processes = solver.IMS_PER_BATCH, solver.REFERENCE_WORLD_SIZE or comm.get_world_size()
    if images % processes:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {images}, which {processes} processes cannot share evenly"
        )
    if images // processes % parts:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {images}, {images // processes} for each process, which "
            f"cannot be computed in SOLVER.ACCUMULATION_STEPS {parts} equal parts"
        )


def _merge(config_file: str, opts: Sequence[str]) -> CfgNode:
    cfg = get_cfg()
    add_libra_config(cfg)
    if len(opts) % 2:
        raise UserError(f"config options come in pairs of KEY VALUE, got {list(opts)}")
    source = config_file
    try:
        if config_file:
            _check_keys(cfg, _keys(_load_yaml(config_file)), config_file)
            cfg.merge_from_file(config_file, allow_unsafe=False)
        source = "command line"
        _check_keys(cfg, opts[0::2], source)
        cfg.merge_from_list(_in_tuples(opts))
    except (AssertionError, KeyError, ValueError) as e:
        if isinstance(e, UserError):
            raise
        raise UserError(f"{source}: {e.args[0] if e.args else e!r}") from e
    return cfg


def _in_tuples(opts: Sequence[str]) -> List[str]:
    """One description of a data set needs no tuple around it."""
    ret = list(opts)
    for i in range(0, len(ret), 2):
        if ret[i] in ("DATASETS.TRAIN_FROM", "DATASETS.TEST_FROM") and ret[i + 1][:1] not in "([":
            ret[i + 1] = repr((ret[i + 1],))
    return ret


def _check_files(config_file: str) -> None:
    """
    A config and the files that it is based on are paths of this machine: Detectron2's PathManager
    would download others, to places that they choose.
    """
    files, seen = [(config_file, "the config")], set()
    while files:
        path, what = files.pop()
        path = os.path.expanduser(local_path(path, what))
        if os.path.realpath(path) in seen or not os.path.exists(path):
            continue  # of which the loader tells
        seen.add(os.path.realpath(path))
        content = read_yaml(path, what="config file")
        bases = content.get(BASE_KEY, []) if isinstance(content, dict) else []
        for base in bases if isinstance(bases, list) else [bases]:
            if not isinstance(base, str):
                raise UserError(f"{path}: {BASE_KEY} must be a path, got {shown(base)}")
            name = base if is_url(base) else os.path.expanduser(base)
            if not is_url(base):
                name = os.path.join(os.path.dirname(path), name)
            files.append((name, f"{path}: {BASE_KEY}"))


def _load_yaml(config_file: str) -> CfgNode:
    _check_files(config_file)
    try:
        return CfgNode(CfgNode.load_yaml_with_base(config_file, allow_unsafe=False))
    except FileNotFoundError as e:
        raise UserError(f"config file {e.filename} does not exist") from None
    except RecursionError:
        raise UserError(f"{config_file}: a config is based on itself by {BASE_KEY}") from None
    except Exception as e:  # PyYAML raises several kinds that have no base in common with ours
        raise UserError(f"{config_file} is not a YAML config: {' '.join(str(e).split())}") from e


def _keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _check_keys(cfg: CfgNode, keys: Iterable[str], source: str) -> None:
    known = list(_keys(cfg))
    for key in keys:
        node = cfg
        for part in key.split("."):
            if not isinstance(node, dict) or part not in node:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise UserError(f"{source}: unknown config key {key}{hint}")
            node = node[part]


def names_num_classes(config_file: str, opts: Sequence[str]) -> bool:
    """Whether a config file or options set the number of classes, which must then fit the data."""
    keys = set(opts[0::2])
    if config_file:
        keys |= set(_keys(_load_yaml(config_file)))
    return any(key.endswith(".NUM_CLASSES") for key in keys)
