"""The setup of a run: config, output folder, log, data sets and device."""

from detectron2.config import CfgNode
from detectron2.utils import comm

from ..config.checks import check_schedule
from ..config.loading import configured, names_num_classes, refuse, without_cuda
from ..data import setup_datasets
from ..data.checks.datasets import check_before_training
from ..data.datasets.setup import with_descriptions
from ..data.epochs import in_iterations
from ..utils.local_paths import local_path
from ..utils.messages import make_logs_printable
from .arguments import check_arguments
from .console import log_versions, quiet_default_setup, setup_logging
from .reproducibility import set_determinism
from .run_folder import enter, run_folder
from .run_record import write_run_record


def setup(args) -> CfgNode:
    """
    Load the config of a run, and set up its output folder, log, data sets and device.

    Args:
        args: parsed by :func:`default_argument_parser`, or by Detectron2's.

    Returns:
        The frozen config, whose `OUTPUT_DIR` is the folder of this run, and whose schedule is in
        iterations. `OUTPUT_DIR/config.yaml` has the data sets, epochs and shares as the user gave
        them.

    Raises:
        UserError: the config, or a file that it names, has a mistake.
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
    saved.MODEL.DEVICE = configured_device  # the saved config may be used on another machine
    if not args.eval_only:
        cfg = in_iterations(cfg)
        refuse(check_schedule(cfg, args.opts[0::2]))
    quiet_default_setup(saved, args)
    make_logs_printable()
    set_determinism(cfg)
    if comm.is_main_process() and not args.eval_only:
        if cfg.DATASETS.CHECK:
            check_before_training(cfg)
        write_run_record(cfg)
    cfg.freeze()
    return cfg


def _enter_run_folder(cfg: CfgNode, args, resume: bool) -> None:
    """
    Append the folder named by `OUTPUT_BRIEF` to `OUTPUT_DIR`, and create it for a training run. An
    evaluation only gets such a folder if `OUTPUT_BRIEF` is on its command line: in the config file,
    it describes the training.
    """
    local_path(cfg.OUTPUT_DIR, "OUTPUT_DIR")
    asked = not args.eval_only or resume or "OUTPUT_BRIEF" in args.opts[0::2]
    if cfg.OUTPUT_BRIEF and asked:
        cfg.OUTPUT_DIR = run_folder(cfg.OUTPUT_DIR, cfg.OUTPUT_BRIEF, resume)
    if not args.eval_only:
        enter(cfg.OUTPUT_DIR, resume=resume, overwrite=getattr(args, "overwrite", False))
    # Whoever loads the saved config must get this folder, not another one inside it.
    cfg.OUTPUT_BRIEF = ""
