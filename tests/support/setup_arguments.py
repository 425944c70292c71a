"""Arguments as `setup` takes them."""

import argparse

from .coco_files import write_dataset


def arguments(tmp_path, *opts):
    files = write_dataset(tmp_path / "data")
    return argparse.Namespace(
        config_file="configs/libra_mobilenet_v2.yaml",
        eval_only=False,
        opts=[
            *("DATASETS.TRAIN", f"coco:{files[0]},{files[1]}"),
            *("OUTPUT_DIR", str(tmp_path / "out")),
            *opts,
        ],
    )
