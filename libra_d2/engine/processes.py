"""The processes of a run: where each one stands, and how they find each other."""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Dict, Mapping, Optional

import torch
import torch.distributed as dist
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm

from ..errors import UserError

JOIN_TIMEOUT = timedelta(minutes=5)  # until all processes of a run are there


@dataclass(frozen=True)
class Place:
    """
    Where a process stands among those of a run.

    Attributes:
        rank, world_size: among all processes, which are numbered machine by machine.
        local_rank, local_size: among those of its machine.
        url: where they meet, as for `torch.distributed.init_process_group`.
    """

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    url: str = "env://"

    def join(self, *, on_gpus: bool) -> dist.Store:
        """
        Meet the other processes: afterwards Detectron2's `comm` works.

        Args:
            on_gpus: NCCL and the GPU with this local rank; else gloo, for the CPU.

        Returns:
            A store of keys and values that all processes share.

        Raises:
            UserError: the others cannot be reached, or the machine lacks the GPU.
        """
        if on_gpus and self.local_size > torch.cuda.device_count():
            raise UserError(
                f"{self.local_size} processes on this machine, which has "
                f"{torch.cuda.device_count()} CUDA devices"
            )
        try:
            store, *_ = next(
                dist.rendezvous(self.url, self.rank, self.world_size, timeout=JOIN_TIMEOUT)
            )
        except RuntimeError as e:
            raise UserError(
                f"process {self.rank} of {self.world_size} cannot meet the others at "
                f"{self._address()}: {str(e).splitlines()[0]}. Is the port free, the first "
                "machine's address right, and every machine started?"
            ) from e
        # torchrun's store outlives a restart; the addresses of the dead must not be taken.
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        if on_gpus:
            torch.cuda.set_device(self.local_rank)
        elif "OMP_NUM_THREADS" not in os.environ:  # together as many as one process would use
            torch.set_num_threads(max(1, torch.get_num_threads() // self.local_size))
        dist.init_process_group(
            "nccl" if on_gpus else "gloo",
            store=store,
            rank=self.rank,
            world_size=self.world_size,
            timeout=DEFAULT_TIMEOUT,
        )
        comm.create_local_process_group(self.local_size)
        comm.synchronize()  # as Detectron2's launch: the first real collective may come late
        return store

    def _address(self) -> str:
        if self.url != "env://":
            return f"--dist-url {self.url}"
        return f"MASTER_ADDR {os.environ['MASTER_ADDR']}, MASTER_PORT {os.environ['MASTER_PORT']}"


def place_from_environment() -> Optional[Place]:
    """
    The place that torchrun or SLURM's srun gave to this process; None if neither started it, or
    it is alone. `os.environ` gets torchrun's variables in the case of srun.

    Raises:
        UserError: variables are missing, or the processes are spread unevenly.
    """
    if "RANK" not in os.environ or "LOCAL_RANK" not in os.environ:
        os.environ.update(torchrun_variables(os.environ))
    if "RANK" not in os.environ or "LOCAL_RANK" not in os.environ:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise UserError(f"RANK and LOCAL_RANK are set as by torchrun, but not {missing}")
    try:
        place = Place(*(int(os.environ[name]) for name in names[:4]))
    except ValueError as e:
        raise UserError(f"one of the variables {names[:4]} is no number: {e}") from None
    if place.world_size == 1:
        return None
    if place.rank % place.local_size != place.local_rank or place.world_size % place.local_size:
        raise UserError(
            f"process {place.rank} of {place.world_size} is number {place.local_rank} of "
            f"{place.local_size} on its machine: each machine must have equally many, numbered "
            "one machine after the other (srun --ntasks-per-node N --distribution block)"
        )
    return place


def torchrun_variables(environ: Mapping[str, str]) -> Dict[str, str]:
    """
    What torchrun would set, from what SLURM's srun sets for the processes of a job step; empty
    outside of one, where there is no SLURM_STEP_ID: `sbatch` runs its script itself only once.
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
    """`4(x2),3` -> `4`"""
    return per_node.split(",")[0].split("(")[0]


def _first_node(nodes: str) -> str:
    """`gpu[03-05,11]-ib,login` -> `gpu03-ib`"""
    prefix, bracket, rest = nodes.partition("[")
    if not bracket or "," in prefix:
        return prefix.split(",")[0]
    numbers, _, suffix = rest.partition("]")
    first = numbers.replace("-", ",").split(",")[0]
    return _first_node(prefix + first + suffix)
