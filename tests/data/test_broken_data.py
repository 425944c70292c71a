"""
What people's data looks like: each kind goes through `libra-d2 check-data`, the start of a training
run and an evaluation. Each is named in a message, none ends in a stack trace, and the good images
beside it are used as if nothing were wrong.
"""

import argparse
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from PIL import Image

from libra_d2.cli.main import main
from libra_d2.data import LibraDatasetMapper
from libra_d2.engine import LibraTrainer, defaults, setup
from libra_d2.errors import UserError

from ..support.data_checks import both_classes, edit
from ..support.perfect_output import perfect_output

# The damage is done to image 2 of five, or to its annotations 3 and 4.
BAD = "2.jpg"
GOOD = ("1.jpg", "3.jpg", "4.jpg", "5.jpg")


@dataclass(frozen=True)
class Kind:
    name: str
    # Takes the annotation file and the image folder.
    damage: Callable[[Path, Path], None]
    # What check-data says; "": nothing, since it is no mistake.
    says: str
    # The data cannot be used at all: one line, of check-data and of the other two.
    refused: bool = False
    # What training and evaluation say, if not the same; None: nothing.
    training: str = "as check-data"
    evaluation: str = "as check-data"


def text(content, encoding="utf-8"):
    return lambda json_file, images: json_file.write_bytes(content.encode(encoding))


def re_encoded(encoding):
    def damage(json_file, images):
        data = json.loads(json_file.read_text())
        data["categories"][0]["supercategory"] = "Bär"
        json_file.write_bytes(json.dumps(data, ensure_ascii=False).encode(encoding))

    return damage


def data(change):
    return lambda json_file, images: edit(json_file, change)


def annotation(**values):
    return data(lambda d: d["annotations"][2].update(values))


def image(**values):
    return data(lambda d: d["images"][1].update(values))


def file(write):
    """`write` takes the path of the bad image, which is gone."""

    def damage(json_file, images):
        (images / BAD).unlink()
        write(images / BAD)

    return damage


def saved(mode="RGB", size=(60, 40), **kwargs):
    return file(lambda path: Image.new(mode, size).save(path, **kwargs))


def exif_rotated(size):
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(size=size, exif=exif)


def pixels(array, **kwargs):
    return file(lambda path: Image.fromarray(array).save(path, **kwargs))


def of_size(width, height):
    """An image of this size, rightly annotated, with one object that fills it."""

    def damage(json_file, images):
        saved(size=(width, height))(json_file, images)
        image(width=width, height=height)(json_file, images)
        annotation(bbox=[0, 0, width, height])(json_file, images)
        data(lambda d: d["annotations"].pop(3))(json_file, images)

    return damage


def truncated(json_file, images):
    content = (images / BAD).read_bytes()
    (images / BAD).write_bytes(content[: len(content) * 3 // 4])


def half_a_png(path):
    Image.fromarray(np.random.randint(0, 255, (40, 60, 3), np.uint8)).save(path, format="PNG")
    path.write_bytes(path.read_bytes()[:4000])


def animation(path):
    frames = [Image.new("RGB", (60, 40), (90 * i, 0, 0)) for i in range(3)]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:])


def renamed(name):
    def damage(json_file, images):
        (images / BAD).rename(images / name)
        image(file_name=name)(json_file, images)

    return damage


def other_ids(kind):
    def change(d):
        for entry in [*d["images"], *d["annotations"]]:
            entry["id"] = kind(entry["id"])
        for entry in d["annotations"]:
            entry["image_id"] = kind(entry["image_id"])

    return data(change)


def same_as_in_test(json_file, images):
    (images / BAD).write_bytes((json_file.parents[1] / "other/images/1.jpg").read_bytes())


def drop(section, keep):
    return data(lambda d: d.update({section: [e for e in d[section] if keep(e)]}))


def set_all(section, **values):
    return data(lambda d: [e.update(values) for e in d[section]])


def refused(name, damage, says, **kwargs):
    return Kind(name, damage, says, refused=True, **kwargs)


USED = {"training": None, "evaluation": None}
QUICK = {"evaluation": None}  # found by the check at the start of training
UNUSABLE = {"training": f"cannot use image .*{BAD}", "evaluation": f"cannot use image .*{BAD}"}

