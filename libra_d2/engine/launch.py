"""Detectron2's launcher, for people who make mistakes and for processes that die."""

import logging
import os
import signal
import socket
import sys
import time
import traceback
from typing import Callable, Dict, NoReturn, Sequence

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ..config import configured_device
from ..errors import UserError
from .arguments import check_before_start
from .processes import Place, place_from_environment

END_TIMEOUT = 3  # seconds that the processes of an interrupted run have to end by themselves


def launch(main: Callable, args) -> None:
    """
    Run `main(args)` in this process, in those that torchrun or srun started, or in one for each of
    `args.num_gpus` GPUs on each of `args.num_machines` machines. With `MODEL.DEVICE cpu` they are
    processes on the CPU.

    If one process fails, all end. A :class:`UserError` becomes one line on stderr and the exit
    status 2, an interrupt the status 130.

    Args:
        args: as parsed by Detectron2's `default_argument_parser`.
    """
    try:
        place = place_from_environment()
        if place:
            _run_place(place, main, args)
        elif args.num_gpus * args.num_machines > 1:
            _start_processes(main, args)
        else:
            _run_main(main, args)
    except UserError as e:
        _exit(e)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _run_main(main: Callable, args) -> None:
    logging.getLogger("detectron2.engine.train_loop").addFilter(_is_no_users_mistake)
    main(args)


def _is_no_users_mistake(record: logging.LogRecord) -> bool:
    """Whether a log record may show its stack trace: upstream's loop logs every exception."""
    return not (record.exc_info and isinstance(record.exc_info[1], UserError))


def _run_place(place: Place, main: Callable, args) -> None:
    """One of the processes that torchrun or srun started."""
    machines = place.world_size // place.local_size
    if args.num_gpus not in (1, place.local_size) or args.num_machines not in (1, machines):
        raise UserError(
            f"--num-gpus {args.num_gpus} --num-machines {args.num_machines}, but torchrun or srun "
            f"has started {place.local_size} processes on each of {machines} machines: leave the "
            "two options out"
        )
    try:
        device = check_before_start(args, place.world_size).MODEL.DEVICE
    except UserError:
        if place.rank:
            sys.exit(2)  # the first process says it
        raise
    store = place.join(on_gpus=device != "cpu")
    try:
        _run_main(main, args)
    except UserError:
        if not _is_first(store):
            sys.exit(2)
        raise
    dist.destroy_process_group()


def _is_first(store: dist.Store) -> bool:
    try:
        return store.add("libra_d2/user_errors", 1) == 1
    except RuntimeError:  # the process that holds the store has ended before
        return False


def _start_processes(main: Callable, args) -> None:
    """Processes on this machine; returns when all of them have, and ends all if one fails."""
    check_before_start(args, args.num_gpus * args.num_machines)
    on_gpus = configured_device(args.config_file, args.opts) != "cpu"
    if on_gpus and args.num_gpus > torch.cuda.device_count():
        raise UserError(
            f"--num-gpus {args.num_gpus}, but this machine has {torch.cuda.device_count()} CUDA "
            f"devices; with MODEL.DEVICE cpu, {args.num_gpus} processes run on the CPU"
        )
    if not 0 <= args.machine_rank < args.num_machines:
        raise UserError(
            f"--machine-rank {args.machine_rank}, but --num-machines {args.num_machines}: the "
            "first machine is 0"
        )
    url = args.dist_url
    if url == "auto":
        if args.num_machines > 1:
            raise UserError("--dist-url auto: several machines need an address to meet at")
        url = f"tcp://127.0.0.1:{_free_port()}"

    # What we end is no news: neither to PyTorch's log nor to the tracker of semaphores.
    logging.getLogger("torch.multiprocessing").setLevel(logging.ERROR)
    others = os.environ.get("PYTHONWARNINGS")
    ignore = "ignore:resource_tracker:UserWarning"
    os.environ["PYTHONWARNINGS"] = f"{others},{ignore}" if others else ignore
    failures = mp.get_context("spawn").SimpleQueue()
    context = mp.start_processes(
        _run_started, args=(main, args, url, on_gpus, failures), nprocs=args.num_gpus, join=False
    )
    try:
        while not context.join():
            pass
    except KeyboardInterrupt:
        _end(context.processes)
        raise
    except (mp.ProcessExitedException, mp.ProcessRaisedException) as e:
        told = {}
        while not failures.empty():
            rank, failure = failures.get()
            told.setdefault(rank, failure)
        _report(told, [p.exitcode for p in context.processes], e.error_index)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _run_started(
    local_rank: int, main: Callable, args, url: str, on_gpus: bool, failures: mp.SimpleQueue
) -> None:
    """In one of the processes; what goes wrong is told to the launcher in order of time."""
    place = Place(
        rank=args.machine_rank * args.num_gpus + local_rank,
        world_size=args.num_machines * args.num_gpus,
        local_rank=local_rank,
        local_size=args.num_gpus,
        url=url,
    )
    # The death of the launcher arrives as SIGINT, which a run in the background would ignore.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        place.join(on_gpus=on_gpus)
        _run_main(main, args)
    except Exception as e:
        # The exception itself may hold anything; 4000: the pipe must not be full.
        text = UserError(str(e)) if isinstance(e, UserError) else traceback.format_exc()[-4000:]
        failures.put((local_rank, text))
        raise
    dist.destroy_process_group()


def _report(told: Dict[int, object], exit_codes: Sequence[int], noticed: int) -> NoReturn:
    """
    End with the failure that came first.

    Args:
        told: local rank -> UserError or traceback, the first one first.
        exit_codes: by local rank; a process that we ended has that of SIGTERM.
        noticed: local rank of a process that failed.
    """
    for rank, code in enumerate(exit_codes):
        # Died without a word, and what others tell is that they have lost it.
        # 128 + SIGTERM: of a process that handles the signal, as MLflow's tracker does.
        ended = (-signal.SIGTERM, -signal.SIGKILL, 128 + signal.SIGTERM)
        ours = code in ended and rank != noticed
        if code and rank not in told and not ours:
            if code > 0:
                print(f"error: process {rank} ended with exit status {code}", file=sys.stderr)
                sys.exit(code)
            name = signal.Signals(-code).name
            hint = "; out of memory?" if -code == signal.SIGKILL else ""
            print(f"error: process {rank} was ended by signal {name}{hint}", file=sys.stderr)
            sys.exit(128 - code)
    rank, failure = next(iter(told.items()))
    if isinstance(failure, UserError):
        raise failure
    print(f"error in process {rank}:\n{failure}", file=sys.stderr)
    sys.exit(1)


def _end(processes: Sequence) -> None:
    """Wait for processes that have been interrupted as well; then end them by force."""
    for stop in (lambda process: None, lambda p: p.terminate(), lambda p: p.kill()):
        deadline = time.monotonic() + END_TIMEOUT
        for process in processes:
            stop(process)
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))


def _exit(error: UserError) -> NoReturn:
    # An error from a loader's worker carries the worker's stack trace; its last line is ours.
    text = str(error).strip() or repr(error)
    if "Traceback (most recent call last)" in text:
        last = text.splitlines()[-1]
        text = last.partition("UserError: ")[2] or last
    print(f"error: {text}", file=sys.stderr)
    sys.exit(2)
