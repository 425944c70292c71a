"""
Print how often the host waits for the device, by this package and by Detectron2 itself.

The device is simulated: see tests/support/simulated_accelerator.py. Each piece of work runs in this
process, which no other test may share.

    python -m tests.accelerator.waits [--lines] [--only TEXT] [--json FILE]
"""

import argparse
import json
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import Any, Dict

from tabulate import tabulate

from ..support.simulated_accelerator import install
from .simulation import CHECKS
from .workloads import WORK, Counted


def main() -> None:
    parser = argparse.ArgumentParser(description="Count the waits of the host for the device.")
    parser.add_argument("--lines", action="store_true", help="list the lines of code that wait")
    parser.add_argument("--only", default="", help="only the work whose name contains this")
    parser.add_argument("--json", help="write the results to this file")
    args = parser.parse_args()
    install()
    results: Dict[str, Dict[str, Any]] = {}
    for name, work in {**CHECKS, **WORK}.items():
        if args.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                counted = work(Path(folder))
                results[name] = {} if counted is None else _as_json(counted)
            except Exception:
                results[name] = {"error": traceback.format_exc()}
    if args.json:
        Path(args.json).write_text(json.dumps(results))
    print(table(results))
    for name, result in results.items():
        if "error" in result:
            print(f"\n{name}\n{result['error']}")
        elif args.lines and result:
            print(f"\n{name}")
            for line, count in Counter(result["ours"]).most_common():
                print(f"{count:4} {line}")


def table(results: Dict[str, Dict[str, Any]]) -> str:
    """Return a Markdown table of the waits per step and per image."""
    rows = []
    for name, result in results.items():
        if not result.get("ours"):
            continue
        images, counts = result["images"], []
        for waits in (result["ours"], result["theirs"]):
            counts += ["", ""] if waits is None else [len(waits), f"{len(waits) / images:g}"]
        rows.append([name, images, *counts])
    head = ["work", "images", "libra_d2", "per image", "Detectron2", "per image"]
    return tabulate(rows, head, tablefmt="github", disable_numparse=True)


def _as_json(counted: Counted) -> Dict[str, Any]:
    lines = lambda waits: None if waits is None else [f"{w.operator} {w.line}" for w in waits]
    return {
        "images": counted.images,
        "ours": lines(counted.ours),
        "theirs": lines(counted.theirs),
        "facts": counted.facts,
    }


if __name__ == "__main__":
    main()
