"""From a trained RPN to a Fast R-CNN, by the commands of the documentation."""

import json
import pickle

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data.build import load_proposals_into_dataset
from detectron2.modeling import build_model

from libra_d2.checkpoint import LibraCheckpointer
from libra_d2.cli.main import main
from libra_d2.data.datasets.shapes import write_shapes
from libra_d2.data.loader import build_train_loader
from libra_d2.data.precomputed_proposals import check_proposals, dataset_dicts
from libra_d2.engine import LibraTrainer, load_cfg
from libra_d2.errors import UserError

from ..support.project import ROOT
from ..support.train_net_runs import SMALL, on_data, train_net

CONFIG = "configs/libra_mobilenet_v2.yaml"
FAST = ["MODEL.LOAD_PROPOSALS", "True", "MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_shapes(folder, "train", 5, seed=1)
    write_shapes(folder, "val", 3, seed=2)
    files = [(folder / f"{split}.json", folder / split) for split in ("train", "val")]
    first = sorted(files[0][1].iterdir())[0]
    first.write_bytes(b"not an image")
    return folder, on_data(*files), first


@pytest.fixture(scope="module")
def proposals(data):
    folder, options, _ = data
    torch.manual_seed(3)
    model = build_model(load_cfg(CONFIG, ["MODEL.DEVICE", "cpu"]))
    LibraCheckpointer(model, str(folder)).save("detector")
    small = [*SMALL, "OUTPUT_DIR", folder / "out", "MODEL.WEIGHTS", folder / "detector.pth"]
    assert (
        main(["proposals", *map(str, (*options, *small, "MODEL.RPN.POST_NMS_TOPK_TEST", "20"))])
        == 0
    )
    found = sorted((folder / "out/proposals").glob("*.pkl"))
    assert [p.stem[:3] for p in found] == ["tra", "val"]
    return found


def test_files_are_detectron2s(data, proposals):
    for path, split, num_images in zip(proposals, ("train", "val"), (5, 3)):
        content = pickle.loads(path.read_bytes())
        assert len(content["ids"]) == len(set(content["ids"])) == num_images
        counts = [len(b) for b in content["boxes"]]
        assert [len(s) for s in content["objectness_logits"]] == counts
        assert counts.count(0) == (1 if split == "train" else 0)  # the broken image
        images = {i["id"]: i for i in json.loads((data[0] / f"{split}.json").read_text())["images"]}
        reached = 0.0
        for image_id, boxes in zip(content["ids"], content["boxes"]):
            size = np.array([images[image_id]["width"], images[image_id]["height"]] * 2)
            assert (boxes >= 0).all() and (boxes <= size).all()
            reached = max(reached, *(boxes / size)[:, 2], 0.0)
        assert reached > 0.8  # in pixels of the file, not of the resized image


def test_fast_rcnn_trains_on_them(data, proposals, tmp_path):
    folder, options, broken = data
    train = "DATASETS.PROPOSAL_FILES_TRAIN", f"('{proposals[0]}',)"
    test = "DATASETS.PROPOSAL_FILES_TEST", f"('{proposals[1]}',)"
    run = train_net(*options, *SMALL, *FAST, *train, *test, "OUTPUT_DIR", tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    losses = (tmp_path / "metrics.json").read_text()
    assert "loss_rpn_cls" not in losses and "loss_box_reg" in losses
    assert "copypaste: AP,AP50" in run.stdout

    # Evaluated on the set with the broken image.
    options = on_data((folder / "train.json", folder / "train"))
    test = "DATASETS.PROPOSAL_FILES_TEST", train[1]
    weights = ["MODEL.WEIGHTS", tmp_path / "model_final.pth", "OUTPUT_DIR", tmp_path]
    run = train_net("--eval-only", *options, *SMALL, *FAST, *test, *weights)
    assert run.returncode == 0, run.stderr[-2000:]
    assert broken.name in run.stdout and "copypaste: AP,AP50" in run.stdout


def record(name, image_id=1):
    return {"file_name": name, "image_id": image_id, "height": 1, "width": 1, "annotations": []}


@pytest.fixture
def cfg():
    DatasetCatalog.register("for_proposals", lambda: [record("a.png", 1), record("b.png", 2)])
    node = CfgNode({"MODEL": {"LOAD_PROPOSALS": True}, "DATASETS": {}})
    node.DATASETS.TRAIN = node.DATASETS.TEST = ("for_proposals",)
    node.DATASETS.PROPOSAL_FILES_TRAIN = node.DATASETS.PROPOSAL_FILES_TEST = ()
    yield node
    DatasetCatalog.remove("for_proposals")


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "does not exist. Create it with `libra-d2 proposals`"),
        ([1, 2], "must have the keys ids, boxes and"),
        ({"ids": [1], "boxes": [np.zeros((1, 4))]}, "must have the keys ids, boxes and"),
        (
            {"ids": [1], "boxes": [np.zeros((1, 4))], "objectness_logits": [np.zeros(1)]},
            r"has no proposals for 1 of 2 images of for_proposals. The first is b\.png",
        ),
        (print, r"asks for \w+\.print, but only arrays"),
    ],
)
def test_mistakes_in_files_are_named(cfg, tmp_path, content, message):
    path = tmp_path / "p.pkl"
    if content is not None:
        path.write_bytes(pickle.dumps(content))
    cfg.DATASETS.PROPOSAL_FILES_TEST = (str(path),)
    with pytest.raises(UserError, match=message):
        check_proposals(cfg, train=False)


