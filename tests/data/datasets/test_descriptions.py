"""Data sets by description: what each kind reads, and what a mistake is called."""

import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from libra_d2.data import setup_datasets
from libra_d2.data.datasets import descriptions as sources
from libra_d2.data.datasets.descriptions import KINDS, register_descriptions
from libra_d2.data.datasets.setup import class_names
from libra_d2.engine import load_cfg
from libra_d2.errors import UserError

from ...support.coco_files import write_dataset
from ...support.train_net_runs import SMALL, train_net
from ...support.voc_and_yolo_files import records_of, write_voc, write_yolo


def boxes(record):
    return [(a["category_id"], tuple(a["bbox"]), a["iscrowd"]) for a in record["annotations"]]


def test_coco_and_the_layout_of_mindspore(tmp_path):
    json_file, images = write_dataset(tmp_path / "a")
    records, _ = records_of(tmp_path, f"coco:{json_file},{images}")
    assert len(records) == 3
    (tmp_path / "ms/validation").mkdir(parents=True)
    Path(images).rename(tmp_path / "ms/validation/data")
    Path(json_file).rename(tmp_path / "ms/validation/labels.json")
    records, metadata = records_of(tmp_path, f"mindspore:{tmp_path}/ms,validation")
    assert Path(records[0]["file_name"]) == tmp_path / "ms/validation/data/1.jpg"
    assert metadata.thing_classes == ["cat", "dog"]


def test_voc_boxes_count_from_one_and_include_both_ends(tmp_path):
    """As in Detectron2's loader: a box of all pixels of 60x40 is (1, 1, 60, 40)."""
    objects = [[("dog", (1, 1, 60, 40), 0), ("cat", (11, 21, 20, 30), 1)], []]
    root = write_voc(tmp_path / "VOC2007", objects)
    records, metadata = records_of(tmp_path, f"voc:{root},train")
    assert metadata.thing_classes == ["cat", "dog"]
    assert boxes(records[0]) == [(1, (0, 0, 60, 40), 0), (0, (10, 20, 10, 10), 1)]
    assert boxes(records[1]) == []
    assert (records[0]["width"], records[0]["height"]) == (60, 40)


def test_voc_without_sizes_and_without_a_split(tmp_path):
    root = write_voc(tmp_path / "v", [[("cat", (1, 1, 9, 9), 0)]] * 2, size=False)
    (tmp_path / "v/ImageSets/Main/train.txt").unlink()
    records, _ = records_of(tmp_path, f"voc:{root}")
    assert [(r["width"], r["height"]) for r in records] == [(60, 40)] * 2


def test_voc_image_that_is_named_otherwise_in_its_xml(tmp_path):
    root = write_voc(tmp_path / "v", [[("cat", (1, 1, 9, 9), 0)]])
    xml = tmp_path / "v/Annotations/train_1.xml"
    xml.write_text(xml.read_text().replace("train_1.jpg", "holiday.jpg"))
    (record,), _ = records_of(tmp_path, f"voc:{root},train")
    assert record["file_name"].endswith("train_1.jpg")


def test_voc_file_belongs_to_the_image_of_its_own_name_and_differences_are_noted(tmp_path):
    """Files that were renumbered after labelling would be trained on with the boxes of others."""
    root = write_voc(tmp_path / "v", [[("cat", (1, 1, 9, 9), 0)], []])
    xml = tmp_path / "v/Annotations/train_1.xml"
    xml.write_text(xml.read_text().replace("train_1.jpg", "train_2.jpg"))
    records, metadata = records_of(tmp_path, f"voc:{root},train")
    assert [Path(r["file_name"]).name for r in records] == ["train_1.jpg", "train_2.jpg"]
    ((check, _, found),) = metadata.notes
    assert check == "other_filename" and found == ("train_1.xml: train_2.jpg, not train_1.jpg",)


