import copy
import logging

import pytest
import torch
from detectron2.modeling import build_model

from libra_d2.checkpoint import LibraCheckpointer, mmdet
from libra_d2.checkpoint.foreign import adapt
from libra_d2.engine import load_cfg
from libra_d2.errors import UserError

from .mmdet_models import MANIFESTS, state_dict

CONFIGS = {
    "libra-faster-rcnn_r50_fpn_1x_coco": "libra_r50",
    "libra-faster-rcnn_r101_fpn_1x_coco": "libra_r101",
    "libra-faster-rcnn_x101-64x4d_fpn_1x_coco": "libra_x101",
    "libra-retinanet_r50_fpn_1x_coco": "libra_retinanet_r50",
    "libra-fast-rcnn_r50_fpn_1x_coco": "libra_fast_r50",
}


def empty(model):
    """
    Return a state dict with the published names and shapes that takes no memory for its values.
    """
    return {k: torch.empty(v, device="meta") for k, v in MANIFESTS[model].items()}


def cfg_of(name, *opts):
    return load_cfg(f"configs/{name}.yaml", ["MODEL.DEVICE", "cpu", *opts])


@pytest.fixture(scope="module")
def faster_weights():
    return state_dict("libra-faster-rcnn_r50_fpn_1x_coco")


def test_there_is_a_config_for_each_published_model():
    assert set(CONFIGS) == set(MANIFESTS)


@pytest.mark.parametrize("name", MANIFESTS)
def test_names_and_shapes_are_those_of_our_model(name):
    with torch.device("meta"):
        model = build_model(cfg_of(f"mmdet/{CONFIGS[name]}", "MODEL.DEVICE", "meta"))
    converted, origin = adapt(empty(name), model)
    ours = {k: v.shape for k, v in model.state_dict().items()}
    assert {k: v.shape for k, v in converted.items()} == ours
    assert origin == "mmdetection 2.x or 3.x"


@pytest.mark.parametrize("name", MANIFESTS)
def test_there_and_back_is_the_identity(name):
    small = {  # every tensor with its own values; all rows, which is what may be moved
        k: torch.randn(v[:1] + [1] * len(v[1:])) if "num_batches" not in k else torch.tensor(7)
        for k, v in MANIFESTS[name].items()
    }
    before = copy.deepcopy(small)
    back = mmdet.to_mmdet(*mmdet.to_detectron2(small))
    assert list(back) == list(before)
    for key, value in before.items():
        assert torch.equal(back[key], value), key
        assert torch.equal(small[key], value), f"{key} of the input was changed"


@pytest.mark.parametrize("bfp", [True, False])
@pytest.mark.parametrize(
    "config", ["libra_r50", "libra_retinanet_r50", "libra_mask_r50", "libra_cascade_r50"]
)
def test_back_and_there_is_the_identity(config, bfp):
    """Weights trained by this package, with and without BFP, survive mmdetection's format."""
    with torch.device("meta"):
        model = build_model(cfg_of(config, "MODEL.BFP.ENABLED", str(bfp), "MODEL.DEVICE", "meta"))
    ours = {k: torch.randn(v.shape[:1]) for k, v in model.state_dict().items()}
    theirs = mmdet.to_mmdet(ours, {})
    assert mmdet.is_mmdet(theirs) and not any(k.startswith("backbone.fpn") for k in theirs)
    assert theirs["backbone.bn1.num_batches_tracked"] == 0
    again, _ = mmdet.to_detectron2(theirs)
    assert set(again) == set(ours)
    assert all(torch.equal(again[k], v) for k, v in ours.items())


HEADS = {
    "libra_mask_r50": {
        *(f"roi_head.mask_head.convs.{i}.conv" for i in range(4)),
        *("roi_head.mask_head.upsample", "roi_head.mask_head.conv_logits"),
        *(f"roi_head.bbox_head.shared_fcs.{i}" for i in range(2)),
        *("roi_head.bbox_head.fc_cls", "roi_head.bbox_head.fc_reg"),
    },
    "libra_cascade_r50": {
        f"roi_head.bbox_head.{stage}.{layer}"
        for stage in range(3)
        for layer in ("shared_fcs.0", "shared_fcs.1", "fc_cls", "fc_reg")
    },
}


@pytest.mark.parametrize("config", HEADS)
def test_heads_have_mmdetections_names(config):
    """The names are those of mmdetection's own Mask R-CNN and Cascade R-CNN."""
    with torch.device("meta"):
        model = build_model(cfg_of(config, "MODEL.DEVICE", "meta"))
    theirs = mmdet.to_mmdet(model.state_dict(), {})
    assert {k.rpartition(".")[0] for k in theirs if k.startswith("roi_head.")} == HEADS[config]


