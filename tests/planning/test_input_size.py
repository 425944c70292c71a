import numpy as np
import pytest

from libra_d2.config.augmentations import check_augmentations
from libra_d2.planning.input_size import MIN_SIDE, plan_input_size

from ..support.project import ROOT
from .made_up import config, log_normal_shapes, notes, training_set, values


def set_values(cfg, planned):
    for key, value in planned.items():
        node = cfg
        for part in key.split(".")[:-1]:
            node = node[part]
        node[key.split(".")[-1]] = value


def test_large_objects_keep_the_size():
    data = training_set(np.full((100, 2), 60.0), 10)
    advice = plan_input_size(data, config())
    assert not values(advice) and "at least 40 pixels" in notes(advice)  # 480 is resized to 320


def test_small_objects_get_a_larger_input():
    data = training_set(np.full((100, 2), 12.0), 10)  # 8 pixels after the resize to 320
    planned = values(plan_input_size(data, config()))
    assert planned == {
        "INPUT.MIN_SIZE_TRAIN": (480,),
        "INPUT.MAX_SIZE_TRAIN": 800,
        "INPUT.MIN_SIZE_TEST": 480,
        "INPUT.MAX_SIZE_TEST": 800,
    }


def test_a_larger_size_for_evaluation_is_not_reduced():
    data = training_set(np.full((100, 2), 9.0), 10, size=(640, 640))
    cfg = config(*"INPUT.MIN_SIZE_TRAIN (512,) INPUT.MIN_SIZE_TEST 1024".split())
    cfg.INPUT.MAX_SIZE_TEST = 1600
    planned = values(plan_input_size(data, cfg))
    assert planned["INPUT.MIN_SIZE_TRAIN"] == (864,) and planned["INPUT.MAX_SIZE_TRAIN"] < 1600
    assert planned["INPUT.MIN_SIZE_TEST"] == 1024 and planned["INPUT.MAX_SIZE_TEST"] == 1600


def test_a_larger_size_for_evaluation_is_not_reduced_to_that_of_crops():
    data = training_set(np.full((5000, 2), 14.0), 500, size=(4000, 3000))
    cfg = config(*"INPUT.MIN_SIZE_TEST 3200 INPUT.MAX_SIZE_TEST 4800".split())
    planned = values(plan_input_size(data, cfg))
    assert planned["INPUT.CROP.ENABLED"]
    assert planned["INPUT.MIN_SIZE_TEST"] == 3200 and planned["INPUT.MAX_SIZE_TEST"] == 4800


def test_tiny_objects_in_large_images_are_trained_on_crops():
    """500 objects of 14 pixels in images of 4000 x 3000."""
    rng = np.random.default_rng(0)
    data = training_set(log_normal_shapes(rng, 5000, 14, spread=0.1), 500, size=(4000, 3000))
    cfg = config()
    planned = values(plan_input_size(data, cfg))
    assert planned["INPUT.CROP.ENABLED"] and planned["INPUT.CROP.TYPE"] == "absolute"
    scale = planned["INPUT.MIN_SIZE_TRAIN"][0] / planned["INPUT.CROP.SIZE"][0]
    assert 0.95 < scale / (planned["INPUT.MIN_SIZE_TEST"] / 3000) < 1.05  # as in evaluation
    sides = np.sqrt(data.objects.widths_heights.prod(1)) * scale
    assert np.quantile(sides, 0.1) >= 0.95 * MIN_SIDE
    assert planned["INPUT.MAX_SIZE_TEST"] >= planned["INPUT.MIN_SIZE_TEST"] * 4 / 3
    set_values(cfg, planned)
    seen = np.sqrt(data.resized_shapes(cfg).prod(1))
    assert np.allclose(seen, sides, rtol=0.05)  # the later rules see the objects of the crops
    assert data.objects_per_view(cfg).max() < 50


