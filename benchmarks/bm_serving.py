"""
What an ONNX file costs without torch: the size of the installation, the start of Python up to the
first detection, and the memory.

Give `--python` of an environment that has only `pip install libra_d2[serve]`. By default, this
Python is measured, and the size of its installation is left out.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bm_inference import random_model
from bm_packed import write_images
from tabulate import tabulate

from libra_d2.data.images.reader import read_image
from libra_d2.export import export_detector
from libra_d2.inference.trained_detector import load_detector

ROOT = Path(__file__).resolve().parents[1]
# Run by the Python that is measured. Reads /proc, because getrusage may include the parent's peak.
FIRST_DETECTION = """
import json, os, re, sys, time
from libra_d2.serving import Predictor
predictor = Predictor(sys.argv[1])
found = predictor(sys.argv[2])
first = time.process_time()
def resident(kind):
    return int(re.search(kind + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
after_first = resident("VmRSS")
for _ in range(int(sys.argv[3])):
    predictor(sys.argv[2])
loaded = sorted({"torch", "detectron2", "cv2"} & set(sys.modules))
print(json.dumps([first, after_first, resident("VmRSS"), resident("VmHWM"), loaded, len(found)]))
"""


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--python", help="Python of the environment to measure")
    p.add_argument("--model", help="ONNX file (default: libra_mobilenet_v2 with random weights)")
    p.add_argument("--rounds", type=int, default=0, help="number of starts (0: 3)")
    p.add_argument("--more", type=int, default=50, help="detections after the first one")
    args = p.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        image = sorted(Path(write_images(Path(folder), 1)[1]).iterdir())[0]
        model = args.model or f"{folder}/detector.onnx"
        if not args.model:
            run = load_detector(random_model(folder, "cpu"))
            export_detector(run, "onnx", model, [read_image(str(image), "RGB")])
        python = args.python or sys.executable
        for _ in range(args.rounds or 3):
            command = [python, "-c", FIRST_DETECTION, model, str(image), str(args.more)]
            env = {**os.environ, "PYTHONPATH": "" if args.python else str(ROOT)}
            out = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
            first, after_first, after, peak, loaded, found = json.loads(out.stdout)
            assert not loaded, f"{loaded} are loaded"
            rows.append(
                {
                    "first detection, s of processor time": f"{first:.2f}",
                    "MB after it": f"{after_first:.0f}",
                    f"MB after {args.more} more": f"{after:.0f}",
                    "peak MB": f"{peak:.0f}",
                    "detections": found,
                }
            )
    print(f"\n## {os.path.basename(model)}, without torch\n")
    print(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True))
    if args.python:
        print(f"\nThe installation has {installed_size(args.python) / 1e6:.0f} MB.")


def installed_size(python: str) -> int:
    """Return the bytes on the disk of all packages of an environment, also of pip."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    run = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    files = [p for p in Path(run.stdout.strip()).rglob("*") if p.is_file() and not p.is_symlink()]
    return sum(f.stat().st_blocks * 512 for f in files)


if __name__ == "__main__":
    main()