def test_what_mmdetection_has_no_name_for_is_refused():
    weights = {"backbone.bottom_up.res2.0.conv1.weight": torch.zeros(1)}
    constants = {"pixel_mean": torch.zeros(3), "anchor_generator.cell_anchors.0": torch.zeros(3, 4)}
    assert list(mmdet.to_mmdet({**constants, **weights}, {})) == ["backbone.layer1.0.conv1.weight"]
    weights["roi_heads.keypoint_head.conv_fcn1.weight"] = torch.zeros(1)
    with pytest.raises(
        UserError, match=r"no names for 1 tensors, .*keypoint_head.conv_fcn1.weight"
    ):
        mmdet.to_mmdet(weights, {})


def test_first_version_has_the_background_first(faster_weights):
    """
    In 1.x, there is no `roi_head.`, and row 0 is the background, which has box deltas as well.
    """
    old = {}
    for key, value in faster_weights.items():
        if ".fc_cls." in key:
            value = torch.cat([value[-1:], value[:-1]])
        elif ".fc_reg." in key:
            value = torch.cat([torch.full_like(value[:4], 9.0), value])
        old[key.replace("roi_head.", "")] = value
    model = build_model(cfg_of("mmdet/libra_r50"))
    new, _ = adapt(faster_weights, model)
    converted, origin = adapt(old, model)
    assert origin == "mmdetection 1.x"
    assert set(converted) == set(new)
    assert all(torch.equal(converted[k], v) for k, v in new.items())


def test_class_agnostic_boxes_of_the_first_version_are_kept(faster_weights):
    old = {
        "bbox_head.fc_cls.weight": torch.randn(81, 5),
        "bbox_head.fc_reg.weight": torch.randn(4, 5),
    }
    new, _ = mmdet.to_detectron2(old)
    assert torch.equal(
        new["roi_heads.box_predictor.bbox_pred.weight"], old["bbox_head.fc_reg.weight"]
    )


def test_anchors_of_retinanet_are_reordered():
    """mmdetection orders the 3 ratios and 3 sizes by ratio, Detectron2 by size."""
    classes = 2
    name = [f"{r}{s}" for r in "abc" for s in "123"]
    rows = torch.tensor([[ord(n[0]), int(n[1]), c] for n in name for c in range(classes)])
    weights = {
        "bbox_head.retina_cls.weight": rows,
        "bbox_head.retina_cls.bias": rows[:, 0],
        "bbox_head.retina_reg.weight": rows.repeat_interleave(2, 0),
        "bbox_head.retina_reg.bias": torch.arange(36),
    }
    ours, _ = mmdet.to_detectron2(weights)
    sizes_first = [(chr(r), s, c) for r, s, c in ours["head.cls_score.weight"].tolist()]
    assert sizes_first == [(r, s, c) for s in (1, 2, 3) for r in "abc" for c in range(classes)]
    assert ours["head.bbox_pred.bias"][:8].tolist() == [0, 1, 2, 3, 12, 13, 14, 15]


def test_retinanet_with_other_ratios_is_refused():
    with pytest.raises(UserError, match="for 4 anchors per cell"):
        mmdet.to_detectron2(
            {
                "bbox_head.retina_cls.weight": torch.zeros(8, 1),
                "bbox_head.retina_cls.bias": torch.zeros(8),
                "bbox_head.retina_reg.weight": torch.zeros(16, 1),
                "bbox_head.retina_reg.bias": torch.zeros(16),
            }
        )


@pytest.mark.parametrize(
    "name, message",
    [
        ("bbox_head.gfl_cls.weight", "only RetinaNet is supported"),
        ("bbox_head.0.fc_cls.weight", "Cascade R-CNN of mmdetection 1.x"),
        ("mask_head.conv_logits.weight", "Cascade R-CNN of mmdetection 1.x"),
    ],
)
def test_other_detectors_are_refused(name, message):
    with pytest.raises(UserError, match=message):
        mmdet.to_detectron2({"backbone.layer1.0.conv1.weight": torch.zeros(1), name: torch.ones(1)})


def test_norms_in_a_head_keep_their_names():
    weights = {
        "bbox_head.retina_cls.weight": torch.zeros(9, 1),
        "bbox_head.retina_cls.bias": torch.zeros(9),
        "bbox_head.retina_reg.weight": torch.zeros(36, 1),
        "bbox_head.retina_reg.bias": torch.zeros(36),
        "bbox_head.cls_convs.0.gn.weight": torch.zeros(1),
    }
    assert "bbox_head.cls_convs.0.gn.weight" in mmdet.to_detectron2(weights)[0]


@pytest.mark.parametrize("key", ["CLASSES", "dataset_meta"])
def test_classes_of_mmdetection_are_compared(tmp_path, caplog, key, faster_weights):
    theirs = ["traffic_light"] + [f"class {i}" for i in range(79)]
    meta = {key: tuple(theirs) if key == "CLASSES" else {"classes": tuple(theirs)}}
    torch.save({"state_dict": faster_weights, "meta": meta}, tmp_path / "m.pth")
    model = build_model(cfg_of("mmdet/libra_r50"))
    same = ["traffic light", *theirs[1:]]
    LibraCheckpointer(model, class_names=same, require_classes=True).load(
        str(tmp_path / "m.pth"), checkpointables=[]
    )
    with pytest.raises(UserError, match="They must be the same, in the same order"):
        LibraCheckpointer(model, class_names=same[::-1], require_classes=True).load(
            str(tmp_path / "m.pth"), checkpointables=[]
        )


