"""Folders of runs with a detector of random weights."""

import torch
from detectron2.modeling import build_model

from libra_d2.checkpoint import LibraCheckpointer
from libra_d2.engine import load_cfg

NAMES = ("disk", "square", "triangle")


# Random weights: low thresholds, so that there are detections to compare.
SMALL = (
    "MODEL.DEVICE cpu INPUT.MIN_SIZE_TEST 96 INPUT.MAX_SIZE_TEST 160 MODEL.FPN.OUT_CHANNELS 16 "
    "MODEL.ROI_BOX_HEAD.FC_DIM 32 MODEL.RPN.POST_NMS_TOPK_TEST 60 TEST.DETECTIONS_PER_IMAGE 30 "
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.001 MODEL.RETINANET.SCORE_THRESH_TEST 0.001 "
    "MODEL.WEIGHTS ''"
).split()


RETINANET = (
    "MODEL.META_ARCHITECTURE LibraRetinaNet "
    "MODEL.BACKBONE.NAME build_libra_retinanet_torchvision_fpn_backbone "
    "MODEL.FPN.IN_FEATURES ['res3','res4','res5'] MODEL.RETINANET.NUM_CONVS 1"
).split()


def write_run(folder, opts=(), names=NAMES, config="configs/libra_mobilenet_v2.yaml", spread=20.0):
    """A run folder with a model of random weights, whose scores are spread out."""
    num_classes = str(len(names))
    counts = [
        *("MODEL.ROI_HEADS.NUM_CLASSES", num_classes),
        *("MODEL.RETINANET.NUM_CLASSES", num_classes),
    ]
    cfg = load_cfg(config, [*SMALL, *counts, *opts])
    cfg.DATASETS.CLASS_NAMES = tuple(names)
    torch.manual_seed(3)
    model = build_model(cfg)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("cls_score.weight", "bbox_pred.weight", "objectness_logits.weight")):
                parameter.mul_(spread)
    ids = range(10, 10 + len(names))
    LibraCheckpointer(model, str(folder), class_names=names, category_ids=ids).save("model_final")
    (folder / "config.yaml").write_text(cfg.dump())
    return folder
