"""Student's t against published quantiles, and what intervals and paired tests say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet.intervals import interval, paired, student_cdf, student_quantile

pytestmark = pytest.mark.backends("numpy")


@pytest.mark.parametrize(
    ("df", "at_975", "at_995"),  # from tables of Student's t
    [(1, 12.706, 63.657), (2, 4.303, 9.925), (3, 3.182, 5.841), (9, 2.262, 3.250), (30, 2.042, 2.750)],
)
def test_quantiles_are_those_of_the_tables(df: int, at_975: float, at_995: float) -> None:
    assert student_quantile(0.975, df) == pytest.approx(at_975, abs=6e-4)
    assert student_quantile(0.995, df) == pytest.approx(at_995, abs=6e-4)
    assert student_quantile(0.025, df) == -student_quantile(0.975, df)


@given(st.floats(-50, 50), st.integers(1, 60))
def test_the_distribution_is_one(t: float, df: int) -> None:
    assert 0.0 <= student_cdf(t, df) <= 1.0
    assert student_cdf(t, df) + student_cdf(-t, df) == pytest.approx(1.0, abs=1e-12)
    assert student_cdf(t, df) <= student_cdf(t + 0.5, df) + 1e-15
    if 1e-6 < student_cdf(t, df) < 1 - 1e-6:
        assert student_quantile(student_cdf(t, df), df) == pytest.approx(t, rel=1e-6, abs=1e-6)


def test_an_interval_covers_the_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(3.0, 2.0, size=(4000, 5))
    found = [interval(row) for row in draws]
    covered = np.mean([abs(i.mean - 3.0) <= i.margin for i in found])
    assert covered == pytest.approx(0.95, abs=0.012)
    narrow = np.mean([abs(i.mean - 3.0) <= 0.7 * i.margin for i in found])  # the check can fail
    assert narrow < 0.92
    assert found[0].std == pytest.approx(draws[0].std(ddof=1))


def test_few_values() -> None:
    one = interval([2.0])
    assert one.mean == 2.0
    assert one.n == 1
    assert math.isnan(one.std)
    assert math.isnan(one.margin)
    same = interval([2.0, 2.0])
    assert (same.std, same.margin, same.p) == (0.0, 0.0, 0.0)
    assert interval([0.0, 0.0]).p == 1.0
    assert math.isnan(interval([1.0, math.nan]).mean)
    with pytest.raises(ValueError, match="at least one value"):
        interval([])
    for wrong in (0.0, 1.0, 95):
        with pytest.raises(ValueError, match=r"confidence between 0 and 1, like 0\.95"):
            interval([1.0, 2.0], wrong)
    with pytest.raises(ValueError, match="degree of freedom"):
        student_cdf(1.0, 0)
    with pytest.raises(TypeError, match="float"):
        student_cdf(1.0, 2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="between 0 and 1"):
        student_quantile(1.0, 3)


@pytest.mark.parametrize("factor", [1e-200, 1.0, 1e200])
def test_large_and_small_values_have_a_deviation_too(factor: float) -> None:
    found = interval([1.0 * factor, 2.0 * factor, 4.0 * factor])
    assert found.std == pytest.approx(factor * np.std([1, 2, 4], ddof=1))
    assert found.margin == pytest.approx(factor * interval([1, 2, 4]).margin)


def test_what_is_infinite_or_beyond_a_float_is_no_error() -> None:
    assert interval([1e308, 1e308, 1e308]).mean == pytest.approx(1e308)
    assert math.isnan(interval([math.inf, -math.inf]).mean)
    assert interval([math.inf, 1.0]).mean == math.inf
    assert math.isnan(interval([math.inf, 1.0]).std)


def test_pairing_takes_out_what_seeds_share() -> None:
    draw = np.random.default_rng(1)
    seeds = draw.normal(size=8)
    a, b = seeds + 0.1 + 0.01 * draw.normal(size=8), seeds + 0.01 * draw.normal(size=8)
    sharp = paired(a, b)
    assert sharp.p < 1e-4
    assert abs(sharp.mean - 0.1) < sharp.margin
    assert sharp.margin < 0.1 * math.hypot(interval(a).margin, interval(b).margin)
    with pytest.raises(ValueError, match="as many values of both, seed by seed, got 8 and 3"):
        paired(a, b[:3])
