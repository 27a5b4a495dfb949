"""Products of matrices with a batch (features, n), which is last in memory: small ones here, others by BLAS.

A small product takes less time than a call of BLAS: two rows of the result are formed at once, of four rows of the
batch, so that the vector units need not wait for memory.
"""

from __future__ import annotations

from typing import Any

import numba
from numba.core import cgutils, types
from numba.extending import intrinsic

from .jit import OPTIONS

__all__ = ["gradient", "multiply", "multiply_back"]

SMALL = 1000  # numbers in the matrix, from which on BLAS is faster
_ROW_MAJOR, _NO, _YES = 101, 111, 112  # CblasRowMajor, CblasNoTrans, CblasTrans


@intrinsic
def _gemm(context: Any, gemm: Any, left: Any, right: Any, m: Any, n: Any, k: Any, one: Any, a: Any, lda: Any, b: Any,
          ldb: Any, c: Any, ldc: Any) -> Any:
    """Call ``cblas_?gemm`` with 64-bit integers, at an address: ``c = op(a) @ op(b)``; ``one`` has the dtype."""
    signature = types.void(*[types.int64] * 6, one, *[types.int64] * 6)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        ir = cgutils.ir
        gemm, left, right, m, n, k, one, a, lda, b, ldb, c, ldc = arguments
        small, size, real = ir.IntType(32), ir.IntType(64), one.type
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [small] * 3 + [size] * 3 + [
            real, pointer, size, pointer, size, real, pointer, size])
        a, b, c = (builder.inttoptr(address, pointer) for address in (a, b, c))
        builder.call(builder.inttoptr(gemm, kind.as_pointer()), [
            small(_ROW_MAJOR), builder.trunc(left, small), builder.trunc(right, small), m, n, k, one, a, lda, b, ldb,
            real(0.0), c, ldc])
        return context.get_dummy_value()

    return signature, generate


@numba.njit(**OPTIONS)
def multiply(gemm: int, w: Any, x: Any, z: Any, spare: Any) -> None:
    """Write ``w.T @ x`` to ``z``, for w (in, out) in C order.

    ``gemm`` is the address of BLAS's product, 0 if there is none, and ``spare`` a row of z.
    """
    if gemm and w.size >= SMALL:
        n = x.shape[1]
        _gemm(gemm, _YES, _NO, z.shape[0], n, x.shape[0], x.dtype.type(1.0), w.ctypes.data, w.shape[1], x.ctypes.data,
              n, z.ctypes.data, n)
    else:
        _multiply(w, x, z, spare)


@numba.njit(**OPTIONS)
def multiply_back(gemm: int, w: Any, d: Any, dx: Any, spare: Any) -> None:
    """Write ``w @ d`` to ``dx``: see ``multiply``."""
    if gemm and w.size >= SMALL:
        n = d.shape[1]
        _gemm(gemm, _NO, _NO, dx.shape[0], n, d.shape[0], d.dtype.type(1.0), w.ctypes.data, w.shape[1], d.ctypes.data,
              n, dx.ctypes.data, n)
    else:
        _multiply(w.T, d, dx, spare)


@numba.njit(**OPTIONS)
def _multiply(w: Any, x: Any, z: Any, spare: Any) -> None:
    wide, deep = w.shape
    n = x.shape[1]
    zero = x.dtype.type(0.0)
    for j in range(0, deep, 2):
        pair = j + 1 < deep
        other = j + 1 if pair else j
        a = z[j]
        b = z[other] if pair else spare
        for i in range(n):
            a[i] = zero
            b[i] = zero
        k = 0
        while k + 4 <= wide:
            x0, x1, x2, x3 = x[k], x[k + 1], x[k + 2], x[k + 3]
            a0, a1, a2, a3 = w[k, j], w[k + 1, j], w[k + 2, j], w[k + 3, j]
            b0, b1, b2, b3 = w[k, other], w[k + 1, other], w[k + 2, other], w[k + 3, other]
            for i in range(n):
                p, q, r, s = x0[i], x1[i], x2[i], x3[i]
                a[i] += a0 * p + a1 * q + a2 * r + a3 * s
                b[i] += b0 * p + b1 * q + b2 * r + b3 * s
            k += 4
        while k < wide:
            x0, a0, b0 = x[k], w[k, j], w[k, other]
            for i in range(n):
                a[i] += a0 * x0[i]
                b[i] += b0 * x0[i]
            k += 1


@numba.njit(**OPTIONS)
def gradient(gemm: int, x: Any, d: Any, dw: Any) -> None:
    """Write ``x @ d.T`` to ``dw`` (in, out), for x (in, n) and d (out, n)."""
    wide, n = x.shape
    deep = d.shape[0]
    if gemm and dw.size >= SMALL:
        _gemm(gemm, _NO, _YES, wide, deep, n, x.dtype.type(1.0), x.ctypes.data, n, d.ctypes.data, n, dw.ctypes.data,
              deep)
        return
    zero = x.dtype.type(0.0)
    for k in range(0, wide, 2):
        other = min(k + 1, wide - 1)
        p, q = x[k], x[other]
        j = 0
        while j + 4 <= deep:
            d0, d1, d2, d3 = d[j], d[j + 1], d[j + 2], d[j + 3]
            p0 = p1 = p2 = p3 = q0 = q1 = q2 = q3 = zero
            for i in range(n):
                p0 += p[i] * d0[i]
                p1 += p[i] * d1[i]
                p2 += p[i] * d2[i]
                p3 += p[i] * d3[i]
                q0 += q[i] * d0[i]
                q1 += q[i] * d1[i]
                q2 += q[i] * d2[i]
                q3 += q[i] * d3[i]
            dw[k, j], dw[k, j + 1], dw[k, j + 2], dw[k, j + 3] = p0, p1, p2, p3
            dw[other, j], dw[other, j + 1], dw[other, j + 2], dw[other, j + 3] = q0, q1, q2, q3
            j += 4
        while j < deep:
            d0, p0, q0 = d[j], zero, zero
            for i in range(n):
                p0 += p[i] * d0[i]
                q0 += q[i] * d0[i]
            dw[k, j], dw[other, j] = p0, q0
            j += 1
