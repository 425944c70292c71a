# The twin of ../libra_r50.yaml, for Detectron2's tools/lazyconfig_train_net.py.
from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config

from libra_d2.modeling import BFP, LibraFastRCNNOutputLayers, LibraROIHeads, LibraRPN

model = get_config("common/models/mask_rcnn_fpn.py").model
model.backbone.bottom_up.freeze_at = 2
model.backbone = L(BFP)(fpn=model.backbone, refine_level="p4")
model.proposal_generator._target_ = LibraRPN
model.proposal_generator.neg_pos_ub = 5.0
model.proposal_generator.post_nms_topk = (2000, 1000)
model.roi_heads._target_ = LibraROIHeads  # its sampler is the paper's unless told otherwise
model.roi_heads.box_predictor._target_ = LibraFastRCNNOutputLayers
model.roi_heads.box_predictor.box_reg_loss_type = "balanced_l1"
for part in ("mask_in_features", "mask_pooler", "mask_head"):
    del model.roi_heads[part]

dataloader = get_config("common/data/coco.py").dataloader
dataloader.train.mapper.use_instance_mask = False
optimizer = get_config("common/optim.py").SGD
lr_multiplier = get_config("common/coco_schedule.py").lr_multiplier_1x
train = get_config("common/train.py").train
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
