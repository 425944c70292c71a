"""
Time of `libra-d2 infer` on a folder, next to a loop over Detectron2's DefaultPredictor with the
same weights. Both read the same files; `infer` also writes its JSON.
"""

import contextlib
import io
import tempfile
from pathlib import Path

import torch
from bm_packed import write_images
from common import parser, table, time_all, title
from detectron2.data.detection_utils import read_image
from detectron2.engine import DefaultPredictor

from libra_d2.checkpoint import LibraCheckpointer
from libra_d2.engine import LibraTrainer, load_cfg
from libra_d2.inference.infer import InferOptions, infer
from libra_d2.inference.trained_detector import load_detector, trained_config


def random_model(folder: str, device: str) -> str:
    cfg = load_cfg("configs/libra_mobilenet_v2.yaml", ["MODEL.WEIGHTS", "", "MODEL.DEVICE", device])
    torch.manual_seed(0)
    LibraCheckpointer(LibraTrainer.build_model(cfg), folder).save("model_final")
    Path(folder, "config.yaml").write_text(cfg.dump())
    return folder


def loop(predictor: DefaultPredictor, files, threads: int) -> list:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    found = [predictor(read_image(str(f), format="BGR"))["instances"].to("cpu") for f in files]
    torch.set_num_threads(before)
    return found


def main():
    p = parser(__doc__)
    p.add_argument("--model", help="run folder (default: random weights)")
    p.add_argument("--images", help="folder of real images to use instead of generated ones")
    p.add_argument("--num-images", type=int, default=40)
    args = p.parse_args()
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or random_model(folder, args.device)
        images = args.images or write_images(Path(folder), args.num_images)[1]
        files = sorted(Path(images).iterdir())[: args.num_images]
        predictor = DefaultPredictor(trained_config(model, device=args.device))
        detectors = {fuse: load_detector(model, device=args.device) for fuse in (True, False)}

        def run(fuse: bool):
            options = InferOptions(output=f"{folder}/predictions.json", fuse=fuse)
            with contextlib.redirect_stderr(io.StringIO()):
                summary = infer(detectors[fuse], list(map(str, files)), options)
            assert summary.num_done == len(files)

        times = time_all(
            {
                "infer": lambda: run(True),
                "infer --no-fuse": lambda: run(False),
                f"DefaultPredictor, {threads} threads": lambda: loop(predictor, files, threads),
                "DefaultPredictor, 1 thread": lambda: loop(predictor, files, 1),
            },
            args.device,
            args.rounds,
        )
    title(f"{len(files)} images of {images if args.images else 'noise, 640x480'}", args.device)
    print(table(times, "infer"))


if __name__ == "__main__":
    main()
