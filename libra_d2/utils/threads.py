"""The number of threads of computations."""

import os
import sys


def num_threads() -> int:
    """
    Return the number of threads that torch would use. If torch is not loaded, this is the value of
    the environment variable OMP_NUM_THREADS, which torch reads as well, or else the number of cores
    that this process may use.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        return torch.get_num_threads()
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
