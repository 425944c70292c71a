"""What surrounds the network of an exported file equals what Detectron2 does around its models."""

import json

import numpy as np
import pytest
import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from hypothesis import given, settings
from hypothesis import strategies as st

from libra_d2.engine import load_cfg
from libra_d2.errors import UserError
from libra_d2.inference.exported_file import (
    METADATA_VERSION,
    FileMetadata,
    Resize,
    is_exported,
    postprocess,
    preprocess,
    read_metadata,
)
from libra_d2.inference.trained_detector import Preprocessor
from libra_d2.utils.dataclass_json import json_fields

SIDES = st.integers(1, 70)
SIDE_LIMITS = st.builds(Resize, min_size=st.integers(0, 60), max_size=st.integers(1, 90))
FIXED = st.builds(Resize, size=st.lists(SIDES, min_size=2, max_size=2), keep_ratio=st.booleans())


def torch_preprocessor(resize):
    cfg = load_cfg()
    if resize.size is None:
        cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = resize.min_size, resize.max_size
    else:
        cfg.INPUT.FIXED_SIZE, cfg.INPUT.KEEP_RATIO = tuple(resize.size), resize.keep_ratio
    return Preprocessor(cfg)


@settings(max_examples=150, deadline=None)
@given(SIDES, SIDES, st.one_of(SIDE_LIMITS, FIXED), st.integers(0, 9))
def test_images_are_resized_as_for_torch(height, width, resize, seed):
    assert resize.is_valid()
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    try:
        expected = torch_preprocessor(resize)(image)
    except ValueError as e:
        with pytest.raises(ValueError, match=str(e)):
            preprocess(image, resize)
        return
    found = preprocess(image, resize)
    assert found["image"].dtype == np.uint8 and found["image"].flags.c_contiguous
    assert np.array_equal(found.pop("image"), expected.pop("image").numpy())
    assert found == expected == {"height": height, "width": width}


def test_channels_in_reverse_order():
    """OpenCV's arrays are turned by a view with negative strides."""
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for resize in (Resize(min_size=10, max_size=99), Resize(min_size=0, max_size=99)):
        found = preprocess(image[:, :, ::-1], resize)["image"]
        assert np.array_equal(found, preprocess(image[:, :, ::-1].copy(), resize)["image"])


@settings(max_examples=100, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 12), st.integers(0, 99))
def test_boxes_are_scaled_as_by_detectron2(height, width, new_height, new_width, count, seed):
    """Some of the boxes lie partly or wholly outside the image, and some have no area."""
    random = np.random.default_rng(seed)
    boxes = random.integers(-10, 80, (count, 4)).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    scores = -np.sort(-random.random(count, np.float32))
    classes = random.integers(0, 3, count)
    expected = detector_postprocess(
        Instances(
            (new_height, new_width),
            pred_boxes=Boxes(torch.from_numpy(boxes.copy())),
            scores=torch.from_numpy(scores),
            pred_classes=torch.from_numpy(classes),
        ),
        height,
        width,
    )
    shuffled = random.permutation(count)
    outputs = {"boxes": boxes, "scores": scores, "classes": classes}
    found = postprocess(
        {name: array[shuffled] for name, array in outputs.items()},
        (new_height, new_width),
        (height, width),
    )
    assert found.boxes.dtype == np.float32
    assert np.array_equal(found.boxes, expected.pred_boxes.tensor.numpy())
    assert np.array_equal(found.scores, expected.scores.numpy())
    assert np.array_equal(found.classes, expected.pred_classes.numpy())


def test_thresholds():
    """A score equal to the threshold is left out, as in Detectron2."""
    boxes = np.tile(np.float32([[0, 0, 2, 2]]), (4, 1))
    outputs = {"boxes": boxes, "scores": np.float32([0.25, 0.75, 0.5, 0.125])}
    outputs.update(classes=np.arange(4), masks=np.arange(4.0))

    def classes(**limits):
        found = postprocess(outputs, (8, 8), (8, 8), **limits)
        assert np.array_equal(found.classes, found.masks)
        return found.classes.tolist()

    assert classes() == [1, 2, 0, 3]
    assert classes(score_threshold=0.25) == [1, 2]
    assert classes(top_k=1) == [1] and classes(top_k=9) == [1, 2, 0, 3] and classes(top_k=0) == []


METADATA = FileMetadata(
    libra_d2="0.2.0",
    metadata_version=METADATA_VERSION,
    class_names=["cat", "dog"],
    category_ids=[3, 7],
    input_format="BGR",
    resize=Resize(min_size=320, max_size=533),
    outputs=["boxes", "scores", "classes"],
    score_threshold=0.05,
    nms_threshold=0.5,
    max_detections=100,
)
JSON = json.loads(json.dumps(METADATA, default=json_fields))


def test_metadata_are_read_as_written():
    assert read_metadata(json.dumps(JSON), "a.onnx") == METADATA
    assert JSON["resize"] == {"min_size": 320, "max_size": 533}


def without(key):
    return {k: v for k, v in JSON.items() if k != key}


@pytest.mark.parametrize(
    "content, message",
    [
        (None, r"a\.onnx lacks the metadata 'libra_d2\.json'"),
        ("{", "must be a JSON object"),
        ("[]", "must be a JSON object"),
        (without("metadata_version"), r"metadata_version must be 1, got None: .* by libra_d2 '0.2"),
        ({**JSON, "metadata_version": 2}, "metadata_version must be 1, got 2"),
        (without("nms_threshold"), "metadata nms_threshold is missing. Export the detector again"),
        ({**JSON, "class_names": [1]}, r"metadata class_names\[0\] must be a string, got 1"),
        ({**JSON, "class_names": []}, "class_names must have at least one name"),
        ({**JSON, "category_ids": [1]}, r"category_ids must have 2 ids, .*, got \[1\]"),
        ({**JSON, "input_format": "L"}, "input_format must be one of .*, got 'L'"),
        ({**JSON, "resize": {}}, "resize must have min_size and max_size, or size and keep_ratio"),
        ({**JSON, "resize": {"min_size": -1, "max_size": 5}}, "resize must have"),
        ({**JSON, "resize": {"min_size": 1, "max_size": 1, "size": [1, 1]}}, "resize must have"),
        ({**JSON, "resize": {"size": [0, 1], "keep_ratio": False}}, "resize must have"),
        ({**JSON, "outputs": ["scores"]}, r"outputs must be .*, got \['scores'\]"),
        ({**JSON, "score_threshold": 2}, r"score_threshold must be in \[0, 1\], got 2"),
    ],
)
def test_wrong_metadata_are_one_clear_line(content, message):
    text = content if isinstance(content, (str, type(None))) else json.dumps(content)
    with pytest.raises(UserError, match=message) as e:
        read_metadata(text, "a.onnx")
    assert str(e.value).startswith("a.onnx") and "\n" not in str(e.value)


def test_exported_files_are_known_by_their_suffix(tmp_path):
    (tmp_path / "run.onnx").mkdir()
    assert is_exported("a.onnx") and is_exported("no/such/B.ONNX")
    for model in ("", "onnx", "a.onnx.pth", str(tmp_path / "run.onnx")):
        assert not is_exported(model)
