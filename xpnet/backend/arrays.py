"""What the array API cannot say, next to what it replaces, and the way to the host."""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np

from .blas import Descent
from .blas import found as blas_found

__all__ = [
    "Array",
    "add_gradient",
    "as_row_major",
    "assign",
    "batch_last",
    "constant",
    "descent",
    "is_complex",
    "matmul",
    "namespace",
    "product",
    "read_ahead",
    "real",
    "represents_exactly",
    "take",
    "to_numpy",
    "transposed",
]

Array = Any
NAMESPACES: dict[type, Any] = {}
_CONSTANTS: dict[Any, Array] = {}


def namespace(x: Array) -> Any:
    """Return the array-API namespace of ``x``.

    Parameters
    ----------
    x : array
        An array of any library.

    Returns
    -------
    module
        With the functions of the array API.

    Raises
    ------
    TypeError
        If ``x`` is no array of a library that follows the array API.
    """
    try:
        return NAMESPACES[type(x)]
    except KeyError:
        xp = NAMESPACES[type(x)] = array_api_compat.array_namespace(x)
        return xp


def add_gradient(out: Any, x: Array, d: Array) -> Any:
    """Pass the gradient ``x.T @ d`` to its receiver: an array to write to, a ``Descent``, or None.

    A batch of the first layer that is no array but ``Halves`` has a ``Descent`` take it on two threads.
    """
    if isinstance(out, Descent):
        return out.add_product(x, d) if isinstance(x, np.ndarray) else x.descend(out, d)
    return matmul(transposed(x), d, out)


def descent(flat: Array, rows: int) -> Descent | None:
    """Return what updates ``flat``, a matrix of ``rows`` rows, by plain descent in one pass, if that is faster.

    It gains for large matrices on NumPy, whose BLAS then adds the gradient as it is formed.
    """
    if isinstance(flat, np.ndarray) and flat.size >= 2**14 and blas_found():
        return Descent(flat.reshape(rows, -1))
    return None


def represents_exactly(out: Array, x: Array) -> bool:
    """Return whether the dtype of ``out`` represents every number of the dtype of ``x`` exactly."""
    xp = namespace(x)
    if xp.isdtype(x.dtype, "integral"):
        return bool(xp.iinfo(x.dtype).bits < xp.finfo(out.dtype).bits)
    return not xp.isdtype(x.dtype, "real floating") or bool(xp.finfo(x.dtype).bits <= xp.finfo(out.dtype).bits)


