"""The mapper is Detectron2's in all but the reader of images."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image

from libra_d2.data import LibraDatasetMapper

from ..inference.small_detector import blots


@pytest.fixture
def record(tmp_path):
    Image.fromarray(blots(0)).save(tmp_path / "a.jpg")
    Image.fromarray((blots(1)[:, :, 0] // 64).astype(np.uint8)).save(tmp_path / "labels.png")
    annotation = {"category_id": 1, "bbox_mode": BoxMode.XYXY_ABS, "iscrowd": 0}
    return {
        "file_name": str(tmp_path / "a.jpg"),
        "sem_seg_file_name": str(tmp_path / "labels.png"),
        "width": 80,
        "height": 60,
        "image_id": 7,
        "annotations": [{**annotation, "bbox": [10.0, 5.0, 40.0, 30.0]}],
        "proposal_boxes": np.array([[1.0, 2.0, 30.0, 40.0], [5.0, 5.0, 50.0, 50.0]]),
        "proposal_objectness_logits": np.array([2.0, 1.0]),
        "proposal_bbox_mode": BoxMode.XYXY_ABS,
    }


@pytest.mark.parametrize("is_train", [True, False])
def test_samples_are_those_of_detectron2(record, is_train):
    """Image, label map, boxes and proposals, with augmentations drawn from the same seed."""
    arguments = {
        "augmentations": [
            T.RandomCrop("relative_range", (0.6, 0.6)),
            T.ResizeShortestEdge((40, 50), 90, "choice"),
            T.RandomBrightness(0.5, 1.5),
            T.RandomFlip(),
        ],
        "image_format": "BGR",
        "precomputed_proposal_topk": 2,
    }
    found = []
    for mapper in (DatasetMapper, LibraDatasetMapper):
        np.random.seed(3)
        found.append(mapper(is_train, **arguments)(record))
    theirs, ours = found
    assert ours.keys() == theirs.keys()
    for key in ("image", "sem_seg"):
        assert torch.equal(ours[key], theirs[key]), key
    boxes = [f["proposals"].proposal_boxes.tensor for f in found]
    assert len(boxes[0]) and torch.equal(*boxes)
    if is_train:
        assert torch.equal(*(f["instances"].gt_boxes.tensor for f in found))


def test_other_mappers_keep_their_reader(tmp_path):
    """Our reader is not put into Detectron2's module, where other code would get it."""
    reader = utils.read_image
    deep = np.full((60, 80), 300, np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    record = {"file_name": str(tmp_path / "a.png"), "width": 80, "height": 60}
    arguments = {"augmentations": [], "image_format": "BGR"}
    assert LibraDatasetMapper(True, **arguments)(record)["image"].unique().tolist() == [1]
    assert DatasetMapper(True, **arguments)(record)["image"].unique().tolist() == [255]
    assert utils.read_image is reader