def test_voc_with_namespace_other_suffixes_and_boxes_from_zero(tmp_path):
    root = write_voc(tmp_path / "v", [[("cat", (0, 0, 9, 9), 0)]])
    xml = tmp_path / "v/Annotations/train_1.xml"
    text = xml.read_text().replace("<annotation>", "<annotation xmlns='http://x.invalid/voc'>")
    xml.unlink()
    xml.with_suffix(".XML").write_text(text)
    image = tmp_path / "v/JPEGImages/train_1.jpg"
    image.rename(image.with_suffix(".JPG"))
    (tmp_path / "v/ImageSets/Main/train.txt").write_text("train_1.jpg\n")
    (record,), metadata = records_of(tmp_path, f"voc:{root},train,zero-based")
    assert boxes(record) == [(0, (0, 0, 10, 10), 0)]
    assert record["file_name"].endswith("train_1.JPG") and not metadata.notes


def test_voc_boxes_that_seem_to_count_from_zero_are_said(tmp_path):
    root = write_voc(tmp_path / "v", [[("cat", (0, 3, 9, 9), 0), ("cat", (1, 1, 9, 9), 0)]])
    (record,), metadata = records_of(tmp_path, f"voc:{root},train")
    assert boxes(record)[0] == (0, (0, 2, 9, 7), 0)
    ((check, text, found),) = metadata.notes
    assert check == "pixel_0" and found == ("train_1.xml",) and "zero-based" in text


def test_yolo_pose_labels_are_read_as_boxes(tmp_path):
    yaml = "train: images/train\nnames: [yes, no]\nkpt_shape: [2, 2]\n"
    data = write_yolo(tmp_path / "y", ["1 .5 .5 .5 .5 .1 .1 1.4 .2"], yaml=yaml)
    (record,), metadata = records_of(tmp_path, f"yolo:{data},train")
    assert boxes(record) == [(1, (15, 10, 30, 20), 0)] and metadata.thing_classes == ["yes", "no"]
    assert metadata.notes[0][0] == "keypoints"


def test_yolo_list_from_windows(tmp_path):
    yaml = "train: train.txt\nnames: [cat, dog]\n"
    data = write_yolo(tmp_path / "y", ["0 .5 .5 .1 .1"], yaml=yaml)
    (tmp_path / "y/train.txt").write_text("images\\train\\1.png\n")
    records, _ = records_of(tmp_path, f"yolo:{data},train")
    assert [len(r["annotations"]) for r in records] == [1]


def test_changed_annotations_are_read_again(tmp_path):
    files = write_dataset(tmp_path / "a")
    for num_objects in (3, 1):
        data = json.loads(Path(files[0]).read_text())
        data["annotations"] = data["annotations"][:num_objects]
        Path(files[0]).write_text(json.dumps(data))
        cfg = cfg_for(tmp_path, "DATASETS.TRAIN", f"coco:{files[0]},{files[1]}")
        setup_datasets(cfg, num_classes_given=False)
        dicts = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])
        assert sum(len(d["annotations"]) for d in dicts) == num_objects


def test_background_images_may_be_the_second_set_and_the_test_set(tmp_path):
    good, empty = write_dataset(tmp_path / "a"), write_dataset(tmp_path / "b", boxes=())
    sets = [f"coco:{json_file},{images}" for json_file, images in (good, empty)]
    cfg = cfg_for(tmp_path, "DATASETS.TRAIN", tuple(sets), "DATASETS.TEST", sets[1])
    setup_datasets(cfg, num_classes_given=False)
    assert len(cfg.DATASETS.TRAIN) == 2 and class_names(cfg) == ("cat", "dog")


def test_order_of_voc_classes_is_settled_over_all_sets(tmp_path):
    """With an order of its own for each set, a class would have two indices."""
    a = write_voc(tmp_path / "a", [[("dog", (1, 1, 9, 9), 0)]])
    b = write_voc(tmp_path / "b", [[("cat", (1, 1, 9, 9), 0)]])
    names = register_descriptions(
        {"TRAIN": (f"voc:{a},train",), "TEST": (f"voc:{b},train",)}, str(tmp_path / "out")
    )
    (train,), (test,) = (DatasetCatalog.get(names[k][0]) for k in ("TRAIN", "TEST"))
    assert (boxes(train)[0][0], boxes(test)[0][0]) == (1, 0)
    assert MetadataCatalog.get(names["TEST"][0]).thing_classes == ["cat", "dog"]


