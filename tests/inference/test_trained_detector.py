"""Finding config, weights and classes of a trained detector."""

import os

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper

from libra_d2.checkpoint import LibraCheckpointer
from libra_d2.data import LibraDatasetMapper
from libra_d2.engine import LibraTrainer, load_cfg
from libra_d2.errors import UserError
from libra_d2.inference.trained_detector import (
    Preprocessor,
    _category_ids,
    best_checkpoint,
    load_detector,
    trained_config,
)

CONFIG = "configs/libra_mobilenet_v2.yaml"
TINY = "MODEL.FPN.OUT_CHANNELS 8 MODEL.ROI_BOX_HEAD.FC_DIM 8 MODEL.WEIGHTS ''".split()
NAMES, IDS = ("cat", "dog"), (7, 3)


def tiny_config(*opts: str) -> CfgNode:
    return load_cfg(CONFIG, [*TINY, "MODEL.ROI_HEADS.NUM_CLASSES", "2", *opts])


def save_run(folder, cfg: CfgNode, name="model_final", **classes) -> None:
    model = LibraTrainer.build_model(cfg)
    LibraCheckpointer(model, str(folder), **classes).save(name)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with two classes."""
    folder = tmp_path_factory.mktemp("run")
    names = ["DATASETS.CLASS_NAMES", repr(NAMES)]
    cfg = tiny_config(*names)
    (folder / "config.yaml").write_text(cfg.dump())
    save_run(folder, cfg, class_names=NAMES, category_ids=IDS)
    return folder


def test_the_folder_of_a_run_is_enough(run):
    detector = load_detector(str(run), device="cpu")
    assert (detector.class_names, detector.category_ids) == (NAMES, IDS)
    assert not detector.model.training
    saved = torch.load(run / "model_final.pth")["model"]
    assert all(torch.equal(v, saved[k]) for k, v in detector.model.state_dict().items())


def test_weights_find_the_config_beside_them(run):
    cfg = trained_config(str(run / "model_final.pth"), opts=["TEST.DETECTIONS_PER_IMAGE", "7"])
    assert cfg.DATASETS.CLASS_NAMES == NAMES and cfg.TEST.DETECTIONS_PER_IMAGE == 7


def test_classes_of_a_checkpoint_serve_a_config_without_them(run):
    detector = load_detector(str(run / "model_final.pth"), config_file=CONFIG, opts=TINY[:4])
    assert (detector.class_names, detector.category_ids) == (NAMES, IDS)
    assert detector.cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2


def test_averaged_weights_of_a_file_are_taken_by_their_key(run, tmp_path):
    """Also the classes are found, of a config without them."""
    saved = torch.load(run / "model_final.pth")
    raw = {k: torch.zeros_like(v) for k, v in saved["model"].items()}
    both = {**saved, "model": raw, "ema_state": saved["model"]}
    torch.save(both, tmp_path / "m.pth")
    detector = load_detector(f"{tmp_path}/m.pth#ema_state", config_file=CONFIG, opts=TINY[:4])
    assert detector.class_names == NAMES
    state = detector.model.state_dict()
    assert all(torch.equal(v, saved["model"][k]) for k, v in state.items())


def test_other_classes_than_the_checkpoints_are_refused(run):
    with pytest.raises(UserError, match="'cat', 'dog'"):
        load_detector(str(run), opts=["DATASETS.CLASS_NAMES", "('dog', 'cat')"])


@pytest.mark.parametrize(
    "opts, message",
    [
        (["MODEL.LOAD_PROPOSALS", "True"], "MODEL.LOAD_PROPOSALS must be False, got True"),
        (
            ["MODEL.META_ARCHITECTURE", "ProposalNetwork"],
            "META_ARCHITECTURE must be a detector, got ProposalNetwork",
        ),
    ],
)
def test_what_finds_nothing_in_images_is_refused(run, opts, message):
    with pytest.raises(UserError, match=message):
        load_detector(str(run), opts=opts)


def test_number_of_names_must_be_that_of_the_classes(run):
    with pytest.raises(UserError, match=r"CLASS_NAMES must have 2 names, .* got 1"):
        trained_config(str(run), opts=["DATASETS.CLASS_NAMES", "('dog',)"])


def test_ids_are_not_of_other_names(tmp_path):
    """A config that renames its classes does not get the checkpoint's ids for them."""
    save_run(tmp_path, tiny_config(), class_names=NAMES, category_ids=IDS)
    opts = [*TINY[:4], "MODEL.ROI_HEADS.NUM_CLASSES", "2", "DATASETS.CLASS_NAMES", "('a', 'b')"]
    with pytest.raises(UserError, match="They must be the same"):
        load_detector(str(tmp_path / "model_final.pth"), config_file=CONFIG, opts=opts)


