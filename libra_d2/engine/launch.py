"""Detectron2's launcher, for people who make mistakes."""

import logging
import sys
from typing import Callable

import torch
from detectron2.engine import launch as launch_upstream
from torch.multiprocessing import ProcessExitedException

from ..errors import UserError


def launch(main: Callable, args) -> None:
    """
    Run `main(args)`, in one process for each of `args.num_gpus` GPUs if there are several.

    A :class:`UserError` becomes one line on stderr and the exit status 2.

    Args:
        args: as parsed by Detectron2's `default_argument_parser`.
    """
    try:
        _check_devices(args.num_gpus)
        launch_upstream(
            _main_of_process,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(main, args),
        )
    except UserError as e:
        _exit(e)
    except ProcessExitedException as e:
        if e.signal_name is None:
            sys.exit(e.exit_code)  # the process has said why
        print(f"error: {e}", file=sys.stderr)
        sys.exit(128 - e.exit_code)


def _main_of_process(main: Callable, args) -> None:
    logging.getLogger("detectron2.engine.train_loop").addFilter(_is_no_users_mistake)
    try:
        main(args)
    except UserError as e:
        _exit(e)


def _is_no_users_mistake(record: logging.LogRecord) -> bool:
    """Whether a log record may show its stack trace: upstream's loop logs every exception."""
    return not (record.exc_info and isinstance(record.exc_info[1], UserError))


def _exit(error: UserError) -> None:
    # An error from a loader's worker carries the worker's stack trace; its last line is ours.
    lines = str(error).strip().splitlines() or [repr(error)]
    print(f"error: {lines[-1].partition('UserError: ')[2] or lines[-1]}", file=sys.stderr)
    sys.exit(2)


def _check_devices(num_gpus: int) -> None:
    available = torch.cuda.device_count()
    if num_gpus > max(available, 1):  # one is never too many: a run without a GPU uses the CPU
        raise UserError(f"--num-gpus {num_gpus}, but this machine has {available} CUDA devices")
