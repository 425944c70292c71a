import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from libra_d2.data import register_coco
from libra_d2.evaluation import LibraCOCOEvaluator

from ..support.coco_files import write_dataset
from ..support.perfect_output import perfect_output


def evaluate(tmp_path, boxes, unreadable=(), without=()):
    files = write_dataset(tmp_path, boxes, num_images=4)
    data = json.loads(Path(files[0]).read_text())
    for annotation in data["annotations"]:
        for key in without:
            del annotation[key]
    Path(files[0]).write_text(json.dumps(data))
    name = register_coco(*files)
    records = DatasetCatalog.get(name)
    evaluator = LibraCOCOEvaluator(name, output_dir=str(tmp_path / "out"))
    evaluator.reset()
    for i, record in enumerate(records):
        inputs = {**record, "unreadable": True} if i in unreadable else record
        evaluator.process([inputs], [perfect_output(record)])
    return evaluator.evaluate()["bbox"], name


def test_boxes_that_nothing_can_match_are_no_ground_truth(tmp_path):
    boxes = [(10, 10, 20, 20), (5, 5, 0, 10), (60, 0, 5, 5)]
    results, name = evaluate(tmp_path, boxes)
    assert len(MetadataCatalog.get(name).invalid_annotation_ids) == 8
    assert results["AP-cat"] == pytest.approx(100)


def test_objects_of_unreadable_images_are_missed(tmp_path, caplog):
    results, _ = evaluate(tmp_path, [(10, 10, 20, 20)], unreadable={1})
    assert 70 < results["AP-cat"] < 80  # three of four objects
    assert "1 images could not be read" in caplog.text


def test_annotations_without_area_and_iscrowd(tmp_path):
    """Loading and training do without them; so must the evaluation at the end of the run."""
    results, _ = evaluate(tmp_path, [(10, 10, 20, 20)], without=("area", "iscrowd"))
    assert results["AP-cat"] == pytest.approx(100)
