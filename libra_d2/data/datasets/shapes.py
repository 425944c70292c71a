"""
The built-in data set `shapes`, a small detection data set that is drawn instead of downloaded.

Its scenes have six classes of very different frequency, overlapping objects from 8 pixels to half
of the image, textured backgrounds and clutter. It is written once, as JPEG files and COCO
annotations, to `shapes-v1` in `$LIBRA_D2_CACHE` (by default `~/.cache/libra_d2`), and is then read
like any other COCO data set. The same seed draws the same scenes.
"""

import json
import math
import shutil
import uuid
from pathlib import Path
from typing import Dict, List, Tuple

import cv2
import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...utils.cache import cache_folder, make_cache_folder
from ...utils.progress import progress
from .coco import load_coco

# Class -> share of the objects.
CLASSES = {
    "disk": 0.34,
    "square": 0.24,
    "triangle": 0.16,
    "star": 0.11,
    "ring": 0.09,
    "cross": 0.06,
}
# Split -> (number of images, seed).
SPLITS = {"train": (600, 1), "val": (100, 2)}
# Names of the registered splits.
BUILT_IN = tuple(f"shapes_{split}" for split in SPLITS)
_MAX_SIDE, _MIN_SIDE = 256, 192
_MIN_OBJECT = 8
_MIN_VISIBLE = 0.6  # share of an object that must stay visible


def shapes_root() -> Path:
    """Return the folder of the data set, which may not exist yet."""
    return cache_folder() / "shapes-v1"


def ensure_shapes() -> Path:
    """Write the data set unless it exists, and return its folder."""
    root = shapes_root()
    if not root.exists():
        make_cache_folder()
        # Write to another folder and rename it, because another process may do the same now.
        partial = root.with_name(f"{root.name}-{uuid.uuid4().hex}")
        partial.mkdir()
        try:
            for split, (num_images, seed) in SPLITS.items():
                write_shapes(partial, split, num_images, seed)
            try:
                partial.rename(root)
            except OSError:
                if not root.exists():
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return root


def write_shapes(root: Path, split: str, num_images: int, seed: int) -> None:
    """Write `root/<split>/*.jpg` and `root/<split>.json`, in COCO format."""
    (root / split).mkdir(parents=True)
    images: List[Dict] = []
    annotations: List[Dict] = []
    for image_id in progress(range(1, num_images + 1), f"Drawing the built-in data set, {split}"):
        image, objects = draw_scene(np.random.default_rng([seed, image_id]))
        file_name = f"{image_id:06d}.jpg"
        cv2.imwrite(str(root / split / file_name), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        height, width = image.shape[:2]
        images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for o in objects:
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **o})
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)]
    dataset = {"images": images, "annotations": annotations, "categories": categories}
    (root / f"{split}.json").write_text(json.dumps(dataset))


def draw_scene(rng: np.random.Generator) -> Tuple[np.ndarray, List[Dict]]:
    """
    Draw a random scene.

    Returns:
        image: (H, W, 3) uint8, BGR.
        objects: COCO annotations without ids. Boxes are those of the visible pixels.
    """
    sides = [_MAX_SIDE, int(rng.integers(_MIN_SIDE, _MAX_SIDE + 1))]
    height, width = rng.permutation(sides)
    image = _background(rng, height, width)
    for _ in range(rng.integers(4, 12)):
        _draw_clutter(rng, image)

    owner = np.zeros((height, width), np.int32)  # number of the object that a pixel shows
    areas: List[int] = []
    categories: List[int] = []
    for _ in range(rng.integers(3, 11)):
        category = int(rng.choice(len(CLASSES), p=list(CLASSES.values())))
        mask = _object_mask(rng, list(CLASSES)[category], height, width)
        covers = mask > 127
        hidden = np.bincount(owner[covers], minlength=len(areas) + 1)[1:]
        visible = np.bincount(owner.ravel(), minlength=len(areas) + 1)[1:] - hidden
        if covers.sum() < 12 or any(v < _MIN_VISIBLE * a for v, a in zip(visible, areas)):
            continue
        areas.append(int(covers.sum()))
        categories.append(category)
        owner[covers] = len(areas)
        _paint(rng, image, mask)

    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.9))
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(1, 5))
    image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return image, [_annotation(owner == i + 1, c) for i, c in enumerate(categories)]