@pytest.mark.parametrize("given_by", ["labels.txt", "config", "yolo"])
def test_order_of_voc_classes_can_be_given(tmp_path, given_by):
    voc = write_voc(tmp_path / "v", [[("cat", (1, 1, 9, 9), 0)]])
    sources, class_names = {"TRAIN": [f"voc:{voc},train"]}, ()
    if given_by == "labels.txt":
        (tmp_path / "v/labels.txt").write_text("dog\ncat\n")
    elif given_by == "config":
        class_names = ("dog", "cat")
    else:
        yolo = write_yolo(tmp_path / "y", ["0 .5 .5 .1 .1"], names=("dog", "cat"))
        sources["TEST"] = [f"yolo:{yolo},train"]
    names = register_descriptions(sources, str(tmp_path / "out"), class_names)
    (record,) = DatasetCatalog.get(names["TRAIN"][0])
    assert boxes(record)[0][0] == 1


def test_yolo_boxes_polygons_and_background(tmp_path):
    """A box is (cx, cy, w, h) in shares of the sides: the middle quarter of 60x40 is 30x20."""
    labels = ["1 0.5 0.5 0.5 0.5\n\n0 0 0 0.5 0 0.5 0.25 0 0.25\n", None, ""]
    data = write_yolo(tmp_path / "y", labels)
    records, metadata = records_of(tmp_path, f"yolo:{data},train")
    assert metadata.thing_classes == ["cat", "dog"]
    assert boxes(records[0]) == [(1, (15, 10, 30, 20), 0), (0, (0, 0, 30, 10), 0)]
    assert [len(r["annotations"]) for r in records] == [2, 0, 0]


@pytest.mark.parametrize(
    "yaml",
    [
        "path: .\ntrain: images/train\nnames: {0: cat, 1: dog}\n",
        "train: ../images/train\nnames: [cat, dog]\nnc: 2\n",
        "train: [images/train]\nnames: [cat, dog]\n",
        "train: train.txt\nnames: [cat, dog]\n",
    ],
)
def test_forms_of_a_data_yaml(tmp_path, yaml):
    """As Ultralytics writes it, as Roboflow exports it, with lists of folders or of files."""
    data = write_yolo(tmp_path / "y", ["0 .5 .5 .1 .1"] * 2, yaml=yaml)
    (tmp_path / "y/train.txt").write_text("./images/train/1.png\nimages/train/2.png\n")
    records, _ = records_of(tmp_path, f"yolo:{data},train")
    assert [len(r["annotations"]) for r in records] == [1, 1]


def test_yolo_folder_without_yaml(tmp_path):
    write_yolo(tmp_path / "y", ["1 .5 .5 .1 .1"])
    (tmp_path / "y/data.yaml").unlink()
    (tmp_path / "y/classes.txt").write_text("cat\ndog\n")
    records, metadata = records_of(tmp_path, f"yolo:{tmp_path}/y")
    assert metadata.thing_classes == ["cat", "dog"] and boxes(records[0])[0][0] == 1


