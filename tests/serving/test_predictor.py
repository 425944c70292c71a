"""An exported file without torch: it finds what the same file finds with torch."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import libra_d2
from libra_d2.cli.main import main
from libra_d2.errors import UserError
from libra_d2.serving import Predictor

from ..inference.small_detector import blots
from ..support.exported_files import write_exported
from ..support.project import ROOT

MASKS = [
    *("MODEL.MASK_ON", "True", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8"),
    *("MODEL.ROI_MASK_HEAD.NUM_CONV", "1", "INPUT.FORMAT", "BGR"),
]
# Importing one of these fails, and so does asking for it.
WITHOUT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        assert name.split(".")[0] not in {blocked}, f"{{name}} is imported"
sys.meta_path.insert(0, Blocked())
{then}
"""
TORCH = ("torch", "torchvision", "detectron2", "fvcore", "cv2")


def without_torch(then, *arguments, cwd=ROOT):
    """Run Python in which an import of torch, Detectron2 or OpenCV fails."""
    code = WITHOUT.format(blocked=TORCH, then=then)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_same(found, expected, least=5):
    assert len(found) == len(expected) >= least, "too few detections to compare"
    assert found.image_size == expected.image_size
    assert np.array_equal(found.pred_boxes.tensor, expected.pred_boxes.tensor.numpy())
    assert np.array_equal(found.scores, expected.scores.numpy())
    assert np.array_equal(found.pred_classes, expected.pred_classes.numpy())
    assert found.class_names == expected.class_names
    types = {name: np.asarray(value).dtype for name, value in found.get_fields().items()}
    assert (types["scores"], types["pred_classes"]) == (np.float32, np.int64)
    assert found.pred_boxes.tensor.dtype == np.float32


def test_finds_what_the_file_finds_with_torch(exported, tmp_path):
    _, path = exported
    ours, theirs = Predictor(path), libra_d2.Predictor(path)
    assert (ours.class_names, ours.category_ids) == (theirs.class_names, theirs.category_ids)
    assert ours.score_threshold == theirs.score_threshold
    photo = tmp_path / "photo.png"
    Image.fromarray(blots(3)).save(photo)
    grey = blots(4)[:, :, 0]
    images = [blots(1, (33, 200)), photo, photo.read_bytes(), Image.open(photo), grey]
    for found, expected in zip(ours(images), theirs(images)):
        assert_same(found, expected)
    assert ours([]) == []
    confident = Predictor(path, score_threshold=0.6)(photo)
    assert 0 < len(confident) < len(ours(photo)) and confident.scores.min() > 0.6


def test_slices_are_merged_as_with_torch(exported):
    _, path = exported
    options = {"slice_size": 64, "slice_overlap": 0.3}
    image = blots(2, (150, 170))
    found = Predictor(path, **options)(image)
    assert_same(found, libra_d2.Predictor(path, **options)(image))
    assert len(found) != len(Predictor(path)(image)), "slices change nothing"


def test_masks(tmp_path):
    _, path = write_exported(tmp_path, MASKS)
    image = blots(1, (60, 80))
    found, expected = Predictor(path)(image), libra_d2.Predictor(path)(image)
    assert_same(found, expected)
    assert found.pred_masks.shape == expected.pred_masks.shape
    different = (found.pred_masks != expected.pred_masks.numpy()).mean()
    assert different < 1e-3 and found.pred_masks.any()
    assert not Predictor(path, slice_size=64)(image).has("pred_masks")
    assert len(found[:0].pred_masks) == 0


def test_mistakes_are_those_of_the_other_predictor(exported, tmp_path):
    run, path = exported
    with pytest.raises(UserError, match="must be given an ONNX file"):
        Predictor(run)
    with pytest.raises(UserError, match="must be given an ONNX file"):
        Predictor()
    for options in ({"device": "cuda"}, {"opts": ["A", "1"]}, {"score_threshold": 0.0}):
        with pytest.raises(UserError) as theirs:
            libra_d2.Predictor(path, **options)
        with pytest.raises(UserError) as ours:
            Predictor(path, **options)
        assert str(ours.value) == str(theirs.value)
    with pytest.raises(UserError, match="image 1: the array must have the type uint8"):
        Predictor(path)([blots(0), np.zeros((4, 4, 3))])


def test_works_where_torch_and_detectron2_are_missing(exported, tmp_path):
    image = tmp_path / "photo.png"
    Image.fromarray(blots(3)).save(image)
    found = without_torch(
        "from libra_d2.serving import Predictor\n"
        "found = Predictor(sys.argv[1])(sys.argv[2])\n"
        "print([len(found), found.scores.tolist()])\n",
        exported[1],
        image,
    )
    expected = libra_d2.Predictor(exported[1])(image)
    number, scores = eval(found)
    assert number == len(expected) and np.allclose(scores, expected.scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "statement",
    [
        "import libra_d2.serving",
        "import libra_d2.serving.predictor",
        "from libra_d2.serving import Predictor",
        "import importlib; importlib.import_module('libra_d2.serving')",
    ],
)
def test_no_way_to_import_it_loads_torch(statement):
    assert without_torch(f"{statement}\nprint('imported')") == "imported\n"


def test_the_rest_of_the_package_is_registered_when_it_is_used_later():
    code = (
        "import libra_d2.serving, sys\n"
        "import libra_d2\n"
        "assert 'torch' not in sys.modules\n"
        "libra_d2.add_libra_config\n"
        "from detectron2.modeling import BACKBONE_REGISTRY\n"
        "print('build_libra_resnet_fpn_backbone' in BACKBONE_REGISTRY, libra_d2.data.register_coco)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("True <function"), done.stderr


def test_infer_without_torch_writes_the_same(exported, tmp_path, monkeypatch):
    for i in range(2):
        Image.fromarray(blots(i)).save(tmp_path / f"{i}.png")
    command = ("infer", "0.png", "1.png", "--model", exported[1])
    without_torch(
        "sys.argv[0] = 'libra-d2'; import libra_d2_launcher; libra_d2_launcher.main()",
        *(*command, "--output", "ours.json", "--draw", "drawn"),
        cwd=tmp_path,
    )
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--output", "theirs.json"]) == 0
    content = (tmp_path / "ours.json").read_bytes()
    assert content == (tmp_path / "theirs.json").read_bytes() and b"bbox" in content
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == ["0.png", "1.png"]


def test_videos_without_opencv_are_one_line(exported, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    code = "import importlib.util as u; find = u.find_spec\n" + (
        "u.find_spec = lambda name, *a: None if name == 'cv2' else find(name, *a)\n"
        "sys.argv[0] = 'libra-d2'; import libra_d2_launcher\n"
        "print(libra_d2_launcher.main())"
    )
    code = (
        "import sys\nfrom contextlib import redirect_stderr\nwith redirect_stderr(sys.stdout):\n  "
        + (code.replace("\n", "\n  "))
    )
    out = without_torch(code, "infer", "a.mp4", "--model", exported[1], cwd=tmp_path)
    assert "libra-d2 infer: videos and cameras need OpenCV: pip install opencv" in out
    assert out.splitlines()[-1] == "2"
