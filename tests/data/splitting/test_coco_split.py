"""Data sets of every kind are split into files that hold all of them, each image in one part."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_util

from libra_d2.data.datasets.coco import NO_AREA
from libra_d2.data.images.packed_store import close_store
from libra_d2.data.packed.packing import pack
from libra_d2.data.splitting import coco_split
from libra_d2.data.splitting.coco_split import group_keys, split_dataset
from libra_d2.errors import UserError

from ...support.file_size_limit import largest_file
from ...support.pictures import picture
from ...support.voc_and_yolo_files import records_of, write_voc, write_yolo

HALVES = {"train": 0.5, "val": 0.5}
THIRDS = {"train": 0.8, "val": 0.1, "test": 0.1}


def write(folder, num_images=12, change=None):
    """A COCO file with more than boxes, and pictures that do not look alike."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for i in range(num_images):
        picture(i).save(folder / f"images/p{i % 6}_{i}.png")
        image = {"id": 100 + i, "file_name": f"p{i % 6}_{i}.png", "width": 96, "height": 64}
        images.append({**image, "video_id": i % 5, "license": 1})
        for k in range(1 + i % 3):
            annotation = {
                "id": len(annotations) + 1,
                "image_id": 100 + i,
                "category_id": (3, 8)[k % 2],
                "bbox": [4 + k, 5, 20, 10],
                "area": 200,
                "iscrowd": 0,
                "segmentation": [[4, 5, 24, 5, 24, 15]],
                "keypoints": [5, 6, 2],
                "attributes": {"occluded": True},
            }
            annotations.append(annotation)
    crowd = mask_util.encode(np.asfortranarray(np.eye(64, 96, dtype=np.uint8)))
    crowd = {"size": [64, 96], "counts": crowd["counts"].decode()}
    annotations[0].update(iscrowd=1, segmentation=crowd)
    data = {
        "info": {"version": "7"},
        "licenses": [{"id": 1, "name": "CC0"}],
        "videos": [{"id": i} for i in range(5)],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 8, "name": "dog"}, {"id": 3, "name": "cat", "supercategory": "pet"}],
    }
    if change:
        change(data)
    (folder / "all.json").write_text(json.dumps(data))
    return f"coco:{folder}/all.json,{folder}/images"


def parts_of(split):
    return {part: json.loads(Path(path).read_text()) for part, path in split.files.items()}


def test_nothing_is_lost_and_each_image_is_in_one_part(tmp_path):
    split = split_dataset(write(tmp_path), str(tmp_path / "out"), THIRDS)
    whole = json.loads((tmp_path / "all.json").read_text())
    parts = parts_of(split)
    assert list(parts) == ["train", "val", "test"] and all(p["images"] for p in parts.values())
    for section in ("images", "annotations"):
        together = [entry for p in parts.values() for entry in p[section]]
        assert sorted(together, key=lambda e: e["id"]) == whole[section]
    for part in parts.values():
        ids = {image["id"] for image in part["images"]}
        assert {a["image_id"] for a in part["annotations"]} <= ids
        for section in ("info", "licenses", "videos", "categories"):
            assert part[section] == whole[section]
    figures = split.record["parts"]
    assert sum(p["num_crowd"] for p in figures.values()) == 1
    assert sum(p["num_objects"] for p in figures.values()) == len(whole["annotations"]) - 1
    assert json.loads((tmp_path / "out/split.json").read_text()) == split.record


def descriptions(folder, kind):
    """Of twelve images with one object of two classes each."""
    if kind in ("coco", "packed", "mindspore", "coco folder"):
        description = write(folder)
        if kind == "packed":
            pack(f"{folder}/all.json", f"{folder}/images", f"{folder}/all.lmdb")
            return f"packed:{folder}/all.lmdb"
        if kind == "mindspore":
            (folder / "train").mkdir()
            (folder / "all.json").rename(folder / "train/labels.json")
            (folder / "images").rename(folder / "train/data")
            return f"mindspore:{folder},train"
        if kind == "coco folder":
            (folder / "annotations").mkdir()
            (folder / "all.json").rename(folder / "annotations/instances_default.json")
            return f"coco:{folder}"
        return description
    if kind == "voc":
        objects = [[("cat", (5, 6, 20, 30), 0), ("dog", (1, 1, 9, 9), i % 2)] for i in range(12)]
        return f"voc:{write_voc(folder, objects)},train"
    labels = ["0 .5 .5 .2 .2\n1 .3 .3 .1 .1"] * 11 + [None]
    return f"yolo:{write_yolo(folder, labels)},train"


