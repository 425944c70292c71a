"""Keys of earlier versions and their replacements."""

from typing import Any, Dict, Optional

_DATA = (
    "set DATASETS.{split} to a description of the data, such as coco:train.json,images or "
    "packed:train.lmdb, or to a tuple of several"
)
_REPLACED: Dict[str, str] = {
    **{
        f"DATASETS.{split}_{kind}": _DATA.format(split=split)
        for split in ("TRAIN", "TEST")
        for kind in ("JSON", "IMAGES", "FROM", "PACKED")
    },
    "DATASETS.CATEGORY_IDS": "remove it: the ids are taken from the data or the checkpoint",
    "INPUT.FLIP_PROB": "add HorizontalFlip(prob=0.3) to INPUT.AUGMENTATIONS",
    "INPUT.EXPAND_PROB": "add Expand(prob=0.5) to INPUT.AUGMENTATIONS",
    "MODEL.TORCHVISION.NAME": "set MODEL.CLASSIFIER.NAME",
    "MODEL.TORCHVISION.NORM": "set MODEL.CLASSIFIER.NORM",
    "MODEL.TIMM.NAME": "set MODEL.CLASSIFIER.NAME",
    "MODEL.TIMM.NORM": "set MODEL.CLASSIFIER.NORM",
    "SOLVER.EMA.ENABLED": "set SOLVER.EMA_DECAY, such as to 0.999; 0.0 disables the average",
    "SOLVER.EMA.DECAY": "set SOLVER.EMA_DECAY",
    "SOLVER.EMA.WARMUP": "remove it: the average always warms up",
    "SOLVER.NON_FINITE.ACTION": "set SOLVER.NON_FINITE_SKIPS; 0 stops at the first one",
    "SOLVER.NON_FINITE.MAX_SKIPS": "set SOLVER.NON_FINITE_SKIPS",
    "TEST.BEST_MODE": "remove it: smaller values are better if BEST_METRIC names a loss",
    "TEST.EARLY_STOPPING.PATIENCE": "set TEST.EARLY_STOPPING_PATIENCE",
    "TEST.EARLY_STOPPING.MIN_DELTA": "remove it: any better value counts as an improvement",
    "TEST.REUSE_PREDICTIONS": "run `libra-d2 evaluate --model RUN --reuse`",
    "BALANCE.ENABLED": "set BALANCE.PERIOD; 0 disables the measurements",
    "MLFLOW.RUN_NAME": "remove it: the MLflow run is named after the output folder",
}
# Former defaults that still mean what a config without the key does. Saved runs contain them.
_HARMLESS = {"INPUT.FLIP_PROB": 0.5, "INPUT.EXPAND_PROB": 0.0}
_BACKBONES = {
    "build_torchvision_fpn_backbone": "build_libra_torchvision_fpn_backbone",
    "build_timm_fpn_backbone": "build_libra_timm_fpn_backbone",
}


def replacement(key: str) -> Optional[str]:
    """Return what to do instead of setting a removed key; None if the key was never defined."""
    return _REPLACED.get(key)


def is_harmless(key: str, value: Any) -> bool:
    """Return whether a removed key has a value that can be dropped without any effect."""
    return key in _HARMLESS and not isinstance(value, bool) and value == _HARMLESS[key]


def replaced_backbone(name: str) -> Optional[str]:
    """Return the new name for a `MODEL.BACKBONE.NAME` of earlier versions; None for other names."""
    return _BACKBONES.get(name)
