"""Images that must stay together: union-find on arrays, and hashes that are near."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libra_d2.data.splitting.groups import count_bits, join, join_equal, join_near, no_groups


def components(num, pairs):
    """The plain way: relabel until nothing changes."""
    labels = list(range(num))
    for _ in range(num):
        for a, b in pairs:
            labels[a] = labels[b] = min(labels[a], labels[b])
    return labels


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=15))
def test_pairs_are_joined_as_by_a_loop(pairs):
    first, second = np.array(pairs, dtype=int).reshape(-1, 2).T
    groups = join(no_groups(12), first, second)
    assert groups.tolist() == components(12, pairs)
    half = len(pairs) // 2
    steps = join(no_groups(12), first[:half], second[:half])
    assert join(steps, first[half:], second[half:]).tolist() == groups.tolist()


@given(st.lists(st.integers(0, 4), max_size=12))
def test_equal_keys_are_joined(keys):
    assert join_equal(no_groups(len(keys)), keys).tolist() == [keys.index(k) for k in keys]


def test_a_long_chain_is_one_group():
    """One root after the other would take as many rounds as the chain has links."""
    links = np.random.RandomState(0).permutation(99_999)
    assert not join(no_groups(100_000), links, links + 1).any()


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_bits_are_counted(words):
    counts = count_bits(np.array(words, dtype=np.uint64))
    assert counts.tolist() == [bin(word).count("1") for word in words]


def hashes_near_each_other(seed, num):
    """Half are random, the others differ from them in 0 to 12 bits."""
    random = np.random.RandomState(seed)
    hashes = [int.from_bytes(random.bytes(8), "big") for _ in range(num)]
    for i in range(num // 2):
        for bit in random.choice(64, random.randint(13), replace=False):
            hashes[i] ^= 1 << int(bit)
        hashes[i] = hashes[i] if i % 3 else hashes[num - 1 - i]
        for bit in random.choice(64, random.randint(13), replace=False):
            hashes[i] ^= 1 << int(bit)
    return np.array(hashes, dtype=np.uint64)


@pytest.mark.parametrize("max_distance", [0, 1, 3, 4, 7, 12, 16])
def test_near_hashes_are_found_as_by_all_pairs(max_distance):
    for seed in range(5):
        hashes = hashes_near_each_other(seed, 60)
        numbers = hashes.tolist()
        pairs = [
            (i, j)
            for i in range(60)
            for j in range(i)
            if bin(numbers[i] ^ numbers[j]).count("1") <= max_distance
        ]
        found = join_near(no_groups(60), np.arange(60), hashes, max_distance)
        assert found.tolist() == components(60, pairs)


def test_the_distance_is_the_greatest_that_counts():
    for distance in range(17):
        hashes = np.array([0, sum(1 << (3 * i + 5) for i in range(distance))], dtype=np.uint64)
        for limit in range(17):
            found = join_near(no_groups(2), np.arange(2), hashes, limit)
            assert (found[1] == 0) == (distance <= limit), (distance, limit)


def test_images_without_a_hash_stay_alone():
    """They must not be taken for the image of the first hash."""
    hashes = np.array([7, 9, 7], dtype=np.uint64)
    found = join_near(no_groups(5), np.array([1, 2, 4]), hashes, 0)
    assert found.tolist() == [0, 1, 2, 3, 1]
    none = join_near(no_groups(3), np.array([], dtype=int), np.array([], dtype=np.uint64), 4)
    assert none.tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["different", "pairs", "one", "a crowd"])
def test_100000_hashes_take_seconds(kind):
    random = np.random.RandomState(0)
    num = 100_000
    hashes = np.frombuffer(random.bytes(8 * num), dtype=np.uint64).copy()
    expected = num
    if kind == "pairs":
        hashes[num // 2 :] = hashes[: num // 2] ^ np.uint64(0b1001)
        expected = num // 2
    if kind == "one":
        hashes[:], expected = hashes[0], 1
    if kind == "a crowd":  # all within 16 bits, so that the bands say little
        hashes, expected = hashes & np.uint64(0x1111111111111111), 1
    start = time.process_time()
    groups = join_near(no_groups(num), np.arange(num), hashes, 4)
    assert time.process_time() - start < 20
    assert len(np.unique(groups)) == expected
