"""The order of the training data is a function of the seed and the step."""

import itertools
import json
import logging
import re
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetFromList
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler

from libra_d2.data import register_coco
from libra_d2.data.epochs import images_per_epoch
from libra_d2.data.loader import (
    MappedDataset,
    TrainingBatches,
    build_train_loader,
    derived_seed,
    seeded,
)
from libra_d2.data.loader_workers import WatchedLoader
from libra_d2.engine import load_cfg
from libra_d2.errors import UserError

from ..own_disk import run_with_mount
from ..support.coco_files import write_dataset
from ..support.programs import run_python
from ..support.train_net_runs import SMALL, on_data

WIDE = [True, False, True, True, False, True, False]  # of seven images
ONES = torch.ones(len(WIDE))


def take(batches, number):
    return list(itertools.islice(batches, number))


def indices(batches, number):
    return [[index for _, index in batch] for batch in take(batches, number)]


@pytest.mark.parametrize("repeats", [ONES, torch.tensor([1, 2.5, 0.2, 1, 3, 1, 0.7])])
def test_order_is_that_of_detectron2(repeats):
    if (repeats == 1).all():
        sampler = TrainingSampler(len(WIDE), seed=3)
    else:
        sampler = RepeatFactorTrainingSampler(repeats, seed=3)
    records = ({"index": i, "width": 2 if WIDE[i] else 1, "height": 1} for i in sampler)
    upstream = AspectRatioGroupedDataset(records, 3)
    ours = TrainingBatches(repeats, batch_size=3, seed=3, groups=WIDE)
    expected = [[r["index"] for r in batch] for batch in take(upstream, 40)]
    assert indices(ours, 40) == expected


def test_processes_share_the_batches_of_one():
    one = take(TrainingBatches(ONES, batch_size=4, seed=1, groups=WIDE), 20)
    ranks = [
        take(TrainingBatches(ONES, batch_size=4, seed=1, groups=WIDE, rank=r, world_size=2), 20)
        for r in range(2)
    ]
    assert [a + b for a, b in zip(*ranks)] == one
    with pytest.raises(UserError, match=r"IMS_PER_BATCH must be a multiple .* 2, got 3"):
        TrainingBatches(ONES, batch_size=3, seed=1, world_size=2)


@pytest.mark.parametrize("start", [1, 5, 13])
def test_start_leaves_out_what_was_seen(start):
    whole = TrainingBatches(ONES, batch_size=2, seed=1, groups=WIDE)
    rest = TrainingBatches(ONES, batch_size=2, seed=1, groups=WIDE)
    rest.start = start
    assert take(rest, 10) == take(whole, start + 10)[start:]
    assert take(rest, 10) == take(whole, start + 10)[start:]  # also in a second iteration


def test_seeds_of_samples_are_all_different():
    keys = [k for batch in take(TrainingBatches(ONES, batch_size=2, seed=1), 500) for k in batch]
    assert len({seed for seed, _ in keys}) == len(keys)
    other = TrainingBatches(ONES, batch_size=2, seed=2)
    assert not {k for b in take(other, 500) for k in b} & set(keys)
    assert derived_seed(1, 2) != derived_seed(2, 1)
    torch.manual_seed(derived_seed(2**40, 2**31))  # in its range


def drawing_mapper(record):
    """Random numbers of all kinds, or None for image 2."""
    if record["index"] == 2:
        return None
    return record["index"], torch.rand(1).item(), np.random.rand(), np.random.randint(1000)


def test_a_sample_follows_from_its_seed_and_leaves_no_trace():
    dataset = MappedDataset(DatasetFromList([{"index": i} for i in range(5)]), drawing_mapper)
    torch.manual_seed(8)
    np.random.seed(8)
    first = dataset[99, 1]
    drawn = torch.rand(1), np.random.rand()
    torch.manual_seed(8)
    np.random.seed(8)
    assert drawn == (torch.rand(1), np.random.rand())
    assert dataset[99, 1] == first and dataset[98, 1] != first
    stand_in = dataset[7, 2]
    assert stand_in[0] != 2 and dataset[7, 2] == stand_in
    with seeded(7):
        torch.rand(1)


def test_a_set_without_a_usable_image_is_an_error():
    dataset = MappedDataset(DatasetFromList([{"index": 2}]), drawing_mapper)
    with pytest.raises(UserError, match="none of 1000 images"):
        dataset[0, 0]


def config_of(files, *opts):
    name = register_coco(*files)
    small = ("INPUT.MIN_SIZE_TRAIN", "(40,)", "SOLVER.IMS_PER_BATCH", "2")
    cfg = load_cfg("configs/libra_mobilenet_v2.yaml", [*small, *opts])
    cfg.DATASETS.TRAIN = (name,)
    return cfg


def plain_mapper(record):
    return record["image_id"], np.random.rand()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("loader"), num_images=6)


@pytest.mark.parametrize("grouping", ["True", "False"])
def test_workers_change_nothing(files, grouping):
    runs = []
    for workers in ("0", "2"):
        opts = ("DATALOADER.NUM_WORKERS", workers, "DATALOADER.ASPECT_RATIO_GROUPING", grouping)
        loader = build_train_loader(config_of(files, *opts), plain_mapper, seed=4)
        runs.append(take(loader, 9))
    assert runs[0] == runs[1]
    assert len({i for batch in runs[0] for i, _ in batch}) == 6


def test_its_start_draws_nothing_from_the_random_stream(files):
    """Else the first step of a resumed run would draw other proposals."""
    loader = build_train_loader(config_of(files), plain_mapper, seed=4)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    next(iter(loader))
    assert torch.rand(1) == expected


