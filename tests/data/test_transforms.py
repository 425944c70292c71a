import numpy as np
import pytest
from detectron2.data import transforms as T

from libra_d2.data import LibraDatasetMapper
from libra_d2.data.transforms import RandomExpand
from libra_d2.engine import load_cfg


def scene():
    """A white object on black, 10 pixels from the left and 5 from the top."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[5:25, 10:40] = 255
    return image, np.array([[10.0, 5.0, 40.0, 25.0]])


@pytest.mark.parametrize("seed", range(8))
def test_a_box_still_covers_its_pixels_after_expansion(seed):
    np.random.seed(seed)
    image, boxes = scene()
    inputs = T.AugInput(image, boxes=boxes)
    RandomExpand(1.0)(inputs)
    height, width = inputs.image.shape[:2]
    assert 40 <= height <= 160 and 60 <= width <= 240
    x0, y0, x1, y1 = inputs.boxes[0].astype(int)
    assert (inputs.image[y0:y1, x0:x1] == 255).all()
    assert (inputs.image == 255).all(-1).sum() == 20 * 30


def test_never_at_probability_zero():
    image, boxes = scene()
    inputs = T.AugInput(image, boxes=boxes)
    RandomExpand(0.0)(inputs)
    assert np.array_equal(inputs.image, image)


def test_config_keys_reach_the_mapper():
    opts = ["INPUT.EXPAND_PROB", "0.3", "INPUT.FLIP_PROB", "0.9"]
    cfg = load_cfg("configs/libra_r50.yaml", opts)
    expand, _, flip = LibraDatasetMapper(cfg, True).augmentations.augs
    assert (expand.prob, flip.prob) == (0.3, 0.9)
    assert len(LibraDatasetMapper(cfg, False).augmentations.augs) == 1
