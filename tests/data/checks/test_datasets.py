"""What the check of data sets finds, and what it leaves alone."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from libra_d2.data import setup_datasets
from libra_d2.data.checks import images as image_checks
from libra_d2.data.checks.anchors import anchor_shapes, best_shape_ious
from libra_d2.data.checks.datasets import check_datasets
from libra_d2.data.checks.images import require_readable
from libra_d2.data.datasets.coco import register_coco
from libra_d2.data.images.reader import read_header
from libra_d2.data.packed.packing import pack
from libra_d2.engine import load_cfg
from libra_d2.errors import UserError

from ...support.coco_files import write_dataset
from ...support.data_checks import GOOD, both_classes, edit
from ...support.dataset_configs import cfg_for


def checked(train, test=None, *opts, thorough=True):
    cfg = cfg_for(train, test, *opts)
    setup_datasets(cfg, num_classes_given=False)
    return check_datasets(cfg, thorough=thorough)


def found(report):
    return {f.check: f for f in report.findings}


def test_nothing_is_found_where_nothing_is_wrong(tmp_path):
    report = checked(both_classes(tmp_path))
    assert report.num_problems == 0 and set(found(report)) <= {"loose_anchors"}


def test_figures(tmp_path):
    """Sides 20, 20 and 50 on each of three images: 2/3 small (below 32), 1/3 medium."""
    files = write_dataset(tmp_path, [GOOD, (30, 5, 20, 20), (5, 0, 62.5, 40)], num_images=3)
    edit(files[0], lambda d: d["annotations"][0].update(iscrowd=1))
    (report,) = checked(files).datasets
    assert report.figures["images"] == 3 and report.figures["objects"] == 8
    assert report.figures["crowd regions"] == "1 (11.1%)"
    assert report.figures["small / medium / large"] == "62% / 38% / 0%"
    assert report.classes == {"cat": 8, "dog": 0}
    assert report.details["sizes"] == {"small": 5, "medium": 3, "large": 0}
    assert report.details["sqrt_area_percentiles"]["50"] == pytest.approx(20)


@pytest.mark.parametrize(
    "box,check,problem",
    [
        ((50, 30, 20, 20), "clipped", True),
        ((-0.5, 10, 20, 20), "rounding", False),
        ((10, 10, 0, 20), "no_area", True),
        ((70, 10, 20, 20), "outside", True),
        ((float("nan"), 10, 20, 20), "not_finite", True),
        ((10, 10, float("inf"), 20), "not_finite", True),
        (GOOD, "duplicate_boxes", True),
    ],
)
def test_boxes(tmp_path, box, check, problem):
    files = write_dataset(tmp_path, [GOOD, box], num_images=2)
    finding = found(checked(files))[check]
    assert (finding.count, finding.total, finding.problem) == (2, 4, problem)
    assert finding.examples == ["2", "4"]


def test_equal_boxes_of_other_classes_and_images_are_no_duplicates(tmp_path):
    files = both_classes(tmp_path)

    def same_boxes(data):
        for annotation in data["annotations"]:
            annotation["bbox"] = list(GOOD)

    edit(files[0], same_boxes)
    assert "duplicate_boxes" not in found(checked(files))


def test_class_without_objects_is_looked_for_in_each_split(tmp_path):
    train, test = both_classes(tmp_path / "a"), write_dataset(tmp_path / "b", num_images=2)
    (finding,) = [f for f in checked(train, test).findings if f.check == "classes_without_objects"]
    assert (finding.split, finding.examples) == ("test", ["dog"])


def test_crowd_and_empty_images(tmp_path):
    files = write_dataset(tmp_path, num_images=4)

    def change(data):
        data["annotations"][0]["iscrowd"] = 1
        del data["annotations"][1]

    edit(files[0], change)
    findings = found(checked(files))
    assert findings["only_crowd"].examples[0].endswith("1.jpg")
    assert findings["images_without_annotations"].examples[0].endswith("2.jpg")
    assert "left out" in findings["only_crowd"].text
    assert not findings["only_crowd"].problem


def test_images(tmp_path):
    files = both_classes(tmp_path, num_images=7)
    images = Path(files[1])
    (images / "1.jpg").write_bytes((images / "1.jpg").read_bytes()[:400])
    (images / "2.jpg").unlink()
    Image.new("RGB", (61, 40)).save(images / "3.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 60)).save(images / "4.jpg", exif=exif)  # right: 60x40 after it
    Image.new("RGB", (60, 40)).save(images / "5.jpg", exif=exif)
    Image.new("CMYK", (60, 40)).save(images / "6.jpg")
    Image.fromarray(np.zeros((40, 60), np.uint16)).save(images / "7.jpg", format="PNG")
    findings = found(checked(files))
    assert findings["unreadable_images"].examples[0].startswith(str(images / "1.jpg"))
    assert findings["missing_images"].examples == [str(images / "2.jpg")]
    wrong = findings["wrong_size"].examples
    assert len(wrong) == 2 and "61x40, annotated 60x40" in wrong[0]
    assert "40x60, annotated 60x40, its size before the EXIF rotation" in wrong[1]
    assert findings["rotated"].count == 2 and not findings["rotated"].problem
    assert findings["cmyk"].count == 1 and not findings["cmyk"].problem
    assert findings["deep"].count == 1 and not findings["deep"].problem


def test_same_image_in_both_splits_under_another_name(tmp_path):
    train, test = both_classes(tmp_path / "a"), both_classes(tmp_path / "b")
    for i in (1, 2, 3):  # other content but for 3.jpg, which is 2.jpg of the training set
        Image.new("RGB", (60, 40), (i, 99, 0)).save(f"{test[1]}/{i}.jpg")
    Path(test[1], "3.jpg").write_bytes(Path(train[1], "2.jpg").read_bytes())
    findings = found(checked(train, test))
    assert findings["in_both_splits"].examples == [f"{test[1]}/3.jpg = {train[1]}/2.jpg"]
    assert findings["in_both_splits"].total == 3


def test_training_set_used_as_test_set_is_found_by_the_quick_check(tmp_path, monkeypatch):
    """Also beyond the number of images that it opens."""
    monkeypatch.setattr(image_checks, "QUICK_LIMIT", 1)
    files = both_classes(tmp_path)
    assert found(checked(files, files, thorough=False))["in_both_splits"].count == 3


def test_quick_check_opens_few_images_spread_over_the_set(tmp_path, monkeypatch):
    monkeypatch.setattr(image_checks, "QUICK_LIMIT", 2)
    opened = []

    def read(paths, *, decode, desc):
        opened.extend(Path(p).name for p in paths)
        assert not decode
        return [read_header(p) for p in paths]

    monkeypatch.setattr(image_checks, "read_headers", read)
    files = both_classes(tmp_path, num_images=6)
    report = checked(files, thorough=False)
    assert opened == ["1.jpg", "4.jpg"]
    assert report.datasets[0].figures["images opened"] == "2 (headers)"


def test_set_without_a_readable_image_is_refused(tmp_path):
    """A run on it would look for a good image for ever, or end in Detectron2's loader."""
    files = both_classes(tmp_path)
    for i in (1, 2, 3):
        Path(files[1], f"{i}.jpg").write_text("x")
    with pytest.raises(UserError, match=r"none of the images can be read\. The first is .*1\.jpg"):
        checked(files)


