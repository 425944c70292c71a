"""The start of a run: config, folder, log, data sets and device."""

from pathlib import Path
from typing import Optional, Tuple

from detectron2.config import CfgNode
from detectron2.utils import comm

from ..config.loading import configured, names_num_classes, without_cuda
from ..data import setup_datasets
from ..data.checks.datasets import check_before_training
from ..data.datasets.setup import with_descriptions
from ..utils.files import replacing
from ..utils.local_paths import local_path
from ..utils.messages import make_logs_printable
from .arguments import check_arguments
from .console import log_versions, quiet_default_setup, setup_logging
from .reproducibility import set_determinism
from .run_folder import enter, run_folder
from .run_record import write_run_record


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
    resume = getattr(args, "resume", False)
    check_arguments(args)
    cfg = configured(
        args.config_file,
        args.opts,
        trust=getattr(args, "trust", None) or None,
        purpose="evaluate" if args.eval_only else "train",
        world_size=comm.get_world_size(),
        resume=resume,
    )
    _enter_run_folder(cfg, args, resume)
    configured_device = cfg.MODEL.DEVICE
    setup_logging(cfg.OUTPUT_DIR)
    log_versions(cfg, no_cuda=without_cuda(cfg))
    setup_datasets(
        cfg,
        num_classes_given=names_num_classes(args.config_file, args.opts),
        train=not args.eval_only,
    )
    saved = with_descriptions(cfg)
    saved.MODEL.DEVICE = configured_device  # the saved config may go to another machine
    kept = _config_of_training(cfg, args)
    quiet_default_setup(saved, args)
    make_logs_printable()
    if kept is not None:
        with replacing(kept[0]) as partial:
            Path(partial).write_bytes(kept[1])
    set_determinism(cfg)
    if comm.is_main_process() and not args.eval_only:
        if cfg.DATASETS.CHECK:
            check_before_training(cfg)
        write_run_record(cfg)
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
    if not args.eval_only:
        enter(cfg.OUTPUT_DIR, resume=resume, overwrite=getattr(args, "overwrite", False))
    # The saved config leads to this folder, not to one in it.
    cfg.OUTPUT_BRIEF = ""
