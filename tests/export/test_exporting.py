"""Exported files find what the model finds, in images of other sizes, too."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from libra_d2 import Predictor
from libra_d2.cli.main import main
from libra_d2.data.images.reader import read_image
from libra_d2.errors import UserError
from libra_d2.export import export_detector, exporting
from libra_d2.export.agreement import compare
from libra_d2.export.exporting import METADATA_KEY
from libra_d2.inference.trained_detector import Preprocessor, load_detector

from ..support.detector_runs import NAMES, RETINANET, write_run
from ..support.project import ROOT, shared_data

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

MODELS = {
    "faster": [],
    "retinanet": RETINANET,
    "cascade mask": [
        *("MODEL.ROI_HEADS.NAME", "LibraCascadeROIHeads", "MODEL.MASK_ON", "True"),
        *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True"),
        *("MODEL.ROI_MASK_HEAD.CONV_DIM", "8", "MODEL.ROI_MASK_HEAD.NUM_CONV", "1"),
    ],
}


def image(height, width, seed=0):
    """Blocks of noise: something to detect at every scale."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((height // 8, width // 8, 1), np.uint8))


def load(path):
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda x: [torch.from_numpy(t) for t in session.run(None, {"image": x.numpy()})]
    return torch.jit.load(str(path))


# To p6, 96x160 is 2x3 positions, of which p4 has 6x10: a ratio that is no whole number; 64x64 is
# exact, and 48x104 is padded.
SIZES = [(96, 160), (64, 64), (48, 104)]


