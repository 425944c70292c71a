"""LazyConfigs build what their YAML twins build."""

import inspect

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import build_model
from omegaconf import OmegaConf

from libra_d2.engine import load_cfg
from libra_d2.modeling import sample_proposals

from ..support.models import assert_trains_and_detects
from ..support.project import ROOT

LAZY = sorted((ROOT / "configs/lazy").glob("*.py"))


def plain(value):
    """Numbers, strings and containers of them, alike whether from YAML or OmegaConf; else None."""
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value if isinstance(value, (int, float, str)) else None


def settings(model):
    """Plain settings of all modules, by their names."""
    ret = {
        f"{name}.{key}": plain(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if not key.startswith("_")
    }
    if "roi_heads.sampler" in ret:  # what is not given has the function's defaults
        parameters = inspect.signature(sample_proposals).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY}
        del defaults["generator"]
        ret["roi_heads.sampler"] = {**defaults, **ret["roi_heads.sampler"]}
    return ret


@pytest.mark.parametrize("path", LAZY, ids=[p.stem for p in LAZY])
def test_same_model_as_the_yaml_twin(path):
    lazy = LazyConfig.load(str(path))
    cfg = load_cfg(str(ROOT / "configs" / f"{path.stem}.yaml"), ["MODEL.DEVICE", "meta"])
    with torch.device("meta"):
        ours, twin = instantiate(lazy.model), build_model(cfg)
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (ours, twin)]
    assert shapes[0] == shapes[1]
    assert [type(m) for m in ours.modules()] == [type(m) for m in twin.modules()]
    trained = [[n for n, p in m.named_parameters() if p.requires_grad] for m in (ours, twin)]
    assert trained[0] == trained[1]
    first, second = settings(ours), settings(twin)
    assert first.keys() == second.keys()
    different = {k: (first[k], second[k]) for k in first if first[k] != second[k]}
    assert not different
    assert lazy.train.init_checkpoint == cfg.MODEL.WEIGHTS
    assert lazy.optimizer.lr == cfg.SOLVER.BASE_LR
    assert lazy.dataloader.train.mapper.use_instance_mask == cfg.MODEL.MASK_ON


@pytest.mark.parametrize("path", LAZY, ids=[p.stem for p in LAZY])
def test_every_lazy_config_trains_and_detects(path):
    lazy = LazyConfig.load(str(path)).model
    if "retinanet" in path.stem:
        lazy.test_score_thresh = -1.0
        lazy.num_classes = 3
    else:
        lazy.roi_heads.num_classes = 3
        lazy.roi_heads.box_predictor.test_score_thresh = -1.0
    assert_trains_and_detects(instantiate(lazy), masks="mask" in path.stem)


def test_the_main_configs_have_a_lazy_twin():
    assert {"libra_r50", "libra_retinanet_r50", "libra_mask_r50"} <= {p.stem for p in LAZY}