KINDS = [
    # The annotation file
    refused("no file", lambda j, i: j.unlink(), "coco.json does not exist"),
    refused("folder", lambda j, i: (j.unlink(), j.mkdir()), r"folder \S+coco\.json"),
    refused("empty", text(""), "coco.json is not a JSON file"),
    refused("truncated json", text('{"images": [{"id": 1,'), "coco.json is not a JSON file"),
    refused("list", text("[1, 2]"), "coco.json .*no list 'images'"),
    refused("latin-1", re_encoded("latin-1"), "is not a JSON file: 'utf-8' codec"),
    Kind("byte order mark", re_encoded("utf-8-sig"), "", **USED),
    Kind("utf-16", re_encoded("utf-16"), "", **USED),
    refused("no categories", data(lambda d: d.pop("categories")), "no list 'categories'"),
    refused("empty categories", drop("categories", lambda e: False), "has no categories"),
    refused("equal names", set_all("categories", name="cat"),
            "several categories have the name 'cat'"),
    refused("equal category ids", set_all("categories", id=10),
            "ids in categories must be unique"),
    refused("equal image ids", image(id=1), r"images\[0\] and images\[1\] both have the id 1"),
    refused("equal annotation ids", annotation(id=1), r"annotations\[2\] both have the id 1"),
    refused("unknown category", annotation(category_id=7),
            r"annotations\[2\].category_id must .*7"),
    refused("ids of two types", image(id="2"), "1 of 5 ids in images are strings"),
    refused("null id", image(id=None), r"images\[1\].id must .*got None"),
    refused("list as an id", annotation(image_id=[2]), r"annotations\[2\].image_id must .*\[2\]"),
    refused("three numbers", annotation(bbox=[1, 2, 3]), r"annotations\[2\].bbox must"),
    refused("texts as box", annotation(bbox=["1", "2", "3", "4"]), r"bbox must .*got \['1'"),
    refused("text as box", annotation(bbox="1 2 3 4"), "bbox must be 4 numbers, got '1 2 3 4'"),
    refused("null in a box", annotation(bbox=[1, 2, None, 4]), "must be 4 numbers"),
    refused("iscrowd is a text", annotation(iscrowd="yes"), "iscrowd must be 0 or 1, got 'yes'"),
    refused("width is a text", image(width="60"), r"images\[1\].width must .*got '60'"),
    refused("no width", data(lambda d: d["images"][1].pop("width")), r"images\[1\] lacks"),
    refused("height is zero", image(height=0), r"images\[1\].height must .*got 0"),
    refused("number as name", image(file_name=2), r"images\[1\].file_name must .*got 2"),
    refused(
        "class without a name",
        data(lambda d: d["categories"][0].update(name="")),
        r"categories\[0\].name must .*got ''",
    ),
    refused("no images", drop("images", lambda e: False), "has no images"),
    refused("no objects", drop("annotations", lambda e: False), "nothing to train on: .*coco.json",
            evaluation=None),
    refused(
        "only crowd",
        set_all("annotations", iscrowd=1),
        "nothing to train on: .*coco.json has no objects other than crowd",
        evaluation=None,
    ),
    Kind("unknown image", annotation(image_id=99), r"that the file does not list.*\b3\b"),
    Kind("ids are texts", other_ids(str), "", **USED),
    Kind("ids are fractions", other_ids(float), "", **USED),
    Kind("ids from zero", other_ids(lambda i: i - 1), "", **USED),
    Kind("area is null", annotation(area=None), "", **USED),
    # Boxes
    Kind("NaN", annotation(bbox=[float("nan"), 2, 3, 4]), r"NaN or infinity.*\b3\b"),
    Kind("infinity", annotation(bbox=[1, 2, float("inf"), 4]), r"NaN or infinity.*\b3\b"),
    Kind("negative size", annotation(bbox=[10, 10, -5, 5]), r"without area.*\b3\b"),
    Kind("no area", annotation(bbox=[10, 10, 0, 5]), r"without area.*\b3\b"),
    Kind("outside", annotation(bbox=[60, 10, 5, 5]), r"outside of their image.*\b3\b"),
    Kind("partly outside", annotation(bbox=[50, 30, 20, 20]), "and are clipped .*: 3$", **QUICK),
    Kind("equal boxes", annotation(bbox=[30, 5, 20, 20], category_id=20),
         "duplicates .*: 4$", **QUICK),
    Kind("two-point polygon", annotation(segmentation=[[1, 1, 5, 5]]), "mask.*: 3$", **QUICK),
    Kind("empty polygon", annotation(segmentation=[[]]), "mask.*: 3$", **QUICK),
    Kind("far polygon", annotation(segmentation=[[1e9, 1, 5, 5, 9, 1]]), "mask.*: 3$", **QUICK),
    Kind("text as mask", annotation(segmentation="x"), "mask.*: 3$", **QUICK),
    Kind("endless RLE", annotation(segmentation={"size": [40, 60], "counts": "oooo"}),
         "mask.*: 3$", **QUICK),
    Kind("nested keypoints", annotation(keypoints=[[1, 2, 2]]), "", **USED),
    Kind("area is zero", annotation(area=0), "area other than that of their box.*: 3$", **QUICK),
    Kind("backslashes", image(file_name="C:\\\\images\\\\2.jpg"), "found .*2.jpg", **USED),
    Kind("another machine", image(file_name="/home/x/2.jpg"), "found by the end.*2.jpg", **USED),
    Kind("URL", image(file_name="https://x.invalid/a/2.jpg?k=1"), "found by.*2.jpg", **USED),
    Kind("two names for a file", image(file_name="/x/1.jpg"), "missing.*x/1.jpg"),
    # Objects
    Kind("image without objects", drop("annotations", lambda e: e["image_id"] != 2), BAD, **QUICK),
    Kind("crowd in one image", data(lambda d: [a.update(iscrowd=1) for a in d["annotations"][2:4]]),
         f"only crowd regions.*{BAD}", **QUICK),
    Kind("class without objects", set_all("annotations", category_id=10),
         "classes have no objects: dog", **QUICK),
    # Files
    refused("no folder", lambda j, i: i.rename(i.parent / "x"), "image folder .* does not exist"),
    Kind("missing image", file(lambda path: None), f"missing.*{BAD}"),
    Kind("folder as image", file(lambda path: path.mkdir()), f"missing.*{BAD}"),
    Kind("dead link", file(lambda path: path.symlink_to("nowhere")), f"missing.*{BAD}"),
    Kind("empty image", file(lambda path: path.touch()), f"cannot be read.*{BAD}", **UNUSABLE),
    Kind("text", file(lambda p: p.write_text("x")), f"cannot be read.*{BAD}", **UNUSABLE),
    Kind("truncated JPEG", truncated, f"cannot be read.*{BAD}", **UNUSABLE),
    Kind("half a PNG", file(half_a_png), f"cannot be read.*{BAD}", **UNUSABLE),
    Kind("other size", saved(size=(61, 40)), f"{BAD} .61x40, annotated 60x40", **UNUSABLE),
    Kind("rotated by EXIF", exif_rotated((60, 40)), f"{BAD} .40x60.*EXIF rotation", **UNUSABLE),
    Kind("rightly rotated", exif_rotated((40, 60)),
         f"rotated according to their EXIF .*{BAD}", **QUICK),
    Kind("CMYK", saved("CMYK"), f"CMYK, and are converted: .*{BAD}", **QUICK),
    Kind("16 bits", pixels(np.zeros((40, 60), np.uint16), format="PNG"), f"8 bits.*{BAD}", **QUICK),
    Kind("animation", file(animation), f"several frames.*{BAD}", **QUICK),
    Kind("grey", saved("L"), "", **USED),
    Kind("transparent", saved("RGBA", format="PNG"), "", **USED),
    Kind("one pixel", of_size(1, 1), f"a side below 8 pixels: .*{BAD}", **QUICK),
    Kind("line", of_size(2000, 1), f"below 8 pixels: .*{BAD}", **UNUSABLE),
    Kind("blanks and signs", renamed("büro 1 (копия) #2%.jpg"), "", **USED),
    Kind("in both splits", same_as_in_test, f"also in the training set: .*{BAD}", **QUICK),
]  # fmt: skip


