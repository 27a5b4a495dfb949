"""Devices, namespaces and the way between host and device: the only room that knows array libraries.

Everything that computes asks ``namespace`` for the array-API namespace of the arrays it was given, and uses
nothing but the standard (2024.12), or ``ops_of`` for the operations that a backend may do better: ``ops`` says which,
``libraries`` has those of NumPy and CuPy, and ``fast`` those that Numba compiles. What the standard cannot say is
in ``arrays``, ``Device`` in ``devices``, and what NumPy's BLAS can do beside in ``blas``.
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
from .deferred import Deferred, Stage, form, kind
from .devices import (
    Device,
    DeviceError,
    MixedDevicesError,
    OutOfMemoryError,
    check_same_device,
    from_dlpack,
)
from .fast import choose
from .libraries import OPS, CupyOps, NumpyOps, ops_of
from .machine import survey
from .memory import format_bytes
from .ops import Ops

choose()

__all__ = [
    "OPS",
    "Array",
    "CupyOps",
    "Deferred",
    "Device",
    "DeviceError",
    "MixedDevicesError",
    "NumpyOps",
    "Ops",
    "OutOfMemoryError",
    "Stage",
    "check_same_device",
    "constant",
    "form",
    "format_bytes",
    "from_dlpack",
    "is_complex",
    "kind",
    "namespace",
    "ops_of",
    "real",
    "represents_exactly",
    "survey",
    "to_numpy",
    "transposed",
]
