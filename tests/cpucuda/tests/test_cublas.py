"""Products by cuBLAS against NumPy's, on random arrays: every function that is emulated."""

from __future__ import annotations

import math
from typing import Any

import cupy
import hypothesis
import numpy as np
import pytest
from cupy.cublas import gemv
from cupy_backends.cuda.libs import cublas
from hypothesis import strategies as st

from .support import COMPLEX, DTYPES, FLOATS, assert_same, both, draw, generator

repeatable = hypothesis.settings(derandomize=True, max_examples=30, deadline=None, database=None)
SIZES = st.integers(0, 5)
LETTERS = {"f4": "s", "f8": "d", "c8": "c", "c16": "z"}
#: cudaDataType and cublasComputeType of each type.
DATA = {"f2": 2, "f4": 0, "f8": 1, "c8": 4, "c16": 5}
COMPUTE = {"f2": 68, "f4": 68, "f8": 70, "c8": 68, "c16": 70}


@pytest.mark.parametrize("dtype", [*FLOATS, *COMPLEX, "i4", "i8", "u1", "?"])
@repeatable
@hypothesis.given(sizes=st.tuples(SIZES, SIZES, SIZES), batches=st.sampled_from(
    [((), ()), ((3,), ()), ((), (3,)), ((2, 1), (3,)), ((3,), (3,)), ((0,), ()), ((2, 3), (2, 3))]
), turned=st.tuples(st.booleans(), st.booleans()))
def test_matmul(dtype: str, sizes: tuple[int, int, int], batches: Any, turned: tuple[bool, bool]) -> None:
    random, (m, k, n) = generator(dtype, sizes), sizes
    shapes = [(*batches[0], m, k), (*batches[1], k, n)]
    pairs = []
    for shape, turn in zip(shapes, turned, strict=True):
        a, x = both(draw(random, dtype, (*shape[:-2], shape[-1], shape[-2]) if turn else shape))
        pairs.append((a.swapaxes(-1, -2), x.swapaxes(-1, -2)) if turn else (a, x))
    (a, x), (b, y) = pairs
    # NumPy accumulates in half precision.
    expected = np.matmul(x.astype("f4"), y.astype("f4")).astype("f2") if dtype == "f2" else np.matmul(x, y)
    scale = 100 * max(1, k)
    assert_same(cupy.matmul(a, b), expected, (shapes, turned), scale)
    if not batches[0] and not batches[1]:
        assert_same(a.dot(b), expected, "dot", scale)


@pytest.mark.parametrize("dtype", DTYPES[:7])
def test_products_of_vectors_and_views(dtype: str) -> None:
    random = generator("vectors", dtype)
    (a, x), (b, y), (c, z) = (both(draw(random, dtype, shape)) for shape in ((6,), (6,), (6, 4)))
    assert_same(cupy.dot(a, b), np.dot(x, y), "dot", 100)
    assert_same(cupy.vdot(a, b), np.vdot(x, y), "vdot", 100)
    assert_same(cupy.dot(a[::-2], b[::-2]), np.dot(x[::-2], y[::-2]), "strides", 100)
    assert_same(a @ c, x @ z, "vector and matrix", 100)
    assert_same(c.T @ b, z.T @ y, "matrix and vector", 100)
    assert_same(c[::2, 1:].T @ c[1::2, :2], z[::2, 1:].T @ z[1::2, :2], "parts", 100)
    assert_same(cupy.outer(a, b), np.outer(x, y), "outer", 100)
    assert_same(cupy.inner(a, b), np.inner(x, y), "inner", 100)
    assert_same(cupy.tensordot(c, c, axes=([0], [0])), np.tensordot(z, z, axes=([0], [0])), "tensordot", 100)
    assert_same(cupy.einsum("ij,i->j", c, a), np.einsum("ij,i->j", z, x), "einsum", 100)


