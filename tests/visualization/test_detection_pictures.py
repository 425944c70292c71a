import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from libra_d2.data import register_coco
from libra_d2.inference import draw_boxes, save_prediction_grid
from libra_d2.visualization.colours import class_colour

from ..support.coco_files import write_dataset


def test_boxes_are_drawn_where_they_are_in_the_colour_of_their_class():
    image = np.zeros((480, 640, 3), np.uint8)
    drawn = draw_boxes(image, np.array([[100, 100, 400, 300]]), [3], ["thing"])
    assert image.max() == 0 and drawn.shape == image.shape
    edge = drawn[150:250, 96:105].max(1).mean(0)
    colour = np.array(class_colour(3))
    assert edge @ colour > 0.99 * np.linalg.norm(edge) * np.linalg.norm(colour)
    assert edge.max() > 80
    assert drawn[150:250, 200:300].max() == 0


def test_neighbouring_classes_differ_in_colour():
    colours = np.array([class_colour(i) for i in range(20)])
    assert np.abs(colours[1:] - colours[:-1]).max(1).min() > 0.2


@pytest.mark.parametrize("shape", [(1, 1, 3), (4, 900, 3), (20, 20, 3)])
def test_odd_sizes_and_no_boxes(shape):
    draw_boxes(np.zeros(shape, np.uint8), np.zeros((0, 4)), [], [])


def test_grid_of_predictions(tmp_path):
    name = register_coco(*write_dataset(tmp_path, num_images=3))
    first = DatasetCatalog.get(name)[0]
    box = {"image_id": first["image_id"], "category_id": 10, "bbox": [9, 9, 20, 20]}
    results = tmp_path / "results.json"
    results.write_text(json.dumps([{**box, "score": 0.9}, {**box, "score": 0.1}]))
    save_prediction_grid(name, str(results), str(tmp_path / "grid.png"), num_images=3)
    assert min(Image.open(tmp_path / "grid.png").size) > 400
    results.write_text("[]")
    save_prediction_grid(name, str(results), str(tmp_path / "empty.png"))
