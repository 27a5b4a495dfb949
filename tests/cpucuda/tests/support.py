"""Kernels, random arrays, comparisons and processes for the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from typing import Any

import cupy
import numpy as np

DTYPES = ("f2", "f4", "f8", "c8", "c16", "i4", "i8", "u1", "?")
FLOATS, COMPLEX, INTEGERS = DTYPES[:3], DTYPES[3:5], DTYPES[5:8]
#: Those that the tests try: the kernels of all take minutes to compile. ``CPUCUDA_DTYPES="f2 c8 c16 i4 u1"`` tries the
#: others.
TRIED = tuple(os.environ.get("CPUCUDA_DTYPES", "f4 f8 i8 ?").split())
#: Relative error by the precision of a result.
TOLERANCE = {"f2": 4e-3, "f4": 2e-5, "c8": 2e-5, "f8": 1e-11, "c16": 1e-11}
N = 200
VALUES = np.arange(N, dtype=np.float32)


def kernel(body: str, arguments: str = "float* y, const float* x, int n", before: str = "", **options: Any) -> Any:
    """Return a kernel ``k``, in whose body ``t`` is the thread's index."""
    source = f'{before}\nextern "C" __global__ void k({arguments}) {{ int t = threadIdx.x; {body} }}'
    return cupy.RawKernel(source, "k", **options)


def run(body: str, before: str = "", threads: int = 64, shared: int = 0, size: int = 64, **options: Any) -> np.ndarray:
    """Run one block of a kernel on VALUES and return its output, which is NaN where it writes nothing."""
    y = cupy.full(size, np.nan, np.float32)
    function = kernel(body, before=before, **options)
    function((1,), (threads,), (y, cupy.asarray(VALUES), np.int32(N)), shared_mem=shared)
    return y.get()


def generator(*names: object) -> np.random.Generator:
    """Return a generator that is seeded by the names."""
    return np.random.default_rng(zlib.crc32(repr(names).encode()))


def draw(random: np.random.Generator, dtype: str, shape: tuple[int, ...], low: int = -9) -> np.ndarray:
    """Return a random array whose absolute values are below 10."""
    if dtype == "?":
        return random.integers(0, 2, shape).astype(bool)
    if dtype in INTEGERS:
        return random.integers(max(low, 0) if dtype == "u1" else low, 10, shape).astype(dtype)
    values = random.uniform(low, 9, shape)
    return (values + 1j * random.uniform(low, 9, shape) if dtype in COMPLEX else values).astype(dtype)


def both(array: np.ndarray) -> tuple[Any, np.ndarray]:
    """Return an array for CuPy and the same for NumPy."""
    return cupy.asarray(array), array


def assert_same(actual: Any, expected: Any, what: object, scale: float = 1) -> None:
    """Check that CuPy's result has the shape, type and values of NumPy's, within ``scale`` times the tolerance."""
    expected = np.asarray(expected)
    assert isinstance(actual, cupy.ndarray), what
    found = actual.get()
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype), what
    tolerance = TOLERANCE.get(expected.dtype.str[1:], 0) * scale
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance, err_msg=str(what))


def run_python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, with these environment variables; a signal that ends it is an error."""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode >= 0, f"ended by signal {-done.returncode}: {done.stderr}"
    return done