def test_missing_files_are_named(cfg):
    with pytest.raises(UserError, match="PROPOSAL_FILES_TRAIN names 0 files for 1 data sets"):
        check_proposals(cfg)
    cfg.MODEL.LOAD_PROPOSALS = False
    check_proposals(cfg)


@pytest.mark.parametrize(
    "opts, message",
    [
        (
            ["MODEL.WEIGHTS", ""],
            "MODEL.WEIGHTS '' has no trained RPN. Give the checkpoint of a trained detector",
        ),
        (
            ["MODEL.WEIGHTS", "torchvision://mobilenet_v2"],
            "mobilenet_v2' has no trained RPN. Give the checkpoint of a trained detector",
        ),
        (FAST, "the config must be of a detector with an RPN"),
    ],
)
def test_models_without_an_rpn_are_refused(data, tmp_path, capsys, opts, message):
    args = [*data[1], *SMALL, *opts, "OUTPUT_DIR", tmp_path]
    try:
        status = main(["proposals", *map(str, args)])
    except SystemExit as stop:  # of the launcher
        status = stop.code
    assert status == 2
    assert message in capsys.readouterr().err


class Harm:
    def __reduce__(self):
        return exec, ("import pathlib; pathlib.Path('harm').touch()",)


@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_they_are_those_of_detectron2_but_never_unpickled(tmp_path, monkeypatch, split):
    """Also not a file that was put in the place of the one that was checked."""
    config = str(ROOT / CONFIG)
    monkeypatch.chdir(tmp_path)
    records = [record(f"{i}.jpg", i) for i in (3, 1)]
    DatasetCatalog.register("two", lambda: [dict(r) for r in records])
    try:
        rng = np.random.default_rng(0)
        content = {
            "indexes": [1, 3],  # as the oldest files name them
            "boxes": [rng.random((4, 4)), rng.random((2, 4))],
            "scores": [rng.random(4), rng.random(2)],
        }
        (tmp_path / "p.pkl").write_bytes(pickle.dumps(content))
        options = [
            *FAST,
            f"DATASETS.{split}",
            "('two',)",
            "DATALOADER.FILTER_EMPTY_ANNOTATIONS",
            "False",
        ]
        cfg = load_cfg(config, [*options, f"DATASETS.PROPOSAL_FILES_{split}", "('p.pkl',)"])
        expected = load_proposals_into_dataset([dict(r) for r in records], "p.pkl")
        found = dataset_dicts(cfg, split, filter_empty=False)
        for a, b in zip(found, expected, strict=True):
            assert a.keys() == b.keys() and a["file_name"] == b["file_name"]
            for key in ("proposal_boxes", "proposal_objectness_logits"):
                assert np.array_equal(a[key], b[key])
            assert a["proposal_bbox_mode"] == b["proposal_bbox_mode"]
        (tmp_path / "p.pkl").write_bytes(pickle.dumps({**content, "more": Harm()}))
        loaders = {
            "TRAIN": lambda: build_train_loader(cfg, None, 0),
            "TEST": lambda: LibraTrainer.build_test_loader(cfg, "two"),
        }
        for read in (lambda: dataset_dicts(cfg, split, filter_empty=False), loaders[split]):
            with pytest.raises(UserError, match=r"p\.pkl"):
                read()
        assert not (tmp_path / "harm").exists()
        content["boxes"][0] = content["boxes"][0][:3]
        (tmp_path / "p.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(
            UserError, match=r"boxes of shape \(N, 4\).*got \(3, 4\) and \(4,\) for "
        ):
            dataset_dicts(cfg, split, filter_empty=False)
    finally:
        DatasetCatalog.remove("two")