@pytest.mark.parametrize("usable", [0, 1])
def test_evaluation_needs_an_image_that_can_be_used(tmp_path, usable):
    """One that can be read and has the annotated size."""
    annotations, images = both_classes(tmp_path)
    content = json.loads(Path(annotations).read_text())
    for image in content["images"][usable:]:
        image["width"], image["height"] = image["height"], image["width"]
    Path(annotations).write_text(json.dumps(content))
    Path(images, "3.jpg").write_text("x")
    name = register_coco(annotations, images)
    if usable:
        return require_readable(name)
    with pytest.raises(
        UserError, match=r"none of the 3 images can be used\. The first is .*1\.jpg "
    ):
        require_readable(name)


def test_report_is_json_with_all_that_was_found(tmp_path):
    files = write_dataset(tmp_path, [GOOD, GOOD])
    report = checked(files)
    report.save(str(tmp_path / "new/report.json"))
    content = json.loads((tmp_path / "new/report.json").read_text())
    (dataset,) = content["datasets"]
    assert content["num_problems"] == report.num_problems > 0
    assert dataset["classes"] == {"cat": 6, "dog": 0} and dataset["json_file"] == files[0]
    assert {f["check"] for f in dataset["findings"]} >= {"duplicate_boxes"}


def test_packed_images_are_checked_as_files_are(tmp_path):
    """Also against files, of which they have neither a path nor a size of their own."""
    files = both_classes(tmp_path)
    pack(*files, str(tmp_path / "train.lmdb"))
    opts = ("DATASETS.TRAIN", f"packed:{tmp_path}/train.lmdb")
    report = checked(None, files, *opts)
    assert set(found(report)) <= {"loose_anchors", "in_both_splits"}
    assert found(report)["in_both_splits"].count == 3
    assert report.datasets[0].figures["images opened"] == "3"


