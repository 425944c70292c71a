"""The keys that libra_d2 adds to Detectron2's config."""

from detectron2.config import CfgNode

from ..version import __version__


def add_libra_config(cfg: CfgNode) -> None:
    """Add libra_d2's keys with their defaults (the paper's) to a config made by `get_cfg()`."""
    # Balanced feature pyramid, of the backbones named build_libra_*.
    cfg.MODEL.BFP = CfgNode()
    # False leaves the bare FPN.
    cfg.MODEL.BFP.ENABLED = True
    # Name of the feature whose size all levels are brought to.
    cfg.MODEL.BFP.REFINE_LEVEL = "p4"
    # "non_local", "conv" or "none".
    cfg.MODEL.BFP.REFINE_TYPE = "non_local"

    # Balanced L1 loss, for MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE "balanced_l1".
    cfg.MODEL.ROI_BOX_HEAD.BALANCED_L1 = CfgNode()
    # Gradient of inliers: the smaller, the larger.
    cfg.MODEL.ROI_BOX_HEAD.BALANCED_L1.ALPHA = 0.5
    # Upper bound of the gradient.
    cfg.MODEL.ROI_BOX_HEAD.BALANCED_L1.GAMMA = 1.5
    # Error (in box deltas) from which a sample counts as an outlier.
    cfg.MODEL.ROI_BOX_HEAD.BALANCED_L1.BETA = 1.0
    # "continuous", or "mmdet" for the published formula; the same at BETA 1.
    cfg.MODEL.ROI_BOX_HEAD.BALANCED_L1.FORM = "continuous"

    # Weight of the classification loss, as BBOX_REG_LOSS_WEIGHT is that of the box loss.
    cfg.MODEL.ROI_BOX_HEAD.CLS_LOSS_WEIGHT = 1.0

    # Sampling of proposals, of MODEL.ROI_HEADS.NAME "LibraROIHeads" and "LibraCascadeROIHeads".
    cfg.MODEL.ROI_HEADS.SAMPLER = CfgNode()
    # "instance_balanced" or "random".
    cfg.MODEL.ROI_HEADS.SAMPLER.POSITIVES = "instance_balanced"
    # "iou_balanced" or "random".
    cfg.MODEL.ROI_HEADS.SAMPLER.NEGATIVES = "iou_balanced"
    # Negatives below this IoU form the floor set; 0.0: those with IoU 0; -1.0: no floor set.
    cfg.MODEL.ROI_HEADS.SAMPLER.FLOOR_THRESH = -1.0
    # Share of the negatives that is drawn from the floor set.
    cfg.MODEL.ROI_HEADS.SAMPLER.FLOOR_FRACTION = 0.0
    # Number of IoU bins of the negatives.
    cfg.MODEL.ROI_HEADS.SAMPLER.NUM_BINS = 3
    # Where the last bin ends: "paper", at the foreground threshold; "mmdet", at the largest IoU.
    cfg.MODEL.ROI_HEADS.SAMPLER.BIN_RANGE = "paper"
    # At most this many negatives for each positive; -1.0: no bound.
    cfg.MODEL.ROI_HEADS.SAMPLER.NEG_POS_UB = -1.0
    # Number of negatives; -1: BATCH_SIZE_PER_IMAGE less the positives.
    cfg.MODEL.ROI_HEADS.SAMPLER.NUM_NEGATIVES = -1

    # Sampling of anchors, of MODEL.PROPOSAL_GENERATOR.NAME "LibraRPN".
    cfg.MODEL.RPN.SAMPLER = CfgNode()
    # At most this many negatives for each positive; -1.0: no bound.
    cfg.MODEL.RPN.SAMPLER.NEG_POS_UB = -1.0
    # Number of negatives; -1: BATCH_SIZE_PER_IMAGE less the positives.
    cfg.MODEL.RPN.SAMPLER.NUM_NEGATIVES = -1

    # Balanced L1 loss of MODEL.META_ARCHITECTURE "LibraRetinaNet", for
    # MODEL.RETINANET.BBOX_REG_LOSS_TYPE "balanced_l1". As in MODEL.ROI_BOX_HEAD.BALANCED_L1.
    cfg.MODEL.RETINANET.BALANCED_L1 = CfgNode()
    cfg.MODEL.RETINANET.BALANCED_L1.ALPHA = 0.5
    cfg.MODEL.RETINANET.BALANCED_L1.GAMMA = 1.5
    cfg.MODEL.RETINANET.BALANCED_L1.BETA = 0.11
    # The published weights were trained with "mmdet", whose gradient is not zero at no error.
    cfg.MODEL.RETINANET.BALANCED_L1.FORM = "continuous"
    # True clips boxes to the image before NMS, as mmdetection does, not after it.
    cfg.MODEL.RETINANET.CLIP_BEFORE_NMS = False
    # False: P7 takes P6 as it is, as in mmdetection, without a ReLU between.
    cfg.MODEL.RETINANET.P7_RELU = True

    # The classifier of the backbones named build_libra_*torchvision_* and build_libra_*timm_*. Its
    # stages are frozen by MODEL.BACKBONE.FREEZE_AT, which must be 0 if timm does not wrap it by
    # stages.
    cfg.MODEL.CLASSIFIER = CfgNode()
    # Name of a torchvision model, or of one of timm.list_models() with NCHW features.
    cfg.MODEL.CLASSIFIER.NAME = "mobilenet_v2"
    # Of its batch norms: "FrozenBN", "BN" or "SyncBN". Layer norms train with their stage.
    cfg.MODEL.CLASSIFIER.NORM = "FrozenBN"

    # DATASETS.TRAIN and DATASETS.TEST take registered names and descriptions of files alike:
    # "coco:annotations.json,images", "yolo:data.yaml,train", "voc:VOC2007,train",
    # "packed:train.lmdb", "mindspore:root,train". One needs no tuple around it. Classes and their
    # number are taken from the data. See docs/data.md.
    # Check the data sets before training, as `libra-d2 check-data` does, but opening few images.
    cfg.DATASETS.CHECK = True
    # Train on so many images, drawn at random by SEED; 0: all.
    cfg.DATASETS.TRAIN_NUM = 0
    # Train on one of so many images (of TRAIN_NUM, if that is set), drawn likewise; 1: all.
    cfg.DATASETS.TRAIN_DIVIDER = 1
    # Selects classes by name and orders them; (): all classes of the data. The config that a run
    # saves names the classes of that run.
    cfg.DATASETS.CLASS_NAMES = ()

    # (height, width) in pixels that every image is resized to, in training and in evaluation,
    # instead of by its shorter side (MIN_SIZE_TRAIN, MIN_SIZE_TEST, ...); (0, 0): off.
    cfg.INPUT.FIXED_SIZE = (0, 0)
    # True keeps the ratio of the sides, so that the image fits within FIXED_SIZE.
    cfg.INPUT.KEEP_RATIO = False
    # The model pads batches, right and below, to multiples of so many pixels and of its own strides
    # (32 for p2 to p6); 0: of its strides alone.
    cfg.INPUT.DIVIDER = 0
    # Probability of RANDOM_FLIP.
    cfg.INPUT.FLIP_PROB = 0.5
    # Probability of putting a training image on a canvas of up to four times its sides.
    cfg.INPUT.EXPAND_PROB = 0.0

    # "SGD" or "AdamW".
    cfg.SOLVER.OPTIMIZER = "SGD"
    # With SOLVER.AMP.ENABLED: "float16" (CUDA, with loss scaling) or "bfloat16" (CUDA and CPU).
    cfg.SOLVER.AMP.DTYPE = "float16"
    # Number of parts that the images of a step are computed in, one after the other. The step is
    # still one of IMS_PER_BATCH images, and iterations still count steps.
    cfg.SOLVER.ACCUMULATION_STEPS = 1
    # Share of the old value that a step keeps in the moving average of the weights, such as 0.999.
    # The average is what is evaluated and what MODEL.WEIGHTS reads. 0.0: no average.
    cfg.SOLVER.EMA_DECAY = 0.0
    # Steps in a row that may be skipped because a loss or gradient is infinite or NaN (noted in
    # OUTPUT_DIR/non_finite), before the run stops. A skipped step changes no weights.
    cfg.SOLVER.NON_FINITE_SKIPS = 0
    # Beside Detectron2's "value" and "norm" (of each parameter), SOLVER.CLIP_GRADIENTS.CLIP_TYPE
    # may be "global_norm" (of all parameters together).
    # Number of periodic checkpoints to keep; 0: all.
    cfg.SOLVER.CHECKPOINTS_TO_KEEP = 0
    # Only deterministic algorithms: with SEED, a run repeats to the last bit on the same device.
    cfg.SOLVER.DETERMINISTIC = False

    # Result of the evaluations that decides which checkpoint is the best, model_best.pth, and when
    # to stop early: such as "bbox/AP", or "validation/total_loss" (see VALIDATION_LOSS); "": none.
    # Of a metric with "loss" in its name, smaller values are better; of all others, larger ones.
    cfg.TEST.BEST_METRIC = ""
    # Number of best checkpoints to keep.
    cfg.TEST.BEST_TO_KEEP = 1
    # Training ends after so many evaluations without a better BEST_METRIC; 0: it does not.
    cfg.TEST.EARLY_STOPPING_PATIENCE = 0
    # Evaluations also give the training losses on the test sets, as validation/total_loss, ...
    cfg.TEST.VALIDATION_LOSS = False
    # What computes COCO's metrics: "pycocotools" or "faster-coco-eval" (extra `fast-eval`), or
    # "auto": the latter where it is installed. Their numbers are the same.
    # TEST.DETECTIONS_PER_IMAGE over 100 raises the number of detections that they count, too.
    cfg.TEST.EVAL_BACKEND = "auto"

    # Non-maximum suppression of detections. Its IoU threshold is Detectron2's own key
    # MODEL.ROI_HEADS.NMS_THRESH_TEST or MODEL.RETINANET.NMS_THRESH_TEST.
    cfg.TEST.NMS = CfgNode()
    # "hard", or Soft-NMS: "linear" or "gaussian" (which has no IoU threshold).
    cfg.TEST.NMS.TYPE = "hard"
    # Soft-NMS "gaussian": a score is multiplied by exp(-IoU^2 / SIGMA).
    cfg.TEST.NMS.SIGMA = 0.5
    # Soft-NMS: detections whose lowered score is below this are dropped.
    cfg.TEST.NMS.MIN_SCORE = 0.001

    # Share of the images that DATALOADER.SAMPLER_TRAIN "RandomSubsetTrainingSampler" takes. Read by
    # Detectron2, too, but not defined there.
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = 1.0
    # An image that is missing or cannot be read: "skip" it with a warning, or "stop" the run.
    cfg.DATALOADER.ON_BAD_IMAGE = "skip"

    # Python files, such as "my_heads.py", and modules, such as "my_package.heads", to import first:
    # they register components or data sets of your own. Files are relative to the config that
    # names them. See docs/own_components.md.
    cfg.IMPORTS = ()

    # Goes into a folder of OUTPUT_DIR, named by the time and this brief description of the run,
    # such as "wide-anchors"; "": the run goes into OUTPUT_DIR itself.
    cfg.OUTPUT_BRIEF = ""

    # What Libra R-CNN balances, measured while it trains: scalars, and a picture balance.png.
    cfg.BALANCE = CfgNode()
    # Steps from one measurement to the next; 0: none.
    cfg.BALANCE.PERIOD = 50

    # Tracking of a run by MLflow (pip install libra_d2[mlflow]).
    cfg.MLFLOW = CfgNode()
    cfg.MLFLOW.ENABLED = False
    # Server or data base; "": $MLFLOW_TRACKING_URI, or else MLflow's own, mlflow.db in the working
    # folder.
    cfg.MLFLOW.TRACKING_URI = ""
    cfg.MLFLOW.EXPERIMENT = "libra_d2"
    # True uploads model_final.pth and model_best.pth at the end, too.
    cfg.MLFLOW.LOG_CHECKPOINTS = False

    # Version of libra_d2 that has saved a config of a run. Not to be set.
    cfg.LIBRA_VERSION = __version__
