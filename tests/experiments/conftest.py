"""Data for experiments."""

import pytest

from libra_d2.data.datasets.shapes import write_shapes


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_shapes(folder, "train", 12, seed=1)
    write_shapes(folder, "val", 3, seed=2)
    return {part: f"coco:{folder}/{part}.json,{folder}/{part}" for part in ("train", "val")}