def _annotation(visible: np.ndarray, category: int) -> Dict:
    x, y, w, h = cv2.boundingRect(visible.astype(np.uint8))
    contours, _ = cv2.findContours(
        visible.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    polygons = [c.ravel().tolist() for c in contours if len(c) >= 3]
    return {
        "category_id": category + 1,
        "bbox": [float(x), float(y), float(w), float(h)],
        "area": float(visible.sum()),
        "segmentation": polygons or [[x, y, x + w, y, x + w, y + h, x, y + h]],
        "iscrowd": 0,
    }


def _texture(rng: np.random.Generator, height: int, width: int, detail: float) -> np.ndarray:
    """Return (H, W) noise in [0, 1] with strong large and weak small structures, as in photos."""
    field = np.zeros((height, width), np.float32)
    cells, strength = 2, 1.0
    while cells < max(height, width):
        grid = rng.standard_normal((cells, cells)).astype(np.float32)
        field += strength * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        cells, strength = cells * 2, strength * detail
    return (field - field.min()) / max(float(np.ptp(field)), 1e-6)


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return (H, W, 3) float32, three muted colors mixed by two textures in uneven light."""
    colours = rng.uniform(30, 200, (3, 1)) + rng.normal(0, 30, (3, 3))
    first = _texture(rng, height, width, rng.uniform(0.5, 0.75))[..., None]
    second = _texture(rng, height, width, rng.uniform(0.5, 0.85))[..., None]
    image = colours[0] * (1 - first) + colours[1] * first
    image = image * (1 - 0.5 * second) + colours[2] * 0.5 * second
    angle = rng.uniform(0, 2 * math.pi)
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32) * math.cos(angle)
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None] * math.sin(angle)
    light = 1 + rng.uniform(0, 0.6) * (x + y)
    return np.clip(image * light[..., None], 0, 255).astype(np.float32)


def _draw_clutter(rng: np.random.Generator, image: np.ndarray) -> None:
    """Draw a translucent curved stroke or soft blob, which does not look like any class."""
    height, width = image.shape[:2]
    layer = np.zeros((height, width), np.float32)
    if rng.random() < 0.6:
        steps = np.cumsum(rng.normal(0, 14, (rng.integers(4, 10), 2)), axis=0)
        points = (steps + rng.uniform(0, 1, 2) * (width, height)).astype(np.int32)
        cv2.polylines(layer, [points], False, 1.0, int(rng.integers(1, 4)), cv2.LINE_AA)
    else:
        centre = tuple(int(v) for v in rng.uniform(0, 1, 2) * (width, height))
        axes = tuple(int(v) for v in rng.uniform(6, 50, 2))
        cv2.ellipse(layer, centre, axes, rng.uniform(0, 180), 0, 360, 1.0, -1)
        layer = cv2.GaussianBlur(layer, (0, 0), max(axes) / 3)
    alpha = (layer * rng.uniform(0.3, 0.8))[..., None]
    image *= 1 - alpha
    image += alpha * rng.uniform(0, 255, 3).astype(np.float32)


def _outline(kind: str) -> np.ndarray:
    """Return a (K, 2) polygon of radius 1 around the origin."""
    if kind == "cross":
        t = 0.32
        corner = [(t, 1), (t, t), (1, t), (1, -t), (t, -t), (t, -1)]
        return np.array(corner + [(-x, -y) for x, y in corner]) / math.hypot(1, t)
    count = {"square": 4, "triangle": 3, "star": 10}.get(kind, 64)
    angles = np.arange(count) * 2 * math.pi / count
    radii = np.where(np.arange(count) % 2, 0.45, 1.0) if kind == "star" else 1.0
    return np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=1)


def _object_mask(rng: np.random.Generator, kind: str, height: int, width: int) -> np.ndarray:
    """Return a (H, W) uint8 mask of a rotated, slightly stretched shape within the image."""
    largest = min(height, width) / 2
    size = math.exp(rng.uniform(math.log(_MIN_OBJECT), math.log(largest)))
    stretch = rng.uniform(0.75, 1.33) ** 0.5
    outline = _outline(kind) * (stretch, 1 / stretch)
    turn = rng.uniform(0, 2 * math.pi)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    outline = outline @ rotation.T
    outline *= size / np.ptp(outline, axis=0).max()
    low, high = outline.min(0), outline.max(0)
    centre = rng.uniform(-low, np.maximum(np.array([width, height]) - high, -low + 1))
    mask = np.zeros((height, width), np.uint8)
    _fill(mask, outline + centre, 255)
    if kind == "ring":
        _fill(mask, outline * 0.55 + centre, 0)
    return mask


def _fill(mask: np.ndarray, polygon: np.ndarray, value: int) -> None:
    bits = 4  # fractional bits, for edges between pixels
    points = np.round(polygon * 2**bits).astype(np.int32)
    cv2.fillPoly(mask, [points], value, cv2.LINE_AA, bits)


def _paint(rng: np.random.Generator, image: np.ndarray, mask: np.ndarray) -> None:
    """Fill the mask with a textured color that contrasts with what it covers."""
    x, y, width, height = cv2.boundingRect(mask)
    image = image[y : y + height, x : x + width]
    mask = mask[y : y + height, x : x + width]
    under = image[mask > 127].mean(0)
    colour = rng.uniform(0, 255, 3)
    while np.abs(colour - under).max() < 50:
        colour = rng.uniform(0, 255, 3)
    other = np.clip(colour + rng.normal(0, 45, 3), 0, 255)
    if rng.random() < 0.4:  # stripes
        angle, period = rng.uniform(0, math.pi), rng.uniform(4, 16)
        y, x = np.mgrid[:height, :width].astype(np.float32)
        phase = (x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / period)
        mix = 0.5 + 0.5 * np.sin(phase)
    else:
        mix = _texture(rng, height, width, 0.8)
    fill = colour + (other - colour) * mix[..., None]
    alpha = mask[..., None] / np.float32(255) * rng.uniform(0.75, 1.0)
    image *= 1 - alpha
    image += alpha * fill


def register_shapes() -> None:
    """Register "shapes_train" and "shapes_val". They are drawn when they are first loaded."""
    for split in SPLITS:
        name = f"shapes_{split}"
        if name not in DatasetCatalog.list():
            DatasetCatalog.register(name, lambda split=split, name=name: _load(split, name))
            MetadataCatalog.get(name).set(
                thing_classes=list(CLASSES),
                json_file=str(shapes_root() / f"{split}.json"),
                image_root=str(shapes_root() / split),
                evaluator_type="coco",
            )


def _load(split: str, name: str) -> List[Dict]:
    root = ensure_shapes()
    return load_coco(str(root / f"{split}.json"), str(root / split), name)
