"""Test-time augmentation: by hand, for every detector of the family, and in the trainer."""

import functools
import json

import cv2
import numpy as np
import pytest
import torch
from detectron2.evaluation import inference_context
from detectron2.layers import batched_nms
from detectron2.modeling import GeneralizedRCNN, RetinaNet, build_model
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, BoxMode, Instances

from libra_d2.data import LibraDatasetMapper, setup_datasets
from libra_d2.engine import LibraTrainer, load_cfg
from libra_d2.errors import UserError
from libra_d2.modeling import build_tta

from ..support.coco_files import write_dataset
from ..support.models import NARROW
from ..support.soft_nms_cases import CASCADE, FASTER, LOW, RETINANET, SPREAD, reference

FAST = "MODEL.LOAD_PROPOSALS True MODEL.PROPOSAL_GENERATOR.NAME PrecomputedProposals".split()
# Of the head that a detector does not have: another threshold, and classes that are too few.
OTHER_HEAD = {
    "RCNN": "MODEL.RETINANET.NMS_THRESH_TEST 0.9 MODEL.RETINANET.NUM_CLASSES 1 "
    "MODEL.ROI_HEADS.NMS_THRESH_TEST 0.3",
    "RetinaNet": "MODEL.ROI_HEADS.NMS_THRESH_TEST 0.9 MODEL.ROI_HEADS.NUM_CLASSES 1 "
    "MODEL.RETINANET.NMS_THRESH_TEST 0.3",
}
FAMILY = {
    "faster": (FASTER, []),
    "mask": ("configs/libra_mask_r50.yaml", []),
    "cascade": (CASCADE, []),
    "fast": (FASTER, FAST),
    "retinanet": (RETINANET, []),
    "detectron2's retinanet": (
        RETINANET,
        "MODEL.META_ARCHITECTURE RetinaNet MODEL.RETINANET.BBOX_REG_LOSS_TYPE smooth_l1".split(),
    ),
}


def config_of(member, *opts):
    config, own = FAMILY[member]
    other = OTHER_HEAD["RetinaNet" if "retinanet" in member else "RCNN"].split()
    cfg = load_cfg(config, [*NARROW, *LOW, *other, *own, "TEST.AUG.MIN_SIZES", "(64,)", *opts])
    assert cfg.TEST.AUG.FLIP  # upstream's default
    return cfg


@functools.cache
def model_of(member):
    """Its NMS suppresses nothing, so that all suppression is the merge's."""
    none = "MODEL.ROI_HEADS.NMS_THRESH_TEST 1.0 MODEL.RETINANET.NMS_THRESH_TEST 1.0".split()
    torch.manual_seed(0)
    model = build_model(config_of(member, *none)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "cls_score.weight" in name:
                parameter.mul_(0.1 if member == "mask" else SPREAD[FAMILY[member][0]])
    return model


def record(mirrored=False, num_proposals=12):
    """A file of 48x32 pixels, read as an image of twice the size."""
    g = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 3, 8, 12, generator=g) * 255
    image = torch.nn.functional.interpolate(coarse, (64, 96), mode="bilinear")[0].to(torch.uint8)
    xy = torch.rand(num_proposals, 2, generator=g) * 30
    boxes = torch.cat([xy, xy + 8 + torch.rand(num_proposals, 2, generator=g) * 26], dim=1)
    proposals = Instances((64, 96))
    proposals.objectness_logits = torch.linspace(2, -2, num_proposals)
    if mirrored:
        image = image.flip(2)
        boxes = mirror(boxes, 96)
    proposals.proposal_boxes = Boxes(boxes)
    return {"image": image, "height": 32, "width": 48, "proposals": proposals}


def mirror(boxes, width):
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=1)


@torch.no_grad()
def union_by_hand(model):
    """Detections in the image, and those in its mirror image, mirrored: pixels of the file."""
    plain, mirrored = (model([record(m)])[0]["instances"] for m in (False, True))
    boxes = torch.cat([plain.pred_boxes.tensor, mirror(mirrored.pred_boxes.tensor, 48)])
    scores = torch.cat([plain.scores, mirrored.scores])
    return boxes, scores, torch.cat([plain.pred_classes, mirrored.pred_classes])


