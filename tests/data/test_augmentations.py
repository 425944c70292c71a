"""Transforms of INPUT.AUGMENTATIONS: each box covers the pixels of its object, before and after."""

import copy
import itertools
import re

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from libra_d2.data import LibraDatasetMapper
from libra_d2.data.annotated_input import AnnotatedInput, ClippingCrop, clip_polygons
from libra_d2.data.augmentations import Rotate90Transform, build_augmentations
from libra_d2.data.copy_paste import CopyPaste, Donors
from libra_d2.data.loader import build_train_loader
from libra_d2.engine import load_cfg
from libra_d2.engine.train_loop import _write_augmentation

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]  # of class 0, 1 and 2


def annotation(box, category, form="polygon", size=None):
    x0, y0, x1, y1 = box
    ret = {
        "bbox": [float(v) for v in box],
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": category,
        "iscrowd": 0,
    }
    if form == "polygon":
        ret["segmentation"] = [[float(v) for v in (x0, y0, x1, y0, x1, y1, x0, y1)]]
    elif form == "mask":
        mask = np.zeros(size, np.uint8, order="F")
        mask[y0:y1, x0:x1] = 1
        ret["segmentation"] = mask_util.encode(mask)
    return ret


def scene(boxes, size=(60, 80), form="polygon"):
    """Rectangles in pure colours on black, one of each class, which do not overlap."""
    image = np.zeros((*size, 3), np.uint8)
    for (x0, y0, x1, y1), colour in zip(boxes, COLOURS):
        image[y0:y1, x0:x1] = colour
    return image, [annotation(b, c, form, size) for c, b in enumerate(boxes)]


def augmented(texts, image, annotations, seed=0, fmt="RGB"):
    cfg = load_cfg("configs/libra_r50.yaml", ["INPUT.FORMAT", fmt])
    cfg.INPUT.AUGMENTATIONS = tuple(texts)
    cfg.INPUT.MIN_SIZE_TRAIN = (0,)  # keeps the size
    np.random.seed(seed)
    inputs = AnnotatedInput(image, copy.deepcopy(annotations))
    T.AugmentationList(build_augmentations(cfg))(inputs)
    return inputs


def share_of_colour(image, category):
    """
    (H, W): how much a pixel shows of a class, 0 to 1: its channel less the largest of the others,
    so that grey canvas is 0.
    """
    pixels = image.astype(float)
    others = np.delete(pixels, category, axis=2).max(2)
    return (pixels[..., category] - others) / 255


def mask_of(found, size):
    mask = found["segmentation"]
    if isinstance(mask, np.ndarray):
        return mask > 0
    rles = mask_util.frPyObjects([np.asarray(p).reshape(-1).tolist() for p in mask], *size)
    return mask_util.decode(mask_util.merge(rles)) > 0


def assert_covered(inputs, tolerance=1.0, masks=True):
    """
    Boxes and masks of all objects that are left end where the colour of their pixels does. An
    object of less than two pixels is blurred to a speck, whose ends are lost.
    """
    height, width = inputs.image.shape[:2]
    for found in inputs.annotations:
        x0, y0, x1, y1 = found["bbox"]
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        if min(x1 - x0, y1 - y0) < 2:
            continue
        share = share_of_colour(inputs.image, found["category_id"])
        rows, columns = (np.flatnonzero((share > share.max() / 2).any(a)) for a in (1, 0))
        ends = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert np.abs(np.subtract(ends, (x0, y0, x1, y1))).max() <= tolerance, (ends, found["bbox"])
        if masks:
            mask = mask_of(found, (height, width))
            rows, columns = (np.flatnonzero(mask.any(a)) for a in (1, 0))
            of_mask = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            assert np.abs(np.subtract(of_mask, ends)).max() <= tolerance, (of_mask, ends)


