from .coco import load_coco, register_coco
from .config import setup_datasets
from .dataset_mapper import LibraDatasetMapper
from .packed import register_packed
from .shapes import ensure_shapes, register_shapes
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
