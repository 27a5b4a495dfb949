"""Admission of arrays: what each entrance accepts as features and labels, checked before anything is converted."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from ..backend import Array, Device, from_dlpack, namespace, to_numpy

__all__ = ["ArrayError", "NotFiniteError", "admit", "check_finite", "feature_names"]

_NUMBERS = 2**19  # checked at a time: each check waits for one answer from the device
_REAL = ("bool", "integral", "real floating")
_CUDA = (2, 3, 13)  # DLPack's numbers of CUDA, its pinned and its managed memory
_PROBED: set[tuple[type, str, str]] = set()


class ArrayError(TypeError, ValueError):
    """An array is of a kind that xpnet does not compute with; the message names the kind and what to pass instead."""


class NotFiniteError(ValueError, ArithmeticError):
    """Data have NaN or infinity in them, or become so in the network's dtype; the message names the first."""


def admit(x: Any, what: str, *, convert: bool = False, real: bool = True) -> Array:
    """Return ``x`` as an array to compute with, having checked its library and its dtype.

    Parameters
    ----------
    x : array
        An array of NumPy, CuPy, PyTorch, JAX, or another library of the array API.
    what : str
        What an error calls it, such as ``"features"``.
    convert : bool
        Whether lists, data frames and arrays of objects are accepted too, as estimators do.
    real : bool
        Whether it must hold real numbers; without it, as for labels, also text and objects.

    Returns
    -------
    array
        ``x`` itself, a view through DLPack, or what a list or a data frame converts to.

    Raises
    ------
    ArrayError
        If it has a mask, is sparse, lazy, or of a subclass or a dtype with another meaning; it is a TypeError and a
        ValueError.
    TypeError
        If it is no array, and ``convert`` is not set.
    """
    _check_library(x, what)
    array = _as_array(x, what, convert=convert)
    if isinstance(array, np.ndarray):
        if array.dtype.kind == "T" and convert and not real:  # NumPy's variable-width text
            array = array.astype(object)
        if array.dtype.kind == "O" and convert:
            if real:
                return _numbers(array, what, feature_names(x))
            return _labels(array, what)
        elif array.dtype.kind in "MmTV" or (real and array.dtype.kind not in "biuf"):
            raise ArrayError(f"{what}: expected {'real numbers' if real else 'integers or text'}, got dtype "
                             f"{array.dtype}; {_remedy(array.dtype)}")
    elif real and not namespace(array).isdtype(array.dtype, _REAL):
        raise ArrayError(f"{what}: expected real numbers, got dtype {array.dtype}; Complex data not supported, and "
                         "other dtypes neither: convert to float32")
    return array


def _remedy(dtype: np.dtype[Any]) -> str:
    if dtype.names:
        return "use numpy.lib.recfunctions.structured_to_unstructured(x)"
    if dtype.kind == "V":  # bfloat16 and the like, which ml_dtypes adds to NumPy
        return "use x.astype('float32')"
    if dtype.kind in "Mm":
        return "use a duration as a number, like (x - x.min()) / numpy.timedelta64(1, 'D')"
    if dtype.kind == "c":
        return "Complex data not supported: use the real part or the modulus"
    return "convert to numbers with x.astype('float64')"


def _check_library(x: Any, what: str) -> None:
    """Refuse arrays with more to them than their values: a mask, gradients, a subclass's arithmetic."""
    layout = str(getattr(x, "layout", "strided"))
    if hasattr(x, "mask") and hasattr(x, "filled"):
        raise ArrayError(f"{what}: expected an array without a mask; use x.filled(...), or leave the masked examples "
                         "out")
    if hasattr(x, "tocsr") or (hasattr(x, "toarray") and hasattr(x, "dtype")):
        raise ArrayError(f"Sparse data was passed for {what}, but dense data is needed: use {what}.toarray()")
    if not layout.endswith("strided") and hasattr(x, "to_dense"):
        raise ArrayError(f"Sparse data was passed for {what} ({layout}), but dense data is needed: use x.to_dense()")
    if getattr(x, "is_nested", False):
        raise ArrayError(f"{what}: expected an array, got a nested one; use torch.stack(x.unbind()) if its parts are "
                         "equally long")
    if callable(getattr(x, "is_neg", None)) and x.is_neg():
        raise ArrayError(f"{what}: expected an array in memory, got a view that changes the sign; use x.resolve_neg()")
    if getattr(x, "requires_grad", False):
        raise ArrayError(f"{what}: expected an array without gradients, got requires_grad=True; use x.detach()")
    if hasattr(x, "__dask_graph__"):
        raise ArrayError(f"{what}: expected an array in memory, got a lazy one of dask; use x.compute()")
    if hasattr(x, "collect") and not hasattr(x, "__array__"):
        raise ArrayError(f"{what}: expected a table in memory, got a lazy {type(x).__name__}; use x.collect()")
    if isinstance(x, np.ndarray) and type(x) not in (np.ndarray, np.memmap):
        raise ArrayError(f"{what}: expected a plain array, got {type(x).__module__}.{type(x).__name__}, whose values "
                         "may mean something else; use numpy.asarray(x)")


