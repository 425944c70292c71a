from .coco import load_coco, register_coco
from .config import setup_datasets
from .dataset_mapper import LibraDatasetMapper
from .shapes import ensure_shapes, register_shapes

register_shapes()

__all__ = [
    "LibraDatasetMapper",
    "ensure_shapes",
    "load_coco",
    "register_coco",
    "register_shapes",
    "setup_datasets",
]
