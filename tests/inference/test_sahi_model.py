"""Our detectors as models of SAHI: what it gets is what the predictor finds."""

import numpy as np
import pytest
from PIL import Image

from libra_d2 import Predictor
from libra_d2.errors import UserError

from .small_detector import IDS, NAMES, blots

pytest.importorskip("sahi")

from sahi.predict import get_prediction, get_sliced_prediction

from libra_d2.inference.sahi_model import LibraDetectionModel


@pytest.fixture(scope="module")
def predictor(model):
    return Predictor(model, batch_size=3)


@pytest.fixture(scope="module")
def sahi_model(predictor):
    return LibraDetectionModel(model=predictor)


def rows(predictions):
    """(class, score, box) of SAHI's predictions, best first."""
    found = [(p.category.name, p.score.value, *p.bbox.to_xyxy()) for p in predictions]
    return sorted(found, key=lambda row: (-row[1], row[0], row[2:]))


def ours(instances):
    found = [
        (name, score, *box)
        for name, score, box in zip(
            instances.class_names,
            instances.scores.tolist(),
            instances.pred_boxes.tensor.tolist(),
        )
    ]
    return sorted(found, key=lambda row: (-row[1], row[0], row[2:]))


def assert_same(found, expected, atol=1e-4):
    assert [row[0] for row in found] == [row[0] for row in expected]
    assert len(found) > 3, "too few detections to tell"
    np.testing.assert_allclose([r[1:] for r in found], [r[1:] for r in expected], atol=atol)


def test_a_whole_image(predictor, sahi_model, tmp_path):
    """Also from a file: SAHI reads RGB, and our predictor takes arrays as BGR."""
    rgb = blots(0)
    expected = ours(predictor(rgb[:, :, ::-1]))
    assert_same(rows(get_prediction(rgb, sahi_model).object_prediction_list), expected)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    result = get_prediction(str(tmp_path / "a.png"), sahi_model)
    assert_same(rows(result.object_prediction_list), expected)
    ids = {p.category.name: p.category.id for p in result.object_prediction_list}
    assert ids.items() <= dict(zip(NAMES, IDS)).items()
    assert sahi_model.confidence_threshold == predictor.score_threshold
    assert sahi_model.num_categories == 3 and sahi_model.category_names == list(NAMES)
    coco = result.to_coco_predictions(image_id=4)
    assert {(p["image_id"], p["category_id"]) for p in coco} <= {(4, i) for i in IDS}


@pytest.mark.parametrize("batch_size", [1, 4])
def test_slices_without_overlap_are_ours(model, predictor, sahi_model, batch_size):
    """No slice shares pixels with another, so neither merging rule changes anything."""
    rgb = blots(1, (130, 200))
    # SAHI moves the last slice of a side back, so that only whole multiples do not overlap.
    rgb_whole = np.ascontiguousarray(rgb[:128, :192])
    expected = ours(Predictor(model, slice_size=64, slice_overlap=0)(rgb_whole[:, :, ::-1]))
    found = get_sliced_prediction(
        rgb_whole,
        sahi_model,
        slice_height=64,
        slice_width=64,
        overlap_height_ratio=0,
        overlap_width_ratio=0,
        perform_standard_pred=False,
        postprocess_type="NMS",
        postprocess_match_metric="IOU",
        batch_size=batch_size,
        verbose=0,
    )
    assert_same(rows(found.object_prediction_list), expected)
    assert len(expected) > 20


def test_thresholds(predictor, sahi_model):
    rgb = blots(2)
    scores = sorted(predictor(rgb[:, :, ::-1]).scores.tolist())
    middle = scores[len(scores) // 2]
    for found in (
        get_prediction(rgb, LibraDetectionModel(model=predictor, confidence_threshold=middle)),
        get_prediction(rgb, sahi_model, confidence_threshold=middle),
    ):
        assert len(found.object_prediction_list) == sum(s >= middle for s in scores)
    assert (
        len(get_prediction(rgb, sahi_model, confidence_threshold=1.0).object_prediction_list) == 0
    )
    remapped = LibraDetectionModel(
        model=predictor, category_remapping={str(i): i + 1000 for i in IDS}
    )
    ids = {p.category.id for p in get_prediction(rgb, remapped).object_prediction_list}
    assert ids <= {i + 1000 for i in IDS}


def test_loading(model, predictor):
    late = LibraDetectionModel(model, device="cpu", load_at_init=False)
    with pytest.raises(UserError, match="Call load_model"):
        late.perform_inference(blots(0))
    late.load_model()
    expected = ours(predictor(blots(0)[:, :, ::-1]))
    assert_same(rows(get_prediction(blots(0), late).object_prediction_list), expected)
    late.unload_model()
    assert late.model is None


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image_size": 640}, "image_size must be None, got 640. Set INPUT.MIN_SIZE_TEST"),
        ({"device": "cpu"}, "cannot be used with a model, which is already loaded"),
        ({"model": "output/run"}, "the model must be a Predictor, got str"),
    ],
)
def test_mistakes(predictor, arguments, message):
    with pytest.raises(UserError, match=message):
        LibraDetectionModel(**{"model": predictor, **arguments})


def test_a_predictor_that_slices_itself_is_refused(model):
    with pytest.raises(UserError, match="without slice_size, because SAHI slices"):
        LibraDetectionModel(model=Predictor(model, slice_size=64))
