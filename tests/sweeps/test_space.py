"""Points of a sweep: grids, lists, draws, and what a command line says of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet.sweeps.space import LogUniform, Uniform, parse, points

pytestmark = pytest.mark.backends("numpy")


def test_a_grid_crosses_its_values_in_their_order() -> None:
    assert points({"l2": [0.1, 0.2], "seed": range(2), "hidden": [[5], [5, 4]], "lr": 0.3})[:3] == [
        {"l2": 0.1, "seed": 0, "hidden": [5], "lr": 0.3}, {"l2": 0.1, "seed": 0, "hidden": [5, 4], "lr": 0.3},
        {"l2": 0.1, "seed": 1, "hidden": [5], "lr": 0.3},
    ]
    assert len(points({"l2": [0.1, 0.2], "seed": range(2), "hidden": [[5], [5, 4]]})) == 8


def test_explicit_points_stay_as_they_are() -> None:
    assert points([{"l2": 1}, {"l2": 2}]) == [{"l2": 1}, {"l2": 2}]
    for wrong in ([], [{"l2": 1}, {"seed": 1}], {"l2": []}, {}):
        with pytest.raises(ValueError, match="at least one"):
            points(wrong)


@given(st.integers(1, 40), st.integers(0, 5))
def test_each_share_of_a_distribution_gets_one_draw(draws: int, seed: int) -> None:
    drawn = points({"l2": LogUniform(1e-5, 1e-1), "rate": Uniform(2, 3), "seed": [0, 1]}, draws=draws, draw_seed=seed)
    assert len(drawn) == 2 * draws
    logs = sorted(math.log10(p["l2"]) for p in drawn[::2])
    assert [int((v + 5) / 4 * draws + 1e-9) for v in logs] == list(range(draws))
    assert sorted(int((p["rate"] - 2) * draws + 1e-9) for p in drawn[::2]) == list(range(draws))
    assert drawn[0]["l2"] == drawn[1]["l2"]
    assert drawn == points({"l2": LogUniform(1e-5, 1e-1), "rate": Uniform(2, 3), "seed": [0, 1]}, draws=draws,
                           draw_seed=seed)


def test_numpy_s_values_become_python_s() -> None:
    given = {"seed": np.arange(2), "l2": np.float32(0.5), "hidden": np.asarray([[5, 4]]), "sigma": [np.float64(1)]}
    found = points(given)
    assert found == [{"seed": seed, "l2": 0.5, "hidden": [5, 4], "sigma": 1.0} for seed in (0, 1)]
    assert {type(value) for point in found for value in point.values()} == {int, float, list}
    assert type(points([{"seed": np.int64(3), "hidden": (np.int64(4),)}])[0]["seed"]) is int


@pytest.mark.parametrize("wrong", ["seed", None, 3, [1, 2], {"seed": {0, 1}}, {"seed": {0: 1}}, {"seed": iter([0])}])
def test_what_is_no_space_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"sweep: expected .* a sequence of (values|mappings)"):
        points(wrong)


@pytest.mark.parametrize(("low", "high"), [(1e-300, 1e300), (-1e308, 1e308)])
def test_an_interval_whose_draws_would_not_be_finite_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="finite low < high"):
        (LogUniform if low > 0 else Uniform)(low, high)
    with pytest.raises(TypeError, match="LogUniform: expected numbers, got 'a' and 1"):
        LogUniform("a", 1)  # type: ignore[arg-type]
    for interval in (Uniform(0.1, 0.3), LogUniform(1e-5, 1e-1), LogUniform(3e-7, 7e3)):
        assert interval.at(0.0) == interval.low
        assert interval.at(1.0) <= interval.high


def test_draws_depend_on_their_name_and_seed() -> None:
    def drawn(name: str, seed: int) -> list[Any]:
        return [p[name] for p in points({name: Uniform(0, 1)}, draw_seed=seed)]

    assert drawn("a", 0) != drawn("b", 0)
    assert drawn("a", 0) != drawn("a", 1)


@pytest.mark.parametrize("kind", [Uniform, LogUniform])
@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (1.0, math.inf), (math.nan, 1.0)])
def test_an_interval_has_two_ends(kind: Any, low: float, high: float) -> None:
    with pytest.raises(ValueError, match="finite low < high"):
        kind(low, high)
    with pytest.raises(ValueError, match="above 0"):
        LogUniform(0.0, 1.0)


@given(st.floats(0.001, 0.999), st.floats(0.01, 10), st.floats(1.5, 100))
def test_share_undoes_at(u: float, low: float, factor: float) -> None:
    for kind in (Uniform, LogUniform):
        assert kind(low, low * factor).share(kind(low, low * factor).at(u)) == pytest.approx(u, abs=1e-6)


def test_a_command_line_says_it_shortly() -> None:
    assert parse("log-uniform(1e-5, 1e-1)") == LogUniform(1e-5, 1e-1)
    assert parse("uniform(0,1)") == Uniform(0, 1)
    assert parse("1e-3,2") == [0.001, 2.0]
    assert parse("0:3", int) == [0, 1, 2] == parse("0,1,2", int)
    for wrong in ("", "a", "3:1", "1.5", "uniform(1)", "uniform(0, 5)"):
        with pytest.raises(ValueError, match="expected values like 1,2,3"):
            parse(wrong, int)
    with pytest.raises(ValueError, match="finite low < high"):
        parse("uniform(2, 1)")
