"""The form that values take in JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["field", "listed", "plain"]


def listed(value: Any) -> Any:
    """Return an array or a scalar as Python's numbers, NumPy's long double too, which ``tolist`` leaves as it is."""
    found = first = value.tolist()
    while isinstance(first, list) and first:
        first = first[0]
    return value.astype("float64").tolist() if hasattr(first, "tolist") else found


def plain(value: Any) -> Any:
    """Return results as JSON has them: arrays as lists, numbers that are not finite as null, what it lacks as text."""
    if isinstance(value, Mapping):
        return {name: plain(v) for name, v in value.items()}
    value = listed(value) if hasattr(value, "tolist") else value
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def field(value: Any) -> Any:
    """Return a field of a layer or a trainer that JSON lacks as one that it has, for ``json.dumps(default=)``.

    Raises
    ------
    TypeError
        If it is neither an array nor a number of NumPy.
    """
    if hasattr(value, "tolist"):
        return listed(value)
    raise TypeError(f"fields are saved as JSON, which has no {type(value).__name__}: {value!r}")
