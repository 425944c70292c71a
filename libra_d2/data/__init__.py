from .dataset_mapper import LibraDatasetMapper
from .datasets.coco import load_coco, register_coco
from .datasets.packed import register_packed
from .datasets.setup import setup_datasets
from .datasets.shapes import ensure_shapes, register_shapes
from .transforms import FixedSize, RandomExpand

register_shapes()

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
