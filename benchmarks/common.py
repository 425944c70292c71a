"""Time alternatives in turn, so that the noise of the machine affects all of them equally."""

import argparse
import contextlib
import importlib
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional

import torch
from tabulate import tabulate

import libra_d2


def parser(description: str) -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=description)
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument(
        "--rounds",
        type=int,
        default=0,
        help="number of rounds (0: a few seconds)",
    )
    return p


def peer(module: str, name: str):
    """
    Import a part of mmdetection, or return None. mmdetection's compiled operators are not needed: a
    module named `mmdet_on_torchvision` on PYTHONPATH may replace them.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("mmdet_on_torchvision")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as e:
        print(f"mmdetection cannot be imported, so its row is missing: {e}", file=sys.stderr)
        return None


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def time_all(
    alternatives: Dict[str, Callable], device: str, rounds: int = 0, seconds: float = 6
) -> Dict[str, List[float]]:
    """Return the seconds of each alternative in each round, which runs all of them in turn."""
    times: Dict[str, List[float]] = {name: [] for name in alternatives}
    for f in alternatives.values():
        f()
    end = time.perf_counter() + seconds * len(alternatives)
    while len(next(iter(times.values()))) < (rounds or 5) or (
        not rounds and time.perf_counter() < end
    ):
        for name, f in alternatives.items():
            synchronise(device)
            start = time.perf_counter()
            f()
            synchronise(device)
            times[name].append(time.perf_counter() - start)
    return times


def table(times: Dict[str, List[float]], ours: str, memory: Optional[Dict[str, float]] = None):
    """Return a table of milliseconds and of the ratio ours / other: medians and quartiles."""
    rows = []
    for name, values in times.items():
        low, median, high = quartiles([1e3 * v for v in values])
        row = {"": name, "ms": f"{median:.3g}", "quartiles": f"{low:.3g} .. {high:.3g}"}
        ratios = [a / b for a, b in zip(times[ours], values)]
        low, median, high = quartiles(ratios)
        row["ours / this"] = "" if name == ours else f"{median:.2f} ({low:.2f} .. {high:.2f})"
        if memory is not None:
            row["peak MB"] = f"{memory[name] / 1e6:.0f}"
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def quartiles(values: List[float]):
    return statistics.quantiles(values, n=4) if len(values) > 1 else values * 3


def peak_memory(script: str, case: str, device: str) -> float:
    """Return the extra bytes at the peak of one call of `case`, measured in a separate process."""
    out = subprocess.run(
        [sys.executable, "-W", "ignore", script, "--device", device, "--memory", case],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return float(out.strip().splitlines()[-1])


def print_peak_of(f: Callable, device: str) -> None:
    """Print what `peak_memory` reads. Make a small call first, so that f's libraries are loaded."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        f()
        print(torch.cuda.max_memory_allocated() - before)
    else:
        before = _peak_resident()
        f()
        print(_peak_resident() - before)


def _peak_resident() -> int:
    """Return the peak of this process alone; getrusage may include the parent. Linux only."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1))


def title(text: str, device: str) -> None:
    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine()
    print(
        f"\n## {text}\n{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"libra_d2 {libra_d2.__version__}\n"
    )
