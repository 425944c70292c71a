import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog, build_detection_test_loader
from detectron2.data.detection_utils import read_image
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from detectron2.utils.file_io import PathManager
from PIL import Image
from pycocotools import mask as mask_util

from libra_d2.cli.main import main
from libra_d2.data import LibraDatasetMapper, register_coco, register_packed, setup_datasets
from libra_d2.data.datasets.setup import class_names
from libra_d2.data.images import packed_store as store_module
from libra_d2.data.images.packed_store import PackedStore, close_store, open_store
from libra_d2.data.packed import packing
from libra_d2.data.packed.packing import pack
from libra_d2.data.packed.verification import verify
from libra_d2.engine import LibraTrainer, load_cfg
from libra_d2.engine.solver import build_optimizer
from libra_d2.errors import UserError
from libra_d2.evaluation import LibraCOCOEvaluator

from ...support.coco_files import write_dataset

# Folders, spaces, other scripts, a name that is another's start, more than LMDB's 511 bytes.
LONG = "/".join(["folder" * 10] * 9) + "/image.jpg"
NAMES = (
    "a.jpg",
    "a.jpg.png",
    "sub/dir/b c.jpg",
    "Wörter/鱼 %20#?.png",
    LONG,
    "turned.jpg",
    "e.jpg",
)
SIZES = ((60, 40), (61, 43), (40, 90), (33, 33), (80, 20), (50, 70), (64, 64))  # width, height


def write_named(folder, names=NAMES, sizes=SIZES):
    """Images of noise with two annotated objects each, but the last, which has none."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i, (name, (width, height)) in enumerate(zip(names, sizes), start=1):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        exif = Image.Exif()
        if name.startswith("turned"):  # stored on its side, as cameras do
            pixels = pixels.transpose(Image.Transpose.ROTATE_90)
            exif[0x0112] = 6
        pixels.save(path, exif=exif)
        images.append({"id": 7 * i, "file_name": name, "width": width, "height": height})
        for x in (2, 11) if i < len(names) else ():
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 7 * i,
                    "category_id": 20 if x == 2 else 10,
                    "bbox": [x, 3.5, 20, 10],
                    "area": 200.0,
                    "iscrowd": 0,
                    "segmentation": [[x, 3.5, x + 20, 3.5, x + 20, 13.5, x, 13.5]],
                }
            )
    categories = [{"id": 10, "name": "fish"}, {"id": 20, "name": "ray"}]
    data = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "coco.json").write_text(json.dumps(data))
    return str(folder / "coco.json"), str(folder / "images")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Names of one data set, from its folder and from a store, and the store's path."""
    folder = tmp_path_factory.mktemp("a folder.lmdb")  # the folder's name is no store
    files = write_named(folder)
    packed = pack(*files, str(folder / "train data.lmdb"))
    assert packed.num_images == len(NAMES) and not packed.skipped
    return register_coco(*files), register_packed(str(folder / "train data.lmdb")), folder


# -- Reading ---------------------------------------------------------------------------------------


def test_every_file_comes_back_byte_for_byte(both):
    for name in NAMES:
        path = f"packed://{both[2]}/train data.lmdb/{name}"
        assert PathManager.isfile(path) and PathManager.exists(path)
        with PathManager.open(path, "rb") as f:
            assert f.read() == (both[2] / "images" / name).read_bytes()


def test_a_relative_path_is_that_of_the_working_folder_of_its_time(tmp_path, monkeypatch):
    stores = []
    for name, size in (("a", (60, 40)), ("b", (33, 22))):
        files = write_named(tmp_path / name, names=("x.png",), sizes=(size,))
        pack(*files, str(tmp_path / name / "store.lmdb"))
        monkeypatch.chdir(tmp_path / name)
        stores.append(open_store("store.lmdb"))
        assert read_image("packed://store.lmdb/x.png").shape[:2] == size[::-1]
    assert stores[0] is not stores[1]
    for store in stores:
        close_store(store.path)


def test_what_is_not_there_is_not_found(both):
    for path in (f"{both[2]}/train data.lmdb/none.jpg", f"{both[2]}/none.lmdb/a.jpg", "none"):
        assert not PathManager.isfile(f"packed://{path}")
        with pytest.raises(FileNotFoundError):
            PathManager.open(f"packed://{path}", "rb")
    with pytest.raises(ValueError, match=r"the mode must be 'rb' to open .*, got 'w'"):
        PathManager.open(f"packed://{both[2]}/train data.lmdb/a.jpg", "w")