@st.composite
def scenes(draw):
    """One to three rectangles, each in its own third of the image."""
    height, width = draw(st.integers(16, 60)), draw(st.integers(30, 90))
    third = width // 3
    boxes = []
    for i in range(draw(st.integers(1, 3))):
        x0 = draw(st.integers(i * third, (i + 1) * third - 4))
        x1 = draw(st.integers(x0 + 3, (i + 1) * third - 1))
        y0 = draw(st.integers(0, height - 3))
        y1 = draw(st.integers(y0 + 3, height))
        boxes.append((x0, y0, x1, y1))
    form = draw(st.sampled_from(["polygon", "mask"]))
    return scene(boxes, (height, width), form)


EXACT = [
    "RandomCrop(min=0.3)",
    "RandomCrop(min=0.5, min_area=0.9, prob=0.5)",
    "Expand(max_ratio=2, prob=0.7)",
    "HorizontalFlip(prob=0.5)",
    "VerticalFlip(prob=0.5)",
    "Rotate90(prob=0.75)",
    "FixedSizeCrop(size=40)",
    "FixedSizeCrop(size=(50, 30), min_area=0.1)",
]
RESIZING = ["ResizeScale(min_scale=0.8, max_scale=2.0, size=64)", "ResizeScale(1, 1, (50, 90))"]


@pytest.mark.parametrize("text", EXACT)
@settings(deadline=None, max_examples=40)
@given(drawn=scenes(), seed=st.integers(0, 999))
def test_a_box_covers_its_pixels(text, drawn, seed):
    """Nothing is resized, so ends are exact. FixedSizeCrop shrinks images if all else fails."""
    tolerance = 1.0 if text.startswith("FixedSizeCrop") else 1e-6
    assert_covered(augmented([text], *drawn, seed), tolerance)


@settings(deadline=None, max_examples=150)
@given(
    drawn=scenes(),
    before=st.lists(st.sampled_from(EXACT[:6]), max_size=3),
    resize=st.sampled_from(RESIZING),
    after=st.lists(st.sampled_from(EXACT), max_size=4),
    seed=st.integers(0, 999),
)
def test_a_box_covers_its_pixels_after_a_chain(drawn, before, resize, after, seed):
    """
    Half a pixel is due to whole pixels, and half to the peak of a small object, which blurring
    lowers.
    """
    assert_covered(augmented([*before, resize, *after], *drawn, seed), 1.0)


def test_the_check_sees_a_box_and_a_mask_that_are_off():
    image, annotations = scene([(10, 10, 30, 40)])
    for key, value in (
        ("bbox", [12.0, 10.0, 30.0, 40.0]),
        ("segmentation", [[10, 10, 30, 10, 30, 25, 10, 25]]),
    ):
        inputs = AnnotatedInput(image, [{**annotations[0], key: value}])
        with pytest.raises(AssertionError):
            assert_covered(inputs)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_rotation_moves_each_pixel_to_its_coordinates(turns):
    image = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7)
    tfm = Rotate90Transform(5, 7, turns)
    rotated = tfm.apply_image(image)
    y, x = np.mgrid[:5, :7]
    centres = np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1)
    x, y = (tfm.apply_coords(centres.copy()) - 0.5).astype(int).T
    assert (rotated[y, x] == image.ravel()).all()
    assert (tfm.inverse().apply_image(rotated) == image).all()
    assert np.allclose(tfm.inverse().apply_coords(tfm.apply_coords(centres.copy())), centres)


# -- Colours ---------------------------------------------------------------------------------------


def pixels(texts, colour, fmt="RGB"):
    image = np.full((4, 4, 3), colour, np.uint8)
    return augmented(texts, image, [], fmt=fmt).image[0, 0].tolist()


def test_colours():
    assert pixels(["Brightness(0.5, 0.5)"], (100, 40, 200)) == [50, 20, 100]
    assert pixels(["Contrast(0.5, 0.5)"], (60, 60, 60)) == [60, 60, 60]
    assert pixels(["Hue(120, 120)"], (255, 0, 0)) == [0, 255, 0]
    assert pixels(["Hue(-120, -120)"], (255, 0, 0)) == [0, 0, 255]
    assert pixels(["Hue(0, 0)"], (13, 77, 200)) == [13, 77, 200]


