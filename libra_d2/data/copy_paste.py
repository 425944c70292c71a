"""
Copy-paste augmentation: objects of another training image are pasted into the image.

The idea is that of "Cut, Paste and Learn" (Dwibedi et al., https://arxiv.org/abs/1708.01642) and
"Simple Copy-Paste" (Ghiasi et al., https://arxiv.org/abs/2012.07177). Here, objects without masks
are pasted with their whole box, and none may hide much of another.
"""

import copy
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
from detectron2.data import transforms as T

from .annotated_input import (
    AnnotatedInput,
    Annotation,
    bounds,
    clip_polygons,
    has_mask,
    mask_within,
    pixel_box,
)

_PLACES = 10  # that are tried for an object
_IGNORED = 255  # label of a label map that training ignores

Record = Dict[str, Any]


class Donors:
    """The training images from which objects are copied. Images are drawn by NumPy's generator."""

    def __init__(
        self,
        dataset: Sequence[Record],
        records: Sequence[Record],
        read: Callable[[Record], Optional[np.ndarray]],
        needs_masks: bool = False,
    ):
        """
        Args:
            dataset: records in Detectron2's form, from which the drawn ones are taken.
            records: the same ones, which are not kept.
            read: reads the image of a record; None: it cannot be used.
            needs_masks: copy only objects that have masks.
        """
        self._dataset = dataset
        self._read = read
        self._needs_masks = needs_masks
        by_class: Dict[int, List[int]] = {}
        for i, record in enumerate(records):
            for category in {a["category_id"] for a in self._usable(record)}:
                by_class.setdefault(category, []).append(i)
        self._by_class = {c: np.array(images) for c, images in sorted(by_class.items())}
        self._images = np.unique(np.concatenate([*self._by_class.values(), np.zeros(0, int)]))

    def draw(self, rare_classes: bool) -> Optional[AnnotatedInput]:
        """
        Return a random image with the objects to copy; None if it cannot be used.

        Args:
            rare_classes: draw a class first, all equally likely, and copy only its objects.
        """
        if not len(self._images):
            return None
        category = None
        images = self._images
        if rare_classes:
            category = list(self._by_class)[np.random.randint(len(self._by_class))]
            images = self._by_class[category]
        record = copy.deepcopy(self._dataset[int(images[np.random.randint(len(images))])])
        image = self._read(record)
        if image is None:
            return None
        usable = self._usable(record)
        return AnnotatedInput(
            image, [a for a in usable if category is None or a["category_id"] == category]
        )

    def _usable(self, record: Record) -> List[Annotation]:
        return [
            a
            for a in record.get("annotations", ())
            if a.get("iscrowd", 0) == 0 and (has_mask(a) or not self._needs_masks)
        ]


class PasteTransform(T.Transform):
    """Paste pixels. Coordinates stay as they are, and label maps become unknown there."""

    def __init__(self, patches: Sequence[Tuple[int, int, np.ndarray, np.ndarray]]):
        """
        Args:
            patches: (x, y, (h, w, 3) pixels, (h, w) mask) each, in the order of pasting.
        """
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        img = img.copy()
        for x, y, pixels, mask in self.patches:
            height, width = mask.shape
            img[y : y + height, x : x + width][mask] = pixels[mask]
        return img

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        segmentation = segmentation.copy()
        for x, y, _, mask in self.patches:
            height, width = mask.shape
            segmentation[y : y + height, x : x + width][mask] = _IGNORED
        return segmentation


class CopyPaste(T.Augmentation):
    """
    Copy objects of another training image, in the size that they have there, to random places.

    An object with a mask is copied by its mask, one without by its box. Nothing is pasted where all
    pasted objects together would hide too much of an object. Boxes of partly hidden objects shrink
    to what is visible, and so do masks of the format "bitmask"; polygons are clipped to the box.
    """

    def __init__(
        self,
        prob: float = 0.5,
        max_objects: int = 10,
        rare_classes: bool = False,
        max_overlap: float = 0.3,
    ):
        """
        Args:
            prob: probability, in [0, 1].
            max_objects: 1 to this number of objects are copied, all from one image.
            rare_classes: see :meth:`Donors.draw`.
            max_overlap: share of an object that may be hidden.
        """
        super().__init__()
        self._init(locals())
        self.donors: Optional[Donors] = None

    def __call__(self, inputs: AnnotatedInput) -> T.Transform:
        if self.donors is None:
            raise ValueError("CopyPaste has no images: call LibraDatasetMapper.copy_objects_from")
        if self._rand_range() >= self.prob:
            return T.NoOpTransform()
        number = np.random.randint(1, self.max_objects + 1)
        donor = self.donors.draw(self.rare_classes)
        if donor is None:
            return T.NoOpTransform()
        scene = _Scene(inputs, self.max_overlap)
        for i in np.random.permutation(len(donor.annotations))[:number]:
            scene.paste(donor.image, donor.annotations[i])
        tfm = PasteTransform(scene.patches)
        inputs.image = tfm.apply_image(inputs.image)
        if inputs.sem_seg is not None:
            inputs.sem_seg = tfm.apply_segmentation(inputs.sem_seg)
        scene.update_annotations()
        return tfm


