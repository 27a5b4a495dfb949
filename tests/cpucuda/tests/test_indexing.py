"""CuPy's indexing against NumPy's, on random indices."""

from __future__ import annotations

from typing import Any

import cupy
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

from .support import DTYPES, assert_same, both, draw, generator

repeatable = hypothesis.settings(derandomize=True, max_examples=40, deadline=None, database=None)
SHAPE = (4, 3, 5)


@repeatable
@hypothesis.given(index=basic_indices(SHAPE, allow_newaxis=True, max_dims=4))
def test_basic_indices(index: Any) -> None:
    a, x = both(draw(generator("basic"), "f4", SHAPE))
    expected = np.asarray(x[index])
    assert_same(cupy.asarray(a[index]), expected, index)
    a[index], x[index] = 7, 7
    assert_same(a, x, index)
    a[index], x[index] = cupy.asarray(expected), expected
    assert_same(a, x, index)


@repeatable
@hypothesis.given(seed=st.integers(0, 999), count=st.integers(0, 9))
def test_arrays_of_indices_and_masks(seed: int, count: int) -> None:
    random = generator("arrays", seed)
    a, x = both(draw(random, "f8", SHAPE))
    first, second, last = (random.integers(-size, size, count) for size in SHAPE)
    i, j, k = (cupy.asarray(index) for index in (first, second, last))
    assert_same(a[i], x[first], "first axis")
    assert_same(a[:, :, k], x[:, :, last], "last axis")
    assert_same(a[i, j], x[first, second], "two axes")
    assert_same(a[i, :, k], x[first, :, last], "apart")
    assert_same(a.take(k, axis=2), x.take(last, axis=2), "take")
    mask = random.integers(0, 2, SHAPE).astype(bool)
    chosen = cupy.asarray(mask)
    assert_same(a[chosen], x[mask], "mask")
    assert_same(a[chosen[:, 0, 0]], x[mask[:, 0, 0]], "mask of rows")
    for actual, expected in zip(cupy.nonzero(chosen), np.nonzero(mask), strict=True):
        assert_same(actual, expected, "nonzero")
    a[chosen], x[mask] = 1.5, 1.5
    a[k % 4], x[last % 4] = -2.0, -2.0
    assert_same(a, x, "assigned")
    np.add.at(x, (first, second), 0.25)
    cupy.add.at(a, (i, j), 0.25)
    assert_same(a, x, "add.at")


@pytest.mark.parametrize("dtype", DTYPES)
def test_indexing_of_every_type(dtype: str) -> None:
    random = generator("types", dtype)
    a, x = both(draw(random, dtype, (6, 5)))
    rows, mask = np.array([5, 0, 0, -2]), random.integers(0, 2, (6, 5)).astype(bool)
    assert_same(a[cupy.asarray(rows)], x[rows], "take")
    assert_same(a[::-2, 1:], x[::-2, 1:], "slice")
    assert_same(a[cupy.asarray(mask)], x[mask], "mask")
    a[cupy.asarray(mask)] = x.dtype.type(1)
    x[mask] = 1
    cupy.put(a, cupy.array([3, 9]), a[0, :2])
    np.put(x, [3, 9], x[0, :2])
    assert_same(a, x, "put")


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u8"])
def test_repeated_indices_are_all_added(dtype: str) -> None:
    rows = generator("scatter", dtype).integers(0, 3, 50)
    added, expected = cupy.zeros((3, 2), dtype), np.zeros((3, 2), dtype)
    cupy.add.at(added, cupy.asarray(rows), cupy.ones((50, 2), dtype))
    np.add.at(expected, rows, 1)
    assert_same(added, expected, "add.at")
    assert_same(cupy.bincount(cupy.asarray(rows)), np.bincount(rows), "bincount")