def _as_array(x: Any, what: str, *, convert: bool) -> Array:
    """Return an array of any library as it is or as a view, and others through NumPy if ``convert``."""
    if isinstance(x, np.ndarray):
        return x
    known = hasattr(x, "__array_namespace__") or hasattr(x, "__dlpack_device__")
    if convert and hasattr(x, "__arrow_c_array__"):
        known = False  # DLPack has no text, no missing values
    if not known and not convert:
        raise TypeError(f"{what}: expected an array, got {type(x).__name__}; wrap it in numpy.asarray(...)")
    try:
        if not known:
            return _converted(x, what)
        kind = type(x), str(getattr(x, "dtype", "")), str(getattr(x, "device", ""))
        if kind in _PROBED:
            return from_dlpack(x)
        if not hasattr(x, "__array_namespace__") and int(x.__dlpack_device__()[0]) in _CUDA:
            return from_dlpack(x)  # without CuPy, its own message is clearer
        found = from_dlpack(x)
        if not isinstance(found, np.ndarray):  # a library without the standard's functions, or with lazy values
            xp = namespace(found)
            xp.isdtype(found.dtype, _REAL)
            empty = found if found.ndim == 0 else found[:0, ...]
            bool(xp.all(empty == empty))
            to_numpy(empty)
            Device.of(found)
    except ArrayError:
        raise
    except Exception as error:  # of whichever library it is
        name = f"{type(x).__module__.partition('.')[0]}'s {type(x).__name__}"
        raise ArrayError(f"{what}: expected an array of NumPy, CuPy, PyTorch, JAX or another library of the array API, "
                         f"or lists of equal lengths, got {name}, which cannot be read "
                         f"({' '.join(str(error).split())[:200]}); {_conversion(x)}") from error
    _PROBED.add(kind)
    return found


def _converted(x: Any, what: str) -> np.ndarray[Any, Any]:
    """Return a list or a table as an array, having checked that NumPy leaves nothing out and makes nothing up."""
    for dtype in np.ravel(np.asarray(getattr(x, "dtypes", ()), dtype=object)):  # Polars makes numbers of dates
        if getattr(dtype, "is_temporal", bool)():
            raise ArrayError(f"{what}: expected real numbers, got a column of {dtype}; {_remedy(np.dtype('M8[s]'))}")
    items = list(x) if isinstance(x, Sequence) and not isinstance(x, str | bytes) else []
    for item in items:
        if not isinstance(item, numbers.Number | str):
            _check_library(item, what)
    array = np.asarray(x)
    if array.dtype.kind in "US" and array.ndim == 1 and not all(isinstance(item, str | bytes) for item in items):
        odd = next(item for item in items if not isinstance(item, str | bytes))
        raise ArrayError(f"{what}: expected only text or only numbers, got {odd!r} beside text, which would become "
                         f"text; convert it with str, or leave it out if it is missing")
    return array


def _conversion(x: Any) -> str:
    """Say how to convert an array that cannot be read."""
    if isinstance(x, Sequence):
        return "make them equally long"
    try:
        kind = np.asarray(x).dtype.kind
    except Exception:  # of whichever library it is
        kind = "O"
    if kind == "V":
        return "use numpy.asarray(x).astype('float32')"
    return "use numpy.asarray(x)" if kind in "biuf" else "convert it to a NumPy array of numbers, float32 for example"


def _elements(x: np.ndarray[Any, Any], names: Sequence[str] | None) -> Iterator[tuple[Any, str]]:
    """Yield the objects in an array, each with the words for its place."""
    for index, value in np.ndenumerate(x):
        row, *columns = index or (0,)
        column = "".join(f", column {names[c] if names and len(columns) == 1 else c}" for c in columns)
        yield value, f"row {row}{column}"


def _numbers(x: np.ndarray[Any, Any], what: str, names: Sequence[str] | None) -> Array:
    """Return an array of objects as float64, having checked that each of them is a number."""
    for value, place in _elements(x, names):
        if isinstance(value, numbers.Real | np.bool | Decimal):
            continue
        why = ""
        if not isinstance(value, str):
            try:
                float(value)
            except Exception as error:  # of whichever class it is
                why = f" ({error})"
        if isinstance(value, numbers.Complex):
            why = "; Complex data not supported"
        raise ArrayError(f"{what}: expected real numbers, got {str(value)[:80]!r} of type {type(value).__name__} in "
                         f"{place}{why}; fill in what is missing, and convert the rest to numbers")
    try:
        return x.astype(np.float64)
    except (OverflowError, ValueError) as error:  # a signaling NaN
        raise ArrayError(f"{what}: expected numbers that float64 holds ({error}); rescale them") from error


