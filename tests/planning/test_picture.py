import numpy as np
import pytest

from libra_d2.planning.picture import plan_figure

from .made_up import config, training_set


@pytest.mark.parametrize("limit,shown", [("100", True), ("-1", False)])
def test_a_limit_of_detections_is_drawn_unless_there_is_none(limit, shown):
    data = training_set(np.full((240, 2), 40.0), 60)
    base = config("TEST.DETECTIONS_PER_IMAGE", limit)
    counts = plan_figure(data, base, base).axes[2]
    labels = counts.get_legend_handles_labels()[1]
    assert (f"detections of the base: {limit}" in labels) == shown
    assert any(label.startswith("positives") for label in labels)
