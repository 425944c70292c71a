"""Keys of earlier versions, and what replaces them."""

from typing import Dict, Optional

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
    "DATASETS.CATEGORY_IDS": "leave it out: the ids are taken from the data or the checkpoint",
    "MODEL.TORCHVISION.NAME": "set MODEL.CLASSIFIER.NAME",
    "MODEL.TORCHVISION.NORM": "set MODEL.CLASSIFIER.NORM",
    "MODEL.TIMM.NAME": "set MODEL.CLASSIFIER.NAME",
    "MODEL.TIMM.NORM": "set MODEL.CLASSIFIER.NORM",
    "SOLVER.EMA.ENABLED": "set SOLVER.EMA_DECAY, such as 0.999; 0.0 switches the average off",
    "SOLVER.EMA.DECAY": "set SOLVER.EMA_DECAY",
    "SOLVER.EMA.WARMUP": "leave it out: the average always warms up",
    "SOLVER.NON_FINITE.ACTION": "set SOLVER.NON_FINITE_SKIPS; 0 stops at once",
    "SOLVER.NON_FINITE.MAX_SKIPS": "set SOLVER.NON_FINITE_SKIPS",
    "TEST.BEST_MODE": "leave it out: smaller values are better if BEST_METRIC names a loss",
    "TEST.EARLY_STOPPING.PATIENCE": "set TEST.EARLY_STOPPING_PATIENCE",
    "TEST.EARLY_STOPPING.MIN_DELTA": "leave it out: any better value counts",
    "TEST.REUSE_PREDICTIONS": "run `libra-d2 evaluate --model RUN --reuse`",
    "BALANCE.ENABLED": "set BALANCE.PERIOD; 0 switches the measurements off",
    "MLFLOW.RUN_NAME": "leave it out: the run is named by the folder that it goes to",
}
_BACKBONES = {
    "build_torchvision_fpn_backbone": "build_libra_torchvision_fpn_backbone",
    "build_timm_fpn_backbone": "build_libra_timm_fpn_backbone",
}


def replacement(key: str) -> Optional[str]:
    """What to do instead of setting the key; None if no earlier version had it."""
    return _REPLACED.get(key)


def replaced_backbone(name: str) -> Optional[str]:
    """The name that takes the place of an earlier `MODEL.BACKBONE.NAME`; None for other names."""
    return _BACKBONES.get(name)
