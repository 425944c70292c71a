"""Student's t distribution, by SciPy, which is imported only when it is used."""

from types import ModuleType

import numpy as np

from ..utils.extras import import_extra


def require_scipy() -> ModuleType:
    """
    Import `scipy.special`.

    Raises:
        UserError: SciPy is not installed.
    """
    return import_extra("scipy.special", "experiment", "confidence intervals")


def cdf(t: float, df: float) -> float:
    """Compute the probability that a t-distributed number is at most `t`."""
    return float(require_scipy().stdtr(df, t))


def quantile(p: float, df: float) -> float:
    """Compute the number that a t-distributed one exceeds with the probability 1 - p."""
    return float(require_scipy().stdtrit(df, p))


def power(shift: float, df: float, confidence: float) -> float:
    """
    Compute the probability that a two-sided t-test sees a difference.

    It is the probability that a number with the noncentral t distribution lies outside of the
    quantiles of the test.

    Args:
        shift: true difference divided by its standard error, at least 0.
        df: degrees of freedom.
        confidence: of the test, such as 0.95.

    Example:
        >>> round(power(0.0, 5.0, 0.95), 6)  # without a difference, it is the error rate
        0.05
    """
    special = require_scipy()
    limit = special.stdtrit(df, (1 + confidence) / 2)
    # SciPy returns NaN for some probabilities that are practically 0.
    below, up_to_limit = np.nan_to_num(special.nctdtr(df, shift, np.array([-limit, limit])))
    return float(1 - up_to_limit + below)
