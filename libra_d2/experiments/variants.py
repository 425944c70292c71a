"""The variants of an experiment: the components of Libra R-CNN one by one, or those of a file."""

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Sequence, Tuple

from detectron2.config import CfgNode
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY

from ..config import load_cfg
from ..config.detectors import is_retinanet
from ..errors import UserError
from ..modeling.roi_heads import LibraSamplingMixin
from ..utils.messages import printable, shown
from ..utils.yaml_files import read_yaml
from .design import Variant, overrides_from_file

BASELINE = "baseline"
ALL = "all"
# Keys of a file of variants, apart from the variants. The command line overrides them.
PLAN_KEYS: Dict[str, Tuple[type, ...]] = {
    "base": (str,),
    "baseline": (str,),
    "train": (str,),
    "test": (str,),
    "seeds": (int, list, str),
    "folds": (int,),
    "group": (str,),
    "plan": (bool,),
    "overrides": (list, dict),
}


@dataclass(frozen=True)
class Component:
    """A component of Libra R-CNN, and how it is switched off as in `configs/ablations`."""

    off: Tuple[str, ...]  # KEY VALUE ...
    is_on: Callable[[CfgNode], bool]


def _samples_balanced(cfg: CfgNode) -> bool:
    name, sampler = cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_HEADS.SAMPLER
    heads = ROI_HEADS_REGISTRY.get(name) if name in ROI_HEADS_REGISTRY else object
    is_balanced = (sampler.POSITIVES, sampler.NEGATIVES) != ("random", "random")
    return isinstance(heads, type) and issubclass(heads, LibraSamplingMixin) and is_balanced


def _has_bfp(cfg: CfgNode) -> bool:
    return cfg.MODEL.BFP.ENABLED and cfg.MODEL.BACKBONE.NAME.startswith("build_libra_")


_OF_RCNN = {
    "sampling": Component(
        (
            *("MODEL.RPN.SAMPLER.NEG_POS_UB", "-1.0"),
            *("MODEL.ROI_HEADS.SAMPLER.POSITIVES", "random"),
            *("MODEL.ROI_HEADS.SAMPLER.NEGATIVES", "random"),
        ),
        _samples_balanced,
    ),
    "bfp": Component(("MODEL.BFP.ENABLED", "False"), _has_bfp),
    "loss": Component(
        ("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", "smooth_l1"),
        lambda cfg: cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE == "balanced_l1",
    ),
}
_OF_RETINANET = {  # it does not sample
    "bfp": _OF_RCNN["bfp"],
    "loss": Component(
        ("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "smooth_l1"),
        lambda cfg: cfg.MODEL.RETINANET.BBOX_REG_LOSS_TYPE == "balanced_l1",
    ),
}


def component_variants(
    base: str, overrides: Sequence[str] = (), *, trust: bool = False
) -> List[Variant]:
    """
    Return the variants of a Libra config that show what each component contributes: "baseline"
    without any, one with each of "sampling", "bfp" and "loss" alone, and "all". RetinaNet has no
    "sampling".

    They switch components off and leave all other settings of the config as they are, so that "all"
    is the config itself.

    Args:
        base: config file.
        overrides: KEY VALUE ..., for all variants.

    Raises:
        UserError: the config has mistakes, or lacks one of the components.
    """
    cfg = load_cfg(base, overrides, trust=trust or None)
    components = _OF_RETINANET if is_retinanet(cfg) else _OF_RCNN
    missing = [name for name, component in components.items() if not component.is_on(cfg)]
    if missing:
        raise UserError(
            "--ablate components needs a --base with all components of Libra R-CNN, such as "
            f"configs/libra_mobilenet_v2.yaml, got {printable(base)} without {', '.join(missing)}. "
            "Name variants of your own with --variants"
        )

    def without(names: Sequence[str]) -> Tuple[str, ...]:
        return tuple(word for name in names for word in components[name].off)

    alone = [Variant(name, without([c for c in components if c != name])) for name in components]
    return [Variant(BASELINE, without(list(components))), *alone, Variant(ALL, ())]


def read_variants(path: str) -> Tuple[List[Variant], Dict[str, Any]]:
    """
    Read a YAML file with variants, and optionally the rest of a design::

        base: configs/libra_mobilenet_v2.yaml
        seeds: 3
        variants:
          baseline: {MODEL.BFP.ENABLED: false}
          bfp: []

    Returns:
        The variants, and the values of those `PLAN_KEYS` that the file has.

    Raises:
        UserError: the file cannot be read, or is not of this form.
    """
    content = read_yaml(path, what="plan of an experiment")
    name = f"plan of an experiment {printable(path)}"
    if not isinstance(content, dict) or not isinstance(content.get("variants"), dict):
        raise UserError(
            f"{name} must have the key `variants`, with a name and overrides for each variant, got "
            f"{shown(content)}"
        )
    variants = content.pop("variants")
    for key, value in content.items():
        if key not in PLAN_KEYS:
            raise UserError(
                f"{name}: unknown key {shown(key)}. Next to `variants`, it may have "
                f"{', '.join(PLAN_KEYS)}"
            )
        expected = PLAN_KEYS[key]
        if not isinstance(value, expected) or (isinstance(value, bool) and expected != (bool,)):
            raise UserError(f"{name}: {key} has a value of a wrong type: {shown(value)}")
    return [Variant(str(n), overrides_from_file(o, str(n))) for n, o in variants.items()], content


def default_baseline(variants: Sequence[Variant]) -> str:
    """Return the name of the baseline if none is given: "baseline", or else the first variant."""
    names = [variant.name for variant in variants]
    return BASELINE if BASELINE in names or not names else names[0]