def test_yolo_size_is_that_after_the_rotation_by_exif(tmp_path):
    """Detectron2 turns the image; shares of the unrotated sides would be other pixels."""
    data = write_yolo(tmp_path / "y", ["0 0.5 0.5 1 0.5"])
    (tmp_path / "y/images/train/1.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "y/images/train/1.jpg", exif=exif)
    (record,), _ = records_of(tmp_path, f"yolo:{data},train")
    assert (record["width"], record["height"]) == (40, 60)
    assert boxes(record) == [(0, (0, 15, 40, 30), 0)]


def test_converted_files_are_used_again_until_something_changes(tmp_path):
    data = write_yolo(tmp_path / "y", ["0 .5 .5 .1 .1"])
    written = lambda: sorted((tmp_path / "out").glob("*.json"))
    records_of(tmp_path, f"yolo:{data},train")
    (first,) = written()
    time = first.stat().st_mtime_ns
    records_of(tmp_path, f"yolo:{data},train")
    assert written() == [first] and first.stat().st_mtime_ns == time
    (tmp_path / "y/labels/train/1.txt").write_text("1 .5 .5 .25 .25\n")
    records, _ = records_of(tmp_path, f"yolo:{data},train")
    assert len(written()) == 2 and boxes(records[0])[0][0] == 1


def test_unreadable_yolo_image_is_left_out_and_named(tmp_path):
    data = write_yolo(tmp_path / "y", ["0 .5 .5 .1 .1"] * 2)
    (tmp_path / "y/images/train/1.png").write_bytes(b"")
    (record,), metadata = records_of(tmp_path, f"yolo:{data},train")
    assert record["file_name"].endswith("2.png")
    assert metadata.unreadable_images[0][0].endswith("1.png")


def mistake(tmp_path, change):
    voc = write_voc(tmp_path / "v", [[("cat", (1, 1, 9, 9), 0)]])
    data = write_yolo(tmp_path / "y", ["0 .5 .5 .1 .1\n0 .5 .5 .1 .1\n"])
    return change(Path(voc), Path(data).parent)


def replace(path, old, new):
    path.write_text(path.read_text().replace(old, new))


def voc_xml(old, new):
    def change(voc, yolo):
        replace(voc / "Annotations/train_1.xml", old, new)
        return f"voc:{voc},train"

    return change


def yolo_label(text):
    def change(voc, yolo):
        (yolo / "labels/train/1.txt").write_text(text)
        return f"yolo:{yolo}/data.yaml,train"

    return change


def data_yaml(text):
    def change(voc, yolo):
        (yolo / "data.yaml").write_text(text)
        return f"yolo:{yolo}/data.yaml,train"

    return change


@pytest.mark.parametrize(
    "change,named",
    [
        (lambda v, y: f"pascal:{v}", r"kinds: coco:, mindspore:.*voc:, yolo:.*'pascal:"),
        (lambda v, y: "voc", "such as coco:.*got 'voc'"),
        (lambda v, y: "coco:only.json", "must have the form annotations.json,images"),
        (lambda v, y: f"coco:{v}/none.json,{v}", "annotation file .*none.json does not exist"),
        (lambda v, y: f"mindspore:{v},train", r"train/labels.json does not exist"),
        (
            lambda v, y: f"voc:{v}/none,train",
            "does not have VOC's layout.*Annotations does not exist",
        ),
        (lambda v, y: f"voc:{v},val", r"Main/val.txt does not exist. Leave out the split"),
        (voc_xml("</annotation>", ""), r"train_1.xml, line 1: malformed XML"),
        (voc_xml("<name>cat</name>", ""), r"train_1.xml: <object> has no <name>"),
        (
            voc_xml("<xmin>1</xmin>", "<xmin>l</xmin>"),
            r"train_1.xml: <xmin> must be a number, got 'l'",
        ),
        (voc_xml("bndbox", "box"), r"train_1.xml: an object 'cat' has no <bndbox>"),
        (lambda v, y: f"yolo:{y}/none.yaml,train", "none.yaml does not exist"),
        (lambda v, y: f"yolo:{y}", "must be a data.yaml or a folder with a file classes.txt"),
        (lambda v, y: f"yolo:{y}/data.yaml", "needs the name of a split"),
        (lambda v, y: f"yolo:{y}/data.yaml,test", "has no key 'test'. It has .'train', 'val'"),
        (lambda v, y: f"yolo:{y}/data.yaml,val", "images/val does not exist"),
        (data_yaml("train: [\n"), "data.yaml, line 2: expected"),
        (data_yaml("train: images/train\n"), "no list of class names"),
        (
            data_yaml("train: images/train\nnames: [a]\nnc: 2\n"),
            "nc must be the number of names, 1, got 2",
        ),
        (data_yaml("train: images/train\nnames: [a, a]\n"), "0 and 1 have the same name 'a'"),
        (
            lambda v, y: (y / "labels").rename(y / "x") and f"yolo:{y}/data.yaml,train",
            "no image has a label file. The first was looked for at .*labels/train/1.txt",
        ),
        (data_yaml("train: labels\nnames: [a]\n"), "labels has no images"),
        (
            yolo_label("0 .5 .5 .1 .1\n0 .5 .5 .1\n"),
            "1.txt, line 2: the line must have 5 .*, got 4",
        ),
        (
            yolo_label("cat .5 .5 .1 .1\n"),
            "1.txt, line 1: the line must be a list of numbers, got 'cat",
        ),
        (yolo_label("2 .5 .5 .1 .1\n"), "1.txt, line 1: class must be from 0 to 1, got 2"),
        (yolo_label("-1 .5 .5 .1 .1\n"), "class must be from 0 to 1, got -1"),
        (yolo_label("0 30 20 10 10\n"), r"1.txt, line 1: coordinates must be in \[0, 1\]"),
        (yolo_label("0 nan .5 .1 .1\n"), r"coordinates must be in \[0, 1\], got '0 nan"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_place(tmp_path, change, named):
    description = mistake(tmp_path, change)
    with pytest.raises(UserError, match=named) as e:
        records_of(tmp_path, description)
    assert "KEY" in str(e.value) and "\n" not in str(e.value)


def test_voc_class_that_the_other_data_sets_do_not_know(tmp_path):
    root = write_voc(tmp_path / "v", [[("bird", (1, 1, 9, 9), 0)]])
    json_file, images = write_dataset(tmp_path / "a", classes=("cat",))
    splits = {"KEY": (f"coco:{json_file},{images}", f"voc:{root},train")}
    with pytest.raises(
        UserError, match=r"train_1.xml: the class must be one of \['cat'\], got 'bird'"
    ):
        register_descriptions(splits, str(tmp_path / "out"))


# -- The config --------------------------------------------------------------------------------


def cfg_for(tmp_path, *opts):
    opts = [str(o) for o in (*opts, "OUTPUT_DIR", tmp_path / "out")]
    return load_cfg("configs/libra_mobilenet_v2.yaml", opts)


def test_several_sets_of_different_kinds_at_once(tmp_path, caplog):
    json_file, images = write_dataset(tmp_path / "a")
    yolo = write_yolo(tmp_path / "y", ["0 .5 .5 .1 .1"] * 2)
    voc = write_voc(tmp_path / "v", [[("dog", (1, 1, 9, 9), 0)]])
    train = (f"coco:{json_file},{images}", f"yolo:{yolo},train")
    cfg = cfg_for(tmp_path, "DATASETS.TRAIN", train, "DATASETS.TEST", f"voc:{voc},train")
    with caplog.at_level("DEBUG", "libra_d2"):
        setup_datasets(cfg, num_classes_given=False)
    assert [len(DatasetCatalog.get(n)) for n in cfg.DATASETS.TRAIN] == [3, 2]
    assert len(cfg.DATASETS.TEST) == 1 and class_names(cfg) == ("cat", "dog")
    # Index, name and ids: COCO's are 10 and 20 here, those of converted sets count from 1.
    rows = [line.split() for line in caplog.text.splitlines()]
    assert ["0", "cat", "10,", "1"] in rows and ["1", "dog", "20,", "2"] in rows


def test_different_classes_of_two_sets_are_shown(tmp_path):
    json_file, images = write_dataset(tmp_path / "a")
    yolo = write_yolo(tmp_path / "y", ["0 .5 .5 .1 .1"], names=("dog", "cat"))
    cfg = cfg_for(tmp_path, "DATASETS.TRAIN", (f"coco:{json_file},{images}", f"yolo:{yolo},train"))
    with pytest.raises(UserError, match=r"\['cat', 'dog'\].*\['dog', 'cat'\]"):
        setup_datasets(cfg, num_classes_given=False)


def test_without_test_set_there_is_no_evaluation(tmp_path):
    voc = write_voc(tmp_path / "v", [[("dog", (1, 1, 9, 9), 0)]])
    cfg = cfg_for(tmp_path, "DATASETS.TRAIN", f"voc:{voc},train")
    setup_datasets(cfg, num_classes_given=False)
    assert cfg.DATASETS.TEST == ()


def test_a_kind_is_added_by_one_entry(tmp_path, monkeypatch):
    files = write_dataset(tmp_path)
    reader = lambda arguments, context: KINDS["coco"](",".join(files), context)
    monkeypatch.setitem(KINDS, "mine", reader)
    records, _ = records_of(tmp_path, "mine:anything")
    assert len(records) == 3


def test_converted_json_is_coco(tmp_path):
    """Other tools can read what is written."""
    root = write_voc(tmp_path / "v", [[("cat", (11, 11, 20, 20), 0)]])
    records_of(tmp_path, f"voc:{root},train")
    (path,) = (tmp_path / "out").glob("v_train_*.json")
    content = json.loads(path.read_text())
    assert content["categories"] == [{"id": 1, "name": "cat"}]
    (annotation,) = content["annotations"]
    assert annotation["bbox"] == [10, 10, 10, 10] and annotation["area"] == 100


def test_other_processes_wait_for_the_main_one(tmp_path, monkeypatch):
    """And find its files: else each would read all annotations, and write the same file."""
    voc = write_voc(tmp_path / "v", [[("cat", (1, 1, 9, 9), 0)]])
    json_file, _ = write_dataset(tmp_path / "converted")
    order = []

    def converted(*args):
        order.append("read")
        return json_file

    monkeypatch.setattr(sources, "converted", converted)
    monkeypatch.setattr(sources.comm, "synchronize", lambda: order.append("wait"))
    for is_main in (True, False):
        monkeypatch.setattr(sources.comm, "is_main_process", lambda is_main=is_main: is_main)
        records_of(tmp_path, f"voc:{voc},train")
    assert order == ["read", "wait", "wait", "read"]


@pytest.mark.slow
def test_trains_and_evaluates_on_voc_and_yolo(tmp_path):
    """From a description on the command line to metrics of each test set, and again from the
    saved config, whose classes are then those of the model."""
    box, label = (11, 11, 40, 30), "1 .5 .5 .4 .4"
    voc = write_voc(tmp_path / "VOC2007", [[("cat", box, 0), ("dog", (1, 1, 9, 9), 1)]] * 3)
    write_voc(tmp_path / "VOC2007", [[("cat", box, 0)]] * 2, split="test")
    yolo = write_yolo(tmp_path / "y", [label, label], names=("dog", "cat"))
    write_yolo(tmp_path / "y", [label], split="val", names=("dog", "cat"))
    out = tmp_path / "out"
    run = train_net(
        *("--config-file", "configs/libra_mobilenet_v2.yaml", *SMALL, "OUTPUT_DIR", out),
        *("DATASETS.TRAIN", f"('voc:{voc},train', 'yolo:{yolo},train')"),
        *("DATASETS.TEST", f"('voc:{voc},test', 'yolo:{yolo},val')"),
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "Traceback" not in run.stdout + run.stderr
    results = sorted(p.parent.name for p in out.glob("inference/*/coco_instances_results.json"))
    assert len(results) == 2
    assert results[0].startswith("VOC2007_test_") and results[1].startswith("y_val_")
    # The order of the classes is that of the data.yaml, also for VOC.
    assert load_cfg(str(out / "config.yaml")).DATASETS.CLASS_NAMES == ("dog", "cat")
    # The check before training: the label "1" is the cat of the data.yaml.
    report = json.loads((out / "data_check.json").read_text())
    assert [d["classes"]["cat"] for d in report["datasets"]] == [3, 2, 2, 1]
    again = train_net(
        *("--eval-only", "--config-file", out / "config.yaml"),
        *("MODEL.WEIGHTS", out / "model_final.pth", "DATASETS.TEST", f"voc:{voc},test"),
    )
    assert again.returncode == 0, again.stderr[-2000:]
