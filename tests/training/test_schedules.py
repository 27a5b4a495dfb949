"""Schedules: hand-computed rates, boundaries, arrays and errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet.training.schedules import Constant, Cosine, CyclicLR, Step

ARRAY = np.asarray([0.1, 0.2])


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 1e-5), (1, 1e-5 + (1e-1 - 1e-5) / 4), (2, 1e-5 + (1e-1 - 1e-5) / 2), (3, 1e-5 + 0.75 * (1e-1 - 1e-5)),
        (4, 1e-1), (5, 1e-5 + 0.75 * (1e-1 - 1e-5)), (7, 1e-5 + 0.25 * (1e-1 - 1e-5)), (8, 1e-5), (12, 1e-1),
        (16, 1e-5),
    ],
)
def test_cyclic_is_a_triangle_from_eta_min(step: int, rate: float) -> None:
    assert CyclicLR(1e-5, 1e-1, 4)(step) == pytest.approx(rate, rel=1e-14)


def test_cyclic_defaults_are_the_reports() -> None:
    schedule = CyclicLR()
    assert (schedule.eta_min, schedule.eta_max, schedule.step_size) == (1e-5, 1e-1, 2250)
    assert schedule(0) == schedule(4500) == schedule(9000) == 1e-5  # two cycles are 9000 updates
    assert schedule(2250) == schedule(6750) == pytest.approx(1e-1, rel=1e-15)
    assert schedule(8999) == pytest.approx(1e-5 + (1e-1 - 1e-5) / 2250, rel=1e-12)


@given(step=st.integers(0, 10**6), half=st.integers(1, 5000))
def test_cyclic_stays_in_its_bounds_and_repeats(step: int, half: int) -> None:
    schedule = CyclicLR(0.25, 0.5, half)
    assert 0.25 <= schedule(step) <= 0.5
    assert schedule(step) == schedule(step + 2 * half)
    assert schedule(step % (2 * half)) == pytest.approx(schedule(2 * half - step % (2 * half)), rel=1e-12)


def test_a_cycle_of_two_updates() -> None:
    assert [CyclicLR(0.0, 1.0, 1)(t) for t in range(5)] == [0.0, 1.0, 0.0, 1.0, 0.0]


def test_constant_is_constant() -> None:
    assert {Constant(0.3)(step) for step in (0, 1, 10**9)} == {0.3}


@pytest.mark.parametrize(("step", "drops"), [(0, 0), (4, 0), (5, 1), (9, 1), (10, 2), (50, 10)])
def test_step_drops_every_so_many_updates(step: int, drops: int) -> None:
    assert Step(2.0, 5)(step) == pytest.approx(2.0 * 0.1**drops, rel=1e-14)
    assert Step(2.0, 5, gamma=0.5)(step) == 2.0 * 0.5**drops


@pytest.mark.parametrize(("step", "rate"), [(0, 1.0), (2, 1.0), (3, 0.5), (6, 0.5), (7, 0.25), (100, 0.25)])
def test_step_drops_at_given_updates(step: int, rate: float) -> None:
    assert Step(1.0, [3, 7], gamma=0.5)(step) == rate
    assert Step(1.0, (3, 7), gamma=0.5)(step) == rate


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 1.0), (1, 0.2 + 0.4 * (1 + math.cos(math.pi / 4))), (2, 0.6), (3, 0.2 + 0.4 * (1 - math.cos(math.pi / 4))),
     (4, 0.2), (5, 0.2), (1000, 0.2)],
)
def test_cosine_falls_to_eta_min_and_stays(step: int, rate: float) -> None:
    assert Cosine(1.0, 4, 0.2)(step) == pytest.approx(rate, rel=1e-14)


def test_cosine_ends_at_zero_by_default() -> None:
    assert Cosine(0.5, 10)(10) == 0.0
    assert Cosine(0.5, 10)(5) == pytest.approx(0.25)


@pytest.mark.parametrize(
    "make",
    [lambda eta: Constant(eta), lambda eta: CyclicLR(eta * 0.1, eta, 4), lambda eta: Step(eta, 3, gamma=eta),
     lambda eta: Step(eta, [1, 5]), lambda eta: Cosine(eta, 6, eta * 0.1)],
    ids=["constant", "cyclic", "step", "steps", "cosine"],
)
@pytest.mark.parametrize("step", [0, 1, 4, 5, 8])
def test_arrays_give_a_rate_per_model(make: Callable[[Any], Callable[[int], Any]], step: int) -> None:
    together = make(ARRAY)(step)
    assert together.shape == (2,)
    assert together.tolist() == [make(eta)(step) for eta in ARRAY.tolist()]
    assert ARRAY.tolist() == [0.1, 0.2]  # the bounds are as they were


def test_one_bound_may_be_an_array() -> None:
    assert CyclicLR(0.0, ARRAY, 2)(1).tolist() == [0.05, 0.1]
    assert CyclicLR(ARRAY, 0.5, 2)(0).tolist() == [0.1, 0.2]


def test_drops_may_be_an_array() -> None:
    assert [Step(0.1, np.asarray([2, 4]))(t) for t in range(6)] == [Step(0.1, [2, 4])(t) for t in range(6)]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CyclicLR(0.0, 1.0, 0), "expected step_size of at least 1, got 0"),
        (lambda: CyclicLR(step_size=-3), "expected step_size of at least 1, got -3"),
        (lambda: Step(0.1, 0), "expected step_size of at least 1, got 0"),
        (lambda: Cosine(0.1, 0), "expected steps of at least 1, got 0"),
    ],
    ids=["cyclic", "cyclic negative", "step", "cosine"],
)
def test_lengths_below_one_are_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
