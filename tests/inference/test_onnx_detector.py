"""An exported file as a model of `Predictor`: it finds what its run finds."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from libra_d2 import Predictor
from libra_d2.errors import UserError
from libra_d2.inference.exported_file import METADATA_KEY
from libra_d2.inference.onnx_detector import OnnxDetector
from libra_d2.inference.trained_detector import load_detector, trained_config
from libra_d2.utils import extras

from ..support.detector_runs import NAMES, RETINANET
from ..support.exported_files import write_exported
from ..support.project import shared_data
from .small_detector import blots

MASKS = [
    *("MODEL.MASK_ON", "True", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8"),
    *("MODEL.ROI_MASK_HEAD.NUM_CONV", "1", "INPUT.FORMAT", "BGR"),
]
FIXED = ["INPUT.FIXED_SIZE", "(96, 128)", "INPUT.KEEP_RATIO", "True"]
SIZES = [(60, 80), (80, 60), (33, 200), (300, 31)]


def assert_near(found, expected, least=5):
    assert len(found) == len(expected) >= least, "too few detections to compare"
    assert found.image_size == expected.image_size
    assert torch.allclose(found.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=0, atol=1e-2)
    assert torch.allclose(found.scores, expected.scores, rtol=0, atol=1e-5)
    assert torch.equal(found.pred_classes, expected.pred_classes)
    assert found.class_names == expected.class_names


@pytest.mark.parametrize(
    "opts, spread",
    [(MASKS, 3000.0), ([*RETINANET, *FIXED], 30000.0)],
    ids=["mask rcnn, bgr", "retinanet, fixed size"],
)
def test_finds_what_the_run_finds(tmp_path, opts, spread):
    run, path = write_exported(tmp_path, opts, spread)
    theirs, ours = Predictor(run), Predictor(path)
    assert ours.class_names == theirs.class_names == NAMES
    assert ours.category_ids == theirs.category_ids == (10, 11, 12)
    assert ours.score_threshold == theirs.score_threshold == 0.001
    images = [blots(i, size) for i, size in enumerate(SIZES)]
    found = ours(images)
    for image, instances in zip(images, found):
        expected = theirs(image)
        assert_near(instances, expected)
        assert instances.has("pred_masks") == expected.has("pred_masks") == (opts is MASKS)
        if opts is MASKS:
            assert instances.pred_masks.shape == expected.pred_masks.shape
            different = (instances.pred_masks ^ expected.pred_masks).float().mean()
            assert different < 1e-3 and expected.pred_masks.any()


@pytest.fixture(scope="module")
def predictors(exported):
    return tuple(map(Predictor, exported))


def test_every_kind_of_image(predictors, tmp_path):
    torch_one, ours = predictors
    path = tmp_path / "photo.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(blots(3)).save(path, exif=exif)
    grey = blots(4)[:, :, 0]
    for image in (path, path.read_bytes(), Image.open(path), grey, Image.fromarray(grey)):
        assert_near(ours(image), torch_one(image))
    with pytest.raises(UserError, match="image: 9000x1 is too elongated"):
        ours(np.zeros((1, 9000, 3), np.uint8))


def test_real_images(predictors):
    images = sorted((shared_data() / "data" / "bccd" / "images").rglob("*.jpg"))[:4]
    if not images:
        pytest.skip("no real images: shared/data/bccd is absent")
    torch_one, ours = predictors
    for image in images:
        assert_near(ours(image), torch_one(image))
    scores = ours(images[0]).scores
    assert scores.max() - scores.min() > 0.02, "equal scores say nothing about their order"


def test_a_threshold_is_that_of_the_run(predictors, exported):
    run, path = exported
    image = blots(5)
    threshold = predictors[0](image).scores.median().item() + 1e-4
    found = Predictor(path, score_threshold=threshold)
    assert found.score_threshold == threshold
    assert_near(found(image), Predictor(run, score_threshold=threshold)(image))
    assert len(found(image)) < len(predictors[0](image))


def test_threads_give_what_one_thread_gives(exported):
    predictor = Predictor(exported[1])
    images = [blots(i) for i in range(4)] * 5
    with ThreadPoolExecutor(6) as pool:  # the first calls start at the same time
        found = list(pool.map(predictor, images))
    for image, instances in zip(images, found):
        expected = predictor(image)
        assert torch.equal(instances.pred_boxes.tensor, expected.pred_boxes.tensor)
        assert torch.equal(instances.scores, expected.scores)


def test_results_may_be_changed_in_place(predictors):
    found = predictors[1](blots(1))
    found.pred_boxes.scale(2, 2)
    assert set(found[found.pred_classes == found.pred_classes[0]].class_names) == {
        NAMES[found.pred_classes[0]]
    }


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"score_threshold": 0.0001},
            r"score_threshold must be at least 0\.001, the threshold inside .*mine\.onnx, got 0\.0",
        ),
        ({"score_threshold": 1.5}, r"score_threshold must be in \[0, 1\], got 1\.5"),
        ({"config_file": "a.yaml"}, r"config_file cannot be used with .*: all settings of the"),
        ({"opts": ["TEST.DETECTIONS_PER_IMAGE", 5]}, "opts cannot be used with .*inside the file"),
        ({"trust": True}, "trust cannot be used with "),
        ({"device": "cuda"}, "device must be cpu for .*, which ONNX Runtime runs .*, got 'cuda'"),
    ],
)
def test_options_that_do_not_fit_a_file(exported, options, message):
    with pytest.raises(UserError, match=message):
        Predictor(exported[1], **options)


def test_the_device_may_be_named(exported):
    assert len(Predictor(exported[1], device="cpu")(blots(1))) > 5


def test_only_what_runs_files_takes_them(exported):
    for use in (load_detector, trained_config):
        with pytest.raises(UserError, match=r"got the exported file .*Only infer, evaluate and"):
            use(exported[1])


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copy(exported[1], tmp_path / "copy.onnx")


def with_metadata(path, change):
    """Change the metadata of a file; a change to None removes them."""
    model = onnx.load(path)
    content = json.loads({p.key: p.value for p in model.metadata_props}[METADATA_KEY])
    content = change(content)
    del model.metadata_props[:]
    if content is not None:
        onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(content)})
    onnx.save(model, path)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda m: None, r"copy\.onnx lacks the metadata .* Give a file that libra-d2 export has"),
        (lambda m: m.pop("metadata_version") and m, "metadata_version must be 1, got None"),
        (
            lambda m: {**m, "outputs": [*m["outputs"], "masks"]},
            r"copy\.onnx must have the input 'image', .* and the outputs \[.*'masks'\]",
        ),
    ],
)
def test_foreign_and_older_files_are_refused(copy, change, message):
    with_metadata(copy, change)
    with pytest.raises(UserError, match=message) as e:
        Predictor(copy)
    assert "\n" not in str(e.value)


def test_files_that_are_no_models(tmp_path, copy, monkeypatch):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(UserError, match=r"broken\.onnx cannot be loaded by ONNX Runtime \d") as e:
        Predictor(broken)
    assert "\n" not in str(e.value)
    with pytest.raises(UserError, match=r"ONNX file .*none\.onnx does not exist"):
        Predictor(tmp_path / "none.onnx")

    def missing(module):
        raise ModuleNotFoundError(name=module)

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"need onnxruntime: pip install libra_d2\[onnx\]"):
        Predictor(copy)


def test_a_file_may_be_replaced_while_it_is_used(copy):
    detector = OnnxDetector(copy)
    with open(copy, "wb") as f:
        f.write(b"another file")
    record = detector.preprocess(blots(1))
    (instances,) = detector.predict([record])
    (detections,) = detector.runner()([record])
    assert len(instances) == len(detections) > 5


def test_top_k(exported):
    record = OnnxDetector(exported[1]).preprocess(blots(1))
    (all_of_them,) = OnnxDetector(exported[1]).predict([record])
    (three,) = OnnxDetector(exported[1], top_k=3).predict([record])
    assert torch.equal(three.scores, all_of_them.scores[:3]) and len(all_of_them) > 3


class Fails:
    def __init__(self, message):
        self.message = message

    def run(self, names, inputs):
        raise RuntimeError(self.message)


def test_errors_of_the_runtime(exported):
    detector = OnnxDetector(exported[1])
    record = detector.preprocess(blots(1))
    runner = detector.runner()
    runner._session = Fails("BFCArena: Failed to allocate memory for requested buffer of size 9")
    assert runner([record]) == [None]
    runner._session = Fails("[ONNXRuntimeError] : 2\nGot invalid dimensions")
    with pytest.raises(UserError, match=r"cannot be run on an image of 128x96: .*invalid dim") as e:
        runner([record])
    assert "\n" not in str(e.value)


def test_onnxruntime_is_imported_only_for_files(exported):
    code = f"""
import sys
import libra_d2, libra_d2.inference.infer, libra_d2.inference.opening, libra_d2.cli.evaluate
import libra_d2.cli.exported_evaluation
libra_d2.Predictor({exported[0]!r})
assert not {{"onnx", "onnxruntime"}} & set(sys.modules)
libra_d2.Predictor({exported[1]!r})
assert "onnxruntime" in sys.modules and "onnx" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
