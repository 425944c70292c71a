"""Detectron2's launcher, for people who make mistakes and for processes that die."""

import logging
import os
import signal
import socket
import sys
import traceback
from typing import Callable, Dict, NamedTuple, NoReturn, Sequence

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ..config import configured_device
from ..errors import UserError
from ..utils.interrupts import SIGNALS, Interrupted, raising_interrupts
from ..utils.system_errors import as_user_error
from .arguments import check_before_start
from .processes import Place, place_from_environment
from .stopping import passing_signals_on

END_TIMEOUT = 20  # seconds that the others have to end by themselves when a process has


def launch(main: Callable, args) -> None:
    """
    Run `main(args)` in this process, in those that torchrun or srun started, or in one for each of
    `args.num_gpus` GPUs on each of `args.num_machines` machines. With `MODEL.DEVICE cpu` they are
    processes on the CPU.

    If one process fails, all end. A :class:`UserError` becomes one line on stderr and the exit
    status 2, Ctrl-C the status 130 and SIGTERM 143.

    Args:
        args: as parsed by Detectron2's `default_argument_parser`.
    """
    try:
        with raising_interrupts():
            place = place_from_environment()
            if place:
                _run_place(place, main, args)
            elif args.num_gpus * args.num_machines > 1:
                _start_processes(main, args)
            else:
                _run_main(main, args)
    except UserError as e:
        _exit(e)
    except Interrupted as e:
        if str(e):
            print(e, file=sys.stderr)
        sys.exit(e.exit_status)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _run_main(main: Callable, args) -> None:
    """
    Raises:
        UserError: among others, for what the system refuses, such as a full disk.
    """
    logging.getLogger("detectron2.engine.train_loop").addFilter(_is_no_users_mistake)
    try:
        main(args)
    except (OSError, RuntimeError) as e:
        error = as_user_error(e)
        if error is None:
            raise
        raise error from e


def _is_no_users_mistake(record: logging.LogRecord) -> bool:
    """Whether a log record may show its stack trace: upstream's loop logs every exception."""
    return not (record.exc_info and as_user_error(record.exc_info[1]))


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
    except Interrupted as e:
        if place.rank:
            sys.exit(e.exit_status)  # the first process says it
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
    # Until a process can handle signals they wait.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        context = mp.start_processes(
            *(_run_started, (main, args, url, on_gpus, failures)), nprocs=args.num_gpus, join=False
        )
        with passing_signals_on(context.processes) as received:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            try:
                while not context.join(grace_period=END_TIMEOUT):
                    pass
            except (mp.ProcessExitedException, mp.ProcessRaisedException) as e:
                _report(
                    _told(failures),
                    [p.exitcode for p in context.processes],
                    e.error_index,
                    received,
                )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _told(failures: mp.SimpleQueue) -> Dict[int, object]:
    told: Dict[int, object] = {}
    while not failures.empty():
        rank, failure = failures.get()
        told.setdefault(rank, failure)
    return told


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
    try:
        # The death of the launcher arrives as SIGINT, which a run in the background would ignore.
        with raising_interrupts(even_if_ignored=True):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            place.join(on_gpus=on_gpus)
            _run_main(main, args)
    except Interrupted as e:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        failures.put((local_rank, _Stopped(e.signal_number, str(e))))
        sys.exit(e.exit_status)
    except Exception as e:
        # The exception itself may hold anything; 4000: the pipe must not be full.
        text = UserError(str(e)) if isinstance(e, UserError) else traceback.format_exc()[-4000:]
        failures.put((local_rank, text))
        raise
    dist.destroy_process_group()


class _Stopped(NamedTuple):
    """A process that a signal has ended, in order."""

    signal_number: int
    message: str


def _report(
    told: Dict[int, object],
    exit_codes: Sequence[int],
    noticed: int,
    received: Dict[str, int],
) -> NoReturn:
    """
    End with the failure that came first.

    Args:
        received: what this process got under "signal".
        told: local rank -> UserError or traceback, the first one first.
        exit_codes: by local rank; a process that we ended has that of SIGTERM.
        noticed: local rank of a process that failed.
    """
    stops = [t for t in told.values() if isinstance(t, _Stopped)]
    if received or (stops and isinstance(next(iter(told.values())), _Stopped)):
        number = received.get("signal") or stops[0].signal_number
        failures = [t for t in told.values() if isinstance(t, UserError)]
        if failures:  # such as a full disk at the checkpoint
            raise failures[0]
        messages = sorted((s.message for s in stops), key=len)
        raise Interrupted(number, messages[-1] if messages else "interrupted")
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


def _exit(error: UserError) -> NoReturn:
    if hasattr(signal, "SIGCHLD"):  # torch's handler raises once more, for a worker that has ended
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # An error from a loader's worker carries the worker's stack trace; its last line is ours.
    text = str(error).strip() or repr(error)
    if "Traceback (most recent call last)" in text:
        last = text.splitlines()[-1]
        text = last.partition("UserError: ")[2] or last
    print(f"error: {text}", file=sys.stderr)
    sys.exit(2)