@pytest.mark.parametrize("text", ["Gray(prob=1)", "Saturation(0.5, 0.5)", "Hue(50, 50)"])
def test_colours_do_not_depend_on_the_order_of_the_channels(text):
    """Red has a share of 0.299 in grey, blue one of 0.114."""
    colour = (200, 100, 50)
    assert pixels([text], colour) == pixels([text], colour[::-1], "BGR")[::-1]
    if text.startswith("Gray"):
        grey = int(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
        assert pixels([text], colour) == [grey] * 3


def test_colours_leave_annotations_alone():
    texts = ["Brightness(0.5, 1)", "Contrast(0.5, 1)", "Saturation(0.5, 1)", "Hue(-9, 9)", "Gray()"]
    image, annotations = scene([(10, 10, 30, 40)])
    (found,) = augmented(texts, image, annotations).annotations
    assert found["bbox"].tolist() == annotations[0]["bbox"]


@pytest.mark.parametrize(
    "text",
    ["HorizontalFlip(prob={})", "VerticalFlip({})", "Rotate90({})", "Expand(2, {})"]
    + ["RandomCrop(0.4, prob={})", "Brightness(0, 0, {})", "Gray({})", "Hue(90, 90, {})"],
)
@pytest.mark.parametrize("prob", [0, 0.3, 1])
def test_probabilities(text, prob):
    image, _ = scene([(0, 0, 30, 20)])
    image[:30, :40, 1] += 20  # asymmetric
    changed = 0
    for seed in range(200):
        result = augmented([text.format(prob)], image, [], seed).image
        changed += not np.array_equal(result, image)
    # Three standard deviations of a share of 0.3 in 200 are 0.1. A canvas or a crop may, rarely,
    # have the size of the image.
    assert abs(changed / 200 - prob) <= (0.1 if prob else 0)


# -- Crops -----------------------------------------------------------------------------------------


def test_objects_that_a_crop_cuts_are_dropped_and_counted():
    """A window of 60 of 80 pixels leaves 20 pixels of the objects at both ends together."""
    image, annotations = scene([(0, 0, 20, 60), (60, 0, 80, 60)])
    dropped = 0
    for seed in range(60):
        inputs = augmented(["FixedSizeCrop(size=(60, 60), min_area=0.5)"], image, annotations, seed)
        assert inputs.image.shape == (60, 60, 3)
        assert len(inputs.annotations) + inputs.num_dropped == 2
        for a in inputs.annotations:
            assert np.ptp(a["bbox"][::2]) >= 10  # half of the width of 20
        dropped += inputs.num_dropped
    assert dropped > 40  # all but those with about 10 pixels of each


@pytest.mark.parametrize("text", ["RandomCrop(min=0.05)", "FixedSizeCrop(size=12)"])
def test_no_crop_drops_all_objects_of_an_image(text):
    image, annotations = scene([(37, 27, 42, 32)])
    sizes = set()
    for seed in range(60):
        inputs = augmented([text], image, annotations, seed)
        assert len(inputs.annotations) == 1 and inputs.num_dropped == 0
        sizes.add(inputs.image.shape[:2])
    if text.startswith("Fixed"):
        assert sizes == {(12, 12)}


def test_what_is_larger_than_a_crop_is_shrunk_to_fit():
    image, annotations = scene([(0, 0, 80, 60)])
    inputs = augmented(["FixedSizeCrop(size=16)"], image, annotations)
    assert inputs.image.shape == (16, 16, 3)
    assert inputs.annotations[0]["bbox"].tolist() == [0, 0, 16, 12]


def test_the_box_of_a_cut_mask_is_that_of_its_rest():
    """An L of two arms, of which the crop leaves the lower one only."""
    image = np.zeros((40, 40, 3), np.uint8)
    ell = annotation((0, 0, 40, 40), 0, form="none")
    ell["segmentation"] = [[0, 0, 10, 0, 10, 30, 40, 30, 40, 40, 0, 40]]
    inputs = AnnotatedInput(image, [ell])
    inputs.crop(ClippingCrop(20, 10, 20, 30), np.array([0.4]), 0.3)
    assert inputs.annotations[0]["bbox"].tolist() == [0, 20, 20, 30]


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_clipped_polygons_have_the_pixels_that_are_left(data):
    """Whole pixels make the areas exact; the shapes are concave, too."""
    heights = data.draw(st.lists(st.integers(1, 20), min_size=2, max_size=8))
    points = [(0, 0)]
    for i, h in enumerate(heights):
        points += [(4 * i, h), (4 * (i + 1), h)]
    points.append((4 * len(heights), 0))
    x0, y0 = data.draw(st.integers(0, 20)), data.draw(st.integers(0, 15))
    x1, y1 = x0 + data.draw(st.integers(1, 20)), y0 + data.draw(st.integers(1, 15))
    clipped = clip_polygons([np.array(points)], (x0, y0, x1, y1))
    expected = sum(
        max(min(4 * (i + 1), x1) - max(4 * i, x0), 0) * max(min(h, y1) - y0, 0)
        for i, h in enumerate(heights)
    )
    area = sum(
        abs(np.dot(p[:, 0], np.roll(p[:, 1], 1)) - np.dot(p[:, 1], np.roll(p[:, 0], 1))) / 2
        for p in clipped
    )
    assert area == pytest.approx(expected)


# -- Copy-paste ------------------------------------------------------------------------------------


def files(folder, scenes_):
    records = []
    for i, (image, annotations) in enumerate(scenes_):
        Image.fromarray(image).save(folder / f"{i}.png")
        height, width = image.shape[:2]
        records.append(
            {
                "file_name": str(folder / f"{i}.png"),
                "image_id": i,
                "height": height,
                "width": width,
                "annotations": annotations,
            }
        )
    return records


def pasted(target, donors, seed, mask_format="polygon", **options):
    """What CopyPaste makes of a scene, with objects of others."""
    records = [{"annotations": a, "image": i} for i, a in donors]
    augmentation = CopyPaste(prob=1.0, **options)
    augmentation.donors = Donors(records, records, lambda record: record["image"])
    np.random.seed(seed)
    image, annotations = target
    inputs = AnnotatedInput(image, copy.deepcopy(annotations), mask_format=mask_format)
    augmentation(inputs)
    return inputs


@pytest.mark.parametrize("form", ["polygon", "mask", "none"])
@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_pasted_objects_have_correct_annotations(form, mask_format):
    """Red is in the target, blue in the donor."""
    target = scene([(10, 10, 40, 30)], form=form)
    image = np.zeros((70, 70, 3), np.uint8)
    image[20:45, 30:40] = COLOURS[2]
    donor = (image, [annotation((30, 20, 40, 45), 2, form, (70, 70))])
    number = 0
    for seed in range(80):
        inputs = pasted(target, [donor], seed, mask_format)
        number += inputs.num_pasted
        assert len(inputs.annotations) == 1 + inputs.num_pasted
        # A corner that is hidden is still within a polygon, which is clipped to the box.
        assert_covered(inputs, 1e-6, masks=form != "none")
        if form != "none" and mask_format == "bitmask":
            for found in inputs.annotations:
                colour = share_of_colour(inputs.image, found["category_id"]) == 1
                assert np.array_equal(mask_of(found, (60, 80)), colour)
    assert number > 60


@settings(deadline=None, max_examples=60)
@given(
    drawn=scenes(),
    form=st.sampled_from(["polygon", "mask"]),
    chain=st.lists(st.sampled_from(EXACT[:6]), max_size=4),
    seed=st.integers(0, 999),
)
def test_a_box_covers_its_pixels_after_copy_paste_and_a_chain(drawn, form, chain, seed):
    """Blue is pasted into an image of red and green objects. Nothing is resized: it is exact."""
    image = np.zeros((16, 24, 3), np.uint8)
    image[3:13, 5:20] = COLOURS[2]
    donor = (image, [annotation((5, 3, 20, 13), 2, form, (16, 24))])
    target = drawn[0] * np.array([1, 1, 0], np.uint8), [a for a in drawn[1] if a["category_id"] < 2]
    with_copy = pasted(target, [donor], seed, "bitmask")
    inputs = augmented(chain, with_copy.image, with_copy.annotations, seed)
    assert_covered(inputs, 1e-6)


def test_objects_are_pasted_by_their_masks():
    """The corners of a triangle's box stay the target's."""
    target = (np.full((60, 60, 3), 9, np.uint8), [])
    donor_image = np.full((40, 40, 3), 200, np.uint8)
    triangle = annotation((10, 10, 30, 30), 1, "none")
    triangle["segmentation"] = [[10, 10, 30, 30, 10, 30]]
    inputs = pasted(target, [(donor_image, [triangle])], 0)
    changed = (inputs.image == 200).all(2)
    assert 190 <= changed.sum() <= 230  # half of 400, and pixels on the diagonal
    assert np.array_equal(changed, mask_of(inputs.annotations[0], (60, 60)))


@settings(deadline=None, max_examples=60)
@given(
    drawn=scenes(),
    max_overlap=st.sampled_from([0.0, 0.1, 0.3, 0.8]),
    form=st.sampled_from(["polygon", "none"]),
    seed=st.integers(0, 999),
)
def test_nothing_is_hidden_beyond_the_limit(drawn, max_overlap, form, seed):
    """All copies together hide no more of an object. They are grey, which is no object's colour."""
    image = np.full((30, 40, 3), 128, np.uint8)
    boxes = [(2 * i, i, 2 * i + 9, i + 12) for i in range(12)]
    donor = (image, [annotation(b, 1, form) for b in boxes])
    before = {a["category_id"]: a for a in drawn[1]}
    inputs = pasted(drawn, [donor], seed, max_objects=12, max_overlap=max_overlap)
    for category in before:
        area = (share_of_colour(drawn[0], category) == 1).sum()
        left = (share_of_colour(inputs.image, category) == 1).sum()
        assert left >= (1 - max_overlap) * area - 1e-6


def test_an_object_that_is_hidden_altogether_is_dropped():
    target = scene([(10, 10, 14, 14)], size=(20, 20))
    donor = (np.full((20, 20, 3), 128, np.uint8), [annotation((0, 0, 20, 20), 1)])
    inputs = pasted(target, [donor], 0, max_overlap=1.0)
    assert [a["category_id"] for a in inputs.annotations] == [1]
    assert (inputs.num_dropped, inputs.num_pasted) == (1, 1)


def test_crowds_and_what_does_not_fit_are_not_pasted():
    target = (np.zeros((20, 20, 3), np.uint8), [])
    crowd = {**annotation((0, 0, 5, 5), 0), "iscrowd": 1}
    large = annotation((0, 0, 30, 5), 1)
    donor = (np.full((40, 40, 3), 99, np.uint8), [crowd, large])
    for seed in range(20):
        inputs = pasted(target, [donor], seed)
        assert not inputs.annotations and not inputs.image.any()


def test_rare_classes_are_preferred():
    """One of ten images has the rare class: it is drawn in about half of the cases, or a tenth."""
    image = np.full((20, 20, 3), 99, np.uint8)
    common = [(image, [annotation((0, 0, 5, 5), 0)])] * 9
    rare = (image, [annotation((0, 0, 5, 5), 1), annotation((8, 8, 12, 12), 0)])
    target = (np.zeros((60, 60, 3), np.uint8), [])
    shares = {}
    for option in (False, True):
        drawn = [
            pasted(target, [*common, rare], seed, rare_classes=option).annotations
            for seed in range(200)
        ]
        shares[option] = np.mean([any(a["category_id"] == 1 for a in found) for found in drawn])
    # Three standard deviations of a half in 200: 0.11. Of the rare image, one of two objects or
    # both are taken.
    assert shares[True] == pytest.approx(0.5, abs=0.11)
    assert 0.01 < shares[False] < 0.16


# -- In the mapper ---------------------------------------------------------------------------------


def mapper(*texts, config="configs/libra_r50.yaml", opts=()):
    cfg = load_cfg(config, ["INPUT.MIN_SIZE_TRAIN", "(50,)", *opts])
    cfg.INPUT.AUGMENTATIONS = texts
    return LibraDatasetMapper(cfg, is_train=True)


def test_the_default_flip_as_a_list_is_the_default(tmp_path):
    """Same image, boxes and masks, bit for bit."""
    (record,) = files(tmp_path, [scene([(10, 10, 40, 30), (50, 5, 77, 20)])])
    for seed in range(4):
        samples = []
        for texts in ((), ("HorizontalFlip()",)):
            np.random.seed(seed)
            samples.append(mapper(*texts, config="configs/libra_mask_r50.yaml")(record))
        plain, listed = samples
        assert torch.equal(plain["image"], listed["image"])
        a, b = plain["instances"], listed["instances"]
        assert torch.equal(a.gt_boxes.tensor, b.gt_boxes.tensor)
        assert all(np.array_equal(p, q) for p, q in zip(a.gt_masks.polygons, b.gt_masks.polygons))
        assert "dropped_boxes" not in plain and listed["dropped_boxes"] == 0


@pytest.mark.parametrize(
    "texts, kinds",
    [
        (["HorizontalFlip()"], ["ResizeShortestEdge", "RandomFlip"]),
        (["Gray(1)", "Expand()", "Gray(1)"], ["Sat", "RandomExpand", "ResizeShort", "Sat"]),
        (["RandomCrop(0.5)", "Rotate90()"], ["FixedSize|RandomCrop", "ResizeShort", "Rotate90"]),
        (["ResizeScale(1, 2, 64)", "Rotate90()"], ["ResizeScale", "Rotate90"]),
        (["Rotate90()", "FixedSizeCrop(64)"], ["Rotate90", "FixedSizeCrop"]),
    ],
)
def test_where_images_are_resized(texts, kinds):
    augmentations = [str(a) for a in mapper(*texts).augmentations.augs]
    assert len(augmentations) == len(kinds)
    assert all(re.match(kind, a) for kind, a in zip(kinds, augmentations)), augmentations


def test_the_log_says_what_the_list_replaces(caplog):
    with caplog.at_level("INFO"):
        mapper("FixedSizeCrop(64)", "Gray()")
        mapper("Gray()")
    expected = "INPUT.RANDOM_FLIP and INPUT.MIN_SIZE_TRAIN: FixedSizeCrop(64), Gray()"
    assert f"INPUT.AUGMENTATIONS, in place of {expected}" in caplog.text
    assert "INPUT.AUGMENTATIONS, in place of INPUT.RANDOM_FLIP: Gray()" in caplog.text


@pytest.mark.parametrize("form", ["polygon", "mask"])
def test_masks_of_padded_images_end_at_the_image(form, tmp_path):
    """Detectron2 pads label maps by 255, which is not a part of a mask."""
    (record,) = files(tmp_path, [scene([(10, 10, 40, 30)], form=form)])
    opts = ["INPUT.MASK_FORMAT", "bitmask"]
    config = "configs/libra_mask_r50.yaml"
    sample = mapper("FixedSizeCrop(size=128)", config=config, opts=opts)(record)
    assert sample["image"].shape == (3, 128, 128)
    assert int(sample["instances"].gt_masks.tensor.sum()) == 30 * 20


def test_an_unreadable_donor_is_reported_and_pastes_nothing(tmp_path, caplog):
    records = files(tmp_path, [scene([(10, 10, 40, 30)]), scene([(5, 5, 9, 9)])])
    (tmp_path / "1.png").write_bytes(b"no image")
    maps = mapper("CopyPaste(prob=1)")
    maps.copy_objects_from(records[1:], records[1:])
    sample = maps(records[0])
    assert sample["pasted_boxes"] == 0 and len(sample["instances"]) == 1
    assert int(maps.num_bad_images) == 1 and "1.png" in caplog.text


def test_copy_paste_without_images_is_an_error(tmp_path):
    (record,) = files(tmp_path, [scene([(10, 10, 40, 30)])])
    with pytest.raises(ValueError, match="copy_objects_from"):
        mapper("CopyPaste(prob=1)")(record)


def test_proposals_follow(tmp_path):
    (record,) = files(tmp_path, [scene([(10, 10, 40, 30)])])
    record.update(
        proposal_boxes=np.array([[10.0, 10.0, 40.0, 30.0]]),
        proposal_objectness_logits=np.array([1.0]),
        proposal_bbox_mode=BoxMode.XYXY_ABS,
    )
    maps = mapper(
        "HorizontalFlip(prob=1)", "Rotate90(prob=1)", opts=["MODEL.LOAD_PROPOSALS", "True"]
    )
    sample = maps(record)
    boxes = sample["proposals"].proposal_boxes.tensor
    assert torch.allclose(boxes, sample["instances"].gt_boxes.tensor)


# -- In the loader ---------------------------------------------------------------------------------

CHAIN = (
    "CopyPaste(prob=0.8, rare_classes=True)",
    "ResizeScale(min_scale=0.8, max_scale=1.5)",
    "FixedSizeCrop(size=64)",
    "RandomCrop(min=0.6, prob=0.5)",
    "Saturation(0.5, 1.5)",
    "Hue(-18, 18)",
    "HorizontalFlip()",
    "Rotate90()",
    "Expand()",
)


def batches(records, number, num_workers=0, start=0, sampler="TrainingSampler"):
    name = "tests_augmentations"
    cfg = load_cfg(
        "configs/libra_r50.yaml",
        ["SOLVER.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", str(num_workers)],
    )
    cfg.INPUT.AUGMENTATIONS = CHAIN
    cfg.DATASETS.TRAIN = (name,)
    cfg.DATALOADER.SAMPLER_TRAIN = sampler
    cfg.DATASETS.TRAIN_REPEAT_FACTOR = [(name, 1.0)]  # of the weighted samplers
    DatasetCatalog.register(name, lambda: copy.deepcopy(records))
    MetadataCatalog.get(name).set(thing_classes=["a", "b", "c"])
    try:
        loader = build_train_loader(cfg, LibraDatasetMapper(cfg, is_train=True), seed=3)
        if start:
            loader.batch_sampler.start = start
        return list(itertools.islice(loader, number))
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def assert_same(batches_, others):
    assert len(batches_) == len(others)
    for a, b in zip(itertools.chain(*batches_), itertools.chain(*others)):
        assert a["file_name"] == b["file_name"]
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["instances"].gt_boxes.tensor, b["instances"].gt_boxes.tensor)
        assert a["pasted_boxes"] == b["pasted_boxes"]