@pytest.mark.parametrize("kind", ["coco", "coco folder", "mindspore", "voc", "yolo", "packed"])
def test_parts_of_every_kind_are_read_as_the_whole_is(tmp_path, kind):
    description = descriptions(tmp_path / "data", kind)
    whole, metadata = records_of(tmp_path, description)
    split = split_dataset(description, str(tmp_path / "s"), THIRDS, near_duplicates=False)
    together = []
    for path in split.files.values():
        records, of_part = records_of(tmp_path, f"coco:{path},{split.images}")
        assert of_part.thing_classes == metadata.thing_classes
        together += records
    assert len(together) == 12
    assert sorted(together, key=lambda r: r["image_id"]) == whole
    assert sorted(os.listdir(tmp_path / "s")) == [
        "split.json",
        "test.json",
        "train.json",
        "val.json",
    ]
    if kind == "packed":
        close_store(f"{tmp_path}/data/all.lmdb")


def test_the_built_in_data_is_split(tmp_path):
    split = split_dataset("shapes_val", str(tmp_path), HALVES, near_duplicates=False)
    records, metadata = records_of(tmp_path, f"coco:{tmp_path}/val.json,{split.images}")
    assert 45 <= len(records) <= 55 and split.record["num_images"] == 100
    assert len(metadata.thing_classes) > 2


def groups_of_parts(split, group):
    return [{group(image) for image in part["images"]} for part in parts_of(split).values()]


@pytest.mark.parametrize(
    "group_by, group",
    [
        (r"p(\d)_", lambda image: image["file_name"][1]),
        (r"p\d", lambda image: image["file_name"][1]),
        (r"^(?:p)(\d)(_)", lambda image: image["file_name"][1]),
        ("video_id", lambda image: image["video_id"]),
    ],
)
def test_groups_are_in_one_part(tmp_path, group_by, group):
    description = write(tmp_path, 30)
    for seed in range(3):
        split = split_dataset(
            description,
            str(tmp_path / f"{seed}"),
            {"train": 0.6, "val": 0.2, "test": 0.2},
            seed=seed,
            group_by=group_by,
            near_duplicates=seed == 0,
        )
        train, val, test = groups_of_parts(split, group)
        assert train and val and test
        assert not train & val and not train & test and not val & test


names = st.text(alphabet="ab01/\\_ü", min_size=1, max_size=6)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(names, min_size=6, max_size=15, unique=True),
    st.lists(st.integers(0, 3), min_size=15, max_size=15),
    st.integers(0, 9),
)
def test_groups_never_cross_whatever_the_data(tmp_path_factory, names, videos, seed):
    folder = tmp_path_factory.mktemp("data")

    def change(data):
        data["images"] = [
            {"id": i, "file_name": name, "width": 9, "height": 9, "video_id": video}
            for i, (name, video) in enumerate(zip(names, videos))
        ]
        data["images"][0].update(file_name="p0_0.png")
        data["images"][:3] = [{**im, "video_id": 10 + im["id"]} for im in data["images"][:3]]
        data["annotations"] = [
            {"id": i + 1, "image_id": i % 7, "category_id": 3, "bbox": [1, 1, 3, 3]}
            for i in range(9)
        ]

    description = write(folder, 1, change)
    output, ratios = str(folder / "o"), THIRDS
    options = {"seed": seed, "group_by": "video_id", "near_duplicates": False}
    split = split_dataset(description, output, ratios, **options)
    ids = [[image["id"] for image in p["images"]] for p in parts_of(split).values()]
    assert all(ids) and sorted(i for of_part in ids for i in of_part) == list(range(len(names)))
    videos = [v for p in groups_of_parts(split, lambda image: image["video_id"]) for v in p]
    assert len(videos) == len(set(videos))
    split_again = split_dataset(description, output, ratios, overwrite=True, **options)
    assert split_again == split


