"""Canaries of the helpers: each one fails if it should."""

from __future__ import annotations

import cupy
import numpy as np
import pytest

from .support import DTYPES, assert_same, draw, generator, run, run_python


@pytest.mark.parametrize(
    "wrong",
    [np.ones(3, "f4"), np.zeros(4, "f4"), np.zeros(3, "f8"), np.array([0, 0, 1e-4], "f4"),
     np.array([0, np.nan, 0], "f4")],
    ids=["values", "shape", "dtype", "small", "nan"],
)
def test_assert_same_notices_a_difference(wrong: np.ndarray) -> None:
    assert_same(cupy.zeros(3, "f4"), np.zeros(3, "f4"), "equal")
    with pytest.raises(AssertionError, match="canary"):
        assert_same(cupy.asarray(wrong), np.zeros(3, "f4"), "canary")


def test_assert_same_refuses_an_array_of_numpy() -> None:
    with pytest.raises(AssertionError, match="canary"):
        assert_same(np.zeros(3), np.zeros(3), "canary")


@pytest.mark.parametrize("dtype", DTYPES)
def test_draws_depend_on_the_names_only(dtype: str) -> None:
    x = draw(generator("a", dtype), dtype, (50,))
    assert x.dtype == np.dtype(dtype)
    assert len(np.unique(x)) > 1
    np.testing.assert_array_equal(x, draw(generator("a", dtype), dtype, (50,)))
    assert not np.array_equal(x, draw(generator("b", dtype), dtype, (50,)))


def test_run_shows_what_a_kernel_does_not_write() -> None:
    y = run("if (t != 7) y[t] = x[t];")
    assert np.flatnonzero(np.isnan(y)).tolist() == [7]


def test_run_python_passes_variables_and_the_exit_status_on() -> None:
    done = run_python("import os, sys; print(os.environ['CPUCUDA_CANARY']); sys.exit(3)", CPUCUDA_CANARY="yes")
    assert (done.returncode, done.stdout.strip()) == (3, "yes")


def test_run_python_notices_a_process_that_is_killed() -> None:
    with pytest.raises(AssertionError, match="signal 15"):
        run_python("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
