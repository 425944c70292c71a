"""The processes of a run: their ranks, and how they connect to each other."""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Dict, Mapping, Optional

import torch
import torch.distributed as dist
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm

from ..errors import UserError

JOIN_TIMEOUT = timedelta(minutes=5)  # for all processes of a run to connect


@dataclass(frozen=True)
class Place:
    """
    The place of a process among those of a run.

    Attributes:
        rank, world_size: number of this process, and of all. They are numbered machine by machine.
        local_rank, local_size: the same among the processes of this machine.
        url: where the processes connect, as for `torch.distributed.init_process_group`.
    """

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    url: str = "env://"

    def join(self, *, on_gpus: bool) -> dist.Store:
        """
        Connect to the other processes, so that Detectron2's `comm` works.

        Args:
            on_gpus: whether to use NCCL and the GPU with this local rank, or gloo and the CPU.

        Returns:
            A key-value store that all processes share.

        Raises:
            UserError: the other processes cannot be reached, or the machine has too few GPUs.
        """
        if on_gpus and self.local_size > torch.cuda.device_count():
            raise UserError(
                "the number of processes on this machine must be at most that of its CUDA "
                f"devices, {torch.cuda.device_count()}, got {self.local_size}"
            )
        try:
            store, *_ = next(
                dist.rendezvous(self.url, self.rank, self.world_size, timeout=JOIN_TIMEOUT)
            )
        except RuntimeError as e:
            raise UserError(
                f"process {self.rank} of {self.world_size} cannot connect to the others at "
                f"{self._address()}: {str(e).splitlines()[0]}. Check that the port is free, that "
                "this is the address of the first machine, and that every machine was started"
            ) from e
        # torchrun's store survives a restart, and still has the addresses of the dead processes.
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        if on_gpus:
            torch.cuda.set_device(self.local_rank)
        elif "OMP_NUM_THREADS" not in os.environ:  # share the threads that one process would use
            torch.set_num_threads(max(1, torch.get_num_threads() // self.local_size))
        dist.init_process_group(
            "nccl" if on_gpus else "gloo",
            store=store,
            rank=self.rank,
            world_size=self.world_size,
            timeout=DEFAULT_TIMEOUT,
        )
        comm.create_local_process_group(self.local_size)
        comm.synchronize()  # like Detectron2's launch: the first real collective may come too late
        return store

    def _address(self) -> str:
        if self.url != "env://":
            return f"--dist-url {self.url}"
        return f"MASTER_ADDR {os.environ['MASTER_ADDR']}, MASTER_PORT {os.environ['MASTER_PORT']}"


def place_from_environment() -> Optional[Place]:
    """
    Return the place that torchrun or SLURM's srun gave to this process, or None if neither started
    it or there is only one process. With srun, torchrun's variables are added to `os.environ`.

    Raises:
        UserError: variables are missing or wrong, or the processes are spread unevenly.
    """
    if "RANK" not in os.environ or "LOCAL_RANK" not in os.environ:
        os.environ.update(torchrun_variables(os.environ))
    if "RANK" not in os.environ or "LOCAL_RANK" not in os.environ:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise UserError(
            f"environment variables {', '.join(missing)} must be set if RANK and LOCAL_RANK are. "
            "Start the processes with torchrun, or unset these two"
        )
    rank, world_size, local_rank, local_size = map(_integer_from_environment, names[:4])
    place = Place(rank, world_size, local_rank, local_size)
    if place.world_size == 1:
        return None
    if place.rank % place.local_size != place.local_rank or place.world_size % place.local_size:
        raise UserError(
            "every machine must have the same number of processes, numbered one machine after the "
            f"other, got process {place.rank} of {place.world_size} as number {place.local_rank} "
            f"of {place.local_size} on its machine. With srun, give --ntasks-per-node N "
            "--distribution block"
        )
    return place


def _integer_from_environment(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError:
        value = os.environ[name]
        raise UserError(f"environment variable {name} must be an integer, got {value!r}") from None


def torchrun_variables(environ: Mapping[str, str]) -> Dict[str, str]:
    """
    Return the variables that torchrun would set, derived from those that SLURM's srun sets for the
    processes of a job step. Without SLURM_STEP_ID, return none: `sbatch` runs its script in one
    process that belongs to no step.
    """
    if "SLURM_STEP_ID" not in environ or "SLURM_PROCID" not in environ:
        return {}
    ntasks = environ.get("SLURM_STEP_NUM_TASKS") or environ.get("SLURM_NTASKS", "1")
    per_node = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_TASKS_PER_NODE", "1")
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "127.0.0.1")
    job = int(environ.get("SLURM_JOB_ID", "0"))
    return {
        "RANK": environ["SLURM_PROCID"],
        "WORLD_SIZE": ntasks,
        "LOCAL_RANK": environ.get("SLURM_LOCALID", "0"),
        "LOCAL_WORLD_SIZE": _first_number_of_tasks(per_node),
        "MASTER_ADDR": environ.get("MASTER_ADDR") or _first_node(nodes),
        "MASTER_PORT": environ.get("MASTER_PORT") or str(2**15 + job % 2**14),
    }


def _first_number_of_tasks(per_node: str) -> str:
    """
    >>> _first_number_of_tasks("4(x2),3")
    '4'
    """
    return per_node.split(",")[0].split("(")[0]


def _first_node(nodes: str) -> str:
    """
    >>> _first_node("gpu[03-05,11]-ib,login")
    'gpu03-ib'
    """
    prefix, bracket, rest = nodes.partition("[")
    if not bracket or "," in prefix:
        return prefix.split(",")[0]
    numbers, _, suffix = rest.partition("]")
    first = numbers.replace("-", ",").split(",")[0]
    return _first_node(prefix + first + suffix)
