"""Student's t distribution against numbers from simulation and from tables."""

import itertools
import math
import sys

import numpy as np
import pytest

from libra_d2.errors import UserError
from libra_d2.experiments import student_t


@pytest.mark.parametrize(
    "p, df, t", [(0.975, 1, 12.706), (0.975, 4, 2.776), (0.95, 10, 1.812), (0.995, 30, 2.750)]
)
def test_quantiles_are_those_of_printed_tables(p, df, t):
    """Tables have three decimals."""
    assert student_t.quantile(p, df) == pytest.approx(t, abs=5e-4)
    assert student_t.cdf(t, df) == pytest.approx(p, abs=1e-4)


@pytest.mark.parametrize("df", [2, 7, 50])
@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_power_is_the_share_of_simulated_tests_that_see_the_difference(df, shift):
    """With 100,000 tests, the standard error of a share is at most 0.0016."""
    rng = np.random.default_rng(df)
    t = (rng.standard_normal(100_000) + shift) / np.sqrt(rng.chisquare(df, 100_000) / df)
    seen = np.abs(t) > student_t.quantile(0.975, df)
    assert student_t.power(shift, df, 0.95) == pytest.approx(seen.mean(), abs=0.008)


@pytest.mark.parametrize("df", [1.0, 1.3, 4.7, 199.0, 1000.0])
def test_power_grows_with_the_difference_up_to_1(df):
    powers = [student_t.power(shift, df, 0.95) for shift in np.linspace(0, 60, 61)]
    assert powers[0] == pytest.approx(0.05)
    # SciPy's numbers are exact to about 1e-6.
    assert all(b >= a - 1e-5 for a, b in itertools.pairwise(powers))
    assert not any(map(math.isnan, powers)) and powers[-1] <= 1


def test_scipy_is_an_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "scipy.special", raising=False)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(UserError, match=r"need scipy: pip install libra_d2\[experiment\]"):
        student_t.require_scipy()
