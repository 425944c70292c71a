"""A config with small ROI heads."""

from detectron2.layers import ShapeSpec

from libra_d2.engine import load_cfg

SHAPES = {f"p{i}": ShapeSpec(channels=4, stride=2**i) for i in range(2, 6)}


def small_cfg(*opts):
    return load_cfg(
        "configs/libra_r50.yaml",
        ["MODEL.ROI_BOX_HEAD.FC_DIM", "8", "MODEL.ROI_HEADS.NUM_CLASSES", "3", *opts],
    )
