"""
Starting the processes of a run, like Detectron2's `launch`. In addition, mistakes of the user are
reported in one line, and if one process dies, the others end.
"""

import gc
import logging
import os
import signal
import socket
import sys
import traceback
from typing import Callable, Dict, NamedTuple, NoReturn, Optional, Sequence

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ..config import configured_device
from ..errors import UserError
from ..utils.interrupts import (
    SIGNALS,
    Interrupted,
    raising_interrupts,
    workers_end_quietly,
)
from ..utils.system_errors import as_user_error
from .arguments import check_before_start
from .processes import Place, place_from_environment
from .stopping import passing_signals_on

END_TIMEOUT = 20  # seconds that other processes have to end by themselves after one has ended


def launch(main: Callable, args, prepare: Optional[Callable] = None) -> None:
    """
    Run `main(args)` in one or several processes, with `args = prepare(args)` if that is given.

    A process that torchrun or srun has started runs `main` itself. Otherwise, one process is
    started for each of `args.num_gpus` GPUs on each of `args.num_machines` machines; with
    `MODEL.DEVICE cpu`, these processes use the CPU.

    If one process fails, all end. A :class:`UserError` is printed in one line on stderr, with exit
    status 2. Ctrl-C leads to exit status 130, and SIGTERM to 143.

    Args:
        args: parsed by :func:`default_argument_parser`, or by Detectron2's.
    """
    try:
        with workers_end_quietly(), raising_interrupts():
            args = prepare(args) if prepare else args
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
    Run `main`, and raise its errors that the user can fix, such as a full disk, as UserError.
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
    """
    Return False for errors that the user can fix. Detectron2's training loop logs every exception
    with its stack trace, and for these, one line is enough.
    """
    return not (record.exc_info and as_user_error(record.exc_info[1]))


def _run_place(place: Place, main: Callable, args) -> None:
    """Run `main` as one of the processes that torchrun or srun has started."""
    machines = place.world_size // place.local_size
    if args.num_gpus not in (1, place.local_size) or args.num_machines not in (1, machines):
        raise UserError(
            f"--num-gpus {args.num_gpus} --num-machines {args.num_machines} does not match the "
            f"processes that torchrun or srun has started, {place.local_size} on each of "
            f"{machines} machines. Omit both options"
        )
    try:
        device = check_before_start(args, place.world_size).MODEL.DEVICE
    except UserError:
        if place.rank:
            sys.exit(2)  # the first process prints the error
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
            sys.exit(e.exit_status)  # the first process prints the message
        raise
    dist.destroy_process_group()


def _is_first(store: dist.Store) -> bool:
    try:
        return store.add("libra_d2/user_errors", 1) == 1
    except RuntimeError:  # the process that holds the store has already ended
        return False


