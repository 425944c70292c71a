"""Configs with data sets."""

from libra_d2.engine import load_cfg


def cfg_for(train=None, test=None, *opts):
    paths = []
    for split, files in (("TRAIN", train), ("TEST", test)):
        if files:
            paths += [f"DATASETS.{split}", f"coco:{files[0]},{files[1]}"]
    return load_cfg("configs/libra_mobilenet_v2.yaml", [*paths, *opts])