# -- Anchors -----------------------------------------------------------------------------------


def test_anchors_are_those_of_the_model():
    """32 to 512 pixels in three ratios: areas are kept, and height / width is the ratio."""
    shapes = anchor_shapes(load_cfg("configs/libra_mobilenet_v2.yaml"))
    assert shapes.shape == (15, 2)
    np.testing.assert_allclose(np.sqrt(shapes.prod(1))[::3], [32, 64, 128, 256, 512])
    np.testing.assert_allclose((shapes[:, 1] / shapes[:, 0])[:3], [0.5, 1, 2])


def test_shape_ious_by_hand():
    """A quarter inside, the same, half as wide, and four times the area."""
    anchors = np.array([[32.0, 32.0]])
    shapes = np.array([[16.0, 16.0], [32, 32], [16, 32], [64, 64]])
    np.testing.assert_allclose(best_shape_ious(shapes, anchors), [0.25, 1, 0.5, 0.25])
    assert best_shape_ious(np.zeros((0, 2)), anchors).shape == (0,)


SIDE = st.floats(1, 1000)


@given(st.lists(st.tuples(SIDE, SIDE), min_size=1), st.lists(st.tuples(SIDE, SIDE), min_size=1))
def test_shape_ious_are_the_best_of_all_pairs(shapes, anchors):
    shapes, anchors = np.array(shapes), np.array(anchors)
    best = best_shape_ious(shapes, anchors)
    overlap = np.minimum(shapes[:, None], anchors[None]).prod(2)
    pairs = overlap / (shapes.prod(1)[:, None] + anchors.prod(1)[None] - overlap)
    np.testing.assert_allclose(best, pairs.max(1))
    assert (best <= 1 + 1e-9).all() and (best > 0).all()


@pytest.mark.parametrize(
    "opts,num_unmatched",
    [
        (("INPUT.MIN_SIZE_TRAIN", "(40,)"), 3),
        (("INPUT.MIN_SIZE_TRAIN", "(320,)"), 0),
        (("INPUT.FIXED_SIZE", "(320, 480)"), 0),
        (("INPUT.FIXED_SIZE", "(320, 60)"), 0),  # 20x80: IoU 0.5 with 23x45
        (("INPUT.FIXED_SIZE", "(320, 60)", "INPUT.KEEP_RATIO", "True"), 3),  # 20x10
    ],
)
def test_objects_are_measured_after_the_resize(tmp_path, opts, num_unmatched):
    """20x10 pixels of 60x40: at their own size, IoU 0.2 with an anchor of 32; eightfold, fine."""
    files = write_dataset(tmp_path, [(10, 10, 20, 10)])
    report = checked(files, None, *opts)
    assert report.datasets[0].details["anchors"]["num_below_background"] == num_unmatched
    assert ("no_anchor" in found(report)) == bool(num_unmatched)


def test_retinanet_has_thresholds_of_its_own(tmp_path):
    files = write_dataset(tmp_path)
    cfg = load_cfg(
        "configs/libra_retinanet_r50.yaml",
        ["DATASETS.TRAIN", f"coco:{files[0]},{files[1]}"],
    )
    setup_datasets(cfg, num_classes_given=False)
    details = check_datasets(cfg, thorough=True).datasets[0].details["anchors"]
    assert (details["background_threshold"], details["foreground_threshold"]) == (0.4, 0.5)