def assert_same_sample(a, b):
    assert (a["image_id"], a["height"], a["width"]) == (b["image_id"], b["height"], b["width"])
    assert a["image"].dtype == b["image"].dtype and torch.equal(a["image"], b["image"])
    assert ("instances" in a) == ("instances" in b)
    if "instances" in a:
        a, b = a["instances"], b["instances"]
        assert a.image_size == b.image_size and set(a.get_fields()) == set(b.get_fields())
        assert torch.equal(a.gt_boxes.tensor, b.gt_boxes.tensor)
        assert torch.equal(a.gt_classes, b.gt_classes)
        if len(a):
            for polygons, others in zip(a.gt_masks.polygons, b.gt_masks.polygons):
                assert np.array_equal(polygons, others)


def test_training_samples_are_those_of_the_folder(both):
    """Same images, objects, masks, ids and order."""
    cfg = load_cfg("configs/libra_mask_r50.yaml", ["INPUT.AUGMENTATIONS", "Expand(prob=0.5)"])
    mapper = LibraDatasetMapper(cfg, is_train=True)
    of_folder, of_store = (DatasetCatalog.get(name) for name in both[:2])
    assert len(of_folder) == len(of_store) == len(NAMES)
    for i, (a, b) in enumerate(zip(of_folder, of_store)):
        assert Path(a["file_name"]).name == Path(b["file_name"]).name
        samples = []
        for record in (a, b):
            np.random.seed(i)
            samples.append(mapper(record))
        assert_same_sample(*samples)
    assert not int(mapper.num_bad_images)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loader_gives_the_samples_of_the_folder(both, num_workers):
    """In its worker processes, too, after this process has opened the store."""
    mapper = LibraDatasetMapper(load_cfg("configs/libra_mobilenet_v2.yaml"), is_train=False)
    loaders = [
        build_detection_test_loader(DatasetCatalog.get(n), mapper=mapper, num_workers=num_workers)
        for n in both[:2]
    ]
    batches = list(zip(*loaders))
    assert len(batches) == len(NAMES)
    for (a,), (b,) in batches:
        assert "unreadable" not in b
        assert_same_sample(a, b)


def _size_of(path):
    return read_image(path).shape


def test_a_spawned_process_opens_the_store_itself(both):
    record = DatasetCatalog.get(both[1])[2]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_size_of, [record["file_name"]]) == (90, 40, 3)


def _size_with_a_store_of_its_own(path):
    assert not store_module._stores  # LMDB forbids to use the parent's
    return _size_of(path)


def test_a_forked_process_opens_the_store_itself(both):
    """And leaves the one of its parent open."""
    path = DatasetCatalog.get(both[1])[0]["file_name"]
    context = multiprocessing.get_context("fork")
    for _ in range(2):
        assert _size_of(path) == (40, 60, 3)
        child = context.Process(target=_size_with_a_store_of_its_own, args=[path])
        child.start()
        child.join()
        assert child.exitcode == 0
        assert _size_of(path) == (40, 60, 3)


def test_absolute_file_names_are_read_from_the_store(tmp_path):
    """Not from the place where the file was."""
    json_file, images = write_named(tmp_path, names=NAMES[:2])
    data = json.loads(Path(json_file).read_text())
    for image in data["images"]:
        image["file_name"] = str(Path(images) / image["file_name"])
    Path(json_file).write_text(json.dumps(data))
    pack(json_file, images, str(tmp_path / "x.lmdb"))
    for name in NAMES[:2]:
        (Path(images) / name).unlink()
    records = DatasetCatalog.get(register_packed(str(tmp_path / "x.lmdb")))
    assert [_size_of(r["file_name"]) for r in records] == [(40, 60, 3), (43, 61, 3)]


# -- Training and evaluation -----------------------------------------------------------------------


def cfg_for(*opts):
    small = (
        "INPUT.MIN_SIZE_TRAIN (64,) INPUT.MAX_SIZE_TRAIN 96 DATALOADER.NUM_WORKERS 0 "
        "SOLVER.IMS_PER_BATCH 2 MODEL.WEIGHTS '' MODEL.FPN.OUT_CHANNELS 16 "
        "MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.RPN.POST_NMS_TOPK_TRAIN 50 SEED 3"
    ).split()
    return load_cfg("configs/libra_mobilenet_v2.yaml", [*small, *opts])


