"""A model and its batch for several processes."""

import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from libra_d2.engine import load_cfg

# Every anchor and proposal is taken: which ones a process draws then does not depend on how
# many draws were made before. Losses are means over equal numbers of samples in each half.
OPTIONS = (
    "MODEL.DEVICE cpu MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16 "
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE 100000 MODEL.RPN.SAMPLER.NEG_POS_UB -1.0 "
    "MODEL.RPN.POSITIVE_FRACTION 1.0 MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 100000 "
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN 40 MODEL.RPN.POST_NMS_TOPK_TRAIN 40 "
    "MODEL.RPN.NMS_THRESH 1.0"
).split()


def model_and_batch():
    torch.manual_seed(0)
    model = build_model(load_cfg("configs/libra_mobilenet_v2.yaml", OPTIONS)).train()
    batch = []
    for i in range(4):
        target = Instances((64, 96))
        corner = torch.tensor([[10.0, 5.0], [40.0 + i, 20.0]])
        target.gt_boxes = Boxes(torch.cat([corner, corner + 25 + 3 * i], dim=1))
        target.gt_classes = torch.tensor([i % 3, 4])
        batch.append({"image": torch.randint(0, 256, (3, 64, 96)).float(), "instances": target})
    return model, batch
