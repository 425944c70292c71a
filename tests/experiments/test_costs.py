"""What configs cost. No test asserts a time, which depends on the machine."""

import pytest
import torch
from detectron2.structures import BitMasks, PolygonMasks

from libra_d2.config import load_cfg
from libra_d2.errors import UserError
from libra_d2.experiments.costs import CostOptions, measure, measure_costs, measuring
from libra_d2.experiments.costs.flops import count_flops
from libra_d2.experiments.costs.made_up_images import image_shape, made_up_batch
from libra_d2.experiments.costs.random_models import found_in, random_model
from libra_d2.experiments.costs.stages import StageClock
from libra_d2.inference.torch_runner import inference_precision
from libra_d2.modeling.build import build_model
from libra_d2.planning.measuring import measured_by

from ..support.detector_runs import RETINANET
from ..support.models import NARROW

CPU = torch.device("cpu")
TINY = [*NARROW, "MODEL.RPN.POST_NMS_TOPK_TEST", "100", "MODEL.WEIGHTS", ""]
MASKS = (
    "MODEL.MASK_ON True MODEL.ROI_MASK_HEAD.NAME MaskRCNNConvUpsampleHead "
    "MODEL.ROI_MASK_HEAD.NUM_CONV 1 MODEL.ROI_MASK_HEAD.CONV_DIM 8"
).split()
KEYPOINTS = (
    "MODEL.KEYPOINT_ON True MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS (8,) "
    "MODEL.ROI_HEADS.NUM_CLASSES 1 MODEL.RETINANET.NUM_CLASSES 1"
).split()
PANOPTIC = ["MODEL.META_ARCHITECTURE", "PanopticFPN", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "32", *MASKS]
CASCADE = (
    "MODEL.ROI_HEADS.NAME LibraCascadeROIHeads MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True"
).split()
FAST = (
    "MODEL.LOAD_PROPOSALS True MODEL.PROPOSAL_GENERATOR.NAME PrecomputedProposals "
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST 60"
).split()
NO_BFP = ["MODEL.BFP.ENABLED", "False"]

START = ("pre-processing", "backbone", "FPN", "BFP")
TWO_STAGES = (*START, "RPN", "proposals", "box head")
# Options of a detector -> its stages before "post-processing".
DETECTORS = {
    "faster": ([], TWO_STAGES),
    "baseline": (NO_BFP, (*START[:3], *TWO_STAGES[4:])),
    "cascade": (CASCADE, TWO_STAGES),
    "mask": (MASKS, (*TWO_STAGES, "mask head")),
    "keypoint": (KEYPOINTS, (*TWO_STAGES, "keypoint head")),
    "panoptic": (PANOPTIC, (*START, "semantic head", *TWO_STAGES[4:], "mask head")),
    "fast": (FAST, (*START, "box head")),
    "retinanet": (RETINANET, (*START, "head")),
}


def tiny(*opts):
    return load_cfg("configs/libra_mobilenet_v2.yaml", [*TINY, *opts])


def full_precision():
    return inference_precision(CPU, False)


def model_and_image(cfg, shape=(96, 128)):
    image = made_up_batch(cfg, 1, shape, 0)[0]
    return random_model(cfg, image, full_precision()), image


@pytest.mark.parametrize("name", DETECTORS)
def test_each_detector_is_measured_by_its_stages(name):
    opts, stages = DETECTORS[name]
    cfg = tiny(*opts)
    options = CostOptions(repeats=2, size=(96, 128), batch_size=2, num_objects=3, memory=False)
    measured = measure({"a": cfg}, options)["a"]
    assert tuple(measured.stage_seconds) == (*stages, "post-processing")
    times = [measured.step_seconds, measured.inference_seconds, *measured.stage_seconds.values()]
    assert all(len(values) == 2 and min(values) > 0 for values in times)
    assert measured.parameters == sum(p.numel() for p in build_model(cfg).parameters())
    assert measured.flops_error == "" and measured.flops > 10**6
    assert (measured.step_images, measured.inference_images) == (2, 2)
    assert measured.train_shape == measured.test_shape == (96, 128)
    assert (measured.found.proposals is None) == (name == "retinanet")
    assert 0 < measured.found.detections <= 100
    assert (measured.peak_memory, measured.memory_error) == (None, "")