def losses_of_20_steps(cfg):
    setup_datasets(cfg, num_classes_given=False)
    seed_all_rng(3)
    model = build_model(cfg).train()
    optimizer = build_optimizer(cfg, model)
    loader = iter(LibraTrainer.build_train_loader(cfg))
    losses = []
    with EventStorage():
        for _ in range(20):
            loss_dict = model(next(loader))
            optimizer.zero_grad()
            sum(loss_dict.values()).backward()
            optimizer.step()
            losses.append({k: v.item() for k, v in loss_dict.items()})
    return losses


@pytest.mark.slow
def test_training_has_the_losses_of_the_folder(both):
    folder = both[2]
    files = f"coco:{folder}/coco.json,{folder}/images"
    unpacked = losses_of_20_steps(cfg_for("DATASETS.TRAIN", files))
    packed = losses_of_20_steps(cfg_for("DATASETS.TRAIN", f"packed:{folder}/train data.lmdb"))
    assert packed == unpacked
    assert len({loss["loss_cls"] for loss in packed}) == 20  # it did train


def test_evaluation_reads_the_annotations_of_the_store(both, tmp_path):
    """The ground truth as predictions has an AP of 100."""
    evaluator = LibraCOCOEvaluator(both[1], output_dir=str(tmp_path))
    evaluator.reset()
    for record in DatasetCatalog.get(both[1]):
        instances = Instances((record["height"], record["width"]))
        boxes = np.array([a["bbox"] for a in record["annotations"]], np.float32).reshape(-1, 4)
        instances.pred_boxes = Boxes(np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]))
        instances.scores = torch.ones(len(boxes))
        classes = [a["category_id"] for a in record["annotations"]]
        instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
        evaluator.process([record], [{"instances": instances}])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)


def test_annotations_are_written_to_the_cache_once(both):
    json_file = Path(MetadataCatalog.get(both[1]).json_file)
    assert json_file.read_bytes() == (both[2] / "coco.json").read_bytes()
    assert Path(os.environ["LIBRA_D2_CACHE"]) in json_file.parents
    written = json_file.stat().st_mtime_ns
    assert register_packed(str(both[2] / "train data.lmdb")) == both[1]
    assert json_file.stat().st_mtime_ns == written
    assert [p.name for p in json_file.parent.iterdir() if "partial" in p.name] == []


def test_config_keys_name_a_store(both):
    path = f"{both[2]}/train data.lmdb"
    cfg = cfg_for("DATASETS.TRAIN", f"packed:{path}", "DATASETS.TEST", f"packed:{path}")
    setup_datasets(cfg, num_classes_given=False)
    assert cfg.DATASETS.TRAIN == cfg.DATASETS.TEST == (both[1],)
    assert class_names(cfg) == ("fish", "ray") and cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2


def test_other_annotations_name_images_of_a_store(both, tmp_path):
    """Such as those of a part of it."""
    store, part = f"{both[2]}/train data.lmdb", tmp_path / "part.json"
    content = json.loads((both[2] / "coco.json").read_text())
    content["images"] = content["images"][2:4]
    ids = [image["id"] for image in content["images"]]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
    part.write_text(json.dumps(content))
    cfg = cfg_for("DATASETS.TRAIN", f"coco:{part},{store}")
    setup_datasets(cfg, num_classes_given=False)
    records = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])
    whole = {r["image_id"]: r for r in DatasetCatalog.get(both[1])}
    assert records == [whole[i] for i in ids]


@pytest.mark.parametrize(
    "opts,named",
    [
        (
            ("DATASETS.TRAIN", "coco:no.json,{store}"),
            r"DATASETS.TRAIN coco:no.json.*: annotation file .*no\.json does not exist",
        ),
        (
            ("DATASETS.TRAIN", "coco:{json},{json}"),
            r"DATASETS.TRAIN coco:.*coco\.json cannot be read as packed data",
        ),
        (
            ("DATASETS.TRAIN", "packed:no.lmdb"),
            r"DATASETS.TRAIN packed:no.lmdb: .*no\.lmdb does not exist",
        ),
        (
            ("DATASETS.TEST", "packed:no.lmdb"),
            r"DATASETS.TEST packed:no.lmdb: .*no\.lmdb does not exist",
        ),
    ],
)
def test_wrong_config_names_the_key(both, opts, named):
    files = {"store": f"{both[2]}/train data.lmdb", "json": f"{both[2]}/coco.json"}
    opts = [text.format(**files) for text in opts]
    with pytest.raises(UserError, match=named):
        setup_datasets(cfg_for(*opts), num_classes_given=False)


