"""Launches of kernels and of cuBLAS's products whose arguments are laid out once.

CuPy looks at every argument at every launch, 4 us for a kernel and 9 us for a product. Here a launch is a function of
CuPy's and a tuple of integers, made before the first update; what changes between updates changes in place.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..arrays import Array

__all__ = ["C_NAMES", "Kernels", "Launch", "Matrix", "c_name", "declare", "pointer", "product"]

_TYPES: dict[str, Any] = {"int": ctypes.c_int, "long long": ctypes.c_longlong, "double": ctypes.c_double}
#: What C calls the dtypes that kernels read.
C_NAMES = {"float16": "half", "float32": "float", "float64": "double", "bool": "bool", "int8": "signed char",
           "int16": "short", "int32": "int", "int64": "long long", "uint8": "unsigned char", "uint16": "unsigned short",
           "uint32": "unsigned int", "uint64": "unsigned long long"}
_FIELD = re.compile(r"([\w ]+?)\s*(\*?)\s*(\w+)(?:\[(\d+)\])?;")


def c_name(dtype: Any) -> str:
    """Return what a dtype is called in C."""
    return C_NAMES[str(dtype)]


def declare(name: str, fields: str, known: Mapping[str, type[ctypes.Structure]] | None = None) -> Any:
    """Return the structure that C declares as ``struct name { fields }``, and that declaration.

    Parameters
    ----------
    name : str
        The structure's name.
    fields : str
        ``"T* z; long long z_row; Segment segments[3];"``, say.
    known : mapping of str to type, optional
        Other structures among the fields.
    """
    made = []
    for kind, star, field, count in _FIELD.findall(fields):
        base = kind.strip().removeprefix("const ")
        form = ctypes.c_void_p if star else {**_TYPES, **(known or {})}[base]
        made.append((field, form * int(count) if count else form))
    return type(name, (ctypes.Structure,), {"_fields_": made}), f"struct {name} {{ {fields} }};\n"


def pointer(a: Array | None) -> int | None:
    """Return the address of an array's first element, None for no array."""
    return None if a is None else a.data.ptr


class Launch(NamedTuple):
    """What to call and with what, and what must stay in memory for it."""

    function: Any
    arguments: tuple[Any, ...]
    kept: tuple[Any, ...]


@functools.lru_cache(maxsize=256)
def _module(source: str) -> Any:
    return importlib.import_module("cupy").RawModule(code=source)


class Kernels:
    """The kernels of a source file, compiled when they are first asked for.

    Parameters
    ----------
    file : str
        Name of the file, beside this one.
    prelude : str
        What stands before its text: types, structures and macros.
    """

    def __init__(self, file: str, prelude: str) -> None:
        self.source: str = prelude + Path(__file__).with_name(file).read_text("utf-8")
        self._module = _module(self.source)

    def launch(self, name: str, grid: Sequence[int], block: Sequence[int], *arguments: Any) -> Launch:
        """Return a launch on the current stream.

        Parameters
        ----------
        name : str
            The kernel.
        grid, block : sequence of int
            Up to three numbers each.
        *arguments : ctypes values
            Its arguments, which are read at each launch, so that they may change in between.
        """
        cuda = importlib.import_module("cupy.cuda")
        kernel = self._module.get_function(name)
        addresses = (ctypes.c_void_p * len(arguments))(*[ctypes.addressof(value) for value in arguments])
        grid, block = [*grid, 1, 1][:3], [*block, 1, 1][:3]
        return Launch(cuda.driver.launchKernel, (kernel.kernel.ptr, *grid, *block, 0, cuda.get_current_stream().ptr,
                                                 ctypes.addressof(addresses), 0), (kernel, addresses, arguments))


class Matrix(NamedTuple):
    """Row-major matrices in memory, one for each model."""

    address: int
    rows: int
    columns: int
    row: int  # numbers between two rows
    model: int  # numbers between two models, 0 if they share one
    models: int

    @classmethod
    def of(cls, a: Array, models: int = 1) -> Matrix:
        """Return where an array (n, k) or (models, n, k) lies."""
        *before, row, one = (stride // a.itemsize for stride in a.strides)
        rows, columns = a.shape[-2:]
        if one != 1 and columns > 1:
            raise ValueError(f"expected matrices whose rows are in one piece, got strides {a.strides}")
        return cls(a.data.ptr, rows, columns, max(row, columns), before[0] if before else 0, models)

    def side_by_side(self) -> Matrix:
        """Return the matrices of all models as one, where each row of it is a row of all models."""
        return Matrix(self.address, self.rows, self.columns * self.models, self.row, 0, 1)


def product(dtype: str, a: Matrix, b: Matrix, out: Matrix, *, turn_a: bool = False, turn_b: bool = False) -> Launch:
    """Return cuBLAS's ``out = a @ b``, either of which may be transposed.

    cuBLAS has matrices column by column: to it, row-major a, b and out are transposed, and it computes
    ``out.T = b.T @ a.T``.
    """
    cuda = importlib.import_module("cupy.cuda")
    number = ctypes.c_float if dtype == "float32" else ctypes.c_double
    one, zero = number(1.0), number(0.0)
    n, k = out.rows, out.columns
    inner = a.rows if turn_a else a.columns
    alpha, beta = ctypes.addressof(one), ctypes.addressof(zero)
    letter, head = "s" if dtype == "float32" else "d", (cuda.get_cublas_handle(), int(turn_b), int(turn_a), k, n, inner)
    arguments: tuple[Any, ...]
    if out.models == 1:
        name, arguments = "gemm", (alpha, b.address, b.row, a.address, a.row, beta, out.address, out.row)
    else:
        name, arguments = "gemmStridedBatched", (alpha, b.address, b.row, b.model, a.address, a.row, a.model, beta,
                                                 out.address, out.row, out.model, out.models)
    return Launch(getattr(cuda.cublas, letter + name), (*head, *arguments), (one, zero))
