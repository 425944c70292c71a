"""A detector of random weights that finds something in any image, and images for it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from libra_d2.checkpoint import LibraCheckpointer
from libra_d2.engine import LibraTrainer, load_cfg

CONFIG = "configs/libra_mobilenet_v2.yaml"
OPTIONS = (
    "MODEL.WEIGHTS '' MODEL.DEVICE cpu INPUT.MIN_SIZE_TEST 64 INPUT.MAX_SIZE_TEST 107 "
    "MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.RPN.POST_NMS_TOPK_TEST 30 "
    "TEST.DETECTIONS_PER_IMAGE 8 MODEL.ROI_HEADS.NUM_CLASSES 3"
).split()
NAMES, IDS = ("cat", "dog", "owl"), (7, 3, 90)
CLASSES = ["DATASETS.CLASS_NAMES", repr(NAMES)]


def write_detector(folder: Path) -> str:
    torch.manual_seed(0)
    cfg = load_cfg(CONFIG, [*OPTIONS, *CLASSES])
    model = LibraTrainer.build_model(cfg)
    for module in model.modules():  # as after training: no two batch norms are alike
        if hasattr(module, "running_var"):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.uniform_(0.8, 1.2)
    LibraCheckpointer(model, str(folder), class_names=NAMES, category_ids=IDS).save("model_final")
    (folder / "config.yaml").write_text(cfg.dump())
    return str(folder)


def write_images(folder: Path, count: int, size=(60, 80)) -> list:
    """Of blots, `size` is (height, width); their names sort as they were made."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:04}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray(blots(i, size)).save(path)
    return paths


def blots(seed: int, size=(60, 80)) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))
