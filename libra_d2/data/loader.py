"""
Training data in an order that is a function of the seed and the step alone.

So it does not depend on the number of workers or processes, and a run that is resumed sees what
it would have seen. Batches are those of Detectron2's own loader in one process.
"""

import contextlib
import itertools
import logging
import random
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetFromList,
    DatasetMapper,
    build_detection_train_loader,
)
from detectron2.data.build import trivial_batch_collator
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.utils import comm
from torch.utils.data import Dataset, Sampler

from ..errors import UserError
from .dataset_mapper import LibraDatasetMapper
from .epochs import image_filter, images_seen
from .loader_workers import WatchedLoader
from .precomputed_proposals import dataset_dicts

logger = logging.getLogger(__name__)

_MAX_REPLACEMENTS = 1000


def derived_seed(*numbers: int) -> int:
    """A seed for `torch.manual_seed` that mixes several numbers, each at least 0."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def build_train_loader(cfg: CfgNode, mapper: DatasetMapper, seed: int):
    """
    Build Detectron2's training loader for the config, with the order of this module. Detectron2's
    weighted samplers keep their own order, which starts from the beginning in a resumed run.

    Args:
        seed: the same in all processes.
    """
    name = cfg.DATALOADER.SAMPLER_TRAIN
    if name.startswith("Weighted"):
        logger.warning(f"DATALOADER.SAMPLER_TRAIN {name} starts from the beginning after --resume")
        copies = any("CopyPaste" in text for text in cfg.INPUT.AUGMENTATIONS)
        if not cfg.MODEL.LOAD_PROPOSALS and not copies:
            return build_detection_train_loader(cfg, mapper=mapper)
        dicts = dataset_dicts(cfg, "TRAIN", **image_filter(cfg))
        _let_copy(mapper, DatasetFromList(dicts, copy=False), dicts)
        return build_detection_train_loader(cfg, mapper=mapper, dataset=dicts)
    dicts = dataset_dicts(cfg, "TRAIN", **image_filter(cfg))
    batches = TrainingBatches(
        _repeat_factors(cfg, dicts, seed),
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
        seed=seed,
        groups=[d["width"] > d["height"] for d in dicts]
        if cfg.DATALOADER.ASPECT_RATIO_GROUPING
        else None,
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
    )
    dataset = DatasetFromList(dicts, copy=False)
    _let_copy(mapper, dataset, dicts)
    return WatchedLoader(
        MappedDataset(dataset, mapper),
        batch_sampler=batches,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
        # Without its own generator, the loader would draw from the global random stream.
        generator=torch.Generator(),
    )


def _let_copy(
    mapper: DatasetMapper, dataset: DatasetFromList, records: List[Dict[str, Any]]
) -> None:
    if isinstance(mapper, LibraDatasetMapper):
        mapper.copy_objects_from(dataset, records)


def _repeat_factors(cfg: CfgNode, dicts: List[Dict[str, Any]], seed: int) -> torch.Tensor:
    """(number of images,): how often an image is in an epoch, on average."""
    name = cfg.DATALOADER.SAMPLER_TRAIN
    if name == "TrainingSampler":
        return torch.ones(len(dicts))
    if name == "RepeatFactorTrainingSampler":
        return RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dicts, cfg.DATALOADER.REPEAT_THRESHOLD, sqrt=cfg.DATALOADER.REPEAT_SQRT
        )
    if name == "RandomSubsetTrainingSampler":
        order = torch.randperm(len(dicts), generator=torch.Generator().manual_seed(seed))
        subset = order[: images_seen(cfg, len(dicts))]
        return torch.zeros(len(dicts)).scatter_(0, subset, 1.0)
    raise UserError(
        "DATALOADER.SAMPLER_TRAIN must be one of 'TrainingSampler', 'RepeatFactorTrainingSampler', "
        "'RandomSubsetTrainingSampler', 'WeightedTrainingSampler', "
        f"'WeightedCategoryTrainingSampler', got {name!r}"
    )


class TrainingBatches(Sampler):
    """
    Yields endless batches of (seed of the sample, index of the image) for one of several processes.
    The images are shuffled again in each epoch.

    A batch has images of one group; it is filled, over all processes together, in the order in
    which the images come, as by Detectron2's `AspectRatioGroupedDataset`.
    """

    def __init__(
        self,
        repeat_factors: torch.Tensor,
        *,
        batch_size: int,
        seed: int,
        groups: Optional[Sequence[int]] = None,
        rank: int = 0,
        world_size: int = 1,
    ):
        """
        Args:
            repeat_factors: (number of images,), at least 0. The fraction is rounded at random in
                each epoch, as by Detectron2's `RepeatFactorTrainingSampler`.
            batch_size: of all processes together, a multiple of `world_size`.
            groups: of each image; None: all are of one.
        """
        if batch_size % world_size:
            raise UserError(
                "SOLVER.IMS_PER_BATCH must be a multiple of the number of processes, "
                f"{world_size}, got {batch_size}"
            )
        self.repeat_factors = repeat_factors
        self.batch_size = batch_size
        self.seed = seed
        self.groups = groups
        self.rank = rank
        self.world_size = world_size
        self.start = 0  # number of batches to leave out: those of the run before it was resumed

    def __iter__(self) -> Iterator[List[Tuple[int, int]]]:
        share = self.batch_size // self.world_size
        mine = slice(self.rank * share, (self.rank + 1) * share)
        for batch in itertools.islice(self._batches(), self.start, None):
            yield [(derived_seed(self.seed, position), i) for position, i in batch[mine]]

    def _batches(self) -> Iterator[List[Tuple[int, int]]]:
        buckets: Dict[int, List[Tuple[int, int]]] = {}
        for position, index in enumerate(self._indices()):
            group = self.groups[index] if self.groups is not None else 0
            bucket = buckets.setdefault(group, [])
            bucket.append((position, index))
            if len(bucket) == self.batch_size:
                yield bucket
                buckets[group] = []

    def _indices(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed)
        whole, fraction = self.repeat_factors.trunc().long(), self.repeat_factors.frac()
        images = torch.arange(len(whole))
        while True:
            repeats = whole
            if fraction.any():
                repeats = whole + (torch.rand(len(whole), generator=generator) < fraction)
            epoch = images.repeat_interleave(repeats)
            yield from epoch[torch.randperm(len(epoch), generator=generator)].tolist()


class MappedDataset(Dataset):
    """
    Samples by (seed, index): what the mapper draws at random follows from the seed. For an image
    that the mapper rejects (returns None for), another one stands in, which follows from it, too.
    """

    def __init__(self, dataset: DatasetFromList, mapper: DatasetMapper):
        self.dataset = dataset
        self.mapper = mapper

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Tuple[int, int]) -> Dict[str, Any]:
        seed, index = key
        with seeded(seed):
            for _ in range(_MAX_REPLACEMENTS):
                sample = self.mapper(self.dataset[index])
                if sample is not None:
                    return sample
                index = np.random.randint(len(self.dataset))
        raise UserError(
            f"none of {_MAX_REPLACEMENTS} images drawn in a row can be used. The warnings above "
            "say why"
        )


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The random streams of torch's CPU, NumPy and Python begin at the seed, and go on after it as
    if nothing had been drawn."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])
