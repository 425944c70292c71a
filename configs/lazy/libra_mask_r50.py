# The twin of ../libra_mask_r50.yaml.
from detectron2.model_zoo import get_config

from .libra_r50 import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

upstream = get_config("common/models/mask_rcnn_fpn.py").model.roi_heads
for part in ("mask_in_features", "mask_pooler", "mask_head"):
    model.roi_heads[part] = upstream[part]
del upstream
dataloader.train.mapper.use_instance_mask = True