def test_images_that_look_alike_are_in_one_part(tmp_path):
    """Copies as JPEG, smaller, brighter, and a frame later."""
    description = write(tmp_path, 16)
    image = Image.open(tmp_path / "images/p0_0.png")
    image.save(tmp_path / "images/p1_7.png", format="JPEG", quality=60)
    image.resize((60, 40)).save(tmp_path / "images/p2_2.png")
    image.point(lambda v: min(255, int(v * 1.1))).save(tmp_path / "images/p5_11.png")
    ratios = dict.fromkeys("abcd", 0.25)
    apart = 0
    for seed in range(5):
        split = split_dataset(description, f"{tmp_path}/{seed}", ratios, seed=seed)
        alike = {"p0_0.png", "p1_7.png", "p2_2.png", "p5_11.png"}
        assert [set(group) for group in split.record["near_duplicates"]] == [alike]
        parts = groups_of_parts(split, lambda image: image["file_name"])
        assert sum(bool(part & alike) for part in parts) == 1
        assert split.record["num_groups"] == 13 and split.record["largest_group"] == 4
        split = split_dataset(
            description, f"{tmp_path}/{seed}", ratios, near_duplicates=False, overwrite=True
        )
        parts = groups_of_parts(split, lambda image: image["file_name"])
        apart += sum(bool(part & alike) for part in parts) > 1
    assert apart == 5


def test_groups_by_name_and_by_look_are_joined(tmp_path):
    """p0_0 looks like p1_7, so that patients 0 and 1 are in one part."""
    description = write(tmp_path, 18)
    Image.open(tmp_path / "images/p0_0.png").save(tmp_path / "images/p1_7.png")
    for seed in range(4):
        split = split_dataset(
            description, f"{tmp_path}/{seed}", HALVES, seed=seed, group_by=r"p(\d)"
        )
        assert split.record["num_groups"] == 5
        parts = groups_of_parts(split, lambda image: image["file_name"][1])
        assert not parts[0] & parts[1] and any({"0", "1"} <= part for part in parts)


def test_an_image_that_is_listed_twice_is_in_one_part(tmp_path):
    def change(data):
        for i in range(6, 12):
            data["images"][i]["file_name"] = f"./p{i - 6}_{i - 6}.png"

    description = write(tmp_path, 12, change)
    split = split_dataset(description, str(tmp_path / "out"), HALVES, near_duplicates=False)
    train, val = groups_of_parts(split, lambda image: os.path.basename(image["file_name"]))
    assert len(train | val) == 6 and not train & val
    # 0 and 6 are the same image, so that their videos 0 and 1 are in one part, and so on.
    with pytest.raises(UserError, match="12 images, in 1 group that must stay together"):
        split_dataset(
            description, str(tmp_path / "v"), HALVES, group_by="video_id", near_duplicates=False
        )


def test_names_that_mean_the_same_file_are_in_one_part(tmp_path):
    """The whole set has two names for one file and uses neither; a part with one name would."""

    def change(data):
        for i in range(6):
            data["images"][i]["file_name"] = f"old/{i}.png"
            data["images"][i + 6]["file_name"] = f"new/{i}.png"

    description = write(tmp_path, 12, change)
    for i in range(6):
        (tmp_path / f"images/p{i}_{i}.png").rename(tmp_path / f"images/{i}.png")
    (tmp_path / "images/new").mkdir()
    (tmp_path / "images/5.png").rename(tmp_path / "images/new/5.png")
    split = split_dataset(description, str(tmp_path / "out"), HALVES, near_duplicates=False)
    assert len(split.record["unreadable_images"]) == 11
    train, val = groups_of_parts(split, lambda image: os.path.basename(image["file_name"]))
    assert train - {"5.png"} and val - {"5.png"} and not (train & val) - {"5.png"}


def test_images_with_nothing_but_crowd_are_images_without_objects(tmp_path):
    """As in training: a part with all crowd regions of a class would have too few objects."""

    def change(data):
        for annotation in data["annotations"]:
            annotation.update(category_id=3, iscrowd=int(annotation["image_id"] % 2))

    description = write(tmp_path, 16, change)
    for seed in range(8):
        split = split_dataset(
            description, f"{tmp_path}/{seed}", HALVES, seed=seed, near_duplicates=False
        )
        for part in split.record["parts"].values():
            assert part["num_images_without_objects"] == 4 and part["num_images"] == 8