@pytest.mark.parametrize("height", [1000, 400])
def test_crops_of_elongated_images_have_the_scale_that_is_needed(height):
    """MAX_SIZE_TRAIN limits the size of the base config: the images are resized to 1333 pixels."""
    data = training_set(np.full((1000, 2), 10.0), 100, size=(8000, height))
    cfg = config("INPUT.MIN_SIZE_TRAIN", "(800,)", "INPUT.MAX_SIZE_TRAIN", "1333")
    planned = values(plan_input_size(data, cfg))
    set_values(cfg, planned)
    seen = np.sqrt(data.resized_shapes(cfg).prod(1))
    assert np.allclose(seen, MIN_SIDE, rtol=0.08)  # sizes are rounded up to 32 pixels
    assert planned["INPUT.MIN_SIZE_TEST"] == -(-1.2 * height // 32) * 32
    assert planned["INPUT.MAX_SIZE_TEST"] == planned["INPUT.MIN_SIZE_TEST"] * 8000 / height


def test_elongated_images_are_enlarged_from_their_size_in_the_base_config():
    """The base config reduces images of 8000 pixels to 1333, and objects of 40 pixels to 6.7."""
    data = training_set(np.full((1000, 2), 40.0), 100, size=(8000, 1000))
    cfg = config("INPUT.MIN_SIZE_TRAIN", "(800,)", "INPUT.MAX_SIZE_TRAIN", "1333")
    planned = values(plan_input_size(data, cfg))
    assert "INPUT.CROP.ENABLED" not in planned
    set_values(cfg, planned)
    assert np.allclose(data.resized_shapes(cfg), MIN_SIDE, rtol=0.04)


@pytest.mark.parametrize(
    "opts",
    [
        ("INPUT.CROP.ENABLED", "True"),
        ("INPUT.AUGMENTATIONS", "('RandomCrop(0.5)',)"),
    ],
)
def test_crops_of_the_base_config_are_not_planned_for(opts):
    data = training_set(np.full((100, 2), 3.0), 10)
    advice = plan_input_size(data, config(*opts))
    assert not values(advice) and "base config crops the images" in notes(advice)


def test_a_size_of_0_is_that_of_the_images():
    opts = ("INPUT.MIN_SIZE_TRAIN", "(0,)", "INPUT.MIN_SIZE_TEST", "0")
    large = training_set(np.full((100, 2), 14.0), 10)
    assert not values(plan_input_size(large, config(*opts)))
    data = training_set(np.full((100, 2), 8.0), 10, size=(1440, 480))
    assert values(plan_input_size(data, config(*opts))) == {
        "INPUT.MIN_SIZE_TRAIN": (736,),  # 1.5 * 480, rounded up
        "INPUT.MAX_SIZE_TRAIN": 2208,
        "INPUT.MIN_SIZE_TEST": 736,
        "INPUT.MAX_SIZE_TEST": 2208,
    }
    planned = values(plan_input_size(large, config("INPUT.MIN_SIZE_TEST", "0")))
    assert planned["INPUT.MIN_SIZE_TRAIN"] == (416,)
    assert planned["INPUT.MIN_SIZE_TEST"] == 0  # 480 pixels, which are not reduced to 416


def test_crops_with_a_list_of_augmentations_are_put_into_it():
    """The same objects at the same scale as by INPUT.CROP, and a config that can be used."""
    rng = np.random.default_rng(0)
    data = training_set(log_normal_shapes(rng, 5000, 14, spread=0.1), 500, size=(4000, 3000))
    expected = config()
    set_values(expected, values(plan_input_size(data, expected)))
    cfg = config("INPUT.AUGMENTATIONS", "HorizontalFlip()")
    planned = values(plan_input_size(data, cfg))
    assert "INPUT.CROP.ENABLED" not in planned
    crop, resize, flip = planned["INPUT.AUGMENTATIONS"]
    assert crop == f"FixedSizeCrop(size={expected.INPUT.CROP.SIZE[0]})"
    assert f"size={expected.INPUT.MIN_SIZE_TRAIN[0]})" in resize and flip == "HorizontalFlip()"
    set_values(cfg, planned)
    assert not check_augmentations(cfg)
    assert np.allclose(data.resized_shapes(cfg), data.resized_shapes(expected), rtol=0.01)
    assert np.allclose(data.objects_per_view(cfg), data.objects_per_view(expected))


def test_a_list_that_resizes_is_not_planned_for():
    data = training_set(np.full((100, 2), 3.0), 10)
    advice = plan_input_size(data, config("INPUT.AUGMENTATIONS", "FixedSizeCrop(64)"))
    assert not values(advice) and "INPUT.AUGMENTATIONS sets the input size" in notes(advice)


def test_shapes_of_objects_follow_the_list():
    """Images of 480 x 480 pixels with objects of 60."""
    data = training_set(np.full((4, 2), 60.0), 4, size=(480, 480))
    for texts, side in (
        (["ResizeScale(0.5, 1.5, 240)", "FixedSizeCrop(100)"], 30),
        (["FixedSizeCrop(240)"], 60),
        (["FixedSizeCrop((60, 120))", "ResizeScale(1, 1, 240)"], 120),
        (["RandomCrop(0.5)", "ResizeScale(1, 1, 360)"], 60),
        (["RandomCrop(0.5)"], 60 * 320 / 360),  # 320 is the shorter side of the config
    ):
        cfg = config("INPUT.AUGMENTATIONS", str(tuple(texts)))
        assert np.allclose(data.resized_shapes(cfg), side), texts


def test_masks_are_cropped_by_the_list():
    """Detectron2's INPUT.CROP needs shapely for polygons."""
    data = training_set(np.full((1000, 2), 14.0), 500, size=(4000, 3000))
    cfg = config(config_file=str(ROOT / "configs/libra_mask_r50.yaml"))
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (320,), 533
    planned = values(plan_input_size(data, cfg))
    assert "INPUT.CROP.ENABLED" not in planned
    assert planned["INPUT.AUGMENTATIONS"][0].startswith("FixedSizeCrop")


@pytest.mark.parametrize(
    "flip,entries",
    [
        ("horizontal", ("HorizontalFlip(prob=0.5)",)),
        ("vertical", ("VerticalFlip(prob=0.5)",)),
        ("none", ()),
    ],
)
def test_masks_keep_their_flips_in_the_list(flip, entries):
    data = training_set(np.full((1000, 2), 14.0), 500, size=(4000, 3000))
    cfg = config("MODEL.MASK_ON", "True", "INPUT.RANDOM_FLIP", flip)
    planned = values(plan_input_size(data, cfg))
    assert planned["INPUT.AUGMENTATIONS"][2:] == entries
    set_values(cfg, planned)
    assert not check_augmentations(cfg)


def test_no_image_is_enlarged_more_than_twice():
    data = training_set(np.full((100, 2), 3.0), 10, size=(200, 160))
    advice = plan_input_size(data, config())
    assert not values(advice) and "already enlarged" in notes(advice)


@pytest.mark.parametrize("opts", [("INPUT.FIXED_SIZE", "(320, 320)")])
def test_what_the_user_has_fixed_is_not_planned(opts):
    data = training_set(np.full((100, 2), 3.0), 10)
    assert not values(plan_input_size(data, config(*opts)))
