"""The sentences below the panels of the balance picture agree with what is shown."""

import math

import pytest

from libra_d2.engine.balance.captions import caption


def negatives(all_counts, sampled_counts, all_hard=0.1, sampled_hard=0.1):
    return {
        "all": {"counts": all_counts, "hard": all_hard},
        "sampled": {"counts": sampled_counts, "hard": sampled_hard},
    }


def positives(all_mean, sampled_mean, all_unevenness=0.5, sampled_unevenness=0.5):
    return {
        "all": {"mean": all_mean, "unevenness": all_unevenness},
        "sampled": {"mean": sampled_mean, "unevenness": sampled_unevenness},
    }


@pytest.mark.parametrize(
    "kind, last, words",
    [
        ("negatives", negatives([9, 1], [2, 1], 0.1, 0.3), "More hard negatives"),
        ("negatives", negatives([9, 1], [2, 1], 0.3, 0.1), "Fewer hard negatives"),
        ("negatives", negatives([9, 1], [5, 1]), "As many hard negatives"),
        ("negatives", negatives([9, 1], [9, 1]), "Fewer negatives than the budget"),
        ("negatives", negatives([0, 0], [0, 0], math.nan, math.nan), "no negatives"),
        ("positives", positives(8, 8), "Fewer positives than the budget, so all of them are taken"),
        ("positives", positives(8, 4, 0.5, 0.1), "more evenly in the sample"),
        ("positives", positives(8, 4), "no more evenly"),
        ("positives", positives(8, 4, math.nan, math.nan), "No image has several objects"),
        ("positives", positives(0, 0), "No proposal fits an object"),
        ("positives", positives(math.nan, math.nan), "no objects"),
        ("gradient", {"in_use": 0.5, "smooth_l1": 0.3}, "a larger share"),
        ("gradient", {"in_use": 0.3, "smooth_l1": 0.5}, "a smaller share"),
        ("gradient", {"in_use": 0.3, "smooth_l1": 0.3}, "the same share"),
        ("gradient", {"in_use": math.nan, "smooth_l1": math.nan}, "no gradient to balance"),
        ("levels", {"before": [1, 3], "after": [3, 5]}, "more alike after BFP"),
        ("levels", {"before": [3, 5], "after": [1, 3]}, "no more alike"),
        ("levels", {"before": [1, 3], "after": []}, "no BFP"),
        ("levels", {"before": [0, 3], "after": [1, 2]}, "all zeros"),
    ],
)
def test_captions(kind, last, words):
    assert words in caption(kind, last)
