"""Student's t distribution agrees with SciPy's."""

import numpy as np
import pytest
from scipy import stats

from libra_d2.experiments import student_t

DFS = (1.0, 1.3, 2.0, 4.7, 30.0, 199.0, 1000.0)


@pytest.mark.parametrize("df", DFS)
def test_cdf(df):
    for t in (-40.0, -2.5, -1e-3, 0.0, 0.7, 3.0, 12.0, 100.0):
        assert student_t.cdf(t, df) == pytest.approx(stats.t.cdf(t, df), abs=1e-10)


@pytest.mark.parametrize("df", DFS)
def test_quantile(df):
    for p in (0.5, 0.6, 0.9, 0.975, 0.9995):
        assert student_t.quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-7)


@pytest.mark.parametrize("df", DFS)
def test_power(df):
    limit = stats.t.ppf(0.975, df)
    for shift in (0.0, 1.0, 3.0, 8.0):
        # SciPy returns NaN for some probabilities that are practically 0.
        expected = stats.nct.sf(limit, df, shift) + np.nan_to_num(stats.nct.cdf(-limit, df, shift))
        assert student_t.power(shift, df, 0.95) == pytest.approx(expected, abs=1e-5)


def test_power_without_a_difference_is_the_error_rate():
    assert np.isclose(student_t.power(0.0, 5.0, 0.95), 0.05)
