"""Whether two sets of detections are the same: by hand."""

import pytest
import torch

from libra_d2.errors import UserError
from libra_d2.export.agreement import ExportReport, compare


def detections(*rows, masks=None):
    """Rows of (x0, y0, x1, y1, score, class)."""
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)
    ret = table[:, :4].float(), table[:, 4].float(), table[:, 5].long()
    return ret if masks is None else (*ret, masks)


A, B = (0, 0, 10, 10, 0.5, 0), (20, 0, 30, 10, 0.5, 0)


def changed(row, index, by):
    return (*row[:index], row[index] + by, *row[index + 1 :])


def test_equal_scores_may_change_places():
    report = compare(detections(A, B), detections(B, A))
    assert report == ExportReport(images=1, detections=2)


@pytest.mark.parametrize(
    "found, missing, extra",
    [
        ([A], 1, 0),
        ([A, B, B], 0, 1),
        ([], 2, 0),
        ([A, A], 1, 1),  # the second has no counterpart but a taken one
        ([A, changed(B, 2, 0.2)], 1, 1),
        ([A, changed(B, 4, 0.001)], 1, 1),
        ([A, changed(B, 5, 1)], 1, 1),
    ],
)
def test_differences_are_counted(found, missing, extra):
    report = compare(detections(A, B), detections(*found))
    assert (report.missing, report.extra) == (missing, extra)
    with pytest.raises(UserError, match=rf"x\.onnx is not written.* {missing} are missing"):
        report.require_equal("x.onnx")


def test_small_differences_are_measured():
    found = detections(changed(A, 3, 0.0625), changed(B, 4, 0.00005))
    total = ExportReport()
    total.add(compare(detections(A, B), found))
    total.add(compare(detections(A), detections(A)))
    total.require_equal("x.onnx")
    assert (total.images, total.detections) == (2, 3)
    assert total.box_difference == 0.0625
    assert total.score_difference == pytest.approx(0.00005, rel=1e-2)


def test_masks_are_compared():
    masks = torch.rand(1, 4, 4)
    expected = detections(A, masks=masks)
    assert compare(expected, detections(A, masks=masks + 5e-4)).missing == 0
    assert compare(expected, detections(A, masks=1 - masks)).missing == 1


def test_nothing_equals_nothing():
    assert compare(detections(), detections()) == ExportReport(images=1)


def test_the_last_among_equals_is_left_to_rounding():
    first, second = detections((0, 0, 9, 9, 0.9, 0), A), detections((0, 0, 9, 9, 0.9, 0), B)
    assert compare(first, second).missing == 1
    report = compare(first, second, max_detections=2)
    assert (report.missing, report.extra, report.excused) == (0, 0, 1)
    assert compare(first, second, max_detections=3).missing == 1  # nothing was cut off
    weaker = detections((0, 0, 9, 9, 0.9, 0), changed(B, 4, -0.1))
    assert compare(weaker, detections(A, A), max_detections=2).missing == 1  # the 0.9

    # A score on the threshold may fall on either side of it.
    report = compare(first, detections((0, 0, 9, 9, 0.9, 0)), score_threshold=0.49995)
    assert (report.missing, report.excused) == (0, 1)
