"""Arrays at addresses, inside kernels: a call takes time for each array that it is given."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import carray
from numba.core import cgutils, types
from numba.extending import intrinsic

from .jit import OPTIONS

__all__ = ["address", "at"]


def address(array: np.ndarray) -> int:
    """Return where an array begins in memory."""
    return int(array.ctypes.data)


@intrinsic
def _pointer(context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


@numba.njit(**OPTIONS)
def at(place: int, index: int, shape: Any, like: Any) -> Any:
    """Return an array in C order of the dtype of ``like`` that begins at entry ``index`` from an address."""
    return carray(_pointer(place + index * like.itemsize), shape, like.dtype)
