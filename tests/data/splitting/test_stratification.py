"""Parts with the same share of each class: groups stay whole, and no part lacks a class."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libra_d2.data.splitting.stratification import stratify


def random_objects(num_images, num_classes, seed=0, mean=5):
    """Frequencies of classes fall like 1/k; the objects of an image are often of one class."""
    random = np.random.RandomState(seed)
    image = np.repeat(np.arange(num_images), random.poisson(mean, num_images))
    frequency = 1 / np.arange(1, num_classes + 1)
    frequency /= frequency.sum()
    of_image = random.choice(num_classes, num_images, p=frequency)
    own = random.choice(num_classes, len(image), p=frequency)
    return image, np.where(random.rand(len(image)) < 0.5, of_image[image], own)


def class_shares(parts, image, classes, num_parts):
    """(C, P), also of the images without objects; of few objects no split has the right share."""
    empty = np.setdiff1d(np.arange(len(parts)), image)
    label = np.concatenate([classes, np.full(len(empty), classes.max(initial=0) + 1)])
    counts = np.zeros((label.max(initial=0) + 1, num_parts))
    np.add.at(counts, (label, parts[np.concatenate([image, empty])]), 1)
    counts = counts[counts.sum(1) >= 20]
    return counts / counts.sum(1, keepdims=True)


@st.composite
def tasks(draw):
    num_images = draw(st.integers(3, 30))
    objects = draw(st.lists(st.tuples(st.integers(0, num_images - 1), st.integers(0, 5))))
    image, classes = np.array(objects, dtype=int).reshape(-1, 2).T
    groups = draw(st.lists(st.integers(0, 12), min_size=num_images, max_size=num_images))
    groups[:3] = 20, 21, 22
    weights = np.array(draw(st.lists(st.integers(1, 20), min_size=2, max_size=3)))
    return np.array(groups), image, classes, (weights / weights.sum()).tolist()


@settings(max_examples=200, deadline=None)
@given(tasks(), st.integers(0, 2**32 - 1))
def test_groups_stay_whole_and_no_part_is_empty(task, seed):
    groups, _, _, ratios = task
    parts = stratify(*task, seed)
    assert parts.shape == groups.shape
    assert sorted(set(parts.tolist())) == list(range(len(ratios)))
    assert all(len(set(parts[groups == g].tolist())) == 1 for g in groups)
    assert (stratify(*task, seed) == parts).all()


@pytest.mark.parametrize("seed", range(40))
def test_every_class_that_can_be_in_every_part_is(seed):
    """Compared with all splits of eight images: none has fewer classes missing from a part."""
    random = np.random.RandomState(seed)
    num_images, num_classes = random.randint(3, 9), random.randint(1, 6)
    ratios = [(0.8, 0.1, 0.1), (0.7, 0.3)][seed % 2]
    has = random.rand(num_images, num_classes) < random.choice([0.25, 0.4, 0.6])
    image, classes = np.nonzero(has)
    can = has[:, has.sum(0) >= len(ratios)]

    def gaps(parts):
        return sum((~can[parts == p].any(0)).sum() for p in range(len(ratios)))

    parts = stratify(np.arange(num_images), image, classes, ratios)
    every = itertools.product(range(len(ratios)), repeat=num_images)
    assert gaps(parts) == min(gaps(np.array(p)) for p in every if len(set(p)) == len(ratios))


def test_a_class_of_three_images_is_in_all_three_parts():
    """Its shares alone would put all of them into the first: 0.3 objects are wanted elsewhere."""
    image, classes = np.arange(100), np.zeros(100, dtype=int)
    classes[:3], classes[3:5], classes[5] = 1, 2, 3
    parts = stratify(np.arange(100), image, classes, (0.8, 0.1, 0.1))
    assert sorted(parts[:3]) == [0, 1, 2]
    assert len(set(parts[3:5])) == 2 and parts[5] == 0
    assert np.abs(np.bincount(parts) - (80, 10, 10)).max() <= 1


@pytest.mark.parametrize(
    "num_images, num_classes, num_groups, times_better",
    [(300, 10, 0, 5), (3000, 80, 0, 5), (300, 10, 60, 2), (3000, 20, 300, 2)],
)
def test_shares_are_nearer_than_those_of_random_splits(
    num_images, num_classes, num_groups, times_better
):
    ratios = np.array([0.8, 0.1, 0.1])
    image, classes = random_objects(num_images, num_classes)
    random = np.random.RandomState(1)
    groups = random.randint(num_groups, size=num_images) if num_groups else np.arange(num_images)

    def misfit(parts):
        return np.abs(class_shares(parts, image, classes, 3) - ratios).mean()

    ours = [misfit(stratify(groups, image, classes, ratios, seed)) for seed in range(3)]
    part_of_group = random.choice(3, (20, num_images), p=ratios)
    others = [misfit(parts[groups]) for parts in part_of_group]
    assert max(ours) < min(others) and max(ours) < np.mean(others) / times_better
    shares = np.bincount(stratify(groups, image, classes, ratios)) / num_images
    assert np.abs(shares - ratios).max() < 0.03


def test_images_without_objects_are_a_class():
    parts = stratify(np.arange(200), np.arange(100), np.zeros(100, dtype=int), (0.5, 0.3, 0.2))
    assert np.bincount(parts[:100]).tolist() == np.bincount(parts[100:]).tolist() == [50, 30, 20]
    nothing = np.array([], dtype=int)
    parts = stratify(np.arange(10), nothing, nothing, (0.5, 0.5))
    assert np.bincount(parts).tolist() == [5, 5]


def test_objects_count_rather_than_images():
    """Ten images with four objects and forty with one: half of the images may have 3/4 of all."""
    image = np.concatenate([np.repeat(np.arange(10), 4), np.arange(10, 50)])
    parts = stratify(np.arange(50), image, np.zeros(80, dtype=int), (0.5, 0.5))
    assert np.bincount(parts[image]).tolist() == [40, 40]
    assert np.bincount(parts).tolist() == [25, 25]


def test_the_seed_decides():
    image, classes = random_objects(200, 5)
    splits = {
        tuple(stratify(np.arange(200), image, classes, (0.8, 0.2), seed)) for seed in (0, 0, 1, 2)
    }
    assert len(splits) == 3


def test_a_seed_gives_the_same_parts_on_every_machine():
    image, classes = random_objects(20, 3)
    parts = stratify(np.arange(20), image, classes, (0.6, 0.2, 0.2), 7)
    assert "".join(map(str, parts)) == "02101022100010021000"


def test_too_few_groups_are_refused():
    with pytest.raises(ValueError, match="2 groups cannot be divided into 3 parts"):
        stratify(np.array([0, 1, 1]), np.array([0]), np.array([0]), (0.8, 0.1, 0.1))


@pytest.mark.parametrize("num_classes, num_groups", [(80, 0), (1200, 0), (80, 5000)])
def test_100000_images_take_seconds(num_classes, num_groups):
    image, classes = random_objects(100_000, num_classes, mean=7)
    groups = np.arange(100_000) % (num_groups or 100_000)
    start = time.process_time()
    parts = stratify(groups, image, classes, (0.8, 0.1, 0.1))
    assert time.process_time() - start < 30
    shares = np.bincount(parts) / 100_000
    assert np.abs(shares - (0.8, 0.1, 0.1)).max() < 0.005
