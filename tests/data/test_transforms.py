import copy
import logging

import numpy as np
import pytest
from detectron2.data import transforms as T
from detectron2.data.detection_utils import (
    annotations_to_instances,
    transform_instance_annotations,
)
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, BoxMode, Instances
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from libra_d2.data import FixedSize, LibraDatasetMapper, RandomExpand
from libra_d2.engine import load_cfg
from libra_d2.errors import UserError


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


# -- Boxes and the pixels that they cover ----------------------------------------------------------


class Scene:
    """
    A rectangle in red on black. Red less blue is 255 on it and 0 elsewhere, also on the grey of an
    expanded canvas: after resizing, which is linear, it is the rectangle's share of a pixel.
    """

    def __init__(self, size, box):
        x0, y0, x1, y1 = box
        self.image = np.zeros((*size, 3), np.uint8)
        self.image[y0:y1, x0:x1, 0] = 255
        self.annotation = {
            "bbox": list(map(float, box)),
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": 0,
            "segmentation": [[float(v) for v in (x0, y0, x1, y0, x1, y1, x0, y1)]],
        }

    def transformed(self, augmentations):
        """(image, box, box of the mask's polygon), by the functions that the mapper calls."""
        inputs = T.AugInput(self.image)
        transforms = T.AugmentationList(augmentations)(inputs)
        size = inputs.image.shape[:2]
        annotation = transform_instance_annotations(
            copy.deepcopy(self.annotation), transforms, size
        )
        masks = annotations_to_instances([annotation], size).gt_masks
        return inputs.image, annotation["bbox"], masks.get_bounding_boxes().tensor[0].numpy()


def assert_covers(image, box):
    """
    The box ends where the rectangle's share of the pixels falls to half of its peak, in pixels:
    0.5 is due to whole pixels; up to 0.25 to a peak between two pixels, to half of which an
    enlarged edge, a ramp, falls later; up to 0.12 to the filter, which is cut at the border. What
    is left below two pixels is blurred to the filter's own width, and appears up to 0.6 larger.
    """
    height, width = image.shape[:2]
    assert (box[:2] >= 0).all() and box[2] <= width and box[3] <= height
    assert box[2] > box[0] and box[3] > box[1]
    share = image[..., 0].astype(float) - image[..., 2]
    if share.max() < 16:
        return  # a speck, whose shape is lost in the rounding of pixel values
    for axis in (0, 1):  # x, y
        profile = share.max(axis)
        covered = np.flatnonzero(profile > profile.max() / 2)
        start, end = box[axis], box[axis + 2]
        tolerance = 0.9 if end - start >= 2 else 1.5
        assert abs(covered[0] - start) <= tolerance and abs(covered[-1] + 1 - end) <= tolerance, (
            f"box {box}, pixels {covered[0]} to {covered[-1] + 1} along axis {axis}"
        )


@st.composite
def scenes(draw):
    """Odd sizes, boxes of one pixel and boxes at the border are among them."""
    height, width = draw(st.integers(8, 70)), draw(st.integers(8, 70))
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
    return Scene((height, width), (x0, y0, x1, y1))


SIZES = st.tuples(st.integers(24, 150), st.integers(24, 150))
RESIZES = {
    "fixed size": st.builds(FixedSize, SIZES, st.just(False)),
    "within a size": st.builds(FixedSize, SIZES, st.just(True)),
    "shortest edge": st.builds(lambda s: T.ResizeShortestEdge((s, s), 200), st.integers(24, 120)),
}
OTHERS = {
    "expand": st.builds(RandomExpand, st.just(1.0), st.sampled_from([1.5, 4.0])),
    "flip": st.builds(T.RandomFlip, st.just(1.0)),
    "vertical flip": st.builds(
        lambda: T.RandomFlip(1.0, horizontal=False, vertical=True),
    ),
}


def check(scene, augmentations, seed):
    np.random.seed(seed)
    image, box, polygon_box = scene.transformed(augmentations)
    assert_covers(image, box)
    assert np.allclose(polygon_box, box, atol=1e-3)


@pytest.mark.parametrize("name", [*RESIZES, *OTHERS])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_box_still_covers_its_pixels(name, data):
    augmentation = data.draw({**RESIZES, **OTHERS}[name])
    check(data.draw(scenes()), [augmentation], data.draw(st.integers(0, 9)))


@settings(deadline=None, max_examples=150)
@given(
    scene=scenes(),
    before=st.lists(st.one_of(*OTHERS.values()), max_size=2),
    resize=st.one_of(*RESIZES.values()),
    after=st.lists(st.one_of(*OTHERS.values()), max_size=2),
    seed=st.integers(0, 99),
)
def test_a_box_still_covers_its_pixels_after_a_chain(scene, before, resize, after, seed):
    check(scene, [*before, resize, *after], seed)