# -- Packing ---------------------------------------------------------------------------------------


def test_bad_images_are_left_out_and_count_as_missed(tmp_path, caplog):
    """As with the folder: their annotations stay for the evaluation."""
    json_file, images = write_named(tmp_path)
    (Path(images) / "a.jpg").write_bytes((Path(images) / "a.jpg").read_bytes()[:300])
    (Path(images) / "e.jpg").unlink()
    Image.new("RGB", (5, 5)).save(Path(images) / "a.jpg.png")
    packed = pack(json_file, images, str(tmp_path / "x.lmdb"))
    assert packed.num_images == len(NAMES) - 3
    reasons = dict(packed.skipped)
    assert set(reasons) == {"a.jpg", "e.jpg", "a.jpg.png"}
    assert "runcated" in reasons["a.jpg"] and "No such file" in reasons["e.jpg"]
    assert "(5, 5)" in reasons["a.jpg.png"] and "\n" not in reasons["a.jpg.png"]
    cfg = cfg_for("DATASETS.TRAIN", f"packed:{tmp_path / 'x.lmdb'}")
    with caplog.at_level(logging.WARNING):
        setup_datasets(cfg, num_classes_given=False)
    assert "3 of 7 images are missing" in caplog.text
    assert len(DatasetCatalog.get(cfg.DATASETS.TRAIN[0])) == 4
    assert verify(str(tmp_path / "x.lmdb"))[1] == []


def test_a_finished_store_is_not_written_again(tmp_path):
    """A training run may be reading it."""
    files = write_named(tmp_path)
    first = pack(*files, str(tmp_path / "x.lmdb"))
    before = (tmp_path / "x.lmdb").stat()
    assert pack(*files, str(tmp_path / "x.lmdb")) == first
    after = (tmp_path / "x.lmdb").stat()
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(env, items):
        raise store_module.import_lmdb().DiskError("No space left on device")

    monkeypatch.setattr(packing, "_put", full)
    with pytest.raises(UserError, match=r"x\.lmdb cannot be written .*No space left"):
        pack(*write_named(tmp_path), str(tmp_path / "x.lmdb"))


def test_a_mended_image_is_packed_at_the_next_start(tmp_path):
    json_file, images = write_named(tmp_path)
    good = (Path(images) / "a.jpg").read_bytes()
    (Path(images) / "a.jpg").write_bytes(b"")
    first = pack(json_file, images, str(tmp_path / "x.lmdb"))
    (Path(images) / "a.jpg").write_bytes(good)
    second = pack(json_file, images, str(tmp_path / "x.lmdb"))
    assert (len(first.skipped), len(second.skipped)) == (1, 0)
    assert second.sha256 == pack(json_file, images, str(tmp_path / "y.lmdb")).sha256 != first.sha256


def coverage(image, threshold=128):
    """Box (XYXY) of the bright pixels of an image."""
    rows, columns = np.where(image.max(-1) >= threshold)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize("extension", ["png", "jpg"])
