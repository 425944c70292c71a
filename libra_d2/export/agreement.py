"""Compare the detections of an exported file with those of the model."""

from dataclasses import dataclass, fields
from typing import Sequence

import torch

from ..errors import UserError

BOX_TOLERANCE, SCORE_TOLERANCE, MASK_TOLERANCE = 0.1, 1e-4, 1e-3


@dataclass
class ExportReport:
    """Counts of detections, and the largest differences between those that match."""

    images: int = 0
    detections: int = 0  # of the model
    missing: int = 0  # detections of the model without a counterpart
    extra: int = 0  # detections of the file without a counterpart
    excused: int = 0  # like `missing`, but with the lowest score, see :func:`compare`
    box_difference: float = 0.0  # pixels of the resized image
    score_difference: float = 0.0
    mask_difference: float = 0.0

    def add(self, other: "ExportReport") -> None:
        for f in fields(self):
            combine = max if f.name.endswith("_difference") else int.__add__
            setattr(self, f.name, combine(getattr(self, f.name), getattr(other, f.name)))

    def require_equal(self, path: str) -> None:
        """
        Check that the detections are the same.

        Raises:
            UserError: they are not.
        """
        if self.missing or self.extra:
            raise UserError(
                f"{path} is not written, because its detections differ from the model's: of "
                f"{self.detections} detections in {self.images} images, {self.missing} are "
                f"missing, and {self.extra} are new"
            )


def compare(
    expected: Sequence[torch.Tensor],
    found: Sequence[torch.Tensor],
    *,
    max_detections: int = -1,
    score_threshold: float = 0.0,
) -> ExportReport:
    """
    Compare two sets of detections of an image.

    A detection has a counterpart if one of the same class, which is not the counterpart of a better
    detection, differs by at most `BOX_TOLERANCE` pixels in each coordinate, `SCORE_TOLERANCE` in
    score, and `MASK_TOLERANCE` in the mean difference of masks. A detection without a counterpart
    is excused if its score is, within the tolerance, the lowest that can be returned: rounding
    decides which of several detections with this score are returned.

    Args:
        expected: the model's boxes (N, 4), scores (N,), classes (N,) and, optionally, masks
            (N, h, w), in any order.
        found: those of the file.
        max_detections, score_threshold: the limits of the model.
    """
    expected, found = [[x.cpu() for x in of] for of in (expected, found)]
    report = ExportReport(images=1, detections=len(expected[1]))
    full = len(expected[1]) == max_detections
    cut = (expected[1].min().item() if full else score_threshold) + SCORE_TOLERANCE
    free = torch.ones(len(found[1]), dtype=torch.bool)
    for i in expected[1].argsort(descending=True):
        boxes = (found[0] - expected[0][i]).abs().amax(1)
        scores = (found[1] - expected[1][i]).abs()
        masks = torch.zeros_like(scores)
        if len(expected) > 3:
            masks = (found[3] - expected[3][i]).abs().mean((1, 2))
        fits = free & (found[2] == expected[2][i]) & (boxes <= BOX_TOLERANCE)
        fits &= (scores <= SCORE_TOLERANCE) & (masks <= MASK_TOLERANCE)
        if not fits.any():
            report.missing += int(expected[1][i] > cut)
            report.excused += int(expected[1][i] <= cut)
            continue
        best = torch.where(fits, boxes, float("inf")).argmin()
        free[best] = False
        report.box_difference = max(report.box_difference, boxes[best].item())
        report.score_difference = max(report.score_difference, scores[best].item())
        report.mask_difference = max(report.mask_difference, masks[best].item())
    report.extra = int((free & (found[1] > cut)).sum())
    return report
