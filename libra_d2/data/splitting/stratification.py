"""
Splits of a data set into parts that have the same share of each class.

Shapes: I images; N objects of all of them; P parts.
"""

from itertools import pairwise
from typing import List, Sequence, Set, Tuple

import numpy as np

# Moves that look for a split with every class in every part, and groups compared for each.
_MAX_REPAIRS = 2000
_REPAIR_CANDIDATES = 200
# To bring the shares closer to the ratios: passes over all groups, and exchanges of two groups that
# are tried, which matter for small data sets.
_MAX_PASSES = 5
_MAX_EXCHANGES = 20_000


def stratify(
    groups: np.ndarray,
    image: np.ndarray,
    classes: np.ndarray,
    ratios: Sequence[float],
    seed: int = 0,
) -> np.ndarray:
    """
    Divide images so that each part has its share of the objects of each class, of the images
    without objects, and of all images.

    This is the iterative stratification of Sechidis et al., "On the stratification of multi-label
    data", ECML PKDD 2011, with groups of images for its examples and objects for its labels: the
    classes take turns, the one that is left in the fewest groups first, and each of its groups, the
    one with the most objects first, goes to the part that still needs the most objects of the
    class, or else the most images.

    Three things are added. A group that one of its classes needs to be in every part goes to a part
    that lacks the class. Where classes that share their groups still miss a part, groups are moved
    until each class that is in P groups or more is in all parts, or until no such split is found.
    Last, groups are moved or exchanged while the shares come closer to the ratios.

    >>> image, classes = np.arange(10), np.array([0, 0, 1, 1, 1, 1, 1, 1, 1, 1])
    >>> parts = stratify(np.arange(10), image, classes, (0.5, 0.5))
    >>> np.bincount(parts[:2]), np.bincount(parts[2:])
    (array([1, 1]), array([4, 4]))

    Args:
        groups: (I,) images with the same number stay in one part.
        image: (N,) index of the image of each object.
        classes: (N,) class of each object, from 0 on.
        ratios: (P,) the share of each part, above 0; they sum to 1.
        seed: the same one gives the same parts, whatever the version of NumPy.

    Returns:
        (I,) index of the part of each image. No part is empty.

    Raises:
        ValueError: there are fewer groups than parts.
    """
    _, group_of = np.unique(groups, return_inverse=True)
    group_of = group_of.reshape(-1)
    num_groups = int(group_of.max(initial=-1)) + 1
    if num_groups < len(ratios):
        raise ValueError(f"{num_groups} groups cannot be divided into {len(ratios)} parts")
    task = _Task(group_of, num_groups, image, classes, ratios, np.random.RandomState(seed))
    task.assign()
    task.repair()
    task.move_groups()
    task.exchange_groups()
    return np.array(task.part, dtype=np.int64)[group_of]


