"""Time to draw boxes with labels, next to Detectron2's Visualizer."""

import numpy as np
from common import parser, table, time_all, title
from detectron2.utils.visualizer import Visualizer

from libra_d2.inference import draw_boxes
from libra_d2.visualization.colours import class_colour


def main():
    p = parser(__doc__)
    p.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    p.add_argument("--boxes", type=int, nargs="+", default=(20, 100))
    args = p.parse_args()
    rng = np.random.default_rng(0)
    height, width = args.size
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    for count in args.boxes:
        corner = rng.uniform(0, 0.7, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0.03, 0.3, (count, 2))], 1)
        boxes *= (width, height) * 2
        classes = rng.integers(0, 20, count).tolist()

        def labels(count=count):
            """Return other scores for each picture, like in a video."""
            return [f"person {score}%" for score in rng.integers(0, 100, count)]

        def visualizer(boxes=boxes, classes=classes, labels=labels):
            colours = [class_colour(c) for c in classes]
            ret = Visualizer(image)
            ret.overlay_instances(boxes=boxes, labels=labels(), assigned_colors=colours)
            return ret.output.get_image()

        alternatives = {
            "draw_boxes": lambda b=boxes, c=classes, of=labels: draw_boxes(image, b, c, of()),
            "Detectron2's Visualizer": visualizer,
        }
        title(f"{count} boxes on an image of {height}x{width}", "cpu")
        print(table(time_all(alternatives, "cpu", args.rounds, seconds=8), "draw_boxes"))


if __name__ == "__main__":
    main()
