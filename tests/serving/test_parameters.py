"""Parameters of requests: unknown ones, and those out of range, are refused."""

import pytest

from libra_d2.errors import UserError
from libra_d2.inference.slicing import Slicing
from libra_d2.serving.parameters import Parameters, read_parameters


def test_what_is_given_is_read():
    assert read_parameters([], 0.02) == Parameters()
    given = {"score_threshold": "0.5", "slice": "640", "overlap": "0.25", "format": "picture"}
    expected = Parameters(0.5, Slicing(640, 0.25), "picture")
    assert read_parameters(given.items(), 0.02) == expected
    assert read_parameters([("slice", "64")], 0.02).slicing == Slicing(64, 0.2)


@pytest.mark.parametrize(
    "query, words",
    [
        ([("score_treshold", "0.5")], "must be one of score_threshold, .*, got 'score_treshold'"),
        ([("score_threshold", "1.5")], r"score_threshold must be in \[0, 1\], got 1.5"),
        ([("score_threshold", "nan")], r"in \[0, 1\]"),
        ([("score_threshold", "high")], "must be a number, got 'high'"),
        ([("score_threshold", "")], "must be a number, got ''"),
        ([("score_threshold", "0.4"), ("score_threshold", "0.5")], "must be given once"),
        ([("score_threshold", "0.01")], "at least 0.02, the threshold of this server, got 0.01"),
        ([("slice", "64.5")], "slice must be a number of pixels"),
        ([("slice", "inf")], "slice must be a number of pixels"),
        ([("slice", "nan")], "slice must be a number of pixels"),
        ([("slice", "16")], "slice must be at least 32 pixels"),
        ([("slice", "-1e30")], "slice must be at least 32 pixels"),
        ([("slice", "64"), ("overlap", "0.95")], r"overlap must be in \[0, 0.9\]"),
        ([("slice", "64"), ("overlap", "nan")], r"overlap must be in \[0, 0.9\]"),
        ([("overlap", "0.2")], "overlap can only be used with slice"),
        ([("format", "xml")], "format must be one of json, coco, picture, got 'xml'"),
        ([("x" * 10_000, "")], "must be one of"),
    ],
)
def test_mistakes_are_refused_in_one_short_line(query, words):
    with pytest.raises(UserError, match=words) as e:
        read_parameters(query, 0.02)
    assert "\n" not in str(e.value) and len(str(e.value)) < 300
