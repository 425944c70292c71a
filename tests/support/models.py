"""Narrow models, and batches for them."""

import copy

import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from libra_d2.engine import load_cfg

# Narrow layers, so that a step takes a second or two.
NARROW = (
    "MODEL.DEVICE cpu MODEL.RESNETS.RES2_OUT_CHANNELS 64 MODEL.RESNETS.STEM_OUT_CHANNELS 16 "
    "MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16"
).split()


ALL_SCORES = (
    *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "-1.0"),
    *("MODEL.RETINANET.SCORE_THRESH_TEST", "-1.0"),
)


FEW_CLASSES = ("MODEL.ROI_HEADS.NUM_CLASSES", "3", "MODEL.RETINANET.NUM_CLASSES", "3")


def build(config, *opts, seed=0):
    cfg = load_cfg(str(config), ["MODEL.DEVICE", "cpu", *opts])
    torch.manual_seed(seed)
    return build_model(cfg)


def batch(num_objects=(3, 0)):
    g = torch.Generator().manual_seed(4)
    inputs = []
    for i, n in enumerate(num_objects):
        target = Instances((96, 128))
        xy = torch.rand(n, 2, generator=g) * 50
        target.gt_boxes = Boxes(torch.cat([xy, xy + 20 + torch.rand(n, 2, generator=g) * 20], 1))
        target.gt_classes = torch.randint(0, 3, (n,), generator=g)
        target.gt_masks = BitMasks(torch.ones(n, 96, 128))
        image = torch.randint(0, 256, (3, 96, 128), generator=g, dtype=torch.uint8)
        proposals = Instances((96, 128))
        xy = torch.rand(50, 2, generator=g) * 50
        near = target.gt_boxes.tensor + 3
        proposals.proposal_boxes = Boxes(torch.cat([near, torch.cat([xy, xy + 30], 1)]))
        proposals.objectness_logits = torch.linspace(3, -3, n + 50)
        record = {"image": image, "instances": target, "height": 96, "width": 128, "id": i}
        inputs.append({**record, "proposals": proposals})
    return inputs


def losses_of(model, seed=11):
    torch.manual_seed(seed)
    with EventStorage():
        return model.train()(copy.deepcopy(batch()))


def assert_trains_and_detects(model, masks=False):
    for name, module in model.named_modules():
        if name.endswith("conv3.norm"):
            # Else every block of a ResNet adds, and features overflow.
            module.weight.data.fill_(0.1)
    losses = losses_of(model)
    assert all(torch.isfinite(v) for v in losses.values())
    sum(losses.values()).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    with torch.no_grad():
        outputs = model.eval()(batch())
    assert [o["instances"].image_size for o in outputs] == [(96, 128)] * 2
    assert all(len(o["instances"]) > 0 for o in outputs)
    assert all(o["instances"].has("pred_masks") == masks for o in outputs)
