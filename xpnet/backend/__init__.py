"""Devices, namespaces and the way between host and device: the only room that knows array libraries.

Everything that computes asks ``namespace`` for the array-API namespace of the arrays it was given, and uses
nothing but the standard (2024.12), or ``ops_of`` for the operations that a backend may do better (``ops``). What cannot
be said in the standard is in ``arrays``, ``Device`` in ``devices``, and what NumPy's BLAS can do beside in ``blas``.
"""

from .arrays import (
    Array,
    constant,
    is_complex,
    namespace,
    real,
    represents_exactly,
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
from .ops import OPS, Deferred, Ops, Stage, form, ops_of

__all__ = [
    "OPS",
    "Array",
    "Deferred",
    "Device",
    "DeviceError",
    "MixedDevicesError",
    "Ops",
    "OutOfMemoryError",
    "Stage",
    "check_same_device",
    "constant",
    "form",
    "format_bytes",
    "from_dlpack",
    "is_complex",
    "namespace",
    "ops_of",
    "real",
    "represents_exactly",
    "survey",
    "to_numpy",
    "transposed",
]