def test_plain_detectors_load_and_say_what_is_new(tmp_path, caplog, faster_weights):
    """In a Faster R-CNN without BFP, the neck is not a list, and no weights refine the features."""
    plain = {
        k.replace("neck.0.", "neck."): v for k, v in faster_weights.items() if "refine" not in k
    }
    torch.save({"meta": {}, "state_dict": plain, "optimizer": {"state": {}}}, tmp_path / "m.pth")
    model = build_model(cfg_of("mmdet/libra_r50"))
    refine = copy.deepcopy(model.backbone.bfp.state_dict())
    with caplog.at_level(logging.INFO):
        LibraCheckpointer(model).load(str(tmp_path / "m.pth"))
    own = model.state_dict()
    assert torch.equal(
        own["backbone.fpn.fpn_lateral5.weight"], plain["neck.lateral_convs.3.conv.weight"]
    )
    assert torch.equal(
        own["roi_heads.box_head.fc1.bias"], plain["roi_head.bbox_head.shared_fcs.0.bias"]
    )
    assert all(torch.equal(v, refine[k]) for k, v in model.backbone.bfp.state_dict().items())
    assert "(mmdetection 2.x or 3.x)" in caplog.text
    assert "Left at their initial values: backbone.bfp.refine.g.weight" in caplog.text
    assert "does not fit" not in caplog.text
    row = next(line for line in caplog.text.splitlines() if line.startswith("backbone.bfp"))
    assert row.split() == ["backbone.bfp", "8"]


def test_libra_weights_load_into_a_model_without_bfp(tmp_path, caplog, faster_weights):
    torch.save({"state_dict": faster_weights}, tmp_path / "m.pth")
    model = build_model(cfg_of("mmdet/libra_r50", "MODEL.BFP.ENABLED", "False"))
    LibraCheckpointer(model).load(str(tmp_path / "m.pth"))
    assert torch.equal(
        model.backbone.fpn_output2.weight, faster_weights["neck.0.fpn_convs.0.conv.weight"]
    )
    assert "Skipped, because the model has no such tensor: backbone.bfp.refine" in caplog.text


def test_settings_that_the_weights_do_not_fit_are_named(tmp_path, caplog, faster_weights):
    torch.save({"state_dict": faster_weights}, tmp_path / "m.pth")
    LibraCheckpointer(build_model(cfg_of("libra_r50"))).load(str(tmp_path / "m.pth"))
    for text in (
        "INPUT.FORMAT is BGR, not RGB",
        "MODEL.PIXEL_MEAN is [103.53, 116.28, 123.675], not [123.675, 116.28, 103.53]",
        "MODEL.PIXEL_STD is [1.0, 1.0, 1.0], not [58.395, 57.12, 57.375]",
        "MODEL.RESNETS.STRIDE_IN_1X1 is True, not False",
    ):
        assert text in caplog.text
    assert "RETINANET" not in caplog.text


def test_settings_of_retinanet_are_named(tmp_path, caplog):
    torch.save({"state_dict": state_dict("libra-retinanet_r50_fpn_1x_coco")}, tmp_path / "m.pth")
    LibraCheckpointer(build_model(cfg_of("libra_retinanet_r50"))).load(str(tmp_path / "m.pth"))
    assert "MODEL.RETINANET.P7_RELU is True, not False" in caplog.text
    assert "MODEL.RETINANET.CLIP_BEFORE_NMS is False, not True" in caplog.text


@pytest.mark.parametrize("num_classes", [80, 4])
@pytest.mark.parametrize("config", ["libra_r50", "libra_retinanet_r50"])
def test_transfer_keeps_everything_but_the_class_layers(tmp_path, caplog, config, num_classes):
    name = next(k for k, v in CONFIGS.items() if v == config)
    torch.save({"state_dict": state_dict(name)}, tmp_path / "m.pth")
    head = "RETINANET" if "retina" in config else "ROI_HEADS"
    model = build_model(cfg_of(f"mmdet/{config}", f"MODEL.{head}.NUM_CLASSES", str(num_classes)))
    before = copy.deepcopy(model.state_dict())
    LibraCheckpointer(model).load(str(tmp_path / "m.pth"))
    after = model.state_dict()
    unchanged = {k.rpartition(".")[0] for k, v in after.items() if torch.equal(v, before[k])}
    if num_classes == 80:
        assert not unchanged and "another number of classes" not in caplog.text
    else:
        layers = {
            "libra_r50": {"roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"},
            "libra_retinanet_r50": {"head.cls_score"},  # its boxes are the same for all classes
        }[config]
        assert unchanged == layers
        text = f"all others are loaded: {', '.join(sorted(layers))}\n"
        assert text in caplog.text