def test_large_images_are_scaled_down_with_their_annotations(tmp_path, extension):
    """
    The objects still lie where the image shows them: white on black, within a pixel, which is what
    the blurred edge of a downscaled object can add.
    """
    (tmp_path / "images").mkdir()
    box = [100, 41, 301, 160]  # x, y, width, height
    images, annotations = [], []
    for i, (width, height) in enumerate(((501, 333), (333, 501), (130, 90), (2001, 300)), start=1):
        scale = min(1, width / 501)
        pixels = np.zeros((height, width, 3), np.uint8)
        x, y, w, h = (int(v * scale) for v in box)
        pixels[y : y + h, x : x + w] = 255
        name = f"{i}.{extension}"
        Image.fromarray(pixels).save(tmp_path / "images" / name, quality=100)
        images.append({"id": i, "file_name": name, "width": width, "height": height})
        mask = np.asfortranarray(pixels[..., 0] // 255)
        rle = mask_util.encode(mask)
        for j, segmentation in enumerate(
            (
                [[x, y, x + w, y, x + w, y + h, x, y + h]],
                {"size": rle["size"], "counts": rle["counts"].decode()},
                {"size": [height, width], "counts": uncompressed(mask)},
            )
        ):
            annotations.append(
                {
                    "id": 10 * i + j,
                    "image_id": i,
                    "category_id": 1,
                    "iscrowd": int(j > 1),
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "segmentation": segmentation,
                    "keypoints": [x, y, 2, x + w, y + h, 1],
                }
            )
    data = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "coco.json").write_text(json.dumps(data))
    path = str(tmp_path / "x.lmdb")
    pack(str(tmp_path / "coco.json"), str(tmp_path / "images"), path, max_side=200)

    store = open_store(path)
    scaled = json.loads(store.annotations())
    assert [(i["width"], i["height"]) for i in scaled["images"]] == [
        (200, 133),
        (133, 200),
        (130, 90),
        (200, 30),
    ]
    for image, record in zip(images, scaled["images"]):
        content = store.image(record["file_name"])
        pixels = np.asarray(Image.open(content))
        height, width = pixels.shape[:2]
        assert (width, height) == (record["width"], record["height"])
        if max(image["width"], image["height"]) <= 200:
            assert content.getvalue() == (tmp_path / "images" / image["file_name"]).read_bytes()
        found = coverage(pixels)
        for a in (a for a in scaled["annotations"] if a["image_id"] == record["id"]):
            x, y, w, h = a["bbox"]
            assert np.abs(found - (x, y, x + w, y + h)).max() <= 1
            assert a["area"] == pytest.approx(w * h)
            assert np.allclose(a["keypoints"], [x, y, 2, x + w, y + h, 1])
            segmentation = a["segmentation"]
            if isinstance(segmentation, list):
                assert np.allclose(segmentation, [[x, y, x + w, y, x + w, y + h, x, y + h]])
            else:
                if isinstance(segmentation["counts"], list):  # of an image that stays as it is
                    segmentation = mask_util.frPyObjects(segmentation, height, width)
                mask = mask_util.decode(segmentation)
                assert mask.shape == (height, width)
                assert np.abs(coverage(mask[..., None], 1) - found).max() <= 1


def uncompressed(mask):
    """COCO's RLE as a list: lengths of runs down the columns, zeros first."""
    flat = np.concatenate([[0], mask.ravel(order="F"), [2]])
    starts = np.flatnonzero(np.diff(flat) != 0)
    return np.diff(np.concatenate([[0], starts])).tolist()


def test_scaled_images_are_what_the_mapper_takes(tmp_path):
    """Also one that is stored on its side."""
    json_file, images = write_named(tmp_path)
    pack(json_file, images, str(tmp_path / "x.lmdb"), max_side=50)
    mapper = LibraDatasetMapper(load_cfg("configs/libra_mobilenet_v2.yaml"), is_train=False)
    for record in DatasetCatalog.get(register_packed(str(tmp_path / "x.lmdb"))):
        assert "unreadable" not in mapper(record)
        assert max(record["width"], record["height"]) <= 50


def test_while_it_is_mended_a_store_is_unfinished(tmp_path, monkeypatch):
    """Else it might be taken for finished though its checksum is of other images."""
    json_file, images = write_named(tmp_path)
    (Path(images) / "a.jpg").write_bytes(b"")
    pack(json_file, images, str(tmp_path / "x.lmdb"))

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(packing, "_put_images", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack(json_file, images, str(tmp_path / "x.lmdb"))
    with pytest.raises(UserError, match="is unfinished"):
        PackedStore(str(tmp_path / "x.lmdb"))


def test_the_file_grows_when_it_is_full(tmp_path):
    lmdb = store_module.import_lmdb()
    with lmdb.open(str(tmp_path / "x.lmdb"), subdir=False, map_size=1 << 16) as env:
        packing._put(env, {b"a": b"x" * 300_000, b"b": b"y"})
        with env.begin() as transaction:
            assert len(transaction.get(b"a")) == 300_000 and transaction.get(b"b") == b"y"


def test_killed_at_any_moment_it_goes_on_to_the_same_store(tmp_path, monkeypatch):
    """SIGKILL at eight random moments, into commits, too, which come after every fifth image."""
    rng = np.random.default_rng(0)
    files = write_dataset(tmp_path, num_images=200)
    for i in range(1, 201):
        noise = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"images/{i}.jpg")
    start = time.perf_counter()
    monkeypatch.setattr(packing, "COMMIT_IMAGES", 5)
    whole = pack(*files, str(tmp_path / "whole.lmdb"))
    seconds = time.perf_counter() - start
    out = str(tmp_path / "killed.lmdb")
    context = multiprocessing.get_context("fork")
    moments, kills = random.Random(0), 0
    for _ in range(60):
        child = context.Process(target=pack, args=[*files, out])
        child.start()
        time.sleep(moments.uniform(0, seconds / 8))
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
        child.join()
        if child.exitcode != 0:
            kills += 1
            if os.path.exists(out) and os.path.getsize(out):
                with pytest.raises(UserError, match="is unfinished"):
                    PackedStore(out)
        if child.exitcode == 0 or kills == 8:
            break
    assert kills >= 3
    assert pack(*files, out).sha256 == whole.sha256
    assert verify(out) == (whole, [])
    for name in (f"{i}.jpg" for i in range(1, 201)):
        assert open_store(out).image(name).getvalue() == (tmp_path / "images" / name).read_bytes()