def test_a_checkpoint_without_names_has_numbers(tmp_path):
    save_run(tmp_path, tiny_config())
    opts = [*TINY[:4], "MODEL.ROI_HEADS.NUM_CLASSES", "2"]
    found = load_detector(str(tmp_path / "model_final.pth"), config_file=CONFIG, opts=opts)
    assert (found.class_names, found.category_ids) == (("class 0", "class 1"), (0, 1))


def test_eighty_classes_without_names_are_cocos():
    cfg = trained_config(config_file="configs/libra_r50.yaml")
    names = cfg.DATASETS.CLASS_NAMES
    assert names[61] == "toilet" and _category_ids(names, ([], []))[61] == 70


def test_best_comes_before_final_and_final_before_the_newest(tmp_path):
    with pytest.raises(UserError, match=r"must contain model_best\.pth"):
        best_checkpoint(str(tmp_path))
    names = ["model_0000009.pth", "model_0000004.pth", "model_final.pth", "model_best.pth"]
    for age, name in enumerate(names):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (100 - age, 100 - age))
        newest = names[0] if age < 2 else name
        assert best_checkpoint(str(tmp_path)) == str(tmp_path / newest)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"model": "nowhere"}, "nowhere does not exist"),
        ({}, "the folder of a run, or a checkpoint and a config, must be given"),
        ({"config_file": CONFIG, "device": "gpu"}, "the device must be one such as .*, got 'gpu'"),
        ({"config_file": "nowhere.yaml"}, r"nowhere\.yaml does not exist"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        trained_config(**arguments)


def test_weights_without_a_config_are_named(tmp_path):
    (tmp_path / "a.pth").touch()
    with pytest.raises(UserError, match="--config-file"):
        trained_config(str(tmp_path / "a.pth"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_named():
    with pytest.raises(UserError, match="no CUDA device"):
        trained_config(config_file=CONFIG, device="cuda:1")


def test_a_classifier_is_no_detector(run):
    with pytest.raises(UserError, match="must be a trained detector"):
        load_detector(str(run), opts=["MODEL.WEIGHTS", "torchvision://mobilenet_v2"])


@pytest.mark.parametrize("opts", [[], ["INPUT.FIXED_SIZE", "(96, 64)"]])
def test_images_are_those_of_the_evaluation(tmp_path, opts):
    from PIL import Image

    pixels = np.random.randint(0, 255, (50, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    cfg = load_cfg(CONFIG, ["INPUT.MIN_SIZE_TEST", "64", "INPUT.FORMAT", "RGB", *opts])
    record = {"file_name": str(tmp_path / "a.png"), "height": 50, "width": 90, "image_id": 1}
    expected = LibraDatasetMapper(cfg, is_train=False)(record)
    actual = Preprocessor(cfg)(pixels)
    assert torch.equal(actual["image"], expected["image"])
    assert (actual["height"], actual["width"]) == (50, 90)
    if not opts:
        assert torch.equal(actual["image"], DatasetMapper(cfg, is_train=False)(record)["image"])


def test_lines_are_refused():
    with pytest.raises(ValueError, match="20000x2 is too elongated"):
        Preprocessor(load_cfg(CONFIG))(np.zeros((2, 20000, 3), np.uint8))
