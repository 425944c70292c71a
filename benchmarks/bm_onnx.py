"""
Time of `libra-d2 infer` on a folder with a model in torch, next to the same model exported to an
ONNX file. Both read the same files and write their JSON.
"""

import contextlib
import io
import tempfile
from pathlib import Path

from bm_inference import random_model
from bm_packed import write_images
from common import parser, table, time_all, title

from libra_d2.data.images.reader import read_image
from libra_d2.export import export_detector
from libra_d2.inference.infer import InferOptions, infer
from libra_d2.inference.opening import open_detector
from libra_d2.inference.trained_detector import load_detector


def main():
    p = parser(__doc__)
    p.add_argument("--model", help="run folder (default: random weights)")
    p.add_argument("--images", help="folder of real images to use instead of generated ones")
    p.add_argument("--num-images", type=int, default=40)
    args = p.parse_args()
    if args.device != "cpu":
        p.error("ONNX files are run on a CPU: give --device cpu")
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or random_model(folder, "cpu")
        images = args.images or write_images(Path(folder), args.num_images)[1]
        files = sorted(Path(images).iterdir())[: args.num_images]
        trained = load_detector(model, device="cpu")
        path = f"{folder}/detector.onnx"
        example = read_image(files[0], trained.image_format)
        export_detector(trained, "onnx", path, [example])
        exported = open_detector(path)

        def run(detector, fuse: bool = True):
            options = InferOptions(output=f"{folder}/predictions.json", fuse=fuse)
            with contextlib.redirect_stderr(io.StringIO()):
                summary = infer(detector, list(map(str, files)), options)
            assert summary.num_done == len(files)

        times = time_all(
            {
                "ONNX Runtime": lambda: run(exported),
                "torch": lambda: run(trained),
                "torch, --no-fuse": lambda: run(trained, fuse=False),
            },
            args.device,
            args.rounds,
        )
    title(f"{len(files)} images of {images if args.images else 'noise, 640x480'}", args.device)
    print(table(times, "ONNX Runtime"))


if __name__ == "__main__":
    main()
