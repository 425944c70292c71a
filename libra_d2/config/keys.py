"""The keys that libra_d2 adds to Detectron2's config."""

from detectron2.config import CfgNode

from ..version import __version__


def add_libra_config(cfg: CfgNode) -> None:
    """
    Add libra_d2's keys to a config made by `get_cfg()`. The defaults are the paper's settings.

    Example::

        from detectron2.config import get_cfg

        cfg = get_cfg()
        add_libra_config(cfg)
        cfg.merge_from_file("configs/libra_r50.yaml")
    """
    # Balanced feature pyramid of the backbones named build_libra_*.
    cfg.MODEL.BFP = CfgNode()
    # False uses the FPN without it.
    cfg.MODEL.BFP.ENABLED = True
    # Name of the feature whose size all levels are resized to before they are averaged.
    cfg.MODEL.BFP.REFINE_LEVEL = "p4"
    # How the average is refined: "non_local", "conv" or "none".
    cfg.MODEL.BFP.REFINE_TYPE = "non_local"

    # Balanced L1 loss, for MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE "balanced_l1".
    cfg.MODEL.ROI_BOX_HEAD.BALANCED_L1 = CfgNode()
    # Smaller values give inliers (small errors) a larger share of the gradient.
    cfg.MODEL.ROI_BOX_HEAD.BALANCED_L1.ALPHA = 0.5
    # Upper bound of the gradient.
    cfg.MODEL.ROI_BOX_HEAD.BALANCED_L1.GAMMA = 1.5
    # Error, in box deltas, at which an inlier becomes an outlier.
    cfg.MODEL.ROI_BOX_HEAD.BALANCED_L1.BETA = 1.0
    # "continuous", or "mmdet" for the formula of the published code. At BETA 1 they are the same.
    cfg.MODEL.ROI_BOX_HEAD.BALANCED_L1.FORM = "continuous"

    # Weight of the classification loss. BBOX_REG_LOSS_WEIGHT is the weight of the box loss.
    cfg.MODEL.ROI_BOX_HEAD.CLS_LOSS_WEIGHT = 1.0

    # Sampling of proposals, for MODEL.ROI_HEADS.NAME "LibraROIHeads" and "LibraCascadeROIHeads".
    cfg.MODEL.ROI_HEADS.SAMPLER = CfgNode()
    # How positives are drawn: "instance_balanced" or "random".
    cfg.MODEL.ROI_HEADS.SAMPLER.POSITIVES = "instance_balanced"
    # How negatives are drawn: "iou_balanced" or "random".
    cfg.MODEL.ROI_HEADS.SAMPLER.NEGATIVES = "iou_balanced"
    # Negatives below this IoU form the floor set, which is sampled separately. 0.0 puts those with
    # IoU 0 into it, -1.0 disables it.
    cfg.MODEL.ROI_HEADS.SAMPLER.FLOOR_THRESH = -1.0
    # Share of the negatives that is drawn from the floor set.
    cfg.MODEL.ROI_HEADS.SAMPLER.FLOOR_FRACTION = 0.0
    # Number of IoU bins that negatives are drawn from.
    cfg.MODEL.ROI_HEADS.SAMPLER.NUM_BINS = 3
    # Upper end of the last bin: the foreground threshold ("paper") or the largest IoU ("mmdet").
    cfg.MODEL.ROI_HEADS.SAMPLER.BIN_RANGE = "paper"
    # Maximum number of negatives per positive; -1.0: no limit.
    cfg.MODEL.ROI_HEADS.SAMPLER.NEG_POS_UB = -1.0
    # Number of negatives; -1: fill up to BATCH_SIZE_PER_IMAGE.
    cfg.MODEL.ROI_HEADS.SAMPLER.NUM_NEGATIVES = -1

    # Sampling of anchors, for MODEL.PROPOSAL_GENERATOR.NAME "LibraRPN".
    cfg.MODEL.RPN.SAMPLER = CfgNode()
    # Maximum number of negatives per positive; -1.0: no limit.
    cfg.MODEL.RPN.SAMPLER.NEG_POS_UB = -1.0
    # Number of negatives; -1: fill up to BATCH_SIZE_PER_IMAGE.
    cfg.MODEL.RPN.SAMPLER.NUM_NEGATIVES = -1

    # Balanced L1 loss of MODEL.META_ARCHITECTURE "LibraRetinaNet", for
    # MODEL.RETINANET.BBOX_REG_LOSS_TYPE "balanced_l1". The keys mean the same as in
    # MODEL.ROI_BOX_HEAD.BALANCED_L1.
    cfg.MODEL.RETINANET.BALANCED_L1 = CfgNode()
    cfg.MODEL.RETINANET.BALANCED_L1.ALPHA = 0.5
    cfg.MODEL.RETINANET.BALANCED_L1.GAMMA = 1.5
    cfg.MODEL.RETINANET.BALANCED_L1.BETA = 0.11
    # The published weights were trained with "mmdet", whose gradient is not zero at an error of 0.
    cfg.MODEL.RETINANET.BALANCED_L1.FORM = "continuous"
    # True clips boxes to the image before NMS, as mmdetection does, rather than after it.
    cfg.MODEL.RETINANET.CLIP_BEFORE_NMS = False
    # False omits the ReLU between P6 and P7, as mmdetection does.
    cfg.MODEL.RETINANET.P7_RELU = True

    # Image classifier of the backbones named build_libra_*torchvision_* and build_libra_*timm_*.
    # MODEL.BACKBONE.FREEZE_AT freezes its first stages. It must be 0 for models that timm does not
    # wrap as a list of layers.
    cfg.MODEL.CLASSIFIER = CfgNode()
    # Name of a torchvision model, or of one of timm.list_models() with features in NCHW layout.
    cfg.MODEL.CLASSIFIER.NAME = "mobilenet_v2"
    # Type of its batch norms: "FrozenBN", "BN" or "SyncBN". Layer norms are trained with their
    # stage.
    cfg.MODEL.CLASSIFIER.NORM = "FrozenBN"

    # DATASETS.TRAIN and DATASETS.TEST take registered names and descriptions of files:
    # "coco:annotations.json,images", "yolo:data.yaml,train", "voc:VOC2007,train",
    # "packed:train.lmdb", "mindspore:root,train". A single one needs no tuple around it. The
    # classes and their number are taken from the data. See docs/data.md.
    # Check the data sets before training, as `libra-d2 check-data` does, but open few images only.
    cfg.DATASETS.CHECK = True
    # Train on this number of images, drawn at random by SEED; 0: all.
    cfg.DATASETS.TRAIN_NUM = 0
    # Train on one out of this number of images (of those of TRAIN_NUM, if set), drawn at random by
    # SEED; 1: all.
    cfg.DATASETS.TRAIN_DIVIDER = 1
    # Names of the classes to use, in this order; (): all classes of the data. The config that a run
    # saves names the classes of that run.
    cfg.DATASETS.CLASS_NAMES = ()

    # Resize every image to this (height, width) in pixels, in training and in evaluation, instead
    # of by its shorter side (MIN_SIZE_TRAIN, MIN_SIZE_TEST, ...); (0, 0): off.
    cfg.INPUT.FIXED_SIZE = (0, 0)
    # True keeps the aspect ratio, so that the image fits within FIXED_SIZE.
    cfg.INPUT.KEEP_RATIO = False
    # The model pads batches, on the right and at the bottom, to multiples of this number of pixels
    # and of its own strides (32 for p2 to p6); 0: of its strides only.
    cfg.INPUT.DIVIDER = 0
    # Transforms of training images in the order of their application, such as
    # "HorizontalFlip(prob=0.5)" and "RandomCrop(min=0.6, prob=0.5)". The list is then the whole
    # augmentation, in place of RANDOM_FLIP and CROP; (): off. See docs/augmentation.md.
    cfg.INPUT.AUGMENTATIONS = ()

    # Length of the run in epochs, instead of SOLVER.MAX_ITER; 0.0: MAX_ITER is used. With it,
    # MAX_ITER is EPOCHS * training images / IMS_PER_BATCH, rounded up, and numbers of iterations
    # that a base config sets are scaled in proportion. Detectron2's keys SOLVER.STEPS,
    # SOLVER.WARMUP_ITERS, SOLVER.CHECKPOINT_PERIOD and TEST.EVAL_PERIOD may also be texts: "10%" of
    # the run, or "2 epochs". See docs/training.md.
    cfg.SOLVER.EPOCHS = 0.0
    # "SGD" or "AdamW".
    cfg.SOLVER.OPTIMIZER = "SGD"
    # With SOLVER.AMP.ENABLED: "float16" (CUDA, with loss scaling) or "bfloat16" (CUDA and CPU).
    cfg.SOLVER.AMP.DTYPE = "float16"
    # Number of parts in which the images of a step are computed, one after another, to save memory.
    # A step still has IMS_PER_BATCH images, and an iteration is still a step.
    cfg.SOLVER.ACCUMULATION_STEPS = 1
    # Decay of the exponential moving average of the weights, such as 0.999. The average is used in
    # evaluation, and MODEL.WEIGHTS loads it. 0.0: no average.
    cfg.SOLVER.EMA_DECAY = 0.0
    # Number of consecutive steps that may be skipped because a loss or gradient is infinite or NaN,
    # before the run stops. A skipped step changes no weights. OUTPUT_DIR/non_finite lists them.
    cfg.SOLVER.NON_FINITE_SKIPS = 0
    # SOLVER.CLIP_GRADIENTS.CLIP_TYPE may be "global_norm" (of all parameters together), in addition
    # to Detectron2's "value" and "norm" (of each parameter).
    # Number of periodic checkpoints to keep; 0: all.
    cfg.SOLVER.CHECKPOINTS_TO_KEEP = 0
    # True uses deterministic algorithms only. With a SEED, runs on the same device are then equal
    # bit by bit.
    cfg.SOLVER.DETERMINISTIC = False

    # Metric that decides which checkpoint is the best (model_best.pth) and when to stop early, such
    # as "bbox/AP", or "validation/total_loss" (see VALIDATION_LOSS); "": none. If its name contains
    # "loss", smaller values are better; otherwise, larger values are.
    cfg.TEST.BEST_METRIC = ""
    # Number of best checkpoints to keep.
    cfg.TEST.BEST_TO_KEEP = 1
    # Stop training after this number of evaluations without a better BEST_METRIC; 0: do not stop
    # early.
    cfg.TEST.EARLY_STOPPING_PATIENCE = 0
    # True also computes the training losses on the test sets, as validation/total_loss and so on.
    cfg.TEST.VALIDATION_LOSS = False
    # Library that computes COCO's metrics: "pycocotools", "faster-coco-eval" (extra `fast-eval`) or
    # "auto", which uses the latter if it is installed. Their results are the same. A value of
    # TEST.DETECTIONS_PER_IMAGE above 100 also raises the number of detections that they use.
    cfg.TEST.EVAL_BACKEND = "auto"

    # Non-maximum suppression of detections. Detectron2's keys MODEL.ROI_HEADS.NMS_THRESH_TEST and
    # MODEL.RETINANET.NMS_THRESH_TEST set its IoU threshold.
    cfg.TEST.NMS = CfgNode()
    # "hard", or for Soft-NMS "linear" or "gaussian" (which has no IoU threshold).
    cfg.TEST.NMS.TYPE = "hard"
    # Soft-NMS "gaussian" multiplies a score by exp(-IoU^2 / SIGMA).
    cfg.TEST.NMS.SIGMA = 0.5
    # Soft-NMS drops detections whose decayed score is below this value.
    cfg.TEST.NMS.MIN_SCORE = 0.001

    # Share of the images that DATALOADER.SAMPLER_TRAIN "RandomSubsetTrainingSampler" uses.
    # Detectron2 reads this key, but it does not define it.
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = 1.0
    # What to do if an image is missing or cannot be read: "skip" it with a warning, or "stop" the
    # run.
    cfg.DATALOADER.ON_BAD_IMAGE = "skip"

    # Python files, such as "my_heads.py", and modules, such as "my_package.heads", to import first.
    # They can register your own components and data sets. Paths of files are relative to the config
    # that names them. See docs/own_components.md.
    cfg.IMPORTS = ()

    # Brief description of the run, such as "wide-anchors". The run is then written to a new folder
    # in OUTPUT_DIR, named after the time and this description; "": it is written to OUTPUT_DIR.
    cfg.OUTPUT_BRIEF = ""

    # Measurements of what Libra R-CNN balances during training: scalars, and a plot (balance.png).
    cfg.BALANCE = CfgNode()
    # Number of steps between two measurements; 0: no measurements.
    cfg.BALANCE.PERIOD = 50

    # Tracking of a run by MLflow (pip install libra_d2[mlflow]).
    cfg.MLFLOW = CfgNode()
    cfg.MLFLOW.ENABLED = False
    # Tracking server or database; "": $MLFLOW_TRACKING_URI or, if it is not set, MLflow's default,
    # mlflow.db in the working directory.
    cfg.MLFLOW.TRACKING_URI = ""
    cfg.MLFLOW.EXPERIMENT = "libra_d2"
    # True also uploads model_final.pth and model_best.pth at the end.
    cfg.MLFLOW.LOG_CHECKPOINTS = False

    # Version of libra_d2 that saved the config of a run. Do not set it.
    cfg.LIBRA_VERSION = __version__
