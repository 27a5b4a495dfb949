"""What NumPy and CuPy do better than the array API standard says: one class each, and the choice between them."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import array_api_compat
import numpy as np

from .arrays import Array, namespace, side_by_side
from .blas import Descent
from .blas import found as blas_found
from .cuda.network import fused_step, without_kernels
from .ops import Ops, switched_off

__all__ = ["OPS", "CupyOps", "NumpyOps", "batch_last", "ops_of"]


class NumpyOps(Ops):
    """NumPy's: batches lie last in memory, and BLAS writes to arrays that are there, or adds to them."""

    kernels = " without Numba"

    def multiply(self, x: Array, w: Array) -> Array:
        """Return ``x @ w`` with the batch last in memory.

        What broadcasts a row over the batch then is k long loops, not n short ones, and with a few features per layer
        that is most of its time. All that is computed from the result keeps its order.
        """
        if w.ndim == 2 and w.shape[1] <= 256 and w.shape[0] >= 1024:  # faster, with the copy
            return batch_last(x @ w)
        return (w.mT @ x.mT).mT

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """Return ``a @ b``, written to ``out`` if it is given."""
        return np.matmul(a, b, out=out)

    def gradient(self, x: Array, d: Array, out: Any = None) -> Any:
        """Return ``x.T @ d`` in ``out``, or have a ``Descent`` take it."""
        if isinstance(out, Descent):
            return out.add_product(x, side_by_side(d))
        if x.ndim == d.ndim:
            return np.matmul(x.mT, d, out=out)
        return super().gradient(x, d, out)

    def descent(self, flat: Array, rows: int) -> Descent | None:
        """Return what has BLAS add the gradient to the matrix, if that is large."""
        return Descent(flat.reshape(rows, -1)) if flat.size >= 2**14 and blas_found() else None

    def take(self, x: Array, rows: Array, out: Array | None = None) -> Array:
        """Return rows of ``x``, in ``out`` if x is in one piece: else NumPy's ``take`` would copy all of it."""
        # Where indices might be wrong, it would copy what it takes.
        return x.take(rows, 0, out, "clip") if x.flags.c_contiguous else x[rows]

    def assign(self, out: Array, x: Array) -> None:
        """Write ``x`` into ``out``, which converts it."""
        out[...] = x

    def as_row_major(self, x: Array, free: Callable[[], int | None]) -> Array:
        """Return ``x`` in row-major order.

        pandas gives arrays in column-major order. Every row of theirs is read in as many places as there are features.
        """
        if x.ndim != 2 or not x.strides[1] > x.strides[0] > 0:
            return x
        room = free()
        return x if room is not None and 2 * x.nbytes > room else np.ascontiguousarray(x)

    def read_ahead(self, x: Array, free: int | None) -> Callable[[Array], None] | None:
        """Return what advises the system of rows.

        Every row would be waited for: the disk's delay, a hundred times per batch.
        """
        file = x
        while isinstance(file, np.ndarray):
            file = file.base
        if not (isinstance(file, mmap.mmap) and hasattr(file, "madvise") and x.flags.c_contiguous):
            return None
        if free is not None and 8.0 * x.nbytes < free:
            return None
        size, page = x.nbytes // max(1, x.shape[0]), mmap.PAGESIZE
        first = x.ctypes.data - np.frombuffer(file, np.uint8).ctypes.data

        def read(rows: Array) -> None:
            for row in rows.tolist():
                start = first + row * size
                down = start % page
                file.madvise(mmap.MADV_WILLNEED, start - down, size + down)

        return read


class CupyOps(Ops):
    """CuPy's: products are written to arrays that are there, and fused kernels make an update in a few launches."""

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """Return ``a @ b``, written to ``out`` if it is given."""
        if out is None:
            return a @ b
        namespace(out).matmul(a, b, out=out)  # CuPy 13 returns another array than ``out``
        return out

    def assign(self, out: Array, x: Array) -> None:
        """Write ``x`` into ``out``, which converts it."""
        out[...] = x

    def whole_update(
        self, layers: Sequence[tuple[Any, Mapping[str, Array], Mapping[str, Array]]], loss: Any, rule: Any,
        segments: Sequence[Any], clip_norm: Any, models: tuple[int, ...],
    ) -> tuple[Any, str]:
        """Return fused launches if every part of the update has kernels."""
        if switched_off():
            return None, "XPNET_FAST is 0"
        kinds = [layer for layer, _, _ in layers]
        missing = without_kernels(kinds, loss, rule, segments, models[0] if models else 1)
        if missing:
            return None, f"no fused kernel for {missing}"
        return fused_step(layers, loss, rule, segments, clip_norm, models), ""


def batch_last(z: np.ndarray) -> np.ndarray:
    """Return a batch (n, k) with the batch last in memory, see ``NumpyOps.multiply``; a copy if need be."""
    return np.ascontiguousarray(z.T).T


#: The operations for each type of array, and for whatever stands for an array where a layer takes one.
OPS: dict[type, Ops] = {np.ndarray: NumpyOps()}


def ops_of(x: Array) -> Ops:
    """Return the operations of an array's backend.

    Parameters
    ----------
    x : array
        An array of any library.

    Returns
    -------
    Ops
        The same object for all arrays of a type.
    """
    cls = type(x)
    if cls not in OPS:
        own = CupyOps if array_api_compat.is_cupy_array(x) else Ops
        OPS[cls] = next((OPS[base] for base in cls.__mro__ if base in OPS), None) or own()
    return OPS[cls]
