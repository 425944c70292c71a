"""What Detectron2's own DefaultTrainer and DefaultPredictor would ignore in a config."""

from typing import Any, List

from detectron2.config import CfgNode, get_cfg

from .flattening import flat
from .keys import add_libra_config
from .loading import refuse

# Read by components of the model, or by Detectron2 itself, or no more than a record.
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
    Refuse settings that only :class:`libra_d2.engine.LibraTrainer` understands. To be called before
    the config goes to Detectron2's `DefaultTrainer` or to a trainer that is based on it, which
    ignores most of these keys without a word.

    Raises:
        UserError: it lists the keys, with their values.
    """
    messages = ignored_by_detectron2(cfg)
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if clip.ENABLED and clip.CLIP_TYPE == "global_norm":
        messages.append(_only_ours("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip.CLIP_TYPE))
    weights = cfg.MODEL.WEIGHTS
    if weights.startswith(("torchvision://", "timm://")):
        messages.append(
            f"MODEL.WEIGHTS is {weights!r}, which only libra_d2.checkpoint.LibraCheckpointer can "
            "load: load it with that, and set MODEL.WEIGHTS to ''"
        )
    refuse(messages)


def ignored_by_detectron2(cfg: CfgNode) -> List[str]:
    """One line for each changed setting that only LibraTrainer implements."""
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
