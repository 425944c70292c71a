"""What the rules of a plan know about a training set."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from libra_d2.errors import UserError
from libra_d2.planning.training_set import TrainingSet

from .made_up import config


@pytest.fixture
def registered():
    """A data set of two images with objects, one of a crowd alone, and one without annotations."""
    annotation = {"bbox": [0, 0, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    of_images = [[annotation], [{**annotation, "iscrowd": 1}], [], [annotation, annotation]]
    dicts = [
        {"file_name": f"{i}.jpg", "image_id": i, "width": 60, "height": 40, "annotations": a}
        for i, a in enumerate(of_images)
    ]
    name = "test_training_set"
    DatasetCatalog.register(name, lambda: dicts)
    MetadataCatalog.get(name).set(thing_classes=["a"])
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.mark.parametrize("filtered, files", [("True", "03"), ("False", "0123")])
def test_images_that_training_leaves_out_do_not_count(registered, filtered, files):
    cfg = config("DATALOADER.FILTER_EMPTY_ANNOTATIONS", filtered)
    cfg.DATASETS.TRAIN = (registered,)
    data = TrainingSet.of(cfg)
    assert data.file_names == [f"{i}.jpg" for i in files]
    assert sorted(data.objects_per_image[data.objects_per_image > 0]) == [1, 2]
    assert data.image_frequencies.tolist() == [2 / len(files)]


@pytest.fixture
def registered_boxes():
    """Return a function that registers an image with boxes, and returns a config for it."""
    name = "test_training_set_boxes"

    def register(*boxes):
        mode = BoxMode.XYXY_ABS
        annotations = [{"bbox": b, "bbox_mode": mode, "category_id": 0} for b in boxes]
        image = {"file_name": "0.jpg", "width": 60, "height": 40, "annotations": annotations}
        DatasetCatalog.register(name, lambda: [image])
        MetadataCatalog.get(name).set(thing_classes=["a"])
        cfg = config()
        cfg.DATASETS.TRAIN = (name,)
        return cfg

    yield register
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_boxes_without_area_do_not_count(registered_boxes):
    boxes = ([0, 0, 10, 20], [5, 5, 5, 30], [5, 5, 30, 5], [9, 9, 5, 5], [1, 1, 3, 3])
    data = TrainingSet.of(registered_boxes(*boxes))
    assert data.objects.widths_heights.tolist() == [[10, 20], [2, 2]]
    assert data.objects.ids == [0, 4] and data.objects_per_image.tolist() == [2]


def test_a_set_of_boxes_without_area_is_refused(registered_boxes):
    with pytest.raises(UserError, match="must have classes and objects"):
        TrainingSet.of(registered_boxes([5, 5, 5, 30]))
