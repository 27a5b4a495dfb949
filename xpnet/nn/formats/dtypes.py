"""The dtypes of arrays from files and other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["as_supported"]


def as_supported(what: str, a: NDArray[Any]) -> NDArray[Any]:
    """Return an array of network parameters as float32 or float64 in this machine's byte order, without rounding.

    Parameters
    ----------
    what : str
        How errors name the array.
    a : ndarray
        An array of float16, which becomes float32, or of float32 or float64 in any byte order.

    Returns
    -------
    ndarray
        The array itself if nothing has to change.

    Raises
    ------
    TypeError
        If its numbers are others, which float64 would round or which are no real numbers.
    """
    if a.dtype.kind != "f" or a.dtype.itemsize > 8:
        raise TypeError(f"{what}: expected float16, float32 or float64, got dtype {a.dtype}; convert it with "
                        "astype('float64')")
    return a.astype(np.result_type(a.dtype.newbyteorder("="), np.float32), copy=False)