@pytest.mark.parametrize("nms_type", ["hard", "linear", "gaussian"])
@pytest.mark.parametrize("member", FAMILY)
def test_flip_by_hand(member, nms_type):
    """
    What the merge keeps of the union. With flips not undone, with the NMS settings of the other
    head, or with proposals that stay while the image is flipped, it would keep something else.
    """
    model = model_of(member)
    cfg = config_of(member, "TEST.NMS.TYPE", nms_type, "TEST.DETECTIONS_PER_IMAGE", "25")
    with torch.no_grad():
        found = build_tta(cfg, model)([record()])[0]["instances"]

    boxes, scores, classes = union_by_hand(model)
    if nms_type == "hard":
        keep = batched_nms(boxes, scores, classes, 0.3)
        expected = scores[keep]
    else:
        keep, expected = reference(boxes, scores, classes, nms_type, 0.3, 0.5, 0.001)
    assert 3 < len(keep) < len(boxes) or nms_type != "hard"  # else nothing is tested
    assert found.image_size == (32, 48)
    keep = torch.as_tensor(keep)
    expected = torch.as_tensor(expected, dtype=scores.dtype)
    assert len(found) == min(25, len(keep))
    torch.testing.assert_close(found.scores, expected[:25], rtol=1e-3, atol=1e-6)
    # Scores that are equal but for rounding may come in any order, and at the end either stays.
    away = torch.cdist(
        torch.cat([found.pred_boxes.tensor, 100.0 * found.pred_classes[:, None]], dim=1),
        torch.cat([boxes[keep], 100.0 * classes[keep][:, None]], dim=1),
        compute_mode="donot_use_mm_for_euclid_dist",
    )
    assert away.amin(1).max() < 0.02
    assert away.amin(0)[expected > expected[:25][-1] * 1.002].max() < 0.02


@pytest.mark.parametrize("member", FAMILY)
def test_mirror_image_has_mirrored_detections(member):
    """With all views merged and none suppressed, left and right are the same to a detector."""
    none = "MODEL.ROI_HEADS.NMS_THRESH_TEST 1.0 MODEL.RETINANET.NMS_THRESH_TEST 1.0".split()
    tta = build_tta(config_of(member, *none, "TEST.DETECTIONS_PER_IMAGE", "1000"), model_of(member))
    with torch.no_grad():
        a, b = (tta([record(m)])[0]["instances"] for m in (False, True))
    rows = [
        torch.cat([boxes, x.scores[:, None], x.pred_classes[:, None]], dim=1)
        for x, boxes in ((a, a.pred_boxes.tensor), (b, mirror(b.pred_boxes.tensor, 48)))
    ]
    # Thinner ones may be rounded to nothing by the mirror, and are then dropped.
    rows = [r[(r[:, 2:4] - r[:, :2]).amin(1) > 1e-3] for r in rows]
    assert len(rows[0]) == len(rows[1]) > 10
    nearest = torch.cdist(*rows, compute_mode="donot_use_mm_for_euclid_dist")  # which rounds
    assert nearest.amin(0).max() < 0.01 and nearest.amin(1).max() < 0.01


def test_masks_are_in_their_boxes():
    model, cfg = model_of("mask"), config_of("mask")
    with torch.no_grad():
        found = build_tta(cfg, model)([record()])[0]["instances"]
    assert found.pred_masks.shape == (len(found), 32, 48) and found.pred_masks.dtype == torch.bool
    assert found.pred_masks.any()
    for mask, (x1, y1, x2, y2) in zip(found.pred_masks, found.pred_boxes.tensor.tolist()):
        ys, xs = mask.nonzero(as_tuple=True)
        if len(xs):
            assert xs.min() >= x1 - 1 and xs.max() <= x2 + 1
            assert ys.min() >= y1 - 1 and ys.max() <= y2 + 1
    assert model.roi_heads.mask_on  # as it was


def as_input(cfg, folder, boxes=((10, 8, 30, 24),)):
    """
    What the loader of evaluation makes of a file of 60x40 pixels: black, with a white rectangle
    left of the middle, which is also the first proposal.
    """
    image = np.zeros((40, 60, 3), np.uint8)
    image[8:24, 10:30] = 255
    cv2.imwrite(str(folder / "image.png"), image)
    mapper = LibraDatasetMapper(cfg, is_train=False)
    read = mapper(
        {
            **{"file_name": str(folder / "image.png"), "height": 40, "width": 60, "image_id": 1},
            "proposal_boxes": np.array(boxes, np.float32).reshape(-1, 4),
            "proposal_bbox_mode": BoxMode.XYXY_ABS,
            "proposal_objectness_logits": np.linspace(1, 0, len(boxes), dtype=np.float32),
        }
    )
    assert read["image"].shape == (3, 80, 120)
    return read


STUBBED = "INPUT.MIN_SIZE_TEST 80 TEST.AUG.MIN_SIZES (40,60,100) TEST.AUG.MAX_SIZE 140".split()


def white_rectangle(image):
    ys, xs = (image[0] > 127).nonzero(as_tuple=True)
    return torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()[None]