def test_a_backbone_without_pyramid_is_one_stage():
    cfg = load_cfg("", ["MODEL.DEVICE", "cpu", "MODEL.RPN.POST_NMS_TOPK_TEST", "10", *NARROW])
    model, image = model_and_image(cfg)
    clock = StageClock(model)
    stages = ("pre-processing", "backbone", "RPN", "proposals", "box head", "post-processing")
    assert clock.stages == stages
    with torch.inference_mode():
        assert min(clock(lambda: model([image])).values()) > 0
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_variants_are_measured_in_turn_and_warm():
    order = []

    def call(name):
        order.append(name)
        return len(order)

    values = measuring._rounds({n: lambda n=n: call(n) for n in "ab"}, 3, "Test")
    assert order == ["a", "b"] * (measuring.WARM_UP + 3)
    first = 2 * measuring.WARM_UP
    assert values == {"a": [first + i for i in (1, 3, 5)], "b": [first + i for i in (2, 4, 6)]}
    with pytest.raises(UserError, match="repeats must be at least 1, got 0"):
        measuring._rounds({}, 0, "Test")


def test_costs_of_variants(tmp_path):
    sizes = ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"]
    sizes += ["SOLVER.IMS_PER_BATCH", "2", "OUTPUT_DIR", str(tmp_path / "run")]
    cfgs = {"libra": tiny(*sizes), "baseline": tiny(*sizes, *NO_BFP)}
    before = torch.get_rng_state()
    costs = measure_costs(cfgs, repeats=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(costs) == ["libra", "baseline"]
    for name, cost in costs.items():
        assert cost.parameters == sum(p.numel() for p in build_model(cfgs[name]).parameters())
        assert cost.step_seconds > 0 and cost.inference_seconds > 0
        # At least the weights, which have four bytes each.
        assert cost.peak_memory_mb > 4 * cost.parameters / 1e6
    assert costs["libra"].gflops > costs["baseline"].gflops
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["ProposalNetwork", "SemanticSegmentor"])
def test_a_model_without_detections_is_refused(kind):
    with pytest.raises(UserError, match=f"META_ARCHITECTURE must be a detector, got {kind}"):
        measure({"a": tiny("MODEL.META_ARCHITECTURE", kind)}, CostOptions(memory=False))


# FLOPs ---------------------------------------------------------------------------------------


def test_flops_grow_with_the_area_of_the_image():
    model, _ = model_and_image(tiny(*RETINANET, *NO_BFP))
    cfg = tiny()
    small, large = (
        count_flops(model, made_up_batch(cfg, 1, shape, 0)) for shape in ((128, 128), (256, 256))
    )
    assert large == 4 * small


def test_flops_of_the_attention_are_counted():
    """Four 1x1 convolutions and two products of L x L, with L = 8 * 8 positions of p4."""
    flops = {}
    for refine_type in ("none", "non_local"):
        model, image = model_and_image(
            tiny(*RETINANET, "MODEL.BFP.REFINE_TYPE", refine_type), (128, 128)
        )
        flops[refine_type] = count_flops(model, [image])
    length, channels = 8 * 8, 16
    expected = 4 * length * channels**2 + 2 * length**2 * channels
    assert flops["non_local"] - flops["none"] == expected


def test_flops_of_one_image_do_not_depend_on_the_batch():
    cfg = tiny(*RETINANET)
    flops = {
        n: measure({"a": cfg}, CostOptions(1, (64, 64), n, memory=False))["a"].flops for n in (1, 2)
    }
    assert flops[1] == flops[2]


def test_a_model_that_cannot_be_traced_has_a_reason(monkeypatch):
    def fails(*args):
        raise RuntimeError("no\ntracing")

    monkeypatch.setattr(measuring, "count_flops", fails)
    measured = measure({"a": tiny()}, CostOptions(1, (64, 64), 1, memory=False))["a"]
    assert measured.flops is None
    assert measured.flops_error == "the model cannot be traced: no tracing"


