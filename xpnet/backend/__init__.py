"""Devices, namespaces and the way between host and device: the only room that knows array libraries.

Everything that computes asks ``namespace`` for the array-API namespace of the arrays it was given, and uses
nothing but the standard (2024.12). What cannot be said in the standard is in ``arrays``, ``Device`` in ``devices``,
and what NumPy's BLAS can do beside in ``blas``.
"""

from .arrays import (
    Array,
    add_gradient,
    as_row_major,
    assign,
    batch_last,
    constant,
    descent,
    is_complex,
    matmul,
    namespace,
    product,
    read_ahead,
    real,
    represents_exactly,
    take,
    to_numpy,
    transposed,
)
from .devices import (
    Device,
    DeviceError,
    MixedDevicesError,
    OutOfMemoryError,
    check_same_device,
    from_dlpack,
    survey,
)
from .memory import format_bytes

__all__ = [
    "Array",
    "Device",
    "DeviceError",
    "MixedDevicesError",
    "OutOfMemoryError",
    "add_gradient",
    "as_row_major",
    "assign",
    "batch_last",
    "check_same_device",
    "constant",
    "descent",
    "format_bytes",
    "from_dlpack",
    "is_complex",
    "matmul",
    "namespace",
    "product",
    "read_ahead",
    "real",
    "represents_exactly",
    "survey",
    "take",
    "to_numpy",
    "transposed",
]
