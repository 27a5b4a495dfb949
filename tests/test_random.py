"""Random streams: functions of (seed, purpose, counter), pinned, independent, the same everywhere."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet import random

PINNED = [323708636, 1955314814, 1774089170]
PINNED_ORDER = [3, 6, 0, 4, 2, 7, 5, 1]
ENVIRONMENT: dict[str, str] = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_the_bits_are_pinned() -> None:
    """Other bits would change every run's numbers: a reason to say so in the change log."""
    assert random.stream(0, "W1").integers(2**32, size=3).tolist() == PINNED
    assert random.permutation(0, 0, 8).tolist() == PINNED_ORDER


@given(seed=st.integers(0, 2**64), purpose=st.text(max_size=8), counter=st.integers(0, 2**31))
def test_the_same_arguments_give_the_same_bits(seed: int, purpose: str, counter: int) -> None:
    first, second = (random.stream(seed, purpose, counter).integers(2**63, size=4).tolist() for _ in range(2))
    assert first == second


def test_streams_of_other_seeds_purposes_and_counters_differ() -> None:
    keys = [(s, p, c) for s in (0, 1, 2**32) for p in ("W1", "W2", "order", "") for c in (0, 1, 2)]
    draws = {tuple(random.stream(*key).integers(2**63, size=2).tolist()) for key in keys}
    assert len(draws) == len(keys)


def test_streams_are_uncorrelated() -> None:
    a = np.stack([random.stream(0, "W1", i).standard_normal(4000) for i in range(6)]
                 + [random.stream(i, "W2").standard_normal(4000) for i in range(6)])
    correlations = np.corrcoef(a) - np.eye(12)
    assert abs(correlations).max() < 5 / math.sqrt(4000)


def test_the_bits_do_not_depend_on_the_process() -> None:
    code = "from xpnet import random; print(random.stream(5, 'noise1', 7).integers(2**63))"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        for environment in (dict(ENVIRONMENT, PYTHONHASHSEED="1"), dict(ENVIRONMENT, PYTHONHASHSEED="2"))
    ]
    assert {run.stdout.strip() for run in runs} == {str(random.stream(5, "noise1", 7).integers(2**63))}


def test_nothing_touches_the_global_generator() -> None:
    np.random.seed(0)  # noqa: NPY002 - the global generator is what must not be used
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    random.normal(0, "W1", (3, 3)), random.uniform(0, "noise1", 0, (3, 3)), random.permutation(0, 0, 10)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


@given(n=st.integers(1, 200), epoch=st.integers(0, 50))
def test_orders_are_permutations(n: int, epoch: int) -> None:
    order = random.permutation(3, epoch, n)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))


def test_epochs_have_their_own_orders() -> None:
    assert len({tuple(random.permutation(0, epoch, 20).tolist()) for epoch in range(10)}) == 10


def test_normal_draws_per_seed_and_per_deviation() -> None:
    shape = (3, 2)
    one = random.normal(1, "W1", shape)
    assert one.shape == shape
    assert one.dtype == np.float64
    seeds = random.normal([1, 2, 1], "W1", shape)
    assert seeds.shape == (3, *shape)
    assert (seeds[0] == one).all()
    assert (seeds[2] == one).all()
    assert (seeds[1] == random.normal(2, "W1", shape)).all()
    for sequence in (np.asarray([1, 2, 1]), (1, 2, 1)):
        assert (random.normal(sequence, "W1", shape) == seeds).all()
    stds = random.normal(1, "W1", shape, [0.1, 0.2])
    assert stds.shape == (2, *shape)
    assert (stds[1] == one * 0.2).all()
    both = random.normal([1, 2], "W1", shape, [0.1, 0.2])
    assert (both[1] == random.normal(2, "W1", shape, 0.2)).all()
    assert (both[0] == one * 0.1).all()


def test_uniform_draws_are_float32_in_the_unit_interval() -> None:
    u = random.uniform(0, "noise1", 3, (200, 50))
    assert u.dtype == np.float32
    assert 0.0 <= u.min()
    assert u.max() < 1.0
    assert abs(u.mean() - 0.5) < 5 / math.sqrt(12 * u.size)
    assert (u != random.uniform(0, "noise1", 4, (200, 50))).any()
    both = random.uniform([0, 9], "noise1", 3, (200, 50))
    assert (both[0] == u).all()
    assert (both[1] == random.uniform(9, "noise1", 3, (200, 50))).all()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((-1, "W1"), ValueError, "at least 0, got seed=-1, counter=0"),
        ((0, "W1", -2), ValueError, "at least 0, got seed=0, counter=-2"),
        ((0.5, "W1"), TypeError, "integer"),
        ((0, "W1", 1.0), TypeError, "integer"),
        (("0", "W1"), TypeError, "integer"),
    ],
    ids=["seed", "counter", "float seed", "float counter", "text"],
)
def test_seeds_and_counters_are_whole_numbers_from_0(arguments: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        random.stream(*arguments)
    assert random.stream(np.int64(3), "W1").integers(9**9) == random.stream(3, "W1").integers(9**9)