def test_names_of_another_machine_are_written_as_they_are_found(tmp_path, caplog):
    def change(data):
        data["images"][3]["file_name"] = "C:\\old\\p3_3.png"

    split = split_dataset(write(tmp_path, change=change), str(tmp_path / "out"), HALVES)
    assert "1 of 12 images are not at the path that their name gives" in caplog.text
    names = groups_of_parts(split, lambda image: image["file_name"])
    assert "p3_3.png" in names[0] | names[1]


def test_what_cannot_be_read_or_placed_is_kept_and_named(tmp_path):
    def change(data):
        data["annotations"].append({**data["annotations"][0], "id": 900, "image_id": 5})
        data["annotations"].append({**data["annotations"][1], "id": 901, "bbox": [1, 1, 0, 0]})

    description = write(tmp_path, change=change)
    (tmp_path / "images/p4_4.png").write_bytes(b"no image")
    (tmp_path / "images/p5_5.png").unlink()
    for near_duplicates in (True, False):
        split = split_dataset(
            description,
            str(tmp_path / "out"),
            HALVES,
            near_duplicates=near_duplicates,
            overwrite=True,
        )
        bad = {os.path.basename(path) for path, _ in split.record["unreadable_images"]}
        assert bad == ({"p4_4.png", "p5_5.png"} if near_duplicates else {"p5_5.png"})
        assert split.record["left_out_annotations"] == [900]
        parts = parts_of(split).values()
        assert sum(len(part["images"]) for part in parts) == 12
        assert 901 in {a["id"] for part in parts for a in part["annotations"]}  # without area
    _, metadata = records_of(tmp_path, description)
    assert metadata.left_out[NO_AREA] == (901,)


def test_what_a_reader_left_out_is_said_once(tmp_path):
    """Else each part would have the unreadable images of the whole."""
    yolo = write_yolo(tmp_path / "y", ["0 .5 .5 .1 .1"] * 8)
    (tmp_path / "y/images/train/3.png").write_bytes(b"no image")
    description = f"yolo:{yolo},train"
    split = split_dataset(description, str(tmp_path / "out"), HALVES, near_duplicates=False)
    assert [os.path.basename(p) for p, _ in split.record["left_out_images"]] == ["3.png"]
    for part in parts_of(split).values():
        assert "unreadable_images" not in part["info"]


def test_a_file_that_is_not_utf_8_is_no_output_either(tmp_path):
    """Training reads a copy of it."""
    write(tmp_path)
    content = (tmp_path / "all.json").read_text()
    (tmp_path / "train.json").write_text(content, encoding="utf-16")
    with pytest.raises(UserError, match=r"train.json would replace the annotations"):
        split_dataset(
            f"coco:{tmp_path}/train.json,{tmp_path}/images", str(tmp_path), HALVES, overwrite=True
        )
    assert (tmp_path / "train.json").read_text(encoding="utf-16") == content