class Views(torch.nn.Module):
    """For stubs: what a detector was given."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.roi_heads, self.batches = torch.nn.Identity(), []

    def find(self, inputs):
        self.batches.append(inputs)
        return [self.find_in(x) for x in inputs]

    def find_in(self, x):
        result = Instances(tuple(x["image"].shape[1:]))
        result.pred_boxes = Boxes(white_rectangle(x["image"]))
        result.scores = torch.full((len(result.pred_boxes),), 0.9)
        result.pred_classes = torch.zeros(len(result.pred_boxes), dtype=torch.int64)
        return result


class RectangleRCNN(Views, GeneralizedRCNN):
    def inference(self, batched_inputs, detected_instances=None, do_postprocess=True):
        assert not do_postprocess
        return self.find(batched_inputs)


class RectangleRetinaNet(Views, RetinaNet):
    def forward(self, batched_inputs):
        results = []
        for x, found in zip(batched_inputs, self.find(batched_inputs)):
            size = x.get("height", found.image_size[0]), x.get("width", found.image_size[1])
            results.append({"instances": detector_postprocess(found, *size)})
        return results


class ProposalsAreDetections(RectangleRCNN):
    def find_in(self, x):
        proposals = x["proposals"]
        assert proposals.image_size == tuple(x["image"].shape[1:])
        if len(proposals):
            seen = white_rectangle(x["image"])
            assert (proposals.proposal_boxes.tensor[:1] - seen).abs().max() < 1.5
        result = Instances(proposals.image_size)
        result.pred_boxes = proposals.proposal_boxes
        result.scores = proposals.objectness_logits.sigmoid()
        result.pred_classes = torch.zeros(len(proposals), dtype=torch.int64)
        return result


@pytest.mark.parametrize("stub", [RectangleRCNN, RectangleRetinaNet])
def test_file_to_detections_in_pixels_of_the_file(stub, tmp_path):
    """40x60 is read as 80x120, and seen as 40x60, 60x90 and (by MAX_SIZE) 93x140; each flipped."""
    cfg, model = config_of("faster", *STUBBED), stub().eval()
    found = build_tta(cfg, model)([as_input(cfg, tmp_path)])[0]["instances"]
    assert found.image_size == (40, 60)
    assert len(found) == 1, "six views of one object"
    error = found.pred_boxes.tensor - torch.tensor([[10.0, 8, 30, 24]])
    assert error.abs().max() < 1
    views = [x["image"] for inputs in model.batches for x in inputs]
    assert [tuple(v.shape[1:]) for v in views] == [
        *[(40, 60)] * 2,
        *[(60, 90)] * 2,
        *[(93, 140)] * 2,
    ]
    assert [len(b) for b in model.batches] == [3, 3]
    for view, flipped in zip(views[::2], views[1::2]):
        assert torch.equal(view, flipped.flip(2))


def test_proposals_are_augmented_with_their_image(tmp_path):
    """The stub compares them in every view; the last reaches out of the image and is clipped."""
    cfg, model = config_of("fast", *STUBBED), ProposalsAreDetections().eval()
    boxes = [[10.0, 8, 30, 24], [40, 5, 55, 12], [50, 30, 70, 45]]
    given = as_input(cfg, tmp_path, boxes)
    before = given["proposals"].proposal_boxes.tensor.clone()
    found = build_tta(cfg, model)([given])[0]["instances"]
    boxes[2] = [50.0, 30, 60, 40]
    torch.testing.assert_close(found.pred_boxes.tensor, torch.tensor(boxes), rtol=0, atol=1e-3)
    scores = torch.linspace(1, 0, 3).sigmoid()
    torch.testing.assert_close(found.scores, scores, rtol=0, atol=1e-5)
    assert sum(map(len, model.batches)) == 6
    assert torch.equal(given["proposals"].proposal_boxes.tensor, before)


@pytest.mark.parametrize("nms_type", ["hard", "linear", "gaussian"])
def test_nothing_found(nms_type, tmp_path):
    cfg = config_of("fast", *STUBBED, "TEST.NMS.TYPE", nms_type)
    tta = build_tta(cfg, ProposalsAreDetections().eval())
    assert len(tta([as_input(cfg, tmp_path, boxes=())])[0]["instances"]) == 0


@torch.no_grad()
def test_no_masks_of_nothing(monkeypatch):
    model = model_of("mask")
    monkeypatch.setattr(model.roi_heads.box_predictor, "test_score_thresh", 1.0)
    found = build_tta(config_of("mask"), model)([record()])[0]["instances"]
    assert len(found) == 0 and found.pred_masks.shape == (0, 32, 48)


@pytest.mark.parametrize("member", ["faster", "fast", "retinanet"])
def test_an_unreadable_image_is_not_augmented(member, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not an image")
    cfg = config_of(member)
    read = LibraDatasetMapper(cfg, is_train=False)(
        {
            **{"file_name": str(tmp_path / "broken.png"), "height": 4000, "width": 6000},
            "proposal_boxes": np.array([[1.0, 2, 3, 4]]),
            "proposal_bbox_mode": BoxMode.XYXY_ABS,
            "proposal_objectness_logits": np.array([0.5]),
        }
    )
    tta = build_tta(cfg, model_of(member))
    tta.tta_mapper = None
    with torch.no_grad():
        assert list(tta([read])[0]) == ["instances"]


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_the_mode_of_the_model(training):
    model = RectangleRCNN().train(training)
    model.roi_heads.eval()  # a part that was set apart
    tta = build_tta(config_of("faster"), model)
    assert model.training == training and not model.roi_heads.training
    with inference_context(tta):
        assert not model.training
    assert model.training == training


@pytest.mark.parametrize(
    "opts, named",
    [
        ("MODEL.KEYPOINT_ON True", "must be False if MODEL.KEYPOINT_ON is True"),
        ("TEST.AUG.MIN_SIZES ()", r"TEST.AUG.MIN_SIZES must have .*, got \(\)"),
        ("MODEL.META_ARCHITECTURE ProposalNetwork", "META_ARCHITECTURE 'ProposalNetwork'"),
    ],
)
def test_what_cannot_be_augmented_is_refused_by_name(opts, named):
    model = torch.nn.Identity() if "ProposalNetwork" in opts else RectangleRCNN()
    with pytest.raises(UserError, match=named):
        build_tta(config_of("faster", *opts.split()), model)


def test_training_and_evaluation_report_both(tmp_path):
    files = write_dataset(tmp_path, num_images=2)
    cfg = load_cfg(
        FASTER,
        [
            *NARROW,
            *LOW[:6],
            *("DATASETS.TRAIN", f"coco:{files[0]},{files[1]}"),
            *("DATASETS.TEST", f"coco:{files[0]},{files[1]}"),
            *("OUTPUT_DIR", str(tmp_path / "out"), "MODEL.WEIGHTS", ""),
            *"DATALOADER.NUM_WORKERS 0 SOLVER.MAX_ITER 2 SOLVER.STEPS (1,)".split(),
            *"SOLVER.IMS_PER_BATCH 2 INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64".split(),
            *"TEST.AUG.ENABLED True TEST.AUG.MIN_SIZES (48,80)".split(),
            *"TEST.EVAL_PERIOD 1 TEST.BEST_METRIC bbox/AP".split(),
            *(
                "TEST.EXPECTED_RESULTS",
                "[['bbox_TTA', 'AP50', 50.0, 50.0]]",
            ),  # so they are returned
        ],
    )
    (tmp_path / "out").mkdir()
    setup_datasets(cfg, num_classes_given=False)
    trainer = LibraTrainer(cfg)
    trainer.resume_or_load(resume=False)
    at_end = trainer.train()
    assert sorted(at_end) == ["bbox", "bbox_TTA"] and "AP50" in at_end["bbox_TTA"]
    lines = [json.loads(x) for x in (tmp_path / "out/metrics.json").read_text().splitlines()]
    assert lines[-1]["bbox_TTA/AP"] == pytest.approx(at_end["bbox_TTA"]["AP"])
    assert lines[-2]["bbox/AP"] == pytest.approx(at_end["bbox"]["AP"])  # of the last step
    assert trainer.model.training

    found = [
        json.loads(p.read_text())
        for folder in ("inference", "inference_TTA")
        for p in (tmp_path / "out" / folder).glob("*/coco_instances_results.json")
    ]
    assert len(found) == 2 and found[0] and found[1] and found[0] != found[1]

    cfg.MODEL.WEIGHTS = str(tmp_path / "out/model_final.pth")
    assert json.dumps(LibraTrainer.evaluate(cfg)) == json.dumps(at_end)  # NaN equals NaN

    cfg.TEST.AUG.ENABLED = False
    assert list(LibraTrainer.evaluate(cfg)) == ["bbox"]


def test_a_bad_setting_is_refused_before_any_evaluation(monkeypatch, tmp_path):
    cfg = config_of("faster", "TEST.AUG.ENABLED", "True", "OUTPUT_DIR", str(tmp_path))
    cfg.TEST.AUG.MIN_SIZES, cfg.DATASETS.TEST = (), ("shapes_val",)
    torch.save({"model": model_of("faster").state_dict()}, tmp_path / "model.pth")
    cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    monkeypatch.setattr(LibraTrainer, "test", lambda *args: pytest.fail("it was evaluated"))
    with pytest.raises(UserError, match=r"TEST\.AUG\.MIN_SIZES"):
        LibraTrainer.evaluate(cfg)
