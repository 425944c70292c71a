import numpy as np
import pytest

from libra_d2.config.flattening import set_value
from libra_d2.data.checks.config_limits import config_limits
from libra_d2.planning.limits import plan_detections, plan_nms, plan_positives, plan_proposals

from ..support.project import ROOT
from .made_up import config, log_normal_shapes, notes, training_set, values

RETINANET = str(ROOT / "configs/libra_retinanet_r50.yaml")


def dense(per_image=375, images=4):
    rng = np.random.default_rng(0)
    return training_set(log_normal_shapes(rng, per_image * images, 20), per_image)


def sparse():
    return training_set(np.full((20, 2), 90.0), 2)


def test_few_objects_change_nothing():
    cfg = config()
    for rule in (plan_detections, plan_proposals, plan_positives, plan_nms):
        assert not values(rule(sparse(), cfg))


def test_dense_images_get_more_of_everything():
    cfg = config()
    assert values(plan_detections(dense(), cfg)) == {"TEST.DETECTIONS_PER_IMAGE": 450}
    proposals = values(plan_proposals(dense(), cfg))
    assert proposals["MODEL.RPN.POST_NMS_TOPK_TEST"] >= 2 * 375
    assert proposals["MODEL.RPN.PRE_NMS_TOPK_TEST"] >= proposals["MODEL.RPN.POST_NMS_TOPK_TEST"]
    assert "MODEL.RPN.POST_NMS_TOPK_TRAIN" not in proposals  # 1000 are enough
    positives = values(plan_positives(dense(), cfg))
    size = positives["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"]
    assert size == 512  # no more: time
    assert size * positives["MODEL.ROI_HEADS.POSITIVE_FRACTION"] == 256
    assert positives["MODEL.RPN.BATCH_SIZE_PER_IMAGE"] == 1024


def test_budgets_follow_most_images_but_limits_follow_the_fullest():
    counts = [2] * 19 + [300]
    data = training_set(np.full((sum(counts), 2), 30.0), counts)
    assert values(plan_detections(data, config())) == {"TEST.DETECTIONS_PER_IMAGE": 360}
    assert not values(plan_positives(data, config()))


def test_crops_have_fewer_objects():
    cfg = config(
        *("INPUT.CROP.ENABLED", "True", "INPUT.CROP.TYPE", "absolute"),
        *("INPUT.CROP.SIZE", "[120, 160]"),  # a sixteenth of the image
    )
    assert values(plan_positives(dense(), config())) and not values(plan_positives(dense(), cfg))


def test_images_without_objects_do_not_lower_the_usual_number():
    data = training_set(np.full((1500, 2), 20.0), [300] * 5 + [0] * 95)
    assert values(plan_positives(data, config()))["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"] == 512


def test_training_on_crops_needs_fewer_proposals_than_testing_on_images():
    crops = config(
        *("INPUT.CROP.ENABLED", "True", "INPUT.CROP.TYPE", "absolute"),
        *("INPUT.CROP.SIZE", "[120, 160]"),  # a sixteenth of the image
    )
    whole, part = (values(plan_proposals(dense(3200), cfg)) for cfg in (config(), crops))
    test, train = "MODEL.RPN.POST_NMS_TOPK_TEST", "MODEL.RPN.POST_NMS_TOPK_TRAIN"
    assert part[test] == whole[test] == whole[train] == 7700
    assert train not in part


def test_candidates_follow_the_scale_of_training_and_of_testing():
    """At another scale, all objects of an image can be on the same level."""
    shapes = np.tile([(47.0, 47.0), (62.0, 62.0)], (2000, 1))
    data = training_set(shapes, 1000, size=(800, 800))
    cfg = config(
        *("INPUT.MIN_SIZE_TRAIN", "(640, 800)", "INPUT.MAX_SIZE_TRAIN", "1333"),
        *("INPUT.MIN_SIZE_TEST", "800", "INPUT.MAX_SIZE_TEST", "1333"),
    )
    for key, value in values(plan_proposals(data, cfg)).items():
        set_value(cfg, key, value)
    for split in ("train", "test"):
        found = config_limits(data.objects, data.file_names, cfg, split)
        assert not [f for f in found if f.check in ("candidates_limit", "proposals_limit")]


def test_retinanet_has_candidates_and_no_positives():
    cfg = config(config_file=RETINANET)
    planned = values(plan_proposals(dense(), cfg))
    assert set(planned) == {"MODEL.RETINANET.TOPK_CANDIDATES_TEST"}
    assert not plan_positives(dense(), cfg)


def overlapping(ious, num_pairs, others):
    """Pairs of one class with these IoUs (of equal boxes, shifted), and single objects."""
    shapes, corners, counts = [], [], []
    for i in range(num_pairs):
        iou = ious[i % len(ious)]
        shift = 100 * (1 - iou) / (1 + iou)
        shapes += [(100, 100)] * 2
        corners += [(0, 0), (shift, 0)]
        counts.append(2)
    shapes += [(100, 100)] * others
    corners += [(0, 0)] * others
    counts += [1] * others
    return training_set(shapes, counts, corners=corners)


def test_nested_objects_of_a_class_raise_the_threshold_of_nms():
    advice = plan_nms(overlapping([0.62], 50, 50), config())
    assert values(advice) == {"MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.65}
    (setting,) = advice
    assert setting.why.startswith("50 pairs of objects of a class overlap by an IoU above 0.5")


def test_more_overlap_needs_soft_nms_and_more_proposals():
    planned = values(plan_nms(overlapping([0.88], 50, 50), config()))
    assert planned == {"TEST.NMS.TYPE": "gaussian", "MODEL.RPN.NMS_THRESH": 0.9}


def test_a_few_pairs_are_said_but_change_nothing():
    advice = plan_nms(overlapping([0.62], 2, 1000), config())
    assert not values(advice) and notes(advice).startswith("2 pairs")


def test_doubled_annotations_are_no_overlap():
    assert not plan_nms(overlapping([0.99], 50, 50), config())


@pytest.mark.parametrize("same", [True, False])
def test_objects_of_two_classes_concern_only_the_proposals(same):
    data = overlapping([0.78], 50, 0)
    if not same:
        data.objects.classes[1::2] = 1
    planned = values(plan_nms(data, config()))
    assert ("MODEL.ROI_HEADS.NMS_THRESH_TEST" in planned) is same
    assert planned["MODEL.RPN.NMS_THRESH"] == 0.8