def _start_processes(main: Callable, args) -> None:
    """Start processes on this machine and wait for them. If one fails, end all."""
    check_before_start(args, args.num_gpus * args.num_machines)
    on_gpus = configured_device(args.config_file, args.opts) != "cpu"
    if on_gpus and args.num_gpus > torch.cuda.device_count():
        raise UserError(
            f"--num-gpus must be at most the number of CUDA devices of this machine, "
            f"{torch.cuda.device_count()}, got {args.num_gpus}. To run {args.num_gpus} processes "
            "on the CPU, set MODEL.DEVICE cpu"
        )
    if not 0 <= args.machine_rank < args.num_machines:
        raise UserError(
            f"--machine-rank must be between 0 and {args.num_machines - 1} with --num-machines "
            f"{args.num_machines}, got {args.machine_rank}"
        )
    url = args.dist_url
    if url == "auto":
        if args.num_machines > 1:
            raise UserError(
                "--dist-url must be an address of the first machine if there are several machines, "
                "got auto. Give, for example, --dist-url tcp://192.168.0.1:29500"
            )
        url = f"tcp://127.0.0.1:{_free_port()}"

    # PyTorch and the tracker of semaphores would warn about processes that we end on purpose.
    logging.getLogger("torch.multiprocessing").setLevel(logging.ERROR)
    others = os.environ.get("PYTHONWARNINGS")
    ignore = "ignore:resource_tracker:UserWarning"
    os.environ["PYTHONWARNINGS"] = f"{others},{ignore}" if others else ignore
    failures = mp.get_context("spawn").SimpleQueue()
    # Block signals until the processes can handle them.
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
                    _reported(failures),
                    [p.exitcode for p in context.processes],
                    e.error_index,
                    received,
                )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reported(failures: mp.SimpleQueue) -> Dict[int, object]:
    reported: Dict[int, object] = {}
    while not failures.empty():
        rank, failure = failures.get()
        reported.setdefault(rank, failure)
    return reported


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _run_started(
    local_rank: int, main: Callable, args, url: str, on_gpus: bool, failures: mp.SimpleQueue
) -> None:
    """Run `main` in a started process. A failure is put into the queue for the launcher."""
    gc.freeze()  # searching the imported modules for garbage at exit would take a second
    place = Place(
        rank=args.machine_rank * args.num_gpus + local_rank,
        world_size=args.num_machines * args.num_gpus,
        local_rank=local_rank,
        local_size=args.num_gpus,
        url=url,
    )
    try:
        # If the launcher dies, this process gets SIGINT, which a background process would ignore.
        with workers_end_quietly(), raising_interrupts(even_if_ignored=True):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            place.join(on_gpus=on_gpus)
            _run_main(main, args)
    except Interrupted as e:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        failures.put((local_rank, _Stopped(e.signal_number, str(e))))
        sys.exit(e.exit_status)
    except Exception as e:
        # The exception itself may not be picklable. A longer text might fill the pipe and block.
        text = UserError(str(e)) if isinstance(e, UserError) else traceback.format_exc()[-4000:]
        failures.put((local_rank, text))
        # Not `raise`: torch would write the error to a file whose folder the launcher may already
        # have removed, and then print a stack trace.
        sys.exit(1)
    dist.destroy_process_group()


class _Stopped(NamedTuple):
    """What a process reports that was stopped by a signal in an orderly way."""

    signal_number: int
    message: str


def _report(
    reported: Dict[int, object],
    exit_codes: Sequence[int],
    noticed: int,
    received: Dict[str, int],
) -> NoReturn:
    """
    End this process with the failure that happened first.

    Args:
        reported: local rank -> what the process reported: a UserError, a traceback or a
            `_Stopped`, in order of time.
        exit_codes: one for each local rank. A process that we ended has that of SIGTERM.
        noticed: local rank of a process that failed.
        received: the signal that the launcher got, under "signal".
    """
    stops = [t for t in reported.values() if isinstance(t, _Stopped)]
    if received or (stops and isinstance(next(iter(reported.values())), _Stopped)):
        number = received.get("signal") or stops[0].signal_number
        failures = [t for t in reported.values() if isinstance(t, UserError)]
        if failures:  # such as a full disk while the checkpoint was written
            raise failures[0]
        longest = max((s.message for s in stops), key=len, default="")
        raise Interrupted(number, longest or "interrupted")
    for rank, code in enumerate(exit_codes):
        # This process died without a report; those of the others are that they lost it.
        # 128 + SIGTERM is the status of a process that handles it, as MLflow's tracker does.
        ended = (-signal.SIGTERM, -signal.SIGKILL, 128 + signal.SIGTERM)
        ours = code in ended and rank != noticed
        if code and rank not in reported and not ours:
            if code > 0:
                print(f"error: process {rank} ended with exit status {code}", file=sys.stderr)
                sys.exit(code)
            name = signal.Signals(-code).name
            hint = "; out of memory?" if -code == signal.SIGKILL else ""
            print(f"error: process {rank} was ended by signal {name}{hint}", file=sys.stderr)
            sys.exit(128 - code)
    rank, failure = next(iter(reported.items()))
    if isinstance(failure, UserError):
        raise failure
    print(f"error in process {rank}:\n{failure}", file=sys.stderr)
    sys.exit(1)


def _exit(error: UserError) -> NoReturn:
    # An error from a loader's worker contains its stack trace, whose last line is the message.
    text = str(error).strip() or repr(error)
    if "Traceback (most recent call last)" in text:
        last = text.splitlines()[-1]
        text = last.partition("UserError: ")[2] or last
    print(f"error: {text}", file=sys.stderr)
    sys.exit(2)
