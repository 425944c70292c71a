# The twin of ../libra_retinanet_r50.yaml.
from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config

from libra_d2.modeling import BFP, LibraRetinaNet

model = get_config("common/models/retinanet.py").model
model._target_ = LibraRetinaNet  # its box loss is Balanced L1 unless told otherwise
model.backbone.bottom_up.freeze_at = 2
model.backbone = L(BFP)(fpn=model.backbone, refine_level="p4")

dataloader = get_config("common/data/coco.py").dataloader
dataloader.train.mapper.use_instance_mask = False
optimizer = get_config("common/optim.py").SGD
optimizer.lr = 0.01
lr_multiplier = get_config("common/coco_schedule.py").lr_multiplier_1x
train = get_config("common/train.py").train
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
