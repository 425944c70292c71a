"""Every command sees the same pixels of an image, of whatever kind its file is."""

import base64
import io
import json
import os

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from libra_d2.cli import export as export_command
from libra_d2.data import LibraDatasetMapper, register_packed
from libra_d2.data.checks.findings import DatasetReport
from libra_d2.data.checks.images import check_images
from libra_d2.data.datasets.coco import register_coco
from libra_d2.data.datasets.yolo import read_yolo, yolo_to_coco
from libra_d2.data.images.reader import read_header, read_image
from libra_d2.data.images.sources import find_images
from libra_d2.data.packed.packing import pack
from libra_d2.evaluation.analysis.results import ImageResult
from libra_d2.inference.pipeline import DetectionPipeline
from libra_d2.inference.predictor import Predictor
from libra_d2.inference.trained_detector import Preprocessor, load_detector
from libra_d2.visualization import detection_pictures as drawing
from libra_d2.visualization.picture_folder import draw_files
from libra_d2.visualization.report.pictures import Pictures

from ..data.images.image_kinds import all_kinds
from ..inference.small_detector import write_detector


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of all kinds and their annotations, which have no objects."""
    folder = tmp_path_factory.mktemp("kinds")
    images = folder / "images"
    images.mkdir()
    kinds = all_kinds(images)
    sizes = {n: dict(zip(("height", "width"), k.pixels.shape)) for n, k in kinds.items()}
    coco = {
        "images": [{"id": i, "file_name": n, **sizes[n]} for i, n in enumerate(kinds)],
        "annotations": [
            {"id": i + 1, "image_id": i, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81}
            | {"iscrowd": 0}
            for i in range(len(kinds))
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / "coco.json").write_text(json.dumps(coco))
    (folder / "empty.json").write_text(json.dumps({**coco, "annotations": []}))
    return folder, images, kinds


def differing(found: dict, kinds: dict) -> list:
    """Names of images that are missing in `found` or have other pixels there; RGB."""
    return [n for n, k in kinds.items() if n not in found or not np.array_equal(found[n], k.pixels)]


def test_the_reader(data):
    """Of a path, bytes, an open file, and what Pillow has opened."""
    _, images, kinds = data
    assert len(kinds) >= 40
    assert differing({n: read_image(images / n, "RGB") for n in kinds}, kinds) == []
    assert differing({n: read_image(k.content)[:, :, ::-1] for n, k in kinds.items()}, kinds) == []
    of_files = {n: read_image(io.BytesIO(k.content), "RGB") for n, k in kinds.items()}
    assert differing(of_files, kinds) == []
    of_pillow = {n: read_image(Image.open(images / n), "RGB") for n in kinds}
    assert differing(of_pillow, kinds) == []


def blocks(image) -> np.ndarray:
    """Means of 24 x 24 parts of an image, which JPEG keeps."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return np.asarray(image.convert("RGB").resize((24, 24), Image.Resampling.BOX)).astype(int)


@pytest.mark.parametrize("is_train", [True, False])
def test_training_evaluation_and_packed_data(data, tmp_path, is_train):
    folder, images, kinds = data
    mapper = LibraDatasetMapper(is_train=is_train, augmentations=[], image_format="BGR")

    def mapped(name):
        return {
            d["file_name"].rpartition("/")[2]: mapper(d)["image"].numpy()[::-1].transpose(1, 2, 0)
            for d in DatasetCatalog.get(name)
        }

    name = register_coco(str(folder / "coco.json"), str(images))
    assert differing(mapped(name), kinds) == []
    packed = pack(str(folder / "coco.json"), str(images), str(tmp_path / "kinds.lmdb"))
    assert packed.skipped == []
    assert differing(mapped(register_packed(str(tmp_path / "kinds.lmdb"))), kinds) == []


def test_label_maps_keep_their_values(tmp_path):
    """Those of more than 8 bits are not scaled, unlike images: values are classes."""
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "a.png")
    classes = np.arange(20, dtype=np.uint8).reshape(4, 5)
    mapper = LibraDatasetMapper(is_train=True, augmentations=[], image_format="L")
    for dtype in (np.uint8, np.uint16):
        Image.fromarray(classes.astype(dtype)).save(tmp_path / "classes.png")
        record = {"file_name": tmp_path / "a.png", "sem_seg_file_name": tmp_path / "classes.png"}
        found = mapper({k: str(v) for k, v in record.items()})
        assert np.array_equal(found["sem_seg"], classes)
        assert found["image"].shape == (1, 4, 5)