@pytest.mark.parametrize("format", ["torchscript", "onnx"])
@pytest.mark.parametrize("name", MODELS)
def test_finds_the_same_at_every_size(tmp_path, name, format):
    opts = [*MODELS[name], "INPUT.MIN_SIZE_TEST", "0"]  # images as they are
    spread = 3000.0 if name == "retinanet" else 20.0  # its bias keeps all scores at 0.01
    detector = load_detector(str(write_run(tmp_path, opts, spread=spread)))
    path = tmp_path / ("a.onnx" if format == "onnx" else "a.pt")
    report = export_detector(detector, format, str(path), [image(64, 96)])
    assert report.detections > 5 and report.images == 1

    run = load(path)
    for seed, (height, width) in enumerate(SIZES):
        x = Preprocessor(detector.cfg)(image(height, width, seed))["image"]
        assert x.shape[1:] == (height, width)
        expected = exporting._find(detector.model, x)
        with torch.no_grad():
            found = run(x)
        comparison = compare(expected, found)
        assert comparison.detections > 5, "nothing is compared"
        assert comparison.missing == comparison.extra == 0, (height, width, comparison)
        assert len(found) == (4 if name == "cascade mask" else 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def detector(run):
    return load_detector(str(run))


def test_images_without_detections(tmp_path, run, detector):
    images = [image(96, 96, seed) for seed in range(2)]
    inputs = [Preprocessor(detector.cfg)(x)["image"] for x in images]
    best = [exporting._find(detector.model, x)[1].max().item() for x in inputs]
    assert best[0] != best[1]
    between = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", str(sum(best) / 2)]
    detector = load_detector(str(run), opts=between)
    for name in ("a.onnx", "a.pt"):
        # The first has detections or the second has: the trace must be of that one.
        format = "onnx" if name == "a.onnx" else "torchscript"
        report = export_detector(detector, format, str(tmp_path / name), images)
        assert report.detections > 0
        counts = [len(load(tmp_path / name)(x)[1]) for x in inputs]
        assert min(counts) == 0 < max(counts)


def test_the_command_and_the_file_without_libra_d2(tmp_path, run, detector, capsys):
    path = tmp_path / "a.pt"
    assert main(["export", "--model", str(run), "--output", str(path)]) == 0
    assert "finds the same" in capsys.readouterr().out
    x = Preprocessor(detector.cfg)(image(96, 144))["image"]
    torch.save(x, tmp_path / "x.pth")
    code = f"""
import json, sys, torch, torchvision
extra = {{{METADATA_KEY!r}: ""}}
model = torch.jit.load({str(path)!r}, _extra_files=extra)
torch.save(model(torch.load({str(tmp_path / "x.pth")!r})), {str(tmp_path / "y.pth")!r})
assert not {{"detectron2", "libra_d2"}} & set(sys.modules)
print(json.dumps(json.loads(extra[{METADATA_KEY!r}])))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    metadata = json.loads(done.stdout)
    assert metadata["class_names"] == list(NAMES) and metadata["category_ids"] == [10, 11, 12]
    assert metadata["input_format"] == "RGB"
    assert metadata["resize"] == {"min_size": 96, "max_size": 160}
    report = compare(exporting._find(detector.model, x), torch.load(tmp_path / "y.pth"))
    assert report.detections > 5 and report.missing == report.extra == 0


@pytest.mark.parametrize("size", [None, (128, 96)])
def test_the_example_finds_what_the_predictor_finds(tmp_path, run, detector, size):
    path, photo = tmp_path / "a.onnx", tmp_path / "photo.png"
    export_detector(detector, "onnx", str(path), [image(96, 144)], size=size)
    model = onnx.load(path)
    dims = [d.dim_value or d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [3, *(size or ("height", "width"))]
    metadata = json.loads({p.key: p.value for p in model.metadata_props}[METADATA_KEY])
    assert metadata["outputs"] == ["boxes", "scores", "classes"]
    Image.fromarray(image(200, 304)).save(photo)
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "run_onnx.py"), str(path), str(photo)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    opts = ["INPUT.FIXED_SIZE", str(size)] if size else []
    found = Predictor(run, opts=opts)(photo)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == len(found) > 5
    boxes = torch.tensor([[float(x) for x in line[2:]] for line in lines])
    scores = torch.tensor([float(line[1]) for line in lines])
    classes = torch.tensor([NAMES.index(line[0]) for line in lines])
    expected = found.pred_boxes.tensor, found.scores, found.pred_classes
    report = compare(expected, (boxes, scores, classes))
    assert report.missing == report.extra == 0


def test_a_file_that_finds_something_else_is_not_kept(tmp_path, detector, monkeypatch):
    write, right = exporting._WRITERS["torchscript"]

    def wrong(path):
        return lambda x: (right(path)(x)[0] + 1, *right(path)(x)[1:])

    monkeypatch.setitem(exporting._WRITERS, "torchscript", (write, wrong))
    with pytest.raises(UserError, match=r"a\.pt is not written, because its detections differ"):
        export_detector(detector, "torchscript", str(tmp_path / "a.pt"), [image(96, 96)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "opts, message",
    [
        (["TEST.NMS.TYPE", "linear"], r"TEST\.NMS\.TYPE must be 'hard', got 'linear'"),
    ],
)
def test_what_cannot_be_exported_is_said(tmp_path, run, opts, message):
    detector = load_detector(str(run), opts=opts)
    with pytest.raises(UserError, match=message):
        export_detector(detector, "onnx", str(tmp_path / "a.onnx"), [image(96, 96)])


def test_mistakes_on_the_command_line(tmp_path, run, capsys):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    base = ["export", "--model", str(run), "--output"]
    for args, message in [
        ([str(tmp_path / "no" / "a.pt")], "--output must be a file in an existing folder, got "),
        ([str(tmp_path / "a.pt"), "--size", "64", "64"], "a fixed size can only be used for ONNX"),
        ([str(tmp_path / "a.onnx"), "--size", "0", "64"], "at least 1 pixel each, got (0, 64)"),
        (
            [str(tmp_path / "a.onnx"), "--image", str(broken)],
            "broken.jpg: not an image of a supported format",
        ),
    ]:
        assert main([*base, *args]) == 2
        assert message in capsys.readouterr().err


def test_real_images(tmp_path, detector):
    images = sorted((shared_data() / "data" / "bccd" / "images").rglob("*.jpg"))[:2]
    if not images:
        pytest.skip("no real images: shared/data/bccd is absent")
    inputs = [read_image(path, "RGB") for path in images]
    report = export_detector(detector, "onnx", str(tmp_path / "a.onnx"), inputs)
    assert report.images == 2 and report.detections > 5