# Random models -------------------------------------------------------------------------------


def test_features_of_frozen_batch_norms_do_not_grow():
    """With fresh weights, those of this ResNet exceed 1000."""
    cfg = load_cfg("configs/libra_r50.yaml", TINY)
    model, image = model_and_image(cfg)
    with torch.no_grad():
        features = model.backbone(model.preprocess_image([image]).tensor)
    assert all(0.01 < feature.std() < 30 for feature in features.values())


@pytest.mark.parametrize("opts", [[], CASCADE, RETINANET], ids=["faster", "cascade", "retinanet"])
def test_as_many_scores_pass_the_threshold_as_detections_are_allowed(opts):
    model, image = model_and_image(tiny(*opts, "TEST.DETECTIONS_PER_IMAGE", "30"))
    if opts == RETINANET:
        model.test_nms_thresh, model.max_detections_per_image = 1.0, 10**6
    else:
        predictor = model.roi_heads.box_predictor
        predictor = predictor[-1] if opts else predictor
        predictor.test_nms_thresh, predictor.test_topk_per_image = 1.0, 10**6
    assert found_in(model, image, full_precision()).detections == 30


def test_a_model_is_always_the_same():
    torch.manual_seed(1)
    first = model_and_image(tiny())[0]
    torch.manual_seed(2)
    second = model_and_image(tiny())[0]
    weights = second.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in first.state_dict().items())
    assert (
        first.roi_heads.box_predictor.test_score_thresh
        == second.roi_heads.box_predictor.test_score_thresh
    )


@pytest.mark.parametrize("options", [{"amp": True}, {"fuse": True}], ids=["amp", "fuse"])
def test_precision_and_fusing(options):
    measured = measure({"a": tiny()}, CostOptions(1, (64, 96), 1, memory=False, **options))["a"]
    assert measured.parameters == sum(p.numel() for p in build_model(tiny()).parameters())
    assert measured.found.detections > 0


# Made-up images ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "opts, train, test",
    [
        ([], (320, 427), (320, 427)),
        (["INPUT.MIN_SIZE_TRAIN", "(64, 128)"], (128, 171), (320, 427)),
        (["INPUT.MAX_SIZE_TEST", "400"], (320, 427), (300, 400)),
        (["INPUT.MIN_SIZE_TEST", "0"], (320, 427), (480, 640)),
        (["INPUT.FIXED_SIZE", "(100, 200)"], (100, 200), (100, 200)),
        (["INPUT.FIXED_SIZE", "(96, 256)", "INPUT.KEEP_RATIO", "True"], (96, 128), (96, 128)),
    ],
)
def test_sizes_of_the_config(opts, train, test):
    cfg = tiny(*opts)
    assert image_shape(cfg, is_train=True) == train
    assert image_shape(cfg, is_train=False) == test


@pytest.mark.parametrize("format, kind", [("polygon", PolygonMasks), ("bitmask", BitMasks)])
@pytest.mark.parametrize("number", [0, 4])
def test_objects_have_the_annotations_that_the_config_needs(format, kind, number):
    cfg = tiny(*MASKS, *KEYPOINTS, *FAST, "INPUT.MASK_FORMAT", format)
    batch = made_up_batch(cfg, 2, (64, 96), number)
    assert [record["image"].shape for record in batch] == [(3, 64, 96)] * 2
    for record in batch:
        target = record["instances"]
        boxes = target.gt_boxes
        assert len(boxes) == number and boxes.nonempty().all() and boxes.inside_box((64, 96)).all()
        assert isinstance(target.gt_masks, kind) and len(target.gt_masks) == number
        assert target.gt_keypoints.tensor.shape == (number, 17, 3)
        assert target.gt_classes.tolist() == [0] * number  # there is one class
        assert len(record["proposals"]) == 60
    assert not torch.equal(batch[0]["image"], batch[1]["image"])


def test_a_process_that_fails_is_one_line():
    with pytest.raises(UserError, match=r"could not be measured: .*No module named .*nothing"):
        measured_by("libra_d2.nothing", tiny())