class _Object:
    """An object in the image, with the pixels of it that are visible."""

    def __init__(self, annotation: Annotation, box: Tuple[int, int, int, int], mask: np.ndarray):
        self.annotation = annotation
        self.x, self.y = box[:2]
        self.visible = mask.copy()
        self.area = int(mask.sum())
        self.is_hidden = False

    def behind(self, x: int, y: int, mask: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Return the parts of `visible` and of a mask at (x, y) that lie on each other."""
        height, width = mask.shape
        x0, y0 = max(self.x, x), max(self.y, y)
        x1 = min(self.x + self.visible.shape[1], x + width)
        y1 = min(self.y + self.visible.shape[0], y + height)
        x1, y1 = max(x0, x1), max(y0, y1)
        return (
            self.visible[y0 - self.y : y1 - self.y, x0 - self.x : x1 - self.x],
            mask[y0 - y : y1 - y, x0 - x : x1 - x],
        )


class _Scene:
    """The objects of an image while others are pasted."""

    def __init__(self, inputs: AnnotatedInput, max_overlap: float):
        self.inputs = inputs
        self.size = inputs.image.shape[:2]
        self.max_overlap = max_overlap
        self.patches: List[Tuple[int, int, np.ndarray, np.ndarray]] = []
        self.objects: List[_Object] = []
        for annotation in inputs.annotations:
            box = pixel_box(annotation["bbox"], self.size)
            if box[0] < box[2] and box[1] < box[3]:
                self.objects.append(_Object(annotation, box, mask_within(annotation, box)))

    def paste(self, image: np.ndarray, annotation: Annotation) -> None:
        """Paste an object of another image at a random place, if there is one for it."""
        x0, y0, x1, y1 = box = pixel_box(annotation["bbox"], image.shape[:2])
        if x0 >= x1 or y0 >= y1 or y1 - y0 > self.size[0] or x1 - x0 > self.size[1]:
            return
        mask = mask_within(annotation, box)
        if not mask.any():
            return
        for _ in range(_PLACES):
            x = np.random.randint(self.size[1] - (x1 - x0) + 1)
            y = np.random.randint(self.size[0] - (y1 - y0) + 1)
            if self._has_room(x, y, mask):
                break
        else:
            return
        for other in self.objects:
            visible, above = other.behind(x, y, mask)
            other.is_hidden |= bool((visible & above).any())
            visible &= ~above
        self.patches.append((x, y, image[y0:y1, x0:x1], mask))
        moved = self._moved(annotation, x - x0, y - y0)
        if has_mask(annotation):
            left, top, right, bottom = bounds(mask)
            _clip_box(moved, (x + left, y + top, x + right, y + bottom))
            if isinstance(annotation["segmentation"], np.ndarray):
                moved["segmentation"] = self._whole(x, y, mask)
        self.objects.append(_Object(moved, (x, y, x + x1 - x0, y + y1 - y0), mask))
        self.inputs.annotations.append(moved)
        self.inputs.num_pasted += 1

    def update_annotations(self) -> None:
        """Shrink boxes and masks of partly hidden objects, and drop objects that are hidden."""
        for item in self.objects:
            if not item.is_hidden:
                continue
            annotation = item.annotation
            if not item.visible.any():
                rest = [a for a in self.inputs.annotations if a is not annotation]
                self.inputs.annotations = rest
                self.inputs.num_dropped += 1
                continue
            x0, y0, x1, y1 = bounds(item.visible)
            _clip_box(annotation, (item.x + x0, item.y + y0, item.x + x1, item.y + y1))
            if not has_mask(annotation):
                continue
            mask = annotation["segmentation"]
            if isinstance(mask, np.ndarray) or self.inputs.mask_format == "bitmask":
                annotation["segmentation"] = self._whole(item.x, item.y, item.visible)
            else:
                clipped = clip_polygons(mask, tuple(annotation["bbox"]))
                annotation["segmentation"] = [p.reshape(-1) for p in clipped]

    def _has_room(self, x: int, y: int, mask: np.ndarray) -> bool:
        for item in self.objects:
            visible, above = item.behind(x, y, mask)
            left = int(item.visible.sum()) - int((visible & above).sum())
            if above.size and left < (1 - self.max_overlap) * item.area:
                return False
        return True

    def _whole(self, x: int, y: int, mask: np.ndarray) -> np.ndarray:
        """(H, W): a part of a mask at its place in the image."""
        ret = np.zeros(self.size, np.uint8)
        ret[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
        return ret

    def _moved(self, annotation: Annotation, dx: int, dy: int) -> Annotation:
        ret = dict(annotation, bbox=annotation["bbox"] + (dx, dy, dx, dy))
        if isinstance(annotation.get("segmentation"), list):
            ret["segmentation"] = [
                (p.reshape(-1, 2) + (dx, dy)).reshape(-1) for p in annotation["segmentation"]
            ]
        if "keypoints" in annotation:
            points = np.array(annotation["keypoints"], dtype=np.float64).reshape(-1, 3)
            points[:, :2] += (dx, dy)
            ret["keypoints"] = points.reshape(-1).tolist()
        return ret


def _clip_box(annotation: Annotation, box: Tuple[int, int, int, int]) -> None:
    low = np.maximum(annotation["bbox"][:2], box[:2])
    high = np.minimum(annotation["bbox"][2:], box[2:])
    annotation["bbox"] = np.concatenate([low, high])
