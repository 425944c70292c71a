"""INPUT.DIVIDER: the model pads, so that the boxes of an evaluation are exact."""

import pytest
import torch

from libra_d2.engine import LibraTrainer, load_cfg
from libra_d2.errors import UserError

from ..support.models import ALL_SCORES, FEW_CLASSES, NARROW, build


def images(*sizes):
    g = torch.Generator().manual_seed(0)
    return [
        {"image": torch.randint(0, 256, (3, *size), generator=g, dtype=torch.uint8)}
        for size in sizes
    ]


@pytest.mark.parametrize(
    "config,opts",
    [
        ("libra_mobilenet_v2.yaml", ()),
        ("libra_mobilenet_v2.yaml", ("MODEL.BFP.ENABLED", "False")),
        ("libra_r50.yaml", ()),
        ("libra_r50.yaml", ("MODEL.BFP.ENABLED", "False")),
        ("libra_retinanet_r50.yaml", ()),
    ],
)
@pytest.mark.parametrize("divider,multiple", [(0, 32), (64, 64), (48, 96), (32, 32)])
def test_batches_are_padded_to_multiples(config, opts, divider, multiple):
    """48 alone would not fit the strides of the features."""
    model = build(f"configs/{config}", *NARROW, *opts, "INPUT.DIVIDER", str(divider))
    batch = model.preprocess_image(images((100, 70), (90, 130)))
    up = lambda n: -(-n // multiple) * multiple
    assert tuple(batch.tensor.shape[-2:]) == (up(100), up(130))
    assert batch.image_sizes == [(100, 70), (90, 130)]


def test_boxes_do_not_depend_on_the_padding():
    """They are in pixels of the file: a file of twice the size has boxes of twice the size."""
    options = (*NARROW, *ALL_SCORES, *FEW_CLASSES, "INPUT.DIVIDER", "256")
    model = build("configs/libra_mobilenet_v2.yaml", *options).eval()
    (record,) = images((100, 70))
    with torch.no_grad():
        (raw,) = model.inference([record], do_postprocess=False)
        (result,) = model([{**record, "height": 200, "width": 140}])
    assert len(raw) and raw.image_size == (100, 70)
    boxes = raw.pred_boxes.tensor
    assert (boxes[:, 2] <= 70).all() and (boxes[:, 3] <= 100).all()
    assert torch.equal(result["instances"].pred_boxes.tensor, 2 * boxes[raw.pred_boxes.nonempty()])


def test_a_backbone_that_does_not_know_the_key_is_refused():
    opts = ("INPUT.DIVIDER", "64", "MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", *NARROW)
    with pytest.raises(
        UserError, match=r"INPUT\.DIVIDER must be 0 for a MODEL\.BACKBONE\.NAME .*, got 64"
    ):
        LibraTrainer.build_model(load_cfg("configs/libra_r50.yaml", opts))


def test_a_negative_divider_is_refused():
    opts = ("INPUT.DIVIDER", "-64")
    with pytest.raises(UserError, match=r"INPUT\.DIVIDER must be at least 0 .*, got -64"):
        LibraTrainer.build_model(load_cfg("configs/libra_mobilenet_v2.yaml", opts))