class _Task:
    """
    Groups have labels: the classes, one for images without objects, and the last for all images.

    Lists rather than arrays, since each step reads and changes a few numbers.
    """

    def __init__(self, group_of, num_groups, image, classes, ratios, random):
        num_classes = int(classes.max(initial=-1)) + 1
        empty = np.ones(len(group_of), dtype=bool)
        empty[image] = False
        self.images_label = num_classes + 1
        num_labels, num_parts = num_classes + 2, len(ratios)
        group = np.concatenate([group_of[image], group_of[empty], group_of])
        label = np.concatenate(
            [
                classes,
                np.full(empty.sum(), num_classes),
                np.full(len(group_of), self.images_label),
            ]
        )
        pairs, counts = np.unique(group * num_labels + label, return_counts=True)
        group, label = np.divmod(pairs, num_labels)
        # Of each group, its labels, and how many objects (or images) of each it has.
        ends = np.searchsorted(group, np.arange(num_groups + 1)).tolist()
        labels, amounts = label.tolist(), counts.tolist()
        self.labels: List[List[int]] = [labels[a:b] for a, b in pairwise(ends)]
        self.counts: List[List[int]] = [amounts[a:b] for a, b in pairwise(ends)]
        # Of each label, its groups, those with the most objects first, others in random order.
        order = np.lexsort((random.permutation(num_groups)[group], -counts, label))
        bounds = np.searchsorted(label[order], np.arange(num_labels + 1)).tolist()
        ordered = group[order].tolist()
        self.groups: List[List[int]] = [ordered[a:b] for a, b in pairwise(bounds)]
        totals = np.bincount(label, counts, num_labels)
        self.totals = np.maximum(totals, 1).tolist()
        # How many objects each part still needs of each label.
        self.needs: List[List[float]] = np.outer(totals, ratios).tolist()
        # In how many groups of each part a label is.
        self.present = [[0] * num_parts for _ in range(num_labels)]
        self.part = [-1] * num_groups
        self.parts = range(num_parts)
        self.random = random

    def assign(self) -> None:
        left = [len(groups) for groups in self.groups]  # groups without a part, of each label
        lacking = [len(self.parts) for _ in self.groups]  # parts without the label
        waiting = [k for k in range(self.images_label) if left[k]]
        while waiting:
            rarest = min(waiting, key=lambda k: left[k])
            for group in self.groups[rarest]:
                if self.part[group] < 0:
                    part = self._choose(group, rarest, left, lacking)
                    for k in self.labels[group]:
                        left[k] -= 1
                        lacking[k] -= not self.present[k][part]
                    self._put(group, part)
            waiting = [k for k in waiting if left[k]]

    def _choose(self, group: int, label: int, left: List[int], lacking: List[int]) -> int:
        urgent = [k for k in self.labels[group] if 0 < lacking[k] >= left[k]]
        needs, image_needs = self.needs[label], self.needs[self.images_label]
        if not urgent:
            return max(self.parts, key=lambda p: (needs[p], image_needs[p]))
        lacks = [sum(not self.present[k][p] for k in urgent) for p in self.parts]
        return max(self.parts, key=lambda p: (lacks[p], needs[p], image_needs[p]))

    def _put(self, group: int, part: int) -> None:
        old = self.part[group]
        self.part[group] = part
        for k, count in zip(self.labels[group], self.counts[group]):
            self.needs[k][part] -= count
            self.present[k][part] += 1
            if old >= 0:
                self.needs[k][old] += count
                self.present[k][old] -= 1

    def repair(self) -> None:
        """
        Move groups until no label that is in as many groups as there are parts misses a part: each
        time the group whose move leaves the fewest gaps, and of several the one that fits the
        ratios best; not back at once, which would go in circles (min-conflicts with a tabu list).
        """
        wanted = [k for k, groups in enumerate(self.groups) if len(groups) >= len(self.parts)]
        gaps = [(k, p) for k in wanted for p in self.parts if not self.present[k][p]]
        best, fewest = list(self.part), len(gaps)
        is_wanted = set(wanted)
        free_from = [0] * len(self.part)
        for step in range(_MAX_REPAIRS):
            if not gaps:
                return
            label, part = gaps[self.random.randint(len(gaps))]
            candidates = [g for g in self.groups[label] if free_from[g] <= step]
            candidates = candidates[-_REPAIR_CANDIDATES:]  # those with the fewest objects
            if candidates:
                group = min(candidates, key=lambda g: self._cost(g, part, is_wanted))
                free_from[group] = step + 2 + self.random.randint(len(self.parts) + 4)
                old = self.part[group]
                self._put(group, part)
                changed = is_wanted.intersection(self.labels[group])
                gaps = [(k, p) for k, p in gaps if not self.present[k][p]]
                gaps += [(k, old) for k in changed if not self.present[k][old]]
            if len(gaps) < fewest and all(self.present[self.images_label]):
                best, fewest = list(self.part), len(gaps)
        for group, part in enumerate(best):
            self._put(group, part)

    def move_groups(self) -> None:
        """
        Move groups, one at a time, as long as the shares come closer to the ratios and no label is
        in fewer parts than before.
        """
        for _ in range(_MAX_PASSES):
            moved = False
            for group in self.random.permutation(len(self.part)).tolist():
                misfit, part = min((self._misfit(group, p), p) for p in self.parts)
                if misfit < -1e-12 and not self._leaves_a_part(group, part):
                    self._put(group, part)
                    moved = True
            if not moved:
                return

    def exchange_groups(self) -> None:
        """As :meth:`move_groups`, but two random groups at a time, which swap their parts."""
        num_groups = len(self.part)
        tries = min(_MAX_EXCHANGES, 100 * num_groups)
        for first, second in self.random.randint(num_groups, size=(tries, 2)).tolist():
            here, there = self.part[first], self.part[second]
            if here == there or self._leaves_a_part(first, there):
                continue
            change = self._misfit(first, there)
            self._put(first, there)
            change += self._misfit(second, here)
            if change < -1e-12 and not self._leaves_a_part(second, here):
                self._put(second, here)
            else:
                self._put(first, here)

    def _leaves_a_part(self, group: int, part: int) -> bool:
        old = self.part[group]
        return any(self.present[k][old] == 1 and self.present[k][part] for k in self.labels[group])

    def _cost(self, group: int, part: int, wanted: Set[int]) -> Tuple[int, float]:
        """Gaps that a move would leave, less those that it would close; then the misfit."""
        present = [self.present[k] for k in self.labels[group] if k in wanted]
        old = self.part[group]
        gaps = sum((p[old] == 1) - (p[part] == 0) for p in present)
        return gaps, self._misfit(group, part)

    def _misfit(self, group: int, part: int) -> float:
        """
        By how much a move would change the sum of all squared needs, each over the square of the
        label's total.
        """
        old, change = self.part[group], 0.0
        if old == part:
            return change
        for k, count in zip(self.labels[group], self.counts[group]):
            needs = self.needs[k]
            change += 2 * count * (count + needs[old] - needs[part]) / self.totals[k] ** 2
        return change
