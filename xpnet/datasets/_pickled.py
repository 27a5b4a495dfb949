"""The official pickled batches, read without letting the file run code or choose how much memory is taken.

A pickle is a program. This room runs only the instructions that Python 2 wrote for a dict of byte strings,
lists of small integers and one NumPy array, and the three functions such an array needs (``_reconstruct``,
``ndarray``, ``dtype``) are stand-ins that note their arguments: NumPy sees nothing until the shape, the type
and the number of bytes have been checked. Of Python's unpicklers the one written in Python is used: the C one
reserves memory for counts that it reads from the file (a memo index, the length of a bytearray).
"""

from __future__ import annotations

import pickle  # nosec B403  # of its instructions, those that only make data
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from xpnet.datasets._errors import CorruptDataError, TruncatedDataError
from xpnet.datasets._types import PIXELS

_OPCODES = """PROTO STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE BINBYTES SHORT_BINBYTES
    EMPTY_DICT DICT SETITEM SETITEMS EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET GLOBAL REDUCE BUILD""".split()

_GLOBALS = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): "_reconstruct" for core in ("core", "_core")},
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",  # how Python 3 writes byte strings for Python 2
}


class _Noted:
    """A stand-in for what a NumPy constructor would make: its name, arguments and state."""

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.name, self.arguments = name, arguments
        self.state: Any = None


class _Bounded:
    """A file of known size; reading past its end, or too often, is an error before any memory is taken."""

    def __init__(self, file: BinaryIO, size: int, path: Path, reads: int) -> None:
        self.file, self.left, self.size, self.path, self.reads = file, size, size, path, reads

    def _count(self) -> None:
        self.reads -= 1  # one byte of a pickle can make an object of a hundred: count the instructions
        if self.reads < 0:
            raise pickle.UnpicklingError("it has more instructions than a batch needs")

    def read(self, count: int) -> bytes:
        self._count()
        if not 0 <= count <= self.left:
            raise TruncatedDataError(self.path, self.size, self.size - self.left + count)
        data = self.file.read(count)
        self.left -= count
        if len(data) < count:
            raise TruncatedDataError(self.path, self.size - count + len(data), self.size)
        return data

    def readline(self) -> bytes:
        self._count()
        line = self.file.readline(self.left)
        self.left -= len(line)
        if not line.endswith(b"\n"):
            raise TruncatedDataError(self.path, self.size, self.size + 1)
        return line


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler with most of its instructions taken away."""

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]  # both are the base class's

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _GLOBALS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of CIFAR-10 needs")
        return _GLOBALS[module, name]

    def _reduce(self) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(arguments) is not tuple:
            raise pickle.UnpicklingError(f"it calls a {type(name).__name__}")
        if name == "encode" and len(arguments) == 2 and arguments[1] in ("latin1", "latin-1"):
            self.stack.append(arguments[0].encode("latin-1"))
        elif name in ("_reconstruct", "dtype"):
            self.stack.append(_Noted(name, arguments))
        else:
            raise pickle.UnpicklingError(f"it calls {name[:40]!r}")

    def _build(self) -> None:
        state, noted = self.stack.pop(), self.stack[-1]
        if not isinstance(noted, _Noted):
            raise pickle.UnpicklingError(f"it sets the state of a {type(noted).__name__}")
        noted.state = state

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(target) is not dict or type(key) not in (bytes, str):  # a nested tuple may hash for years
                raise pickle.UnpicklingError("it has a key that is no string")
            target[key] = value

    def _dict(self) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self._set(items)

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _setitems(self) -> None:
        self._set(self.pop_mark())

    dispatch: ClassVar[dict[int, Any]] = {
        **{code: pickle._Unpickler.dispatch[code] for code in (getattr(pickle, o)[0] for o in _OPCODES)},
        pickle.REDUCE[0]: _reduce, pickle.BUILD[0]: _build, pickle.DICT[0]: _dict,
        pickle.SETITEM[0]: _setitem, pickle.SETITEMS[0]: _setitems,
    }


def _pixels(noted: Any, rows: int) -> NDArray[np.uint8]:
    """Return the array that was noted, after comparing all that describes it with what it must be."""
    if not (isinstance(noted, _Noted) and noted.name == "_reconstruct" and noted.arguments[0] == "ndarray"):
        raise ValueError("'data' is not an array")
    _, shape, dtype, fortran, content = noted.state
    if not (isinstance(dtype, _Noted) and dtype.name == "dtype" and dtype.arguments[0] in (b"u1", "u1")):
        raise ValueError("'data' is not an array of uint8")
    if shape != (rows, PIXELS) or fortran or type(content) is not bytes or len(content) != rows * PIXELS:
        raise ValueError(f"'data' is not an array of shape {(rows, PIXELS)}")
    return np.frombuffer(content, np.uint8).reshape(rows, PIXELS)


def read_batch(
    file: BinaryIO, size: int, path: Path, rows: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read one pickled batch.

    Parameters
    ----------
    file : binary file
        Read from where it stands, ``size`` bytes at most.
    size : int
        Bytes the batch takes.
    path : Path
        What errors name.
    rows : int
        Images the batch must hold.

    Returns
    -------
    x : ndarray of uint8, shape (rows, 3072)
        Pixels, read-only.
    y : ndarray of int64, shape (rows,)
        Labels, 0 to 9.

    Raises
    ------
    TruncatedDataError
        If the batch ends too early.
    CorruptDataError
        If it is not a pickle, is one that official batches could not be, or holds something else.
    """
    # Protocol 0 writes a byte as up to four characters; nothing that holds the images is longer than that.
    if size > 5 * rows * (PIXELS + 1) + 10_000:
        raise CorruptDataError(path, f"{size:,} bytes are too many for a batch of {rows:,} images")
    try:
        batch = _Unpickler(_Bounded(file, size, path, reads=20 * rows + 1_000), encoding="bytes").load()
        if type(batch) is not dict:
            raise ValueError("it is not a dict")
        batch = {key if isinstance(key, bytes) else key.encode(): value for key, value in batch.items()}
        if missing := {b"labels", b"data"} - batch.keys():
            raise ValueError(f"it has no {min(missing).decode()!r}")
        labels = batch[b"labels"]
        if type(labels) is not list or len(labels) != rows or {type(v) for v in labels} != {int}:
            raise ValueError(f"'labels' is not a list of {rows:,} integers")
        if not 0 <= min(labels) <= max(labels) <= 9:
            raise ValueError(f"labels run from {min(labels)} to {max(labels)}, expected 0 to 9")
        return _pixels(batch[b"data"], rows), np.array(labels, np.int64)
    except (TruncatedDataError, MemoryError):
        raise
    except Exception as error:  # a damaged program can fail in any way; the file is what is wrong
        reason = str(error)[:200] or type(error).__name__
        raise CorruptDataError(path, f"not a batch of CIFAR-10: {reason}") from error
