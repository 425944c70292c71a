# The twin of ../libra_r101.yaml.
from .libra_r50 import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model.backbone.fpn.bottom_up.stages.depth = 101
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