@pytest.fixture
def log(monkeypatch):
    """Messages of the package. Nothing stays registered, and no handler stays in the log."""
    monkeypatch.setattr(defaults, "quiet_default_setup", lambda cfg, args: None)
    monkeypatch.setattr(defaults, "setup_logging", lambda output_dir: None)
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("libra_d2")
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


@pytest.fixture(autouse=True)
def forget():
    """Each stage begins as a process of its own would."""
    before = set(DatasetCatalog.list())

    def forget_new():
        for name in set(DatasetCatalog.list()) - before:
            DatasetCatalog.remove(name)
            MetadataCatalog.pop(name)

    yield forget_new
    forget_new()


@pytest.fixture
def files(tmp_path, request):
    """The damaged set, and another one that is as it should be."""
    other = both_classes(tmp_path / "other", num_images=2)
    for i in (1, 2):
        Image.new("RGB", (60, 40), (200, i, 9)).save(f"{other[1]}/{i}.jpg", quality=90 + i)
    damaged = both_classes(tmp_path / "damaged", num_images=5)
    request.param.damage(*map(Path, damaged))
    return damaged, other


def options(tmp_path, train, test):
    return [
        *("DATASETS.TRAIN", f"coco:{train[0]},{train[1]}"),
        *("DATASETS.TEST", f"coco:{test[0]},{test[1]}"),
        *("OUTPUT_DIR", str(tmp_path / "out"), "DATALOADER.NUM_WORKERS", "0"),
        *("INPUT.RANDOM_FLIP", "none", "INPUT.MIN_SIZE_TRAIN", "(40,)"),
        *("INPUT.MIN_SIZE_TEST", "40", "MODEL.DEVICE", "cpu", "SOLVER.IMS_PER_BATCH", "2"),
    ]