def read_ahead(x: Array, free: int | None) -> Callable[[Array], None] | None:
    """Return what has the system read rows of ``x``, by their indices, before they are needed.

    None where x is no file mapped into memory, or one so small that all of it will soon be in memory. Else every row
    would be waited for: the disk's delay, a hundred times per batch.
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


def as_row_major(x: Array, free: Callable[[], int | None]) -> Array:
    """Return ``x`` in row-major order: a copy of a NumPy array in column-major order if it fits into memory.

    pandas gives such arrays. Every row of theirs is read in as many places as there are features.
    """
    if not isinstance(x, np.ndarray) or x.ndim != 2 or not x.strides[1] > x.strides[0] > 0:
        return x
    room = free()
    return x if room is not None and 2 * x.nbytes > room else np.ascontiguousarray(x)


def take(x: Array, rows: Array, out: Array) -> Array:
    """Return rows of ``x``, by indices that are in range, in ``out`` of its dtype where the library can."""
    if not isinstance(x, np.ndarray):
        return namespace(x).take(x, rows, axis=0)
    # NumPy's take would copy all of an array that is not in one piece, and what it takes where indices might be wrong.
    return x.take(rows, 0, out, "clip") if x.flags.c_contiguous else x[rows]


def assign(out: Array, x: Array) -> None:
    """Write ``x`` of any real dtype into ``out``, without an array between them where the library can."""
    strict = not isinstance(out, np.ndarray) and array_api_compat.is_array_api_strict_namespace(namespace(out))
    out[...] = namespace(x).astype(x, out.dtype) if strict else x


def transposed(x: Array) -> Array:
    """Return ``x`` with its last two axes swapped, as a view."""
    try:
        return x.mT
    except AttributeError:  # CuPy 13; for other libraries the function takes longer than the attribute
        return namespace(x).matrix_transpose(x)


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """Return ``a @ b``, written to ``out`` where one is given.

    The standard has no ``out``; without one, the large gradients would be allocated anew at every step,
    and their pages cost more than their arithmetic. Namespaces without ``out`` copy instead.
    """
    if out is None:
        return a @ b
    if isinstance(out, np.ndarray):
        return np.matmul(a, b, out=out)
    if array_api_compat.is_array_api_strict_namespace(namespace(out)):
        out[...] = a @ b
    else:
        namespace(out).matmul(a, b, out=out)  # CuPy 13 returns another array than ``out``
    return out


def product(x: Array, w: Array) -> Array:
    """Return ``x @ w`` for a batch x (..., n, k), with the batch last in memory where NumPy computes.

    What broadcasts a row over the batch then is k long loops, not n short ones, and with a few features per layer
    that is most of its time. All that is computed from the result keeps its order.
    """
    if not isinstance(x, np.ndarray):
        return x @ w
    if w.ndim == 2 and w.shape[1] <= 256 and w.shape[0] >= 1024:  # faster, with the copy
        return batch_last(x @ w)
    return (w.mT @ x.mT).mT


def batch_last(z: Array) -> Array:
    """Return a batch (n, k) with the batch last in memory where NumPy computes, see ``product``; a copy if need be."""
    return np.ascontiguousarray(z.T).T if isinstance(z, np.ndarray) else z


def constant(x: Array, shape: tuple[int, ...], value: float) -> Array:
    """Return an array filled with ``value``, of x's library, dtype and device; it is kept, so never write to it.

    A product with a row of ones sums over the batch in less than half the time that ``sum`` takes, and
    ``maximum`` with zeros of the same shape takes a third of that with a scalar.

    Parameters
    ----------
    x : array
        An array with the library, dtype and device that are wanted.
    shape : tuple of int
        The shape.
    value : float
        The value.

    Returns
    -------
    array
        Filled with the value.
    """
    key = (type(x), shape, value, x.dtype, str(x.device))  # CuPy's devices have no hash
    try:
        return _CONSTANTS[key]
    except KeyError:
        turned = (*shape[:-2], *shape[:-3:-1])  # the batch last in memory, as with ``product``
        with x.device if array_api_compat.is_cupy_array(x) else contextlib.nullcontext():  # CuPy ignores ``device=``
            made = transposed(namespace(x).full(turned, value, dtype=x.dtype, device=x.device))
        if math.prod(shape) <= 2**20:  # what is large gains nothing, and would not be given back
            if len(_CONSTANTS) >= 64:
                _CONSTANTS.clear()
            _CONSTANTS[key] = made
        return made


@functools.cache
def _complex_dtype(xp: Any, dtype: Any) -> bool:
    return bool(xp.isdtype(dtype, "complex floating"))


def is_complex(x: Array) -> bool:
    """Return whether ``x`` is complex, as it is in complex-step differentiation.

    Parameters
    ----------
    x : array
        An array of any library.

    Returns
    -------
    bool
        Whether its dtype is complex.
    """
    return _complex_dtype(namespace(x), x.dtype)


def real(x: Array) -> Array:
    """Return the real part of ``x``, which is ``x`` itself where it is real.

    Parameters
    ----------
    x : array
        Real or complex.

    Returns
    -------
    array
        Real, of x's shape.
    """
    return namespace(x).real(x) if is_complex(x) else x


def to_numpy(x: Array) -> np.ndarray:
    """Return ``x`` as a NumPy array on the host (a copy only where the device is another one).

    Parameters
    ----------
    x : array
        An array of any library, on any device; a number, list, tuple or range too.

    Returns
    -------
    numpy.ndarray
        With the shape and dtype of x.
    """
    if isinstance(x, np.ndarray | np.generic | float | int | list | tuple | range):
        return np.asarray(x)
    if array_api_compat.is_cupy_array(x):
        return np.asarray(x.get())
    if array_api_compat.is_torch_array(x):
        return np.asarray(x.detach().cpu())
    if array_api_compat.is_array_api_strict_namespace(namespace(x)):
        return np.asarray(x.to_device(namespace(x).Device("CPU_DEVICE")))
    return np.from_dlpack(x)