# -- Stores that are none --------------------------------------------------------------------------


def damage(path, how):
    if how == "unfinished":
        with store_module.import_lmdb().open(str(path), subdir=False) as env:
            packing._put(env, {store_module.COMPLETE: None})
    elif how == "later":
        summary = json.dumps({"version": 99}).encode()
        with store_module.import_lmdb().open(str(path), subdir=False) as env:
            packing._put(env, {store_module.COMPLETE: summary})
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-5000])
    elif how == "text":
        path.write_bytes(b"not a database" * 1000)
    elif how == "gone":
        path.unlink()


@pytest.mark.parametrize(
    "how,named",
    [
        ("unfinished", "is unfinished. Run the same `libra-d2 pack` command again"),
        ("later", "was packed by another version"),
        ("cut", "is truncated"),
        ("text", "cannot be read as packed data"),
        ("gone", "does not exist"),
    ],
)
def test_what_is_no_store_is_one_line(tmp_path, how, named):
    path = tmp_path / "x.lmdb"
    pack(*write_named(tmp_path), str(path))
    damage(path, how)
    with pytest.raises(UserError, match=named) as e:
        register_packed(str(path))
    assert str(path) in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("part", ["image", "annotations", "missing"])
def test_verify_finds_damage(tmp_path, part):
    path = tmp_path / "x.lmdb"
    files = write_named(tmp_path)
    pack(*files, str(path))
    assert verify(str(path))[1] == []
    close_store(str(path))
    content = path.read_bytes()
    if part == "missing":
        with store_module.import_lmdb().open(str(path), subdir=False) as env:
            packing._put(env, {store_module.image_key("e.jpg"): None})
    else:
        file = Path(files[1]) / "e.jpg" if part == "image" else Path(files[0])
        piece = file.read_bytes()[-300:-200]
        assert piece in content  # more than once: LMDB copies pages that it changes
        path.write_bytes(content.replace(piece, piece[:50] + b"!" + piece[51:]))
    _, problems = verify(str(path))
    wanted = {"image": "e.jpg is damaged", "missing": "e.jpg is missing"}.get(part, "annotations")
    assert len(problems) == 1 and wanted in problems[0]


def test_without_lmdb_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(UserError, match=r"pip install libra_d2\[lmdb\]"):
        pack("a.json", "images", "a.lmdb")


def test_images_outside_of_the_folder_are_packed_by_an_option_only(tmp_path, capsys):
    """Annotations of strangers name private files, or come with links to them."""
    json_file, image_root = write_dataset(tmp_path / "data", num_images=4)[:2]
    content = json.loads(Path(json_file).read_text())
    first, second, third = content["images"][:3]
    root = Path(image_root)
    private = tmp_path / "private.jpg"
    (root / first["file_name"]).rename(private)
    (root / first["file_name"]).symlink_to(private)
    (root / second["file_name"]).rename(tmp_path / "other.jpg")
    second["file_name"] = f"{root}/../../other.jpg"
    third["file_name"] = f"../{root.name}/{third['file_name']}"  # leads back
    Path(json_file).write_text(json.dumps(content))
    command = ["pack", "--json", str(json_file), "--images", str(image_root), "--out"]
    assert main([*command, str(tmp_path / "a.lmdb")]) == 1
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("skipped")]
    assert len(lines) == 2 and all("is outside of the image folder" in line for line in lines)
    assert main([*command, str(tmp_path / "b.lmdb"), "--allow-outside"]) == 0