CONFIG = "configs/libra_mobilenet_v2.yaml"
kinds = pytest.mark.parametrize("files,kind", [(k, k) for k in KINDS], indirect=["files"],
                                ids=[k.name for k in KINDS])  # fmt: skip


def start(tmp_path, train, test, eval_only):
    opts = options(tmp_path, train, test)
    return setup(argparse.Namespace(config_file=CONFIG, eval_only=eval_only, opts=opts))


def assert_named(pattern, default, messages):
    pattern = default if pattern == "as check-data" else pattern
    if pattern:
        assert any(re.search(pattern, m) for m in messages), messages


def test_the_list_is_long_and_says_what_it_means():
    assert len(KINDS) >= 60 and len({k.name for k in KINDS}) == len(KINDS)


@kinds
def test_check_data(tmp_path, files, kind, capsys):
    train, test = files
    if kind.name == "in both splits":
        train, test = test, train
    opts = options(tmp_path, train, test)
    code = main(["check-data", "--config-file", CONFIG, *opts])
    out, err = capsys.readouterr()
    if kind.refused:
        (line,) = [line for line in err.splitlines() if line.startswith("libra-d2 check-data: ")]
        assert code == 2 and re.search(kind.says, line)
        return
    assert code in (0, 1)
    found = [line for line in out.splitlines() if re.match("problem:|note:", line)]
    problems = [line for line in found if line.startswith("problem:")]
    assert code == bool(problems)
    if kind.says:
        assert_named(kind.says, "", found)
    else:
        assert not problems


@kinds
def test_training_start(tmp_path, files, kind, log):
    train, test = files
    if kind.name == "in both splits":
        train, test = test, train
    if kind.refused:
        with pytest.raises(UserError, match=kind.says) as e:
            start(tmp_path, train, test, eval_only=False)
        assert "\n" not in str(e.value)
        return
    cfg = start(tmp_path, train, test, eval_only=False)
    samples = [LibraDatasetMapper(cfg, is_train=True)(d) for d in dicts_of(cfg)]
    next(iter(LibraTrainer.build_train_loader(cfg)))
    assert_named(kind.training, kind.says, log)
    if kind.name != "in both splits":
        assert_good_images_are_as_ever([s for s in samples if s is not None], train[1])


def dicts_of(cfg):
    return get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    )


def assert_good_images_are_as_ever(samples, images):
    """Pixels and boxes of an undamaged set; 60x40 is not resized here."""
    by_name = {Path(s["file_name"]).name: s for s in samples}
    for name in GOOD:
        instances = by_name[name]["instances"]
        expected = torch.tensor([[10.0, 10, 30, 30], [30, 5, 50, 25]])
        assert torch.equal(instances.gt_boxes.tensor, expected)
        shown = np.asarray(Image.open(Path(images, name)).convert("RGB")).transpose(2, 0, 1)
        assert np.array_equal(by_name[name]["image"].numpy(), shown)


@kinds
def test_evaluation(tmp_path, files, kind, log):
    """With perfect detections, so that what is good counts in full."""
    damaged, other = files
    refused = kind.refused and kind.evaluation is not None
    if refused:
        with pytest.raises(UserError, match=kind.says) as e:
            start(tmp_path, other, damaged, eval_only=True)
        assert "\n" not in str(e.value)
        return
    cfg = start(tmp_path, other, damaged, eval_only=True)
    (name,) = cfg.DATASETS.TEST
    records = {d["image_id"]: d for d in DatasetCatalog.get(name)}
    evaluator = LibraTrainer.build_evaluator(cfg, name)
    evaluator.reset()
    drawn = set()
    for inputs in LibraTrainer.build_test_loader(cfg, name):
        evaluator.process(inputs, [perfect_output(records[i["image_id"]]) for i in inputs])
        drawn |= {Path(i["file_name"]).name for i in inputs if not i.get("unreadable")}
    results = evaluator.evaluate()["bbox"]
    assert_named(kind.evaluation, kind.says, log)
    assert drawn >= set(GOOD)
    if kind.name not in ("only crowd", "no objects"):
        # The objects of an image that cannot be read are missed: one of five of the class. So is
        # one that Detectron2 does not load, but whose box is ground truth.
        missed = re.match("cannot use", kind.evaluation or "") or re.match("missing", kind.says)
        assert results["AP-cat"] == pytest.approx(80 if missed else 100, abs=1)
