"""The first images of a training run, as the model will see them."""

from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.data.detection_utils import convert_image_to_rgb

from ..data.checks.anchor_matches import AnchorSettings
from ..data.datasets.setup import class_names
from ..modeling.build import build_model
from ..utils.progress import progress
from ..visualization.batches import write_batches
from ..visualization.batches.views import Summary, TrainingView
from .train_loop import split_batch
from .trainer import LibraTrainer


def browse(cfg: CfgNode, folder: str, num_images: int) -> Tuple[Summary, List[str]]:
    """
    Write pictures of the first images of a run in one process into a folder: see
    :func:`~libra_d2.visualization.batches.write_batches`. The training's own loader loads them, so
    they have the same order and the same random numbers as in training.

    Args:
        cfg: whose data sets are set up.

    Returns:
        Figures of the images, and notes on what the pictures do not show.

    Raises:
        UserError: no image can be used, or the files cannot be written.
    """
    cfg = LibraTrainer.auto_scale_workers(cfg.clone(), 1).clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    cfg.DATALOADER.NUM_WORKERS = 0  # the order does not depend on it
    model = build_model(cfg)
    anchors = AnchorSettings.of(model)
    if anchors is None:
        summary = Summary.without_anchors()
    else:
        summary = Summary.of_levels(anchors.levels, anchors.background_iou)
    loader = LibraTrainer.build_train_loader(cfg)
    found = _first_views(cfg, loader, model, anchors, num_images)
    views = progress(found, "Drawing", total=num_images)
    notes = _notes(cfg, anchors)
    write_batches(folder, _counted(views, loader, summary), summary, notes)
    return summary, notes


def _notes(cfg: CfgNode, anchors: Optional[AnchorSettings]) -> List[str]:
    """Sentences on what the pictures do not show."""
    notes = []
    if cfg.MODEL.LOAD_PROPOSALS:
        notes.append(
            "The detector takes precomputed proposals (MODEL.LOAD_PROPOSALS), so there are no "
            "anchors to show."
        )
    elif anchors is None:
        notes.append("The detector has no anchors of Detectron2's RPN or RetinaNet to show.")
    if cfg.DATALOADER.SAMPLER_TRAIN.startswith("Weighted"):
        notes.append(
            f"DATALOADER.SAMPLER_TRAIN {cfg.DATALOADER.SAMPLER_TRAIN} draws from the images at "
            "random, so a run sees others than these."
        )
    elif cfg.SEED < 0:
        notes.append(
            "SEED is -1, so each run sees the images in another order. Set SEED to see those of "
            "a certain run."
        )
    return notes


def _first_views(
    cfg: CfgNode,
    loader: Any,
    model: Any,
    anchors: Optional[AnchorSettings],
    num_images: int,
) -> Iterator[TrainingView]:
    names = class_names(cfg)
    for number, batch in enumerate(loader, 1):
        # Each part is padded on its own, as in training.
        for part in split_batch(batch, cfg.SOLVER.ACCUMULATION_STEPS):
            padded = tuple(model.preprocess_image(part).tensor.shape[-2:])
            for sample in part[:num_images]:
                yield _view(cfg, number, sample, padded, anchors, names)
            num_images -= len(part)
            if num_images <= 0:
                return


def _view(
    cfg: CfgNode,
    batch: int,
    sample: Dict[str, Any],
    padded: Any,
    anchors: Optional[AnchorSettings],
    names: Sequence[str],
) -> TrainingView:
    image = sample["image"].permute(1, 2, 0).float()
    instances = sample["instances"]
    matches = None
    if anchors is not None:
        every = anchors.anchors(*padded)
        matches = anchors.match(instances.gt_boxes, every, tuple(sample["image"].shape[-2:]))
    return TrainingView(
        batch=batch,
        file_name=sample["file_name"],
        image=np.ascontiguousarray(convert_image_to_rgb(image, cfg.INPUT.FORMAT)).astype(np.uint8),
        boxes=instances.gt_boxes.tensor.numpy(),
        class_names=[names[c] if c < len(names) else str(c) for c in instances.gt_classes.tolist()],
        padded=padded,
        matches=matches,
    )


def _counted(
    views: Iterable[TrainingView], loader: Any, summary: Summary
) -> Iterator[TrainingView]:
    """The views; at the end, `summary` knows how many images were skipped."""
    yield from views
    mapper = getattr(getattr(loader, "dataset", None), "mapper", None)
    summary.num_skipped = int(getattr(mapper, "num_bad_images", 0))
