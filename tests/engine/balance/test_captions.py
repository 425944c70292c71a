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
        ("negatives", negatives([9, 1], [2, 1], 0.1, 0.3), "selects more hard negatives"),
        ("negatives", negatives([9, 1], [2, 1], 0.3, 0.1), "selects fewer hard negatives"),
        ("negatives", negatives([9, 1], [5, 1]), "selects as many hard negatives"),
        ("negatives", negatives([9, 1], [9, 1]), "fewer negatives than may be sampled"),
        ("negatives", negatives([0, 0], [0, 0], math.nan, math.nan), "no negatives"),
        ("positives", positives(8, 8), "positives than may be sampled, so all of them are used"),
        ("positives", positives(8, 4, 0.5, 0.1), "Sampling distributes the positives more evenly"),
        ("positives", positives(8, 4), "does not distribute the positives more evenly"),
        ("positives", positives(8, 4, math.nan, math.nan), "No image has several objects"),
        ("positives", positives(0, 0), "No proposal matched an object"),
        ("positives", positives(math.nan, math.nan), "no objects"),
        ("gradient", {"in_use": 0.5, "smooth_l1": 0.3}, "contribute more"),
        ("gradient", {"in_use": 0.3, "smooth_l1": 0.5}, "contribute less"),
        ("gradient", {"in_use": 0.3, "smooth_l1": 0.3}, "contribute as much"),
        ("gradient", {"in_use": math.nan, "smooth_l1": math.nan}, "no gradient to balance"),
        ("levels", {"before": [1, 3], "after": [3, 5]}, "BFP makes the levels more similar"),
        ("levels", {"before": [3, 5], "after": [1, 3]}, "does not make the levels more similar"),
        ("levels", {"before": [1, 3], "after": []}, "no BFP"),
        ("levels", {"before": [0, 3], "after": [1, 2]}, "all zero"),
    ],
)
def test_captions(kind, last, words):
    assert words in caption(kind, last)