class Problem:
    """C = alpha op(A) op(B) + beta C for matrices in the columns of larger ones, as BLAS has them."""

    def __init__(self, dtype: str, operations: tuple[int, int], beta: float, out: str = "", count: int = 3) -> None:
        random = generator("gemm", dtype, operations, beta, out)
        self.m, self.n, self.k = m, n, k = 4, 3, 5
        self.operations, self.count, self.out = operations, count, out or dtype
        self.scalar = {"f2": "f4"}.get(dtype, dtype)
        self.alpha, self.beta = np.array(1.5, self.scalar), np.array(beta, self.scalar)
        # Column-major matrices are transposed row-major ones; the last column of each row is padding.
        shapes = [(m, k) if operations[0] else (k, m), (k, n) if operations[1] else (n, k), (n, m)]
        stored = [draw(random, kind, (count, rows, columns + 2)) for (rows, columns), kind in
                  zip(shapes, (dtype, dtype, self.out), strict=True)]
        if not beta:
            stored[2][:] = np.nan  # is not read
        self.leading = [columns + 2 for _, columns in shapes]
        self.strides = [rows * (columns + 2) for rows, columns in shapes]
        self.arrays = [cupy.asarray(array) for array in stored]
        wide = [array[:, :, :-2].astype(self.scalar) for array in stored]
        turned = [(lambda v: v.swapaxes(1, 2), lambda v: v, np.conj)[op](array)
                  for op, array in zip(operations, wide, strict=False)]
        product = 1.5 * turned[0] @ turned[1]
        expected = product.swapaxes(1, 2) + (beta * wide[2] if beta else 0)
        self.expected = stored[2]
        self.expected[:, :, :-2] = expected.astype(self.out)

    def pointers(self, which: int) -> Any:
        """Return the addresses of an operand's matrices, on the device."""
        array = self.arrays[which]
        return cupy.array([array.data.ptr + i * array.strides[0] for i in range(self.count)], np.uintp)

    def check(self, count: int) -> None:
        """Check the first matrices; the others must be as they were."""
        found = self.arrays[2].get()
        tolerance = 1e-2 if "f2" in (self.out, self.scalar) else 1e-4 if self.scalar in ("f4", "c8") else 1e-11
        np.testing.assert_allclose(found[:count], self.expected[:count], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("beta", [0, 0.5])
@pytest.mark.parametrize("dtype", [*LETTERS])
def test_gemm_and_batches_of_it(dtype: str, beta: float) -> None:
    handle = cupy.cuda.get_cublas_handle()
    operations = [(a, b) for a in range(3 if dtype in COMPLEX else 2) for b in range(3 if dtype in COMPLEX else 2)]
    for pair in operations:
        for kind in ("gemm", "gemmBatched", "gemmStridedBatched"):
            p = Problem(dtype, pair, beta)
            a, b, c = (array.data.ptr for array in p.arrays)
            scalars = p.alpha.ctypes.data, p.beta.ctypes.data
            sizes = (*pair, p.m, p.n, p.k, scalars[0])
            function, (lda, ldb, ldc), (sa, sb, sc) = getattr(cublas, LETTERS[dtype] + kind), p.leading, p.strides
            if kind == "gemm":
                function(handle, *sizes, a, lda, b, ldb, scalars[1], c, ldc)
            elif kind == "gemmBatched":
                pa, pb, pc = (p.pointers(i) for i in range(3))
                function(handle, *sizes, pa.data.ptr, lda, pb.data.ptr, ldb, scalars[1], pc.data.ptr, ldc, p.count)
            else:
                function(handle, *sizes, a, lda, sa, b, ldb, sb, scalars[1], c, ldc, sc, p.count)
            p.check(1 if kind == "gemm" else p.count)


@pytest.mark.parametrize(("dtype", "out", "compute"), [
    *((dtype, dtype, COMPUTE[dtype]) for dtype in DATA), ("f2", "f4", 68), ("f4", "f4", 77), ("f4", "f4", 74),
])
def test_gemm_ex(dtype: str, out: str, compute: int) -> None:
    handle = cupy.cuda.get_cublas_handle()
    for pair in ((0, 0), (1, 0), (0, 1), (1, 1)):
        for kind in ("gemmEx", "gemmStridedBatchedEx", *(("sgemmEx",) if dtype in ("f2", "f4") else ())):
            p = Problem(dtype, pair, 0.5, out)
            (a, b, c), (lda, ldb, ldc), (sa, sb, sc) = (x.data.ptr for x in p.arrays), p.leading, p.strides
            alpha, beta, data, result = p.alpha.ctypes.data, p.beta.ctypes.data, DATA[dtype], DATA[out]
            sizes = (*pair, p.m, p.n, p.k, alpha)
            if kind == "sgemmEx":
                cublas.sgemmEx(handle, *sizes, a, data, lda, b, data, ldb, beta, c, result, ldc)
            elif kind == "gemmEx":
                cublas.gemmEx(handle, *sizes, a, data, lda, b, data, ldb, beta, c, result, ldc, compute, -1)
            else:
                cublas.gemmStridedBatchedEx(handle, *sizes, a, data, lda, sa, b, data, ldb, sb, beta, c, result, ldc,
                                            sc, p.count, compute, -1)
            p.check(p.count if kind == "gemmStridedBatchedEx" else 1)


@pytest.mark.parametrize("name", ["sdot", "ddot", "cdotu", "cdotc", "zdotu", "zdotc"])
def test_dot_with_strides(name: str) -> None:
    dtype = {"s": "f4", "d": "f8", "c": "c8", "z": "c16"}[name[0]]
    random = generator(name)
    (a, x), (b, y) = (both(draw(random, dtype, (12,))) for _ in range(2))
    for step_x, step_y, n in ((1, 1, 12), (2, 3, 4), (-1, 2, 6), (1, 1, 0)):
        result = cupy.full((), np.nan, dtype)
        getattr(cublas, name)(cupy.cuda.get_cublas_handle(), n, a.data.ptr, step_x, b.data.ptr, step_y, result.data.ptr)
        left = x[:abs(step_x) * n:abs(step_x)][::int(math.copysign(1, step_x))]
        right = y[: step_y * n : step_y]
        assert_same(result, (left.conj() if name.endswith("c") else left) @ right, (name, step_x, step_y), 100)


def test_wrong_sizes_are_refused() -> None:
    p = Problem("f8", (0, 0), 0)
    a, b, c = (array.data.ptr for array in p.arrays)
    alpha, beta = p.alpha.ctypes.data, p.beta.ctypes.data
    for m, lda in ((p.m, p.m - 1), (-1, p.m)):
        with pytest.raises(cublas.CUBLASError, match="INVALID_VALUE"):
            cublas.dgemm(cupy.cuda.get_cublas_handle(), 0, 0, m, p.n, p.k, alpha, a, lda, b, p.leading[1], beta, c,
                         p.leading[2])


def test_what_is_not_emulated_names_itself(capfd: Any) -> None:
    x, y = cupy.ones((2, 2)), cupy.ones(2)
    with pytest.raises(cublas.CUBLASError, match="NOT_SUPPORTED"):
        gemv("N", 1.0, x, y, 0.0, y)
    assert "cublasDgemv_v2 is not emulated" in capfd.readouterr().err
    with pytest.raises(cublas.CUBLASError, match="NOT_SUPPORTED"):
        cublas.gemmEx(cupy.cuda.get_cublas_handle(), 0, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1, 1, 0, 0, 0, 1, 68, -1)
    assert "types 0, 1, 0" in capfd.readouterr().err