def _labels(x: np.ndarray[Any, Any], what: str) -> Array:
    """Return labels, as numbers if all of them are, having checked that none is missing, such as None or pandas.NA."""
    for value, place in _elements(x, None):
        if value is None or type(value).__name__ in ("NAType", "NaTType") or (
                isinstance(value, float) and math.isnan(value)):
            raise ArrayError(f"Input {what} contains NaN: {value!r} in {place}; fill in what is missing, or leave "
                             "those examples out")
    real = all(isinstance(value, numbers.Real | np.bool) for value in x.reshape(-1))
    return np.asarray(x.tolist()) if real else x


def feature_names(table: Any) -> list[str] | None:
    """Return the columns' names of a data frame or an Arrow table, None if they have none.

    Raises
    ------
    TypeError
        If only some of the names are text.
    """
    given: Any = getattr(table, "column_names", None)  # of Arrow, whose ``columns`` are arrays
    given = getattr(table, "columns", ()) if given is None else given
    names: list[Any] = list(given) if isinstance(given, Iterable) else []
    if not any(isinstance(name, str) for name in names):
        return None
    if not all(isinstance(name, str) for name in names):
        raise TypeError("Feature names are only supported if all input features have string names: use "
                        "X.columns = X.columns.astype(str)")
    return [str(name) for name in names]


def check_finite(
    x: Array, what: str, *, dtype: Any = None, scaling: tuple[Array, Array] | None = None
) -> None:
    """Check that numbers (n, ...) are finite, and stay so in the network's dtype.

    Parameters
    ----------
    x : array of shape (n, ...)
        Numbers of any dtype; any other kind is left alone.
    what : str
        What an error calls them, such as ``"features"``.
    dtype : dtype, optional
        The network's, of the same library.
    scaling : tuple of array, optional
        Offset and scale of a network that standardises.

    Raises
    ------
    NotFiniteError
        If one is NaN or infinite, or becomes so.
    """
    xp = namespace(x)
    floating = bool(xp.isdtype(x.dtype, "real floating"))
    if not (floating or xp.isdtype(x.dtype, "integral")) or not math.prod(x.shape):
        return
    info = xp.finfo(x.dtype) if floating else xp.iinfo(x.dtype)
    most = math.inf if dtype is None else float(xp.finfo(dtype).max)
    shift, factor = [float(xp.max(xp.abs(a))) for a in scaling] if scaling else (0.0, 1.0)

    def bounded(largest: float) -> bool:
        return largest <= float(info.max) and (largest + shift) * factor <= most

    if not floating and bounded(float(info.max)):
        return
    rows = max(1, _NUMBERS // math.prod(x.shape[1:]))
    for start in range(0, x.shape[0], rows):
        part = x[start : min(start + rows, x.shape[0]), ...]
        wide = part if floating else xp.astype(part, xp.float64)
        if bounded(float(xp.max(xp.abs(wide)))):  # false for NaN
            continue
        flat = xp.reshape(wide, (-1,))
        noun = what.rpartition(" ")[2]
        noun = f"the {noun}" if len(noun) > 1 else noun
        _refuse_first(flat, xp.isfinite(flat), part, start, f"{what}: expected finite numbers", f"check {noun} for "
                      "NaN and infinity, and fill them in or leave them out")
        if dtype is None:
            continue
        with np.errstate(over="ignore"):
            exact = xp.astype(wide, xp.float64)  # of NumPy's long double, too
            if scaling:
                offset, scale = (xp.astype(a, xp.float64) for a in scaling)
                exact = (exact - offset) * scale
        inside = xp.abs(exact) <= most
        kind, after = str(xp.finfo(dtype).dtype).rpartition(".")[2], " after standardisation" if scaling else ""
        _refuse_first(flat, xp.reshape(inside, (-1,)), part, start, f"{what}: expected at most {most:.3g}{after}, the "
                      f"largest {kind}, in which the network computes", "rescale them, leave them out, or train in "
                      "float64")


def _refuse_first(flat: Array, good: Array, part: Array, start: int, expected: str, remedy: str) -> None:
    """Raise an error that names the first of ``flat`` that is not good."""
    xp = namespace(flat)
    if bool(xp.all(good)):
        return
    first, width = int(xp.argmin(xp.astype(good, xp.int8))), math.prod(part.shape[1:])
    place = f"example {start + first // width}" + (f", feature {first % width}" if part.ndim > 1 else "")
    raise NotFiniteError(f"{expected}, got {float(flat[first])} in {place}; {remedy}")
