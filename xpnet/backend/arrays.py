"""What the array API cannot say, next to what it replaces, and the way to the host."""

from __future__ import annotations

import contextlib
import functools
import math
from typing import Any

import array_api_compat
import numpy as np

__all__ = [
    "Array",
    "apart",
    "constant",
    "is_complex",
    "namespace",
    "real",
    "represents_exactly",
    "side_by_side",
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


def represents_exactly(out: Array, x: Array) -> bool:
    """Return whether the dtype of ``out`` represents every number of the dtype of ``x`` exactly."""
    xp = namespace(x)
    if xp.isdtype(x.dtype, "integral"):
        return bool(xp.iinfo(x.dtype).bits < xp.finfo(out.dtype).bits)
    return not xp.isdtype(x.dtype, "real floating") or bool(xp.finfo(x.dtype).bits <= xp.finfo(out.dtype).bits)


def transposed(x: Array) -> Array:
    """Return ``x`` with its last two axes swapped, as a view."""
    try:
        return x.mT
    except AttributeError:  # CuPy 13; for other libraries the function takes longer than the attribute
        return namespace(x).matrix_transpose(x)


def side_by_side(w: Array) -> Array:
    """Put the models' matrices side by side: (*models, n, k) to (n, models * k). A view where it can be."""
    if w.ndim == 2:
        return w
    xp = namespace(w)
    return xp.reshape(xp.moveaxis(w, -2, 0), (w.shape[-2], -1))


def apart(wide: Array, like: tuple[int, ...]) -> Array:
    """Undo ``side_by_side``: (n, models * k) to (*models, n, k) with models and k those of ``like``."""
    xp = namespace(wide)
    return xp.moveaxis(xp.reshape(wide, (wide.shape[0], *like[:-2], like[-1])), 0, -2)


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