def test_the_check_itself_sees_a_box_that_is_off():
    """Two pixels beside the rectangle, or half of its size."""
    for box in ((12, 5, 42, 25), (10, 5, 25, 15)):
        with pytest.raises(AssertionError, match="along axis"):
            assert_covers(Scene((40, 60), (10, 5, 40, 25)).image, np.array(box))


# -- Sizes -----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(scene=scenes(), size=SIZES, keep_ratio=st.booleans())
def test_fixed_size_and_the_way_back(scene, size, keep_ratio):
    """Evaluation scales by the sizes of the image and of the file: its boxes are exact."""
    image, box, _ = scene.transformed([FixedSize(size, keep_ratio)])
    height, width = scene.image.shape[:2]
    if keep_ratio:
        assert image.shape[0] <= size[0] and image.shape[1] <= size[1]
        assert image.shape[0] == size[0] or image.shape[1] == size[1]
        ratio = min(size[0] / height, size[1] / width)
        assert abs(image.shape[0] - height * ratio) <= 0.5
        assert abs(image.shape[1] - width * ratio) <= 0.5
    else:
        assert image.shape[:2] == size
    detected = Instances(image.shape[:2])
    detected.pred_boxes = Boxes(box[None].astype(np.float32))
    result = detector_postprocess(detected, height, width)
    assert np.allclose(result.pred_boxes.tensor.numpy(), scene.annotation["bbox"], atol=1e-3)


def test_a_very_long_image_keeps_a_pixel():
    image = np.zeros((2, 900, 3), np.uint8)
    assert FixedSize((64, 64), True).get_transform(image).apply_image(image).shape == (1, 64, 3)


# -- In the mapper ---------------------------------------------------------------------------------


def mapper(is_train, *opts):
    return LibraDatasetMapper(load_cfg("configs/libra_r50.yaml", opts), is_train)


def test_config_keys_reach_the_mapper():
    opts = ["INPUT.AUGMENTATIONS", "('Expand(prob=0.3)', 'HorizontalFlip(prob=0.9)')"]
    expand, _, flip = mapper(True, *opts).augmentations.augs
    assert (expand.prob, flip.prob) == (0.3, 0.9)
    assert len(mapper(False, *opts).augmentations.augs) == 1


@pytest.mark.parametrize("keep_ratio", [False, True])
def test_fixed_size_takes_the_place_of_the_shortest_edge(keep_ratio):
    """In training and in evaluation; expansion still comes before it, flipping after it."""
    opts = ["INPUT.FIXED_SIZE", "(48, 72)", "INPUT.KEEP_RATIO", str(keep_ratio)]
    listed = ["INPUT.AUGMENTATIONS", "('Expand(prob=0.3)', 'HorizontalFlip()')"]
    expand, train, _ = mapper(True, *opts, *listed).augmentations.augs
    (test,) = mapper(False, *opts).augmentations.augs
    assert isinstance(expand, RandomExpand)
    for resize in (train, test):
        assert isinstance(resize, FixedSize)
        assert (tuple(resize.size), resize.keep_ratio) == ((48, 72), keep_ratio)


def test_the_predictor_of_detectron2_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        mapper(False, "INPUT.FIXED_SIZE", "(47, 73)")
    assert "INPUT.FIXED_SIZE (47, 73): Detectron2's DefaultPredictor still" in caplog.text


@pytest.mark.parametrize(
    "opts,named",
    [
        (("INPUT.FIXED_SIZE", "(48, 0)"), r"FIXED_SIZE must be \(height, width\) .*got \(48, 0\)"),
        (("INPUT.FIXED_SIZE", "(48,)"), r"INPUT.FIXED_SIZE must be .*got \(48,\)"),
        (("INPUT.AUGMENTATIONS", "Expand(prob=-0.1)"), r"got 'Expand\(prob=-0.1\)'"),
    ],
)
def test_values_out_of_range_are_named(opts, named):
    with pytest.raises(UserError, match=named):
        mapper(True, *opts)


def test_an_image_without_objects(tmp_path):
    Image.new("RGB", (31, 17)).save(tmp_path / "a.png")
    record = {"file_name": str(tmp_path / "a.png"), "image_id": 1, "height": 17, "width": 31}
    listed = "('Expand(prob=1)', 'RandomCrop(min=0.5)', 'HorizontalFlip(prob=1)')"
    opts = ["INPUT.FIXED_SIZE", "(40, 60)", "INPUT.AUGMENTATIONS", listed]
    output = mapper(True, *opts)({**record, "annotations": []})
    assert output["image"].shape == (3, 40, 60)
    assert output["instances"].gt_boxes.tensor.shape == (0, 4)
