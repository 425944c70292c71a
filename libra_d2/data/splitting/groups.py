"""
Which images must stay together when a data set is split.

Shapes: I images; K of them have a hash; M pairs. A group is named by the least index of its images,
so that `groups` is an (I,) integer array with `groups[groups] == groups`.
"""

from itertools import pairwise
from typing import Iterator, Sequence, Tuple

import numpy as np


def no_groups(num_images: int) -> np.ndarray:
    """Every image is a group of its own."""
    return np.arange(num_images)


def join(groups: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """
    Join the groups of pairs of images: union-find for all pairs at once, by hooking the greater of
    two roots to the lesser and then jumping to the root (Shiloach and Vishkin, "An O(log n)
    parallel connectivity algorithm", 1982).

    >>> join(no_groups(5), np.array([0, 3]), np.array([4, 4]))
    array([0, 1, 2, 0, 0])

    Args:
        groups: (I,), is not modified.
        first, second: (M,) indices of images.

    Returns:
        (I,) groups.
    """
    groups = groups.copy()
    while True:
        first, second = groups[first], groups[second]
        apart = first != second
        if not apart.any():
            return groups
        first, second = first[apart], second[apart]
        np.minimum.at(groups, np.maximum(first, second), np.minimum(first, second))
        while True:
            roots = groups[groups]
            if np.array_equal(roots, groups):
                break
            groups = roots


def join_equal(groups: np.ndarray, keys: Sequence[object]) -> np.ndarray:
    """
    Join the groups of images with equal keys.

    >>> join_equal(no_groups(4), ["a", "b", "a", "c"])
    array([0, 1, 0, 3])

    Args:
        groups: (I,)
        keys: (I,) of any hashable type.
    """
    first_of: dict = {}
    first = [first_of.setdefault(key, i) for i, key in enumerate(keys)]
    return join(groups, np.array(first, dtype=np.int64), np.arange(len(groups)))


def join_near(
    groups: np.ndarray, images: np.ndarray, hashes: np.ndarray, max_distance: int
) -> np.ndarray:
    """
    Join the groups of images whose hashes differ in few bits.

    >>> hashes = np.array([0b0000, 0b0011, 0b1111], dtype=np.uint64)
    >>> join_near(no_groups(3), np.arange(3), hashes, max_distance=1)
    array([0, 1, 2])
    >>> join_near(no_groups(3), np.arange(3), hashes, max_distance=2)
    array([0, 0, 0])

    Args:
        groups: (I,)
        images: (K,) indices of the images that have a hash.
        hashes: (K,) uint64.
        max_distance: bits, from 0 to 63.
    """
    distinct, inverse = np.unique(hashes, return_inverse=True)
    # Near hashes of different values; then equal ones, and each image with its hash.
    of_hash = no_groups(len(distinct))
    for first, second in _pairs_of_equal_bands(distinct, max_distance + 1):
        apart = of_hash[first] != of_hash[second]  # most pairs of a large group are joined by then
        first, second = first[apart], second[apart]
        near = count_bits(distinct[first] ^ distinct[second]) <= max_distance
        if near.any():
            of_hash = join(of_hash, first[near], second[near])
    roots = of_hash[inverse.reshape(-1)]
    image_of_root = np.zeros(len(distinct), dtype=np.int64)
    image_of_root[roots] = images
    return join(groups, images, image_of_root[roots])


def _pairs_of_equal_bands(
    hashes: np.ndarray, num_bands: int
) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """
    Pairs of hashes that are equal in one of `num_bands` bands of bits, in blocks. Hashes that
    differ in fewer bits than there are bands are among them (Norouzi et al., "Fast search in
    Hamming space with multi-index hashing", CVPR 2012).
    """
    ends = np.linspace(0, 64, num_bands + 1).astype(int).tolist()
    for start, end in pairwise(ends):
        mask = (1 << (end - start)) - 1
        band = (hashes >> np.uint64(start)) & np.uint64(mask)
        order = np.argsort(band, kind="stable")
        band = band[order]
        left, shift = np.arange(len(band)), 0
        while len(left):  # as often as the most common value of the band occurs
            shift += 1
            left = left[left + shift < len(band)]
            left = left[band[left] == band[left + shift]]
            yield order[left], order[left + shift]


def count_bits(words: np.ndarray) -> np.ndarray:
    """
    The number of bits that are set, of each word, as in Warren, "Hacker's Delight", 5-1. NumPy has
    `bitwise_count` only from 2.0 on.

    >>> count_bits(np.array([0, 0b1011, 2**64 - 1], dtype=np.uint64))
    array([ 0,  3, 64], dtype=uint64)

    Args:
        words: uint64, of any shape.
    """
    one, two, four, last = (np.uint64(n) for n in (1, 2, 4, 56))
    pairs, nibbles, bytes_, sums = (
        np.uint64(n * 0x0101010101010101) for n in (0x55, 0x33, 0x0F, 0x01)
    )
    words = words - ((words >> one) & pairs)
    words = (words & nibbles) + ((words >> two) & nibbles)
    words = (words + (words >> four)) & bytes_
    return (words * sums) >> last
