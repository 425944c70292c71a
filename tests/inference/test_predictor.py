"""A trained detector as a function of images."""

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from detectron2.engine import DefaultPredictor
from detectron2.structures import Boxes, Instances
from PIL import Image

import libra_d2
from libra_d2.data.datasets.shapes import write_shapes
from libra_d2.errors import UserError
from libra_d2.inference.predictor import ClassNames

from ..support.detector_runs import NAMES, RETINANET, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def predictor(run):
    return libra_d2.Predictor(str(run))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_shapes(folder, "val", 6, seed=2)
    return sorted((folder / "val").iterdir())


def bgr(path):
    return np.asarray(Image.open(path).convert("RGB"))[:, :, ::-1].copy()


def assert_equal(actual, expected):
    assert len(actual) == len(expected) > 0, "no detections: nothing is compared"
    assert actual.image_size == expected.image_size
    assert torch.equal(actual.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(actual.scores, expected.scores)
    assert torch.equal(actual.pred_classes, expected.pred_classes)


def assert_near(actual, expected):
    assert len(actual) == len(expected) > 0, "no detections: nothing is compared"
    assert torch.allclose(actual.pred_boxes.tensor, expected.pred_boxes.tensor, atol=1e-2)
    assert torch.allclose(actual.scores, expected.scores, atol=1e-5)
    assert torch.equal(actual.pred_classes, expected.pred_classes)


@pytest.mark.parametrize(
    "opts", [[], ["INPUT.FORMAT", "BGR"], RETINANET], ids=["rgb", "bgr", "retinanet"]
)
def test_equals_default_predictor_to_the_last_bit(tmp_path, files, opts):
    run = write_run(tmp_path, opts)
    ours = libra_d2.Predictor(str(run))
    theirs = DefaultPredictor(ours.cfg)
    for path in files[:3]:
        expected = theirs(bgr(path))["instances"]
        found = ours(bgr(path))
        assert_equal(found, expected)
        assert found.class_names == [NAMES[k] for k in expected.pred_classes]


def test_every_kind_of_image(predictor, files):
    path = files[0]
    expected = predictor(bgr(path))
    alpha = np.dstack([bgr(path), np.zeros(bgr(path).shape[:2], np.uint8)])
    kinds = [str(path), path, path.read_bytes(), Image.open(path), alpha, io.BytesIO()]
    kinds[-1].write(path.read_bytes())
    kinds[-1].seek(0)
    for image in kinds:
        assert_equal(predictor(image), expected)
    grey = np.asarray(Image.open(path).convert("L"))
    expected = predictor(np.dstack([grey] * 3))
    for image in (grey, grey[:, :, None], Image.fromarray(grey)):
        assert_equal(predictor(image), expected)


def test_rotation_of_exif(predictor, files):
    image = Image.open(files[0])
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    stored = io.BytesIO()
    image.save(stored, "png", exif=exif)
    turned = np.rot90(bgr(files[0]), -1).copy()
    assert turned.shape != bgr(files[0]).shape
    expected = predictor(turned)
    assert_equal(predictor(stored.getvalue()), expected)
    assert_equal(predictor(Image.open(stored)), expected)


def test_lists(predictor, run, files):
    found = predictor([bgr(files[0]), str(files[1]), Image.open(files[2])])
    assert isinstance(found, list)
    for path, instances in zip(files, found):
        assert_near(instances, predictor(path))
    assert predictor([]) == []
    (only,) = predictor((files[0],))
    assert_equal(only, predictor(files[0]))

    # The same size: one batch, and batches of two at most.
    image = bgr(files[0])
    many = [image, image[:, ::-1].copy(), image[::-1].copy()]
    small = libra_d2.Predictor(run, batch_size=2)
    sizes = []
    small.model.register_forward_pre_hook(lambda model, inputs: sizes.append(len(inputs[0])))
    for instances, one in zip(small(many), many):
        assert_near(instances, predictor(one))
    assert sizes == [2, 1]


def test_threads_give_what_one_thread_gives(predictor, files):
    images = [bgr(path) for path in files] * 8
    serial = [predictor(image) for image in images[: len(files)]] * 8
    with ThreadPoolExecutor(8) as pool:
        for found, expected in zip(pool.map(predictor, images), serial):
            assert_equal(found, expected)


@pytest.mark.parametrize(
    "opts", [RETINANET, ["TEST.NMS.TYPE", "linear"]], ids=["retinanet", "soft_nms"]
)
def test_threads_with_other_models(tmp_path, files, opts):
    predictor = libra_d2.Predictor(write_run(tmp_path, opts))
    images = [bgr(path) for path in files[:3]] * 4
    serial = [predictor(image) for image in images[:3]] * 4
    with ThreadPoolExecutor(6) as pool:
        for found, expected in zip(pool.map(predictor, images), serial):
            assert_equal(found, expected)


def test_score_threshold(predictor, run, files):
    everything = predictor(files[0])
    threshold = everything.scores.median().item()
    found = libra_d2.Predictor(run, score_threshold=threshold)(files[0])
    assert_equal(found, everything[everything.scores > threshold])


def test_names_and_ids(predictor, files):
    assert predictor.class_names == NAMES and predictor.category_ids == (10, 11, 12)
    found = predictor(files[0])
    found.pred_boxes.scale(2, 2)  # in place, which tensors of inference mode refuse
    mask = found.pred_classes == found.pred_classes[0]
    assert set(found[mask].class_names) == {NAMES[found.pred_classes[0]]}


def test_class_names_are_sliced_as_tensors_are():
    numbers = torch.arange(4)
    rows = Instances((5, 5), numbers=numbers, class_names=ClassNames("abcd"))
    rows.boxes = Boxes(torch.zeros(4, 4))
    items = [1, -1, slice(1, 3), numbers > 1, torch.tensor([3, 0, 0]), [2, 1], torch.tensor([])]
    items[-1] = items[-1].long()
    for item in items:
        assert rows[item].class_names == ["abcd"[i] for i in rows[item].numbers]
    both = Instances.cat([rows[:2], rows[numbers > 2]])
    assert both.class_names == list("abd") and both[both.numbers > 0].class_names == list("bd")
    assert pickle.loads(pickle.dumps(rows)).class_names == list("abcd")
    assert copy.deepcopy(rows.to("cpu")).class_names == list("abcd")
    assert rows.class_names[0] == "a" and rows.class_names != list("abc")


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((4, 4, 3)), "image: the array must have the type uint8, got float64"),
        (
            np.zeros((4, 4, 2), np.uint8),
            r"image: the array must have the shape .*, got \(4, 4, 2\)",
        ),
        (np.zeros((0, 4, 3), np.uint8), r"at least one pixel, got the shape \(0, 4, 3\)"),
        (np.zeros((1, 9000, 3), np.uint8), "9000x1 is too elongated"),
        (b"not an image", "image: not an image of a supported format"),
        ("no/such.jpg", "no/such.jpg: No such file"),
        (7, "expected an array, path, bytes, file or PIL image, got int"),
        ([np.zeros((9, 9), np.uint8), "no/such.jpg"], "image 1: no/such.jpg: No such file"),
        ([b""], "image 0: "),
    ],
)
def test_no_images(predictor, image, message):
    with pytest.raises(UserError, match=message):
        predictor(image)


def test_mistakes_in_settings(run, tmp_path):
    with pytest.raises(UserError, match=r"score_threshold must be in \[0, 1\], got 2"):
        libra_d2.Predictor(run, score_threshold=2)
    with pytest.raises(UserError, match="does not exist"):
        libra_d2.Predictor(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"INPUT\.FORMAT must be one of .*, got 'L'"):
        libra_d2.Predictor(run, opts=["INPUT.FORMAT", "L"])
    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        libra_d2.Predicter  # noqa: B018


def test_pickled_code_in_weights_is_refused(run, tmp_path):
    class Payload:
        def __reduce__(self):
            return exec, ("raise SystemExit('the code of the file was run')",)

    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    torch.save({"model": {}, "more": Payload()}, tmp_path / "model_final.pth")
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        libra_d2.Predictor(tmp_path)