def files_in(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_existing_files_are_kept_unless_they_may_be_replaced(tmp_path):
    description = write(tmp_path / "data")
    for name in ("val.json", "split.json"):
        out = tmp_path / name.partition(".")[0]
        out.mkdir()
        (out / name).write_text("{}")
        with pytest.raises(UserError, match=rf"{name} exists\. .* --overwrite"):
            split_dataset(description, str(out), HALVES)
        assert files_in(out) == {name: b"{}"}
        split_dataset(description, str(out), HALVES, overwrite=True)
        assert set(files_in(out)) == {"train.json", "val.json", "split.json"}


def test_a_part_of_an_earlier_split_is_not_left_beside_the_new_ones(tmp_path):
    """Its images would be in the new training set, too."""
    description = write(tmp_path / "data")
    split_dataset(description, str(tmp_path / "out"), THIRDS)
    before = files_in(tmp_path / "out")
    with pytest.raises(UserError, match=r"out/test.json belongs to an earlier split"):
        split_dataset(description, str(tmp_path / "out"), HALVES, overwrite=True)
    assert files_in(tmp_path / "out") == before
    (tmp_path / "out/test.json").unlink()
    split_dataset(description, str(tmp_path / "out"), HALVES, overwrite=True)


def test_nothing_is_half_written(tmp_path):
    """The limit lets the small parts through, but not the large one."""
    description = write(tmp_path / "data", 40)
    split_dataset(description, str(tmp_path / "out"), THIRDS)
    sizes = {name: len(content) for name, content in files_in(tmp_path / "out").items()}
    assert sizes["val.json"] < 6000 < sizes["train.json"]
    before = files_in(tmp_path / "out")
    for folder in ("out", "new"):
        with largest_file(6000), pytest.raises(UserError, match=r"train.json cannot be written"):
            split_dataset(
                description,
                str(tmp_path / folder),
                {"val": 0.1, "train": 0.8, "test": 0.1},
                seed=1,
                overwrite=True,
            )
    assert files_in(tmp_path / "out") == before and files_in(tmp_path / "new") == {}


def test_mistakes_are_found_before_images_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(coco_split, "hash_images", lambda paths: 1 / 0)
    description = write(tmp_path, 12, lambda data: data["images"][4].pop("video_id"))
    (tmp_path / "file").touch()
    for options, message in (
        ({"ratios": {"a": 0.5, "b": 0.4}}, "must sum to 1, got a sum of 0.9"),
        ({"ratios": {"a": 1.5, "b": -0.5}}, "above 0 and below 1, got a=1.5"),
        ({"ratios": {"a": 0.0, "b": 1.0}}, "above 0 and below 1, got a=0"),
        ({"ratios": {"a": float("nan"), "b": 0.5}}, "above 0 and below 1, got a=nan"),
        ({"ratios": {"../a": 0.5, "b": 0.5}}, "letters, digits, - and _, .* got '../a'"),
        ({"ratios": {"split": 0.5, "b": 0.5}}, "not 'split', got 'split'"),
        ({"ratios": {"a": 0.5, "A": 0.5}}, "must name each part only once, got a A"),
        ({"seed": -1}, "--seed must be from 0 to 4294967295, got -1"),
        ({"hash_distance": 17}, "--hash-distance must be from 0 to 16 bits, got 17"),
        ({"hash_distance": -1}, "--hash-distance must be"),
        ({"output": str(tmp_path / "file")}, "must be a folder, got the file .*file"),
        ({"description": "coco:no.json,images"}, "annotation file .*no.json does not exist"),
        ({"description": "images"}, "or descriptions such as coco:.*, got 'images'"),
        ({"group_by": "video_id"}, "1 of 12 images have no number or text .*'video_id': p4_4.png"),
        ({"group_by": r"q(\d)"}, r"12 of 12 .* does not match.*keys \(id, file_name,.*: p0_0.png"),
        ({"group_by": r"p([0-3])"}, r"4 of 12 images .*: p4_4.png, p5_5.png, p4_10.png, \.\.\."),
        ({"group_by": r"p(x)?"}, "12 of 12 images"),
        ({"group_by": "p(\\d"}, "must be a key of the images or a regular expression, .*: missing"),
        ({"ratios": dict.fromkeys(map(str, range(20)), 0.05)}, "12 images cannot be divided"),
    ):
        arguments = {"description": description, "output": str(tmp_path / "o"), "ratios": HALVES}
        arguments.update(options)
        with pytest.raises(UserError, match=message) as error:
            split_dataset(**arguments)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "o").exists()


def test_too_few_groups_are_one_line(tmp_path):
    description = write(tmp_path)
    with pytest.raises(UserError, match=r"12 images, in 1 group .* into 2 parts$"):
        split_dataset(description, str(tmp_path / "o"), HALVES, group_by="license")
    for path in (tmp_path / "images").iterdir():
        picture(0).save(path)
    with pytest.raises(UserError, match=r"in 1 group .* --no-near-duplicates"):
        split_dataset(description, str(tmp_path / "o"), HALVES)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match=r"none of the 12 images exists\. .*images/p0_0.png"):
        split_dataset(description, str(tmp_path / "o"), HALVES)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("bad", [None, "", [1], {"a": 1}])
def test_values_of_a_key_must_be_numbers_or_texts(bad):
    images = [{"file_name": f"{i}.jpg", "key": value} for i, value in enumerate([1, 1.0, "1", 2.5])]
    assert group_keys(images, "key") == ["1", "1", "1", "2.5"]
    images[2]["key"] = bad
    with pytest.raises(UserError, match=r"1 of 4 images have no number or text .*: 2.jpg"):
        group_keys(images, "key")
