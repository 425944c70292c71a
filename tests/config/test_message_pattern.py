"""
Error messages follow one pattern: what is wrong, its value, what was expected, what to do.

Each line is a situation: settings on the command line, of which the first is the mistake.
"""

import re

import pytest

from libra_d2.config import load_cfg
from libra_d2.errors import UserError

SITUATIONS = """
SOLVER.IMS_PER_BATCH 0
SOLVER.BASE_LR -1
SOLVER.MAX_ITER 0
SOLVER.STEPS 300
SOLVER.GAMMA 0
SOLVER.MOMENTUM 1.5
SOLVER.WEIGHT_DECAY -1
SOLVER.WARMUP_ITERS -1
SOLVER.WARMUP_METHOD exp
SOLVER.LR_SCHEDULER_NAME Cosine
SOLVER.OPTIMIZER Adam
SOLVER.ACCUMULATION_STEPS 0
SOLVER.EMA_DECAY 1.5
SOLVER.NON_FINITE_SKIPS -1
SOLVER.CHECKPOINT_PERIOD 0
SOLVER.CHECKPOINTS_TO_KEEP -1
SOLVER.CLIP_GRADIENTS.CLIP_VALUE 0.0 SOLVER.CLIP_GRADIENTS.ENABLED True
SOLVER.CLIP_GRADIENTS.CLIP_TYPE x SOLVER.CLIP_GRADIENTS.ENABLED True
DATALOADER.NUM_WORKERS -1
DATALOADER.ON_BAD_IMAGE ignore
DATALOADER.SAMPLER_TRAIN Random
DATALOADER.REPEAT_THRESHOLD 2.0
DATASETS.TRAIN_NUM -1
DATASETS.TRAIN_DIVIDER 0
INPUT.MAX_SIZE_TRAIN 0
INPUT.MIN_SIZE_TEST -8
INPUT.FORMAT XYZ
INPUT.AUGMENTATIONS HorizontalFlip(prob=2)
INPUT.AUGMENTATIONS HorizontalFlip(p=1)
INPUT.AUGMENTATIONS RandomCrop()
INPUT.AUGMENTATIONS Hue(20,-20)
INPUT.AUGMENTATIONS Blur()
INPUT.AUGMENTATIONS HorizontalFlip
INPUT.AUGMENTATIONS ResizeScale(0.5,2.0)
INPUT.CROP.ENABLED True INPUT.AUGMENTATIONS Gray()
INPUT.FIXED_SIZE (64,64) INPUT.AUGMENTATIONS FixedSizeCrop(64)
INPUT.DIVIDER -2
INPUT.RANDOM_FLIP diagonal
INPUT.RANDOM_FLIP vertical INPUT.AUGMENTATIONS Gray()
INPUT.CROP.SIZE (2.0,2.0) INPUT.CROP.ENABLED True
MODEL.DEVICE gpu
MODEL.BACKBONE.FREEZE_AT 9
MODEL.BFP.REFINE_TYPE attention
MODEL.BFP.REFINE_LEVEL p9
MODEL.FPN.OUT_CHANNELS 0
MODEL.CLASSIFIER.NAME resnet19
MODEL.CLASSIFIER.NORM GN
MODEL.ROI_HEADS.NUM_CLASSES 0
MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 0
MODEL.ROI_HEADS.POSITIVE_FRACTION 2.0
MODEL.ROI_HEADS.SAMPLER.POSITIVES best
MODEL.ROI_HEADS.SAMPLER.NUM_BINS 0
MODEL.ROI_HEADS.SAMPLER.FLOOR_FRACTION 2.0
MODEL.ROI_HEADS.SCORE_THRESH_TEST 5.0
MODEL.ROI_HEADS.NMS_THRESH_TEST -1.0
MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE l3
MODEL.ROI_BOX_HEAD.BALANCED_L1.ALPHA 0.0
MODEL.ROI_BOX_HEAD.BALANCED_L1.FORM x
MODEL.RPN.POST_NMS_TOPK_TEST 0
MODEL.RPN.NMS_THRESH 2.0
TEST.EVAL_PERIOD -1
TEST.DETECTIONS_PER_IMAGE 0
TEST.NMS.TYPE soft
TEST.NMS.SIGMA 0.0
TEST.NMS.MIN_SCORE 1.0
TEST.EVAL_BACKEND cocoapi
TEST.BEST_TO_KEEP 0
TEST.EARLY_STOPPING_PATIENCE -1
BALANCE.PERIOD -1
SEED 1.5
VIS_PERIOD -1
OUTPUT_DIR ''
""".strip().splitlines()


@pytest.mark.parametrize("situation", SITUATIONS)
def test_each_message_names_key_value_and_expectation(situation):
    words = [word.strip("'") for word in situation.split(" ")]
    with pytest.raises(UserError) as e:
        load_cfg("configs/libra_mobilenet_v2.yaml", words, purpose="train")
    key, value = words[0], words[1]
    message = str(e.value)
    assert "\n" not in message, "one mistake is one line"
    assert re.search(
        rf"(^|^command line: |^each number of ){re.escape(key)} "
        r"(must be .+, got .+|\S+ is not one of .+)$",
        message,
    ), message
    number = re.search(r"-?\d+(\.\d+)?", value)
    assert (number.group().removesuffix(".0") if number else value) in message


def test_there_are_at_least_forty():
    assert len(set(SITUATIONS)) >= 40
