"""
Time to read a data set from its store (libra-d2 pack), next to reading it from its image folder, in
one process and in random order. Linux only.

In the cold case, the cached pages of the files and of the store are dropped before each round. The
cached directory of the folder is not, because this would need root.
"""

import contextlib
import io
import json
import os
import random
import re
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from common import parser, table, title
from detectron2.data import DatasetCatalog
from detectron2.utils.file_io import PathManager

from libra_d2.data import LibraDatasetMapper, register_coco, register_packed
from libra_d2.data.images.packed_store import close_store
from libra_d2.data.packed.packing import pack
from libra_d2.engine import load_cfg


def write_images(folder: Path, number: int):
    """Write images of clouds, 640x480 pixels and about 180 kB each, with one object each."""
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(number):
        image = np.zeros((480, 640, 3), np.float32)
        for cells in (4, 16, 64, 240):
            noise = rng.standard_normal((cells, cells, 3)).astype(np.float32)
            image += cv2.resize(noise, (640, 480)) * 30
        cv2.imwrite(str(folder / f"images/{i}.jpg"), np.clip(image + 128, 0, 255).astype(np.uint8))
        images.append({"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480})
        box = {"bbox": [100, 100, 200, 200], "area": 40000, "iscrowd": 0}
        annotations.append({"id": i, "image_id": i, "category_id": 1, **box})
    categories = [{"id": 1, "name": "cloud"}]
    data = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "coco.json").write_text(json.dumps(data))
    return str(folder / "coco.json"), str(folder / "images")


def forget(paths) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def bytes_from_disk() -> int:
    return int(re.search(r"\bread_bytes: (\d+)", Path("/proc/self/io").read_text()).group(1))


def read_bytes(record) -> None:
    with PathManager.open(record["file_name"], "rb") as f:
        f.read()


def time_rounds(sources, read, cold: bool, rounds: int):
    """Return the seconds to read all images, and the MB from the disk, by source and round."""
    times = {name: [] for name in sources}
    disk = {name: [] for name in sources}
    for i in range(rounds + 1):  # the first round is not counted
        for name, (records, paths) in sources.items():
            records = random.Random(i).sample(records, len(records))
            if cold:
                for path in paths:
                    close_store(path)  # mapped pages would not be dropped
                forget(paths)
            before = bytes_from_disk()
            start = time.perf_counter()
            for record in records:
                read(record)
            if i:
                times[name].append(time.perf_counter() - start)
                disk[name].append((bytes_from_disk() - before) / 1e6)
    return times, disk


def main():
    p = parser(__doc__)
    p.add_argument("--json", help="annotations of real images to use instead of generated ones")
    p.add_argument("--images", help="folder of these images")
    p.add_argument("--num-images", type=int, default=200, help="number of generated images")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = (args.json, args.images)
        if not args.json:
            files = write_images(Path(folder), args.num_images)
        store = f"{folder}/bench.lmdb"
        with contextlib.redirect_stderr(io.StringIO()):
            pack(*files, store)
        os.sync()  # pages that are not written yet cannot be dropped
        of_files = DatasetCatalog.get(register_coco(*files))
        sources = {
            "store": (DatasetCatalog.get(register_packed(store)), [store]),
            "files": (of_files, [record["file_name"] for record in of_files]),
        }
        cfg = load_cfg("configs/libra_mobilenet_v2.yaml")
        for what, read in (
            ("bytes", read_bytes),
            ("through the mapper, for training", LibraDatasetMapper(cfg, is_train=True)),
        ):
            for cold in (True, False):
                rounds = args.rounds or (15 if read is read_bytes else 5)
                times, disk = time_rounds(sources, read, cold, rounds)
                title(f"{len(of_files)} images, {what}, {'cold' if cold else 'warm'}", "cpu")
                print(table(times, "store"))
                read_mb = ", ".join(f"{k} {np.median(v):.1f} MB" for k, v in disk.items())
                print(f"\nread from the disk: {read_mb}")


if __name__ == "__main__":
    main()
