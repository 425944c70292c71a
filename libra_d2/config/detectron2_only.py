"""Find settings that Detectron2's DefaultTrainer and DefaultPredictor would ignore."""

from typing import Any, List

from detectron2.config import CfgNode, get_cfg

from .flattening import flat
from .keys import add_libra_config
from .loading import refuse

# Components of the model or Detectron2 read these settings, or nothing does.
_WITHOUT_TRAINER = (
    "MODEL.",
    "BALANCE.",
    "TEST.NMS.",
    "TEST.EVAL_BACKEND",
    "INPUT.DIVIDER",
    "DATALOADER.RANDOM_SUBSET_RATIO",
    "DATASETS.CLASS_NAMES",
    "LIBRA_VERSION",
)


def check_for_detectron2(cfg: CfgNode) -> None:
    """
    Raise an error for settings that only :class:`libra_d2.engine.LibraTrainer` implements.

    Call this before you pass a config to Detectron2's `DefaultTrainer` or to a subclass of it,
    which silently ignores most of these keys.

    Raises:
        UserError: the config has such settings. The message lists their keys and values.
    """
    messages = ignored_by_detectron2(cfg)
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if clip.ENABLED and clip.CLIP_TYPE == "global_norm":
        messages.append(_only_ours("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip.CLIP_TYPE))
    weights = cfg.MODEL.WEIGHTS
    if weights.startswith(("torchvision://", "timm://")):
        messages.append(
            f"MODEL.WEIGHTS is {weights!r}, which only libra_d2.checkpoint.LibraCheckpointer can "
            "load. Load the weights with it, and set MODEL.WEIGHTS to ''"
        )
    refuse(messages)


def ignored_by_detectron2(cfg: CfgNode) -> List[str]:
    """Return a line for each setting that differs from its default and needs LibraTrainer."""
    known = flat(get_cfg())
    ours = get_cfg()
    add_libra_config(ours)
    given = flat(cfg)
    return [
        _only_ours(key, given[key])
        for key, default in flat(ours).items()
        if key not in known
        and not key.startswith(_WITHOUT_TRAINER)
        and given.get(key, default) != default
    ]


def _only_ours(key: str, value: Any) -> str:
    return f"{key} is {value!r}, which only libra_d2.engine.LibraTrainer implements"
