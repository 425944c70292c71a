"""Data sets, images, and what happens to them before they reach a model."""

from typing import TYPE_CHECKING

from ..utils.lazy_imports import lazy_attributes

if TYPE_CHECKING:
    from .dataset_mapper import LibraDatasetMapper
    from .datasets.coco import load_coco, register_coco
    from .datasets.packed import register_packed
    from .datasets.setup import setup_datasets
    from .datasets.shapes import ensure_shapes, register_shapes
    from .transforms import FixedSize, RandomExpand

_MODULES = {
    "FixedSize": "transforms",
    "LibraDatasetMapper": "dataset_mapper",
    "RandomExpand": "transforms",
    "ensure_shapes": "datasets.shapes",
    "load_coco": "datasets.coco",
    "register_coco": "datasets.coco",
    "register_packed": "datasets.packed",
    "register_shapes": "datasets.shapes",
    "setup_datasets": "datasets.setup",
}

__all__ = [
    "FixedSize",
    "LibraDatasetMapper",
    "RandomExpand",
    "ensure_shapes",
    "load_coco",
    "register_coco",
    "register_packed",
    "register_shapes",
    "setup_datasets",
]

# Images are read without loading Detectron2.
__getattr__ = lazy_attributes(__name__, _MODULES)
