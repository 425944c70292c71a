"""
Load test of `libra-d2 serve` at 127.0.0.1: throughput and latency of many clients at once, next to
one-by-one calls of `Predictor` in the same run, and the memory of the server.

All requests must be answered with the detections that `Predictor` returns.
"""

import argparse
import asyncio
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, Tuple

import httpx
from bm_inference import random_model
from bm_packed import write_images
from tabulate import tabulate

from libra_d2.data.images.reader import read_image
from libra_d2.export import export_detector
from libra_d2.inference.trained_detector import load_detector

ROOT = Path(__file__).resolve().parents[1]
START = "import sys, libra_d2_launcher; sys.exit(libra_d2_launcher.main())"
# In a process of its own, as the server is, and without torch.
ONE_BY_ONE = """
import json, sys, time
from pathlib import Path
from libra_d2.predictions.detections import Detections
from libra_d2.serving import Predictor
predictor = Predictor(sys.argv[1])
paths = sys.argv[3:]
expected, times = {}, []
predictor(paths[0])
for i in range(int(sys.argv[2])):
    path = paths[i % len(paths)]
    content = Path(path).read_bytes()
    start = time.perf_counter()
    found = Detections.from_instances(predictor(content))
    times.append(time.perf_counter() - start)
    expected[path] = found.entry(predictor.class_names, predictor.category_ids)
print(json.dumps([times, expected]))
"""


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--model", help="ONNX file (default: libra_mobilenet_v2 with random weights)")
    p.add_argument("--images", help="folder of images (default: generated ones)")
    p.add_argument("--clients", type=int, default=64)
    p.add_argument("--requests", type=int, default=2000)
    p.add_argument("--calls", type=int, default=200, help="one-by-one calls of Predictor")
    args = p.parse_args()
    threads = str(len(os.sched_getaffinity(0)))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": threads}
    with tempfile.TemporaryDirectory() as folder:
        images = args.images or write_images(Path(folder), 16)[1]
        paths = [str(p) for p in sorted(Path(images).iterdir())[:16]]
        model = args.model or f"{folder}/detector.onnx"
        if not args.model:
            run = load_detector(random_model(folder, "cpu"))
            export_detector(run, "onnx", model, [read_image(paths[0], "RGB")])
        alone = [sys.executable, "-c", ONE_BY_ONE, model, str(args.calls // 2), *paths]
        before, expected = json.loads(output_of(alone, env))
        with open(f"{folder}/log", "w+") as log:
            command = [sys.executable, "-c", START, "serve", "--model", model, "--port", "0"]
            server = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=env
            )
            try:
                url = re.search(r"http://\S+", server.stdout.readline())[0]
                rows, memory = asyncio.run(load(url, server.pid, paths, expected, args))
            finally:
                server.terminate()
                status = server.wait(timeout=120)
        after, _ = json.loads(output_of(alone, env))
    times = [*before, *after]  # around the server, because the machine may do other work
    rows.insert(0, row("Predictor, one by one", times, sum(times)))
    print(f"\n## {args.requests} requests of {args.clients} clients, {threads} cores\n")
    print(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True))
    print(f"\nResident memory of the server, MB: {', '.join(memory)}.")
    print(f"No request was lost, and all answers are right. The server ended with status {status}.")


async def load(
    url: str, pid: int, paths: List[str], expected: Dict[str, Dict], args: argparse.Namespace
) -> Tuple[List[Dict[str, str]], List[str]]:
    contents = {path: Path(path).read_bytes() for path in paths}
    limits = httpx.Limits(max_connections=args.clients, max_keepalive_connections=args.clients)
    memory, rows = [f"{resident(pid):.0f} at the start"], []
    repeated: List[int] = []
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        for clients, requests in ((1, max(1, args.requests // 20)), (args.clients, args.requests)):
            times: List[float] = []
            numbers = itertools.count()

            async def work(times=times, numbers=numbers, requests=requests) -> None:
                while (i := next(numbers)) < requests:
                    path = paths[i % len(paths)]
                    start = time.perf_counter()
                    while True:
                        files = {"image": ("a", contents[path])}
                        answer = await client.post("/detect", files=files)
                        if answer.status_code != 503:
                            break
                        repeated.append(i)  # the server asks for it, as an overloaded one should
                        await asyncio.sleep(int(answer.headers["Retry-After"]))
                    times.append(time.perf_counter() - start)
                    assert answer.status_code == 200, answer.text
                    check(answer.json()["a"], expected[path])
                    if (i + 1) % max(1, requests // 4) == 0 and clients > 1:
                        memory.append(f"{resident(pid):.0f} after {i + 1}")

            start = time.perf_counter()
            await asyncio.gather(*(work() for _ in range(clients)))
            seconds = time.perf_counter() - start
            assert len(times) == requests
            rows.append(row(f"server, clients: {clients}", times, seconds))
        text = (await client.get("/metrics")).text
    total, count = (
        float(re.search(rf"libra_d2_batch_size_{kind} (\S+)", text)[1]) for kind in ("sum", "count")
    )
    memory.append(f"peak {resident(pid, 'VmHWM'):.0f}; mean batch {total / count:.1f} images")
    memory.append(f"{len(repeated)} answers with status 503, after which the request was repeated")
    return rows, memory


def output_of(command: List[str], env: Dict[str, str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout


def check(found: Dict, expected: Dict) -> None:
    """Sums of other numbers of threads may differ by rounding."""
    assert len(found["predictions"]) == len(expected["predictions"])
    for a, b in zip(found["predictions"], expected["predictions"]):
        assert a["class"] == b["class"] and abs(a["score"] - b["score"]) < 1e-4


def row(name: str, times: List[float], seconds: float) -> Dict[str, str]:
    ordered = sorted(times)
    p50, p95 = (ordered[min(len(ordered) - 1, int(q * len(ordered)))] for q in (0.5, 0.95))
    return {
        "": name,
        "requests": str(len(times)),
        "per second": f"{len(times) / seconds:.1f}",
        "p50 ms": f"{1e3 * p50:.0f}",
        "p95 ms": f"{1e3 * p95:.0f}",
    }


def resident(pid: int, kind: str = "VmRSS") -> float:
    return int(re.search(rf"{kind}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


if __name__ == "__main__":
    main()
