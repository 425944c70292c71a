"""
A program for the launcher. Its processes add up numbers together until one of them fails.

    python -m tests.engine.ranks HOW RANK [options of train_net.py]
"""

import os
import signal
import sys
import time

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch.utils.data import DataLoader

from libra_d2.engine import default_argument_parser, launch
from libra_d2.errors import UserError


def fail(how):
    if how == "exception":
        raise RuntimeError("the flux capacitor is empty")
    if how == "user_error":
        raise UserError("none.json does not exist")
    if how == "exit":
        os._exit(7)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


def end_like_a_worker_that_has_just_started(worker):
    """A process that ends sends SIGTERM to its workers, which torch's handler lets exit with 0."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def main(args):
    how, failing = os.environ["HOW"], int(os.environ["FAILING_RANK"])
    rank = comm.get_rank()
    init = end_like_a_worker_that_has_just_started
    loader = iter(DataLoader(range(10**9), num_workers=2, batch_size=1, worker_init_fn=init))
    print(f"rank {rank} local {comm.get_local_rank()} of {comm.get_world_size()}", flush=True)
    for step in range(10**9):
        next(loader)
        if how == "all":
            raise UserError("a mistake that all processes see")
        if how == "end" and step == 3:
            return
        if step == 20 and rank == failing:
            fail(how)
        dist.all_reduce(torch.ones(100, device="cuda" if dist.get_backend() == "nccl" else "cpu"))
        if step == 10 and rank == 0:
            print("running", flush=True)
        time.sleep(0.01)


if __name__ == "__main__":
    os.environ["HOW"], os.environ["FAILING_RANK"], *rest = sys.argv[1:]
    launch(main, default_argument_parser().parse_args(rest))
