"""Batches in one launch: rows gathered, converted and standardised, and targets made of their labels."""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

from ..arrays import Array, represents_exactly
from .launch import Kernels, c_name, declare, pointer

__all__ = ["GatheredRows"]

PER_BLOCK = 1024  # features that a block of 256 threads converts
_FIELDS = ("const X* x; long long x_row; long long x_column; const INDEX* only; const S* offset; const S* scale; "
           "T* out; const LABEL* labels; T* targets; int features; int outputs; ")


class GatheredRows:
    """What prepares batches of ``x`` and of the targets of ``labels``.

    Parameters
    ----------
    x : array of shape (n, features)
        The data, of any real dtype.
    labels : array of shape (n,) or (n, outputs)
        Class indices, or the targets themselves.
    outputs : int
        Width of the targets.
    dtype : str
        The dtype that is written.
    one_hot : bool
        Whether labels are class indices.
    scaling : tuple of array, optional
        Offset and scale by feature, in the dtype in which to standardise.
    only : array of int64, optional
        Indices of the rows of x that the labels belong to; all by default.
    """

    def __init__(
        self, x: Array, labels: Array, outputs: int, dtype: str, *, one_hot: bool,
        scaling: tuple[Array, Array] | None = None, only: Array | None = None,
    ) -> None:
        xp = importlib.import_module("cupy")
        self._labels = xp.ascontiguousarray(labels)
        self._only = None if only is None else xp.ascontiguousarray(only, dtype=xp.int64)
        # Numbers of which the dtype would round away what is behind a large offset are standardised before.
        wide = scaling is not None and not represents_exactly(scaling[0], x)
        inside = "float64" if wide else str(scaling[0].dtype) if scaling else dtype
        scaling = scaling and tuple(xp.asarray(a, dtype=inside) for a in scaling)
        types = {"T": dtype, "X": x.dtype, "LABEL": labels.dtype, "S": inside, "INDEX": "int64"}
        self._kind, text = declare("Rows", _FIELDS)
        half = "float16" in map(str, types.values())
        macros = {"PER_BLOCK": PER_BLOCK, "SCALES": int(scaling is not None), "ONE_HOT": int(one_hot),
                  "HALF": int(half)}
        prelude = ("#include <cuda_fp16.h>\n" if half else "") + "".join(
            [f"typedef {c_name(kind)} {name};\n" for name, kind in types.items()]
            + [f"#define {name} {value}\n" for name, value in macros.items()])
        self._kernels = Kernels("rows.cu", prelude + text)
        self._x, self._scaling, self._outputs = x, scaling, outputs
        self._launches: dict[Any, Any] = {}
        self._chosen = ctypes.c_void_p()
        self._current_stream = xp.cuda.get_current_stream

    def take(self, rows: Array, out: Array, targets: Array) -> None:
        """Write rows, by their indices (int64), and their targets."""
        key = out.data.ptr, targets.data.ptr, rows.shape[0], self._current_stream().ptr
        try:
            function, arguments, _ = self._launches[key]
        except KeyError:
            function, arguments, _ = self._launches[key] = self._laid_out(out, targets)
        self._chosen.value = rows.data.ptr
        function(*arguments)

    def _laid_out(self, out: Array, targets: Array) -> Any:
        x, (offset, scale) = self._x, self._scaling or (None, None)
        row, column = (stride // x.itemsize for stride in x.strides)
        argument = self._kind(
            x=pointer(x), x_row=row, x_column=column, only=pointer(self._only), offset=pointer(offset),
            scale=pointer(scale), out=pointer(out), labels=pointer(self._labels), targets=pointer(targets),
            features=x.shape[1], outputs=self._outputs)
        grid = out.shape[0], -(-x.shape[1] // PER_BLOCK)
        return self._kernels.launch("gather_rows", grid, (256,), argument, self._chosen)