def test_the_pipeline_of_infer_and_the_predictor(data, tmp_path, monkeypatch):
    _, images, kinds = data
    model = write_detector(tmp_path)
    items = find_images([str(images)])
    pipeline = DetectionPipeline(load_detector(model), keep_images=True)
    results = [r for window in pipeline([i] for i in items) for r in window]
    assert [r.error for r in results if r.error] == []
    as_rgb = slice(None, None, -1 if pipeline.format == "BGR" else 1)
    found = {r.item.key.rpartition("/")[2]: r.image[:, :, as_rgb] for r in results}
    assert differing(found, kinds) == []

    predictor, seen = Predictor(model), []
    preprocess = Preprocessor.__call__

    def record(self, image):
        seen.append(image)
        return preprocess(self, image)

    monkeypatch.setattr(Preprocessor, "__call__", record)
    names = list(kinds)[::4]
    predictor([images / n for n in names])
    found = {n: image[:, :, as_rgb] for n, image in zip(names, seen)}
    assert differing(found, {n: kinds[n] for n in names}) == []


def test_drawing_the_report_and_export(data, tmp_path, monkeypatch):
    folder, images, kinds = data
    drawn = draw_files(
        str(tmp_path / "drawn"),
        annotations=str(folder / "empty.json"),
        images=str(images),
        image_format="png",
    )
    assert drawn.problems == []
    pictures = {p.stem: np.asarray(Image.open(p)) for p in (tmp_path / "drawn").iterdir()}
    found = {n: pictures[n.rpartition(".")[0]] for n in kinds}
    assert differing(found, kinds) == []

    of_grid = []
    monkeypatch.setattr(drawing, "draw_boxes", lambda image, *_: of_grid.append(image) or image)
    name = register_coco(str(folder / "coco.json"), str(images))
    (tmp_path / "none.json").write_text("[]")
    drawing.save_prediction_grid(
        name, str(tmp_path / "none.json"), str(tmp_path / "grid.png"), len(kinds)
    )
    assert differing(dict(zip(kinds, of_grid[::2])), kinds) == []

    of_export = export_command._images([str(images / n) for n in kinds], "RGB")
    assert differing(dict(zip(kinds, of_export)), kinds) == []

    of_report = Pictures()
    for name, kind in kinds.items():
        height, width = kind.pixels.shape[:2]
        path = str(images / name)
        image = ImageResult(name, name, path, width, height, 0, 0, 0, "", 0.0, [], [])
        frame = of_report.frame(image)
        assert frame["note"] == "", name
        content = base64.b64decode(of_report.by_key[name].partition(",")[2])
        pixels, expected = blocks(Image.open(io.BytesIO(content))), blocks(kind.pixels)
        assert np.abs(pixels - expected).max() < 20, name  # of JPEG


def test_sizes_of_check_data_and_yolo(data, tmp_path):
    _, images, kinds = data
    expected = {n: k.pixels.shape[1::-1] for n, k in kinds.items()}
    headers = {n: read_header(images / n) for n in kinds}
    assert {n: (h.width, h.height) for n, h in headers.items()} == expected
    report = DatasetReport("train", "kinds", "", "", {}, {})
    sizes = [dict(zip(("width", "height"), size)) for size in expected.values()]
    check_images(
        report, [{"file_name": str(images / n), **s} for n, s in zip(kinds, sizes)], thorough=True
    )
    findings = {f.check: f for f in report.findings}
    assert not {"unreadable_images", "wrong_size"} & findings.keys()
    assert findings["deep"].count == 9 and findings["several_frames"].count == 3
    (tmp_path / "images").symlink_to(images)
    (tmp_path / "classes.txt").write_text("cat\n")
    (tmp_path / "labels").mkdir()
    label = os.path.splitext(next(iter(kinds)))[0] + ".txt"
    (tmp_path / "labels" / label).write_text("0 0.5 0.5 0.2 0.2\n")
    names, paths, _ = read_yolo(str(tmp_path), "")
    coco = yolo_to_coco(paths, str(tmp_path / "images"), names)
    found = {i["file_name"]: (i["width"], i["height"]) for i in coco["images"]}
    assert found == expected and coco["info"]["unreadable_images"] == []
