"""Texts, numbers and cells of tables as HTML."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

__all__ = ["LONGER", "align", "cell", "embed", "escape", "finite", "is_numeric"]

LONGER = 120  # letters of a cell
DASH = "\N{EN DASH}"


def escape(text: str) -> str:
    """Return a text that may stand anywhere in HTML."""
    return html.escape(text, quote=True)


def plain(value: object) -> Any:
    """Return a NumPy scalar as the Python object that it holds, and anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value  # type: ignore[attr-defined]


def is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def is_numeric(values: Sequence[object]) -> bool:
    """Return whether the cells that are not empty are numbers, with or without a margin."""
    given = [with_margin(value)[0] for value in values if value is not None]
    return bool(given) and all(map(is_number, given))


def with_margin(value: object) -> tuple[Any, Any]:
    """Split a cell into its value and its margin, None where it has none."""
    if isinstance(value, tuple) and len(value) == 2 and is_number(number := plain(value[0])):
        margin = plain(value[1])
        return number, margin if is_number(margin) and math.isfinite(margin) else None
    return plain(value), None


def align(right: bool) -> str:
    """Return the class of a cell that is aligned right or left."""
    return "num" if right else "text"


def cell(value: object, spec: str, right: bool, name: str) -> str:
    """Return one cell of a column aligned `right` or not; ``data-sort`` is the number it is sorted by.

    A `name` stands beside it where its row is shown as a card.
    """
    value, margin = with_margin(value)
    named = f' data-name="{escape(name)}"' if name else ""
    if value is None:
        return f'<td class="{align(right)} none"{named}>{DASH}</td>'
    if isinstance(value, bool):
        word, mark = ("holds", "✓") if value else ("does not hold", "✗")
        verdict = "yes" if value else "no"
        return (
            f'<td class="{verdict}"{named} data-sort="{int(value)}">'
            f'<span aria-hidden="true">{mark}</span>'
            f'<span class="sr">{word}</span></td>'
        )
    if isinstance(value, Real):
        given, spec = bool(spec), spec or ("d" if isinstance(value, Integral) else ".4g")
        written = write(value, spec)
        if margin is not None:
            written += f" ± {write(margin, spec if given else '#.2g')}"
        return f'<td class="num"{named} data-sort="{float(value)!r}">{escape(written)}</td>'
    text = str(value)
    size = " long longer" if len(text) > LONGER else " long" if len(text) > 24 else ""
    return f'<td class="text{size}"{named}>{escape(text)}</td>'


def write(value: Any, spec: str) -> str:
    return (spec if "{" in spec else f"{{:{spec}}}").format(value)


def finite(value: float | None) -> float | None:
    """Return a number as it is, and None for a gap."""
    return float(value) if value is not None and math.isfinite(value) else None


def embed(content: object) -> str:
    """Return JSON that may stand inside a script element: no ``<`` can end it or open a comment."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
