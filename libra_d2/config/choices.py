"""Allowed values of settings with a fixed set of choices."""

# SOLVER
OPTIMIZERS = ("SGD", "AdamW")
CLIP_TYPES = ("value", "norm", "global_norm")
SCHEDULERS = ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR")
WARMUP_METHODS = ("linear", "constant")
AMP_DTYPES = ("float16", "bfloat16")

# DATALOADER, INPUT
TRAIN_SAMPLERS = (
    "TrainingSampler",
    "RepeatFactorTrainingSampler",
    "RandomSubsetTrainingSampler",
    "WeightedTrainingSampler",
    "WeightedCategoryTrainingSampler",
)
ON_BAD_IMAGE = ("skip", "stop")
IMAGE_FORMATS = ("BGR", "RGB")
MASK_FORMATS = ("polygon", "bitmask")
MIN_SIZE_SAMPLING = ("choice", "range")
FLIPS = ("horizontal", "vertical", "none")
CROP_TYPES = ("relative_range", "relative", "absolute", "absolute_range")

# MODEL
WEIGHTS_SCHEMES = ("https", "http", "detectron2", "catalog", "torchvision", "timm")
REFINE_TYPES = ("none", "conv", "non_local")
UPSTREAM_BOX_REG_LOSS_TYPES = ("smooth_l1", "giou", "diou", "ciou")
BOX_REG_LOSS_TYPES = ("balanced_l1", *UPSTREAM_BOX_REG_LOSS_TYPES)
BALANCED_L1_FORMS = ("continuous", "mmdet")
POSITIVES = ("instance_balanced", "random")
NEGATIVES = ("iou_balanced", "random")
BIN_RANGES = ("paper", "mmdet")
CLASSIFIER_NORMS = ("FrozenBN", "BN", "SyncBN")
RESNET_DEPTHS = (18, 34, 50, 101, 152)
TORCHVISION_CLASSIFIERS = (
    "convnext_small",
    "convnext_tiny",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "resnet101",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnext50_32x4d",
)

# TEST
NMS_TYPES = ("hard", "linear", "gaussian")
EVAL_BACKENDS = ("auto", "pycocotools", "faster-coco-eval")

# Options of commands
IOU_TYPES = ("bbox", "segm")
EXPORT_FORMATS = ("torchscript", "onnx")
PRELABEL_FORMATS = ("coco", "cvat", "label-studio", "voc", "yolo", "fiftyone")
PICTURE_FORMATS = ("jpg", "png")
WEIGHTS_FORMATS = ("detectron2", "mmdet")
