"""Means with what they leave open: Student's t intervals, and paired tests."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Interval", "interval", "paired", "student_cdf", "student_quantile"]


class Interval(NamedTuple):
    """A mean over seeds, and how well it is known.

    Parameters
    ----------
    mean : float
        The mean.
    std : float
        The sample standard deviation (n - 1 in the denominator); NaN for one value.
    margin : float
        Half the width of the confidence interval around the mean; NaN for one value.
    n : int
        How many values.
    p : float
        Two-sided p-value of the mean being 0 (Student's t test); NaN for one value.
    """

    mean: float
    std: float
    margin: float
    n: int
    p: float


def student_cdf(t: float, df: int) -> float:
    """Return the probability of a value below ``t`` under Student's t with ``df`` degrees of freedom.

    The finite series for whole degrees of freedom: Abramowitz and Stegun, "Handbook of mathematical
    functions", 1964, equations 26.7.3 and 26.7.4. Its error is about 1e-16, so smaller tails are 0.

    Parameters
    ----------
    t : float
        The value.
    df : int
        Degrees of freedom.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If there is no degree of freedom.
    TypeError
        If they are not whole.
    """
    if operator.index(df) < 1:
        raise ValueError(f"student_cdf: expected at least 1 degree of freedom, got {df}")
    if math.isinf(t):
        return float(t > 0)
    theta = math.atan2(abs(t), math.sqrt(df))
    cos2 = math.cos(theta) ** 2
    term = math.cos(theta) if df % 2 else 1.0
    total = term if df > 1 or not df % 2 else 0.0
    for k in range(3 if df % 2 else 2, df - 1, 2):
        term *= cos2 * (k - 1) / k
        total += term
    inside = (2.0 / math.pi) * (theta + math.sin(theta) * total) if df % 2 else math.sin(theta) * total
    return 0.5 + math.copysign(0.5 * min(inside, 1.0), t)


@functools.cache
def student_quantile(p: float, df: int) -> float:
    """Return the value below which Student's t with ``df`` degrees of freedom lies with probability ``p``.

    Parameters
    ----------
    p : float
        The probability, between 0 and 1.
    df : int
        Degrees of freedom.

    Returns
    -------
    float
        The value.

    Raises
    ------
    ValueError
        If ``p`` is not between 0 and 1, or there is no degree of freedom.
    """
    if not 0.0 < p < 1.0:
        raise ValueError(f"student_quantile: expected p between 0 and 1, got {p}")
    if p < 0.5:
        return -student_quantile(1.0 - p, df)
    low, high = 0.0, 1.0
    while student_cdf(high, df) < p:
        high *= 2.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if student_cdf(middle, df) < p else (low, middle)
    return 0.5 * (low + high)


def _mean(numbers: Sequence[float]) -> float:
    try:
        return math.fsum(numbers) / len(numbers)
    except (OverflowError, ValueError):  # the sum is beyond what a float holds, or has infinities of both signs
        return sum(v / len(numbers) for v in numbers)


def interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return mean, deviation and confidence interval of independent values (one per seed).

    Parameters
    ----------
    values : sequence of float
        The values; where one is not finite, neither is the mean.
    confidence : float
        How often such an interval holds the mean that it stands for, between 0 and 1.

    Returns
    -------
    Interval
        Mean, deviation, margin and p-value.

    Raises
    ------
    ValueError
        If there are no values, or the confidence is no such share.
    """
    numbers = [float(v) for v in values]
    n = len(numbers)
    if not n:
        raise ValueError("interval: expected at least one value, got none")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"interval: expected a confidence between 0 and 1, like 0.95, got {confidence}")
    mean = _mean(numbers)
    if n == 1 or not math.isfinite(mean):
        return Interval(mean, math.nan, math.nan, n, math.nan)
    std = math.hypot(*(v - mean for v in numbers)) / math.sqrt(n - 1)  # squares of large losses would overflow
    error = std / math.sqrt(n)
    if error == 0.0:
        return Interval(mean, 0.0, 0.0, n, 1.0 if mean == 0.0 else 0.0)
    margin = student_quantile(0.5 + confidence / 2.0, n - 1) * error
    return Interval(mean, std, margin, n, 2.0 * student_cdf(-abs(mean) / error, n - 1))


def paired(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    """Compare two settings run from the same seeds: the interval of ``a - b``, seed by seed.

    Members of a sweep see the same minibatches and start from the same draws, so that what a seed gives
    to both drops out of their difference.

    Parameters
    ----------
    a, b : sequence of float
        A value for each seed, in the same order.
    confidence : float
        How often such an interval holds the mean that it stands for, between 0 and 1.

    Returns
    -------
    Interval
        The interval of the differences.

    Raises
    ------
    ValueError
        If there are no values, or not as many of both.
    """
    if len(a) != len(b):
        raise ValueError(f"paired: expected as many values of both, seed by seed, got {len(a)} and {len(b)}")
    return interval([x - y for x, y in zip(a, b, strict=True)], confidence)
