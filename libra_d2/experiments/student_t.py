"""Student's t distribution with NumPy alone. The tests compare it with `scipy.stats`."""

import math

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)
_erf = np.vectorize(math.erf, otypes=[float])


def cdf(t: float, df: float) -> float:
    """
    Compute the probability that a t-distributed number is at most `t`, with an error below 1e-10.

    With t = sqrt(df) * tan(x), the density is proportional to cos(x) ** (df - 1), which is smooth
    and is integrated from 0.

    Args:
        t: finite.
        df: degrees of freedom, 1 to 1000.
    """
    x = math.atan(t / math.sqrt(df))
    area = _integral(np.cos(_points(0.0, x)) ** (df - 1), x)
    return min(max(0.5 + area * _scale(df), 0.0), 1.0)


def quantile(p: float, df: float) -> float:
    """
    Compute the number that a t-distributed one exceeds with the probability 1 - p.

    Newton's method from 0 cannot overshoot, because the distribution function is concave above 0.

    Args:
        p: in [0.5, 1).
        df: degrees of freedom, 1 to 1000.
    """
    t = 0.0
    for _ in range(100):
        density = _scale(df) / math.sqrt(df) * (1 + t * t / df) ** (-(df + 1) / 2)
        step = (p - cdf(t, df)) / density
        t += step
        if abs(step) < 1e-9 * max(t, 1.0):
            break
    return t


def power(shift: float, df: float, confidence: float) -> float:
    """
    Compute the probability that a two-sided t-test sees a difference.

    It is the probability that a noncentral t-distributed number (z + shift) / u lies outside of the
    quantiles of the test, where z is normal and u is the root of a chi-squared number over `df`;
    it is integrated over u.

    Args:
        shift: true difference divided by its standard error.
        df: degrees of freedom, 1 to 1000.
        confidence: of the test, such as 0.95.
    """
    limit = quantile((1 + confidence) / 2, df)
    width = 8 / math.sqrt(2 * df)
    low, high = max(0.0, 1 - width), 1 + width
    u = _points(low, high)
    constant = math.log(2) + df / 2 * math.log(df / 2) - math.lgamma(df / 2)
    density = np.exp(constant + (df - 1) * np.log(u) - df * u * u / 2)
    outside = _normal_cdf(shift - limit * u) + _normal_cdf(-shift - limit * u)
    return _integral(outside * density, high - low)


def _points(low: float, high: float) -> np.ndarray:
    return low + (high - low) * (_NODES + 1) / 2


def _integral(values: np.ndarray, length: float) -> float:
    return float(values @ _WEIGHTS) * length / 2


def _scale(df: float) -> float:
    return math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(math.pi)


def _normal_cdf(x: np.ndarray) -> np.ndarray:
    return (1 + _erf(x / math.sqrt(2))) / 2
