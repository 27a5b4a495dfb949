"""Hyper-parameters: each is a number, or, if its field is declared so, a sequence with one number per model."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any

from ..backend import Device, to_numpy
from ..files.json_form import listed

__all__ = ["PER_MODEL", "as_python", "bind", "check_range", "describe", "flag", "hosted", "integer", "is_array",
           "is_boolean", "lengths", "number", "per_model", "pick", "shown", "signature", "stack"]

#: Metadata of a dataclass's field that may be a sequence with one number for each model trained side by side; a
#: sequence in any other field is one value, which all models share.
PER_MODEL = MappingProxyType({"per_model": True})


def per_model(default: float) -> Any:
    """Declare a field with a default that may differ between models: ``rate: float = per_model(0.5)``.

    Without a default, it is ``rate: float = field(metadata=PER_MODEL)``.

    Parameters
    ----------
    default : float
        The field's default.

    Returns
    -------
    dataclasses.Field
        What to assign in the body of the class.
    """
    return dataclasses.field(default=default, metadata=PER_MODEL)


def _differs(field: dataclasses.Field[Any]) -> bool:
    """Return whether a field may differ between models."""
    return "per_model" in field.metadata


def is_array(value: Any) -> bool:
    """Return whether a hyper-parameter has a model axis: it is a sequence, whose entries have an order."""
    if isinstance(value, str | bytes | bytearray | AbstractSet | Mapping):
        return False
    return hasattr(value, "__len__") and getattr(value, "ndim", 1) > 0


def shown(value: Any) -> str:
    """Return a value as an error shows it: in one line, of at most 200 characters."""
    return " ".join(repr(value).split())[:200]


def check_range(owner: str, name: str, value: Any, low: float = 0.0, below: float = math.inf) -> None:
    """Check that a hyper-parameter, or each of a sequence of them, is a number from ``low`` to below ``below``.

    Raises
    ------
    TypeError
        If it is no number, and no sequence of numbers.
    ValueError
        If one is NaN or out of range, or there are none.
    """
    if getattr(value, "ndim", 0) > 1:
        return  # bound to a device, and checked before that
    if hasattr(value, "mask") and hasattr(value, "filled"):
        raise TypeError(f"{owner}: expected {name} without a mask, got {shown(value)}")
    numbers = list(value) if is_array(value) else [value]
    if not numbers:
        raise ValueError(f"{owner}: expected at least one value of {name}, got an empty sequence")
    for number in numbers:
        try:
            # Decimal and Fraction do not mix with arrays; bytes have digits.
            if isinstance(number, str | bytes) or not (isinstance(number, int | float) or hasattr(number, "item")):
                raise TypeError
            fits = low <= float(number) < below
        except (TypeError, ValueError):
            raise TypeError(
                f"{owner}: expected {name} as a number, or one number per model, got {shown(value)}"
            ) from None
        except OverflowError:
            raise ValueError(f"{owner}: expected {name} as a number that float64 holds, got one of "
                             f"{number.bit_length():,} bits") from None
        if not fits:
            upper = "" if below == math.inf else f" and below {below:g}"
            raise ValueError(f"{owner}: expected {name} of at least {low:g}{upper}, got {number}")


def is_boolean(value: Any) -> bool:
    """Return whether a value is true or false; NumPy 2.0 takes its own for an index."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool"


def integer(owner: str, name: str, value: Any, low: int = 1) -> int:
    """Return an integer of Python or of an array library as Python's, having checked that it is at least ``low``.

    An error names the owner first, if there is one.

    Raises
    ------
    TypeError
        If it is no integer; true, false and sequences are none.
    ValueError
        If it is below ``low``.
    """
    what = f"{owner}: expected {name}" if owner else f"expected {name}"
    try:
        if is_boolean(value):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{what} as an integer, got {shown(value)}") from None
    if number < low:
        raise ValueError(f"{what} of at least {low}, got {value}")
    return number


def flag(owner: str, name: str, value: Any) -> bool:
    """Return true or false of Python or NumPy as Python's, and 0 and 1, having checked that it is one of them.

    Raises
    ------
    TypeError
        If it is anything else, such as ``"no"``, or one value for each model.
    """
    if is_array(value) or not (is_boolean(value) or (isinstance(value, int) and value in (0, 1))):
        raise TypeError(f"{owner}: expected {name} as True or False, got {shown(value)}")
    return bool(value)


