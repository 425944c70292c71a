"""The runs of a seed start with the same weights and see the same data."""

import itertools

import pytest
import torch
from detectron2.utils.env import seed_all_rng

from libra_d2.checkpoint import LibraCheckpointer
from libra_d2.data.datasets.shapes import write_shapes
from libra_d2.engine import LibraTrainer
from libra_d2.experiments.checks import check_variants, shares_weights, write_initial_weights
from libra_d2.experiments.commands import initial_weights
from libra_d2.experiments.design import Design, Variant

from ..support.project import ROOT
from ..support.train_net_runs import SMALL

OFF = ("MODEL.BFP.ENABLED", "False", "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", "smooth_l1")


@pytest.fixture(scope="module")
def design(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment")
    write_shapes(folder, "train", 8, seed=1)
    return Design(
        base=str(ROOT / "configs/libra_mobilenet_v2.yaml"),
        variants=(
            Variant("baseline", OFF),
            Variant("all", ()),
            Variant("other", ("MODEL.WEIGHTS", f"{folder}/other.pth")),
        ),
        baseline="baseline",
        seeds=(1, 2),
        train=f"coco:{folder}/train.json,{folder}/train",
        test=f"coco:{folder}/train.json,{folder}/train",
        folds=0,
        group="",
        plan=False,
        output=str(folder / "exp"),
        overrides=(*SMALL, "MODEL.FPN.OUT_CHANNELS", "16", "MODEL.WEIGHTS", ""),
    )


@pytest.fixture(scope="module")
def cfgs(design, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scratch")
    torch.save({}, design.variant("other").overrides[1])
    return check_variants(design, str(folder))


def state_of(cfg, weights):
    model = LibraTrainer.build_model(cfg)
    checkpointer = LibraCheckpointer(model)
    checkpointer.load(weights, checkpointables=[])
    return model.state_dict(), checkpointer.report


def test_initial_weights_are_those_of_the_baseline_with_its_seed(design, cfgs):
    for seed in design.seeds:
        write_initial_weights(design, cfgs["baseline"], seed)
        saved = torch.load(initial_weights(design, seed), weights_only=True)["model"]
        seed_all_rng(seed)
        expected = LibraTrainer.build_model(cfgs["baseline"]).state_dict()
        assert saved.keys() == expected.keys()
        assert all(torch.equal(saved[k], v) for k, v in expected.items())


def test_variants_load_them_as_they_are(design, cfgs):
    """Only the balanced feature pyramid, which the baseline lacks, keeps its own weights."""
    write_initial_weights(design, cfgs["baseline"], 1)
    path = initial_weights(design, 1)
    baseline, complete = state_of(cfgs["baseline"], path)
    assert complete.is_complete()
    state, report = state_of(cfgs["all"], path)
    assert report.missing and all(k.startswith("backbone.bfp.") for k in report.missing)
    assert not report.skipped and not report.resized
    for name, value in state.items():
        if not name.startswith("backbone.bfp."):
            assert torch.equal(baseline[name.replace("backbone.fpn.", "backbone.")], value), name


def test_initial_weights_are_written_once(design, cfgs):
    write_initial_weights(design, cfgs["baseline"], 1)
    with open(initial_weights(design, 1), "rb") as file:
        before = file.read()
    write_initial_weights(design, cfgs["all"], 1)
    with open(initial_weights(design, 1), "rb") as file:
        assert file.read() == before


def test_variants_with_other_weights_keep_them(cfgs):
    assert shares_weights(cfgs, "baseline") == {"baseline": True, "all": True, "other": False}


def order(cfg, seed):
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SEED = seed
    batches = LibraTrainer.build_train_loader(cfg).batch_sampler
    return list(itertools.islice(batches, 10))


def test_the_order_of_the_data_depends_on_the_seed_only(cfgs):
    assert order(cfgs["baseline"], 1) == order(cfgs["all"], 1)
    assert order(cfgs["baseline"], 1) != order(cfgs["baseline"], 2)
