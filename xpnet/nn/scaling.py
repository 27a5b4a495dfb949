"""The offset and scale that standardise a network's input, and the dtype in which they are applied."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..backend import Array, Device, namespace, represents_exactly

__all__ = ["SCALING_DTYPE", "compared_dtype", "rounds_away", "working_scaling"]

#: Of the offset and scale, whatever the network's dtype: float32 keeps the mean of times in milliseconds since 1970
#: only to the minute.
SCALING_DTYPE = "float64"
TOLERANCE = 5e-7  # standard deviations by which an offset may be off


def rounds_away(offset: Array, scale: Array, dtype: Any) -> bool:
    """Return whether rounding both to ``dtype`` changes ``(x - offset) * scale`` by more than the tolerance."""
    xp = namespace(offset)
    with Device.of(offset).ignore_overflow():  # a scale may be inf in another dtype
        near, factor = xp.astype(offset, dtype), xp.astype(scale, dtype)
        size = xp.abs(scale)
        kept = (xp.abs(scale - factor) <= TOLERANCE * size) & ~(xp.abs(offset - near) * size > TOLERANCE)
        return not bool(xp.all(kept))


def working_scaling(x: Array, offset: Array, scale: Array, dtype: Any) -> tuple[Array, Array]:
    """Return the offset and scale in the dtype in which ``x`` is standardised.

    That is the network's dtype, which is fastest, if neither x nor the offset loses by it, and else float64. Bytes are
    always standardised in the network's dtype: their offset is below 256.

    Parameters
    ----------
    x : array of shape (n, features)
        The features, of any real dtype.
    offset, scale : array of shape (features,)
        What standardises them, in float64; in the network's dtype in files of xpnet 0.1.
    dtype : dtype
        The network's.

    Returns
    -------
    tuple of array
        Both as ``dtype``, or both as float64.
    """
    xp = namespace(offset)
    if offset.dtype == dtype:
        return offset, scale
    if x.dtype == dtype:
        single = not rounds_away(offset, scale, dtype)
    elif xp.isdtype(x.dtype, "bool") or (xp.isdtype(x.dtype, "integral") and xp.iinfo(x.dtype).bits == 8):
        single = True
    else:
        single = represents_exactly(xp.empty(0, dtype=dtype), x) and not rounds_away(offset, scale, dtype)
    return (xp.astype(offset, dtype), xp.astype(scale, dtype)) if single else (offset, scale)


def compared_dtype(name: str, saved: Array, inputs: Collection[str], dtype: str) -> str:
    """Return what to compare with the network's dtype to tell whether a saved array is one of its own.

    That is the array's dtype; of the input's offset and scale, which xpnet 0.1 saved in the network's dtype, the
    network's in both cases.
    """
    found = str(saved.dtype)
    return dtype if name in inputs and found in (SCALING_DTYPE, dtype) else found
