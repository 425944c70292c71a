"""Small data sets in Pascal VOC's and YOLO's formats."""

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from libra_d2.data.datasets.descriptions import register_descriptions

VOC_OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin>"
    "<ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
)


def write_voc(root, objects, split="train", size=True):
    """One 60x40 image a list of (class, (xmin, ymin, xmax, ymax), difficult)."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    stems = []
    for i, of_image in enumerate(objects, start=1):
        stem = f"{split}_{i}"
        stems.append(stem)
        pixels = np.full((40, 60, 3), (50 * i + len(split)) % 256, np.uint8)
        Image.fromarray(pixels).save(root / f"JPEGImages/{stem}.jpg")
        sides = "<size><width>60</width><height>40</height><depth>3</depth></size>" if size else ""
        (root / f"Annotations/{stem}.xml").write_text(
            f"<annotation><filename>{stem}.jpg</filename>{sides}"
            + "".join(VOC_OBJECT.format(name=n, box=b, difficult=d) for n, b, d in of_image)
            + "</annotation>"
        )
    (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(stems) + "\n")
    return str(root)


def write_yolo(root, labels, split="train", names=("cat", "dog"), yaml=""):
    """One 60x40 image a text, which becomes its label file; None: no label file."""
    for folder in ("images", "labels"):
        (root / folder / split).mkdir(parents=True, exist_ok=True)
    for i, text in enumerate(labels, start=1):
        pixels = np.full((40, 60, 3), (40 * i + 2 * len(split)) % 256, np.uint8)
        Image.fromarray(pixels).save(root / f"images/{split}/{i}.png")
        if text is not None:
            (root / f"labels/{split}/{i}.txt").write_text(text)
    yaml = yaml or f"train: images/train\nval: images/val\nnames: {list(names)}\n"
    (root / "data.yaml").write_text(yaml)
    return str(root / "data.yaml")


def records_of(tmp_path, description, class_names=()):
    """Detectron2's dicts of one description, and its metadata."""
    names = register_descriptions({"KEY": (description,)}, str(tmp_path / "out"), class_names)
    (name,) = names["KEY"]
    return DatasetCatalog.get(name), MetadataCatalog.get(name)