def number(owner: str, name: str, value: Any, low: float = 0.0) -> float:
    """Return one number as Python's float, having checked that it is finite and at least ``low``.

    Raises
    ------
    TypeError
        If it is no number; true, false and sequences are none.
    ValueError
        If it is NaN, infinite or below ``low``.
    """
    if is_boolean(value) or is_array(value):
        raise TypeError(f"{owner}: expected {name} as a number, got {shown(value)}")
    check_range(owner, name, value, low)
    return float(value)


def as_python(thing: Any) -> None:
    """Replace NumPy's scalars among a frozen dataclass's fields by Python's, in which small types do not overflow."""
    for field in dataclasses.fields(thing):
        value = getattr(thing, field.name)
        if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
            object.__setattr__(thing, field.name, listed(value))


def lengths(thing: Any) -> Iterator[tuple[str, int]]:
    """Yield name and length of each sequence over the models in a dataclass, and in the dataclasses it contains."""
    for field in dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else ():
        value = getattr(thing, field.name)
        if dataclasses.is_dataclass(value):
            yield from lengths(value)
        elif _differs(field) and is_array(value):
            if getattr(value, "ndim", 1) > 1:
                raise ValueError(f"{type(thing).__name__}: expected {field.name} as one number per model, got an array "
                                 f"of {value.ndim} axes")
            yield field.name, len(value)


def hosted(thing: Any) -> Any:
    """Return a copy of a dataclass with its sequences over the models as arrays on the host, to calculate with."""
    if not dataclasses.is_dataclass(thing):
        return thing
    arrays = {name: to_numpy(getattr(thing, name)).astype("float64") for name, _ in lengths(thing)}
    return dataclasses.replace(thing, **arrays) if arrays else thing  # type: ignore[type-var]


def bind(thing: Any, device: Device, dtype: str, *, axes: int) -> Any:
    """Return a copy of a dataclass with its sequences over the models as arrays (models, 1, ...): ``axes`` ones.

    NumPy's scalars become Python's, which leave float32 arrays float32.
    """
    if not dataclasses.is_dataclass(thing):
        return thing
    bound: dict[str, Any] = {}
    for field in dataclasses.fields(thing):
        value = getattr(thing, field.name)
        if is_array(value):
            bound |= {field.name: device.asarray(value, dtype)[(..., *[None] * axes)]} if _differs(field) else {}
        elif hasattr(value, "item"):
            bound[field.name] = listed(value)
    return dataclasses.replace(thing, **bound) if bound else thing  # type: ignore[type-var]


def pick(thing: Any, index: int | Sequence[int]) -> Any:
    """Return a copy of a dataclass, and of those in it, with entry ``index`` (or those) of each sequence over models.

    A sequence itself is one over the models.
    """
    if not dataclasses.is_dataclass(thing):
        if not is_array(thing):
            return thing
        return thing[index] if hasattr(index, "__index__") else [thing[i] for i in index]
    values = [(field, getattr(thing, field.name)) for field in dataclasses.fields(thing)]
    fields = {f.name: pick(value, index) for f, value in values if _differs(f) or dataclasses.is_dataclass(value)}
    return dataclasses.replace(thing, **fields)  # type: ignore[type-var]


def stack(things: Sequence[Any]) -> Any:
    """Undo ``pick``: make one dataclass of several that differ in ``per_model`` fields only.

    A field becomes a list where it differs, and stays one value where it does not.
    """
    first = things[0]
    if not dataclasses.is_dataclass(first):
        return first
    fields = {}
    for field in dataclasses.fields(first):
        values = [getattr(thing, field.name) for thing in things]
        alike = not _differs(field) or all(value == values[0] for value in values)
        fields[field.name] = stack(values) if alike else values
    return dataclasses.replace(first, **fields)  # type: ignore[type-var]


def signature(thing: Any) -> Any:
    """Describe a thing in plain values, but for its ``per_model`` fields: things of one signature can be stacked."""
    if dataclasses.is_dataclass(thing):
        fields = {f.name: signature(getattr(thing, f.name)) for f in dataclasses.fields(thing) if not _differs(f)}
        return {"type": type(thing).__name__, **fields}
    return [describe(thing), id(thing)] if callable(thing) else describe(thing)  # closures of one name may differ


def describe(thing: Any) -> Any:
    """Describe a layer, initializer, optimiser or schedule in plain values: its type and its fields.

    A function is described by its name.
    """
    if dataclasses.is_dataclass(thing):
        fields = {f.name: describe(getattr(thing, f.name)) for f in dataclasses.fields(thing)}
        return {"type": type(thing).__name__, **fields}
    if callable(thing):
        return f"{thing.__module__}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"
    if hasattr(thing, "tolist"):
        return listed(thing)
    return [describe(v) for v in thing] if is_array(thing) else thing