def test_subset_is_of_the_wanted_size_and_the_seeds(files):
    opts = ("DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler")
    cfg = config_of(files, *opts, "DATALOADER.RANDOM_SUBSET_RATIO", "0.5")
    seen = [
        {i for batch in take(build_train_loader(cfg, plain_mapper, seed), 9) for i, _ in batch}
        for seed in (4, 4, 5, 6, 7)
    ]
    assert all(len(s) == 3 for s in seen)
    assert seen[0] == seen[1] and len(set(map(frozenset, seen))) > 1


def test_other_samplers(files, caplog):
    name = config_of(files).DATASETS.TRAIN[0]
    weighted = config_of(
        files,
        *("DATALOADER.SAMPLER_TRAIN", "WeightedTrainingSampler", "DATALOADER.NUM_WORKERS", "0"),
    )
    weighted.DATASETS.TRAIN_REPEAT_FACTOR = [(name, 2.0)]
    with caplog.at_level(logging.WARNING):
        assert len(next(iter(build_train_loader(weighted, dict, seed=1)))) == 2
    assert "starts from the beginning after --resume" in caplog.text
    expected = "SAMPLER_TRAIN must be one of 'TrainingSampler', .*, got 'Shuffle'"
    with pytest.raises(UserError, match=expected):
        build_train_loader(
            config_of(files, "DATALOADER.SAMPLER_TRAIN", "Shuffle"), plain_mapper, seed=1
        )
    assert name in DatasetCatalog.list()


@pytest.mark.parametrize(
    "sampler, augmentation",
    [
        ("TrainingSampler", ""),
        ("WeightedTrainingSampler", ""),
        ("WeightedTrainingSampler", "CopyPaste()"),
    ],
)
def test_images_without_keypoints_are_left_out_and_not_counted(tmp_path, sampler, augmentation):
    """Two of four images have keypoints."""
    path, images = write_dataset(tmp_path, num_images=4)
    content = json.loads(Path(path).read_text())
    for i, annotation in enumerate(content["annotations"]):
        annotation["keypoints"] = [12, 12, 2 if i in (1, 2) else 0]
    Path(path).write_text(json.dumps(content))
    opts = ["MODEL.KEYPOINT_ON", "True", "DATALOADER.SAMPLER_TRAIN", sampler]
    opts += ["DATALOADER.NUM_WORKERS", "0", "INPUT.AUGMENTATIONS", augmentation]
    cfg = config_of((path, images), *opts)
    cfg.DATASETS.TRAIN_REPEAT_FACTOR = [(cfg.DATASETS.TRAIN[0], 1.0)]
    loader = build_train_loader(cfg, dict, seed=1)
    seen = {d["image_id"] for batch in itertools.islice(loader, 6) for d in batch}
    assert seen == {content["annotations"][i]["image_id"] for i in (1, 2)}
    assert images_per_epoch(cfg) == 2


LIMITED = """
import resource, sys
from libra_d2.data.loader_workers import require_open_files
soft, hard, workers = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
try:
    require_open_files(workers, batch_size=2)
except Exception as e:
    print(type(e).__name__, e)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    "soft, hard, workers, expected",
    [
        (48, 48, 8, r"UserError the system lets this process open 48 files, .* 8 needs about \d+"),
        (48, 4096, 8, r"^(2\d\d|3\d\d)$"),  # raised, and not further than needed
        (48, 48, 0, "^48$"),
        (1024, 4096, 8, "^1024$"),
    ],
)
def test_too_few_open_files_are_found_before_workers_start(soft, hard, workers, expected):
    done = run_python("-c", LIMITED, soft, hard, workers)
    assert done.returncode == 0, done.stderr
    assert re.search(expected, done.stdout.strip()), done.stdout


@pytest.mark.parametrize(
    "size, options, message",
    [
        ("4k", "", r"/dev/shm of 0\.0 MB, through which .* is full"),  # no room for a number
        ("12k", "", r"/dev/shm of 0\.0 MB, through which .* is full"),  # for the queues
        ("1m", "", r"loader worker .* /dev/shm of 1\.0 MB .*too small|/dev/shm of 1.0 MB.* full"),
        ("1m", "ro", r"/dev/shm, through which .* cannot be used \(Read-only file system\)"),
    ],
)
def test_shared_memory_that_is_too_small_is_one_line(files, tmp_path, size, options, message):
    """As of a container. Neither a stack trace, nor workers that are waited for without end."""
    command = ["train_net.py", *on_data(files), *SMALL, "MODEL.DEVICE", "cpu"]
    command += ["DATALOADER.NUM_WORKERS", "2", "INPUT.MIN_SIZE_TRAIN", "(533,)"]
    command += ["OUTPUT_DIR", tmp_path / "out"]
    (run,) = run_with_mount("/dev/shm", [command], options, size)
    assert run["status"] == 2
    (line,) = run["error"].splitlines()
    assert line.startswith("error: ") and re.search(message, line), line
    assert "NUM_WORKERS" in line or options


class Disconnected(torch.utils.data.Dataset):
    """While it passes tensors on, the process that takes them disconnects."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        from multiprocessing import resource_sharer

        passed_on = resource_sharer.DupFd(0)
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(passed_on._id[0])
        time.sleep(0.3)
        return index


def test_a_main_process_that_stops_while_it_takes_tensors_is_no_workers_error(capfd):
    loader = WatchedLoader(Disconnected(), batch_size=1, num_workers=1)
    assert [int(x) for x in loader] == [0]
    assert "Traceback" not in capfd.readouterr().err
