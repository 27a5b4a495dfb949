"""Rows of data, gathered, converted and standardised in one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .jit import compiled
from .pointers import address, at

__all__ = ["gatherer"]

TOGETHER = 16  # features of data in column-major order that are written together: a line of the processor's cache


def by_rows(place: int, like: Any, rows: Any, offset: Any, scale: Any, out: Any) -> None:
    """Write rows of an array in C order that begins at ``place`` to ``out``; ``like`` has its dtype."""
    n, k = out.shape
    for i in range(n):
        x, to = at(place, rows[i] * k, (k,), like), out[i]
        if offset.size:
            for j in range(k):
                to[j] = (offset.dtype.type(x[j]) - offset[j]) * scale[j]
        else:
            for j in range(k):
                to[j] = x[j]


def by_columns(place: int, like: Any, count: int, rows: Any, offset: Any, scale: Any, out: Any) -> None:
    """Write rows of an array (count, features) in column-major order to ``out``."""
    n, k = out.shape
    for start in range(0, k, TOGETHER):
        for i in range(n):
            for j in range(start, min(start + TOGETHER, k)):
                x = at(place, j * count + rows[i], (1,), like)[0]
                out[i, j] = (offset.dtype.type(x) - offset[j]) * scale[j] if offset.size else x


SIGNATURES: dict[Callable[..., Any], str] = {
    by_rows: "void(int64, X[::1], int64[::1], S[::1], S[::1], T[:,::1])",
    by_columns: "void(int64, X[::1], int64, int64[::1], S[::1], S[::1], T[:,::1])",
}


def gatherer(
    plain: Callable[[Any, Any], Any], x: Any, scaling: tuple[Any, Any] | None, dtype: Any
) -> Callable[[Any, Any], Any]:
    """Return what ``Ops.gather`` asks for, compiled for the dtypes of x, the scaling and the rows that it fills.

    That is ``plain`` where rows are neither in C nor in column-major order, or of a dtype that Numba lacks.
    """
    ordered, turned = x.flags.c_contiguous, x.flags.f_contiguous
    if x.ndim != 2 or x.size == 0 or not (ordered or turned) or not x.flags.aligned:
        return plain
    if x.dtype.kind not in "buif" or x.dtype.itemsize > 8 or x.dtype == np.float16 or not x.dtype.isnative:
        return plain
    kind = np.dtype(np.uint8) if x.dtype.kind == "b" else x.dtype
    offset, scale = scaling or (np.empty(0, dtype), np.empty(0, dtype))
    offset, scale = np.ascontiguousarray(offset), np.ascontiguousarray(scale)
    kernels = compiled(SIGNATURES, X=kind.name, S=offset.dtype.name, T=np.dtype(dtype).name)
    place, like, count = address(x), np.empty(0, kind), x.shape[0]

    def load(rows: Any, out: Any) -> Any:
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(x.shape[0]))  # x stays, and so does its address
        if out.dtype != dtype or not out.flags.c_contiguous:
            return plain(rows, out)
        rows = np.ascontiguousarray(rows, np.int64)
        if ordered:
            kernels.by_rows(place, like, rows, offset, scale, out)
        else:
            kernels.by_columns(place, like, count, rows, offset, scale, out)
        return out

    return load
