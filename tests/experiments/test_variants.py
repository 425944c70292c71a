import re

import pytest

from libra_d2.config import load_cfg
from libra_d2.errors import UserError
from libra_d2.experiments.design import Variant
from libra_d2.experiments.variants import component_variants, default_baseline, read_variants

from ..support.project import ROOT

CONFIGS = ROOT / "configs"


def components(config, *overrides):
    return {v.name: v.overrides for v in component_variants(str(CONFIGS / config), overrides)}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("baseline", "baseline"),
        ("sampling", "sampling"),
        ("bfp", "bfp"),
        ("loss", "balanced_l1"),
        ("all", "all"),
    ],
)
def test_components_are_those_of_the_ablation_configs(name, config):
    overrides = components("libra_r50.yaml")[name]
    expected = load_cfg(str(CONFIGS / "ablations" / f"{config}.yaml"))
    assert load_cfg(str(CONFIGS / "libra_r50.yaml"), overrides) == expected


def test_baseline_of_the_small_detector_is_that_of_its_config():
    overrides = components("libra_mobilenet_v2.yaml")["baseline"]
    expected = load_cfg(str(CONFIGS / "ablations/mobilenet_v2_baseline.yaml"))
    assert load_cfg(str(CONFIGS / "libra_mobilenet_v2.yaml"), overrides) == expected


def test_components_keep_settings_of_the_base():
    """The base may limit anchors by another number than 5; "sampling" must keep it."""
    overrides = ("MODEL.RPN.SAMPLER.NEG_POS_UB", "3.0")
    found = components("libra_mobilenet_v2.yaml", *overrides)
    cfg = load_cfg(str(CONFIGS / "libra_mobilenet_v2.yaml"), [*overrides, *found["sampling"]])
    assert cfg.MODEL.RPN.SAMPLER.NEG_POS_UB == 3.0
    assert not cfg.MODEL.BFP.ENABLED


def test_retinanet_has_no_sampling_to_compare():
    found = components("libra_retinanet_r50.yaml")
    off = {"bfp": ("MODEL.BFP.ENABLED", "False")}
    off["loss"] = ("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "smooth_l1")
    assert found == {
        "baseline": (*off["bfp"], *off["loss"]),
        "bfp": off["loss"],
        "loss": off["bfp"],
        "all": (),
    }


@pytest.mark.parametrize(
    ("overrides", "missing"),
    [
        (("MODEL.BFP.ENABLED", "False"), "bfp"),
        (("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"), "bfp"),
        (("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", "giou"), "loss"),
        (("MODEL.ROI_HEADS.NAME", "StandardROIHeads"), "sampling"),
        (("MODEL.ROI_HEADS.NAME", "NoSuchHeads"), "sampling"),
        (
            (
                *("MODEL.ROI_HEADS.SAMPLER.POSITIVES", "random"),
                *("MODEL.ROI_HEADS.SAMPLER.NEGATIVES", "random"),
                *("MODEL.BFP.ENABLED", "False"),
            ),
            "sampling, bfp",
        ),
    ],
)
def test_refuses_a_base_without_all_components(overrides, missing):
    with pytest.raises(UserError, match=rf"libra_r50\.yaml without {missing}\. "):
        components("libra_r50.yaml", *overrides)


def written(tmp_path, text):
    (tmp_path / "plan.yaml").write_text(text)
    return read_variants(str(tmp_path / "plan.yaml"))


def test_reads_a_whole_plan(tmp_path):
    variants, others = written(
        tmp_path,
        """
        base: configs/libra_mobilenet_v2.yaml
        seeds: [1, 5]
        train: coco:train.json,images
        test: coco:val.json,images
        overrides: {SOLVER.MAX_ITER: 100}
        variants:
          plain: {MODEL: {BFP: {ENABLED: false}}}
          1: [MODEL.BFP.REFINE_TYPE, conv]
          as is:
        """,
    )
    assert variants == [
        Variant("plain", ("MODEL.BFP.ENABLED", "False")),
        Variant("1", ("MODEL.BFP.REFINE_TYPE", "conv")),
        Variant("as is", ()),
    ]
    assert others == {
        "base": "configs/libra_mobilenet_v2.yaml",
        "seeds": [1, 5],
        "train": "coco:train.json,images",
        "test": "coco:val.json,images",
        "overrides": {"SOLVER.MAX_ITER": 100},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have the key `variants`"),
        ("[]", "must have the key `variants`"),
        ("variants: [a]", "must have the key `variants`"),
        ("base: a.yaml", "must have the key `variants`"),
        ("variants: {a: []}\nseed: 3", "unknown key 'seed'"),
        ("variants: {a: []}\nfolds: true", "folds has a value of a wrong type: True"),
        ("variants: {a: []}\nplan: 1", "plan has a value of a wrong type: 1"),
        ("variants: {a: []}\nbase: 1", "base has a value of a wrong type"),
        ("variants: {a: 1}", "variant 'a' must have a list"),
        ("variants: {a: [], a: []}", "the key 'a' is given twice"),
        ("variants: {", "line 1"),
    ],
)
def test_refuses_other_files(tmp_path, text, message):
    with pytest.raises(UserError, match=re.escape(message)):
        written(tmp_path, text)


def test_default_baseline():
    named = [Variant("a", ()), Variant("baseline", ())]
    assert default_baseline(named) == "baseline"
    assert default_baseline(named[:1]) == "a"
    assert default_baseline([]) == "baseline"
