"""Compute the training losses on the test sets."""

from typing import Dict

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from ..data import LibraDatasetMapper
from ..data.precomputed_proposals import dataset_dicts
from ..utils.progress import progress


@torch.no_grad()
def validation_losses(cfg: CfgNode, model: nn.Module) -> Dict[str, float]:
    """
    Compute the mean losses over the images of `DATASETS.TEST`.

    Images are not augmented, and the random choice of proposals is the same in every call, so that
    losses can be compared between iterations. Batch norms use their running statistics. The model
    is left as it was.

    Args:
        model: on its device. It may be wrapped in a DistributedDataParallel.

    Returns:
        "total_loss" and the individual losses; {} in processes other than the main one.
    """
    model = getattr(model, "module", model)
    dicts = dataset_dicts(cfg, "TEST", filter_empty=False)
    resize = LibraDatasetMapper.from_config(cfg, is_train=False)["augmentations"]
    mapper = LibraDatasetMapper(cfg, is_train=True, augmentations=resize, augment_annotations=False)
    loader = build_detection_test_loader(
        dataset=dicts, mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS
    )
    was_training = model.training
    normalizer = getattr(model, "loss_normalizer", None)  # RetinaNet's running mean
    vis_period, model.vis_period = getattr(model, "vis_period", 0), 0
    model.train()
    batch_norms = get_bn_modules(model)
    for module in batch_norms:
        module.eval()
    sums: Dict[str, float] = {}
    count = 0
    devices = [p.device for p in model.parameters() if p.is_cuda][:1]
    with torch.random.fork_rng(devices), EventStorage():
        torch.manual_seed(comm.get_rank())
        for batch in progress(loader, "Validation loss"):
            losses = model(batch)
            # Read together, so that the host waits for the device once.
            values = torch.stack(list(losses.values())).tolist()
            for name, value in zip(losses, values):
                sums[name] = sums.get(name, 0.0) + value * len(batch)
            count += len(batch)
    for module in batch_norms:
        module.train()
    model.train(was_training)
    model.vis_period = vis_period
    if normalizer is not None:
        model.loss_normalizer = normalizer
    elif hasattr(model, "loss_normalizer"):
        del model.loss_normalizer
    gathered = comm.gather((sums, count))
    if not comm.is_main_process():
        return {}
    num_images = sum(n for _, n in gathered)
    names = sorted({name for s, _ in gathered for name in s})
    means = {name: sum(s.get(name, 0.0) for s, _ in gathered) / num_images for name in names}
    return {"total_loss": sum(means.values()), **means}