@pytest.fixture
def many(tmp_path):
    boxes = [[(i, 2 * i, 20 + i, 30 + i), (40, i, 60, 20 + i)] for i in range(8)]
    return files(tmp_path, [scene(b) for b in boxes])


def test_workers_and_resumed_runs_see_the_same_images(many):
    whole = batches(many, 8)
    pasted_boxes = [sample["pasted_boxes"] for batch in whole for sample in batch]
    assert sum(pasted_boxes) > 0 and 0 in pasted_boxes
    assert_same(whole, batches(many, 8, num_workers=2))
    assert_same(whole[5:], batches(many, 3, start=5))
    assert not torch.equal(whole[0][0]["image"], whole[1][0]["image"])


def test_other_samplers_have_images_to_copy_from(many):
    """Detectron2 builds the loaders of its weighted samplers."""
    (batch,) = batches(many, 1, sampler="WeightedTrainingSampler")
    assert all("pasted_boxes" in sample for sample in batch)


def test_a_step_logs_the_numbers_of_boxes():
    with EventStorage() as storage:
        _write_augmentation([{"dropped_boxes": 2, "pasted_boxes": 0}, {"dropped_boxes": 3}])
        _write_augmentation([{"image": None}])  # without the list, there is no such metric
        assert storage.latest() == {
            "augmentation/dropped_boxes": (5, 0),
            "augmentation/pasted_boxes": (0, 0),
        }
