"""What a sweep goes over: grids, explicit points, and random draws. A point is a mapping of names to values."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import random
from ..nn.per_model import integer, is_array

__all__ = ["LogUniform", "Uniform", "parse", "points"]

_MOST = 10**6  # values of a range
_NUMBER = r"\s*([-+0-9.eE]+)\s*"


@dataclass(frozen=True)
class Uniform:
    """Draws that are uniform in [low, high).

    Parameters
    ----------
    low, high : float
        The interval.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        try:
            fits = self.low < self.high and math.isfinite(self._width())
        except TypeError:
            raise TypeError(f"{type(self).__name__}: expected numbers, got {self.low!r} and {self.high!r}") from None
        if not fits:
            raise ValueError(
                f"{type(self).__name__}: expected finite low < high{self._above}, got {self.low} and {self.high}"
            )

    _above: ClassVar[str] = ""

    def _width(self) -> float:
        """Return how far the interval reaches: not finite where draws would not be."""
        return self.high - self.low

    def at(self, u: float) -> float:
        """Return the value below which the share ``u`` in [0, 1] of the draws lies.

        Parameters
        ----------
        u : float
            The share, between 0 and 1.

        Returns
        -------
        float
            Between the bounds.
        """
        return min(float(self.low + u * self._width()), float(self.high))

    def share(self, value: float) -> float:
        """Undo ``at``.

        Parameters
        ----------
        value : float
            Between the bounds.

        Returns
        -------
        float
            Between 0 and 1.
        """
        return float((value - self.low) / self._width())


@dataclass(frozen=True)
class LogUniform(Uniform):
    """Draws whose logarithm is uniform: as many between 1e-5 and 1e-4 as between 1e-2 and 1e-1.

    Parameters
    ----------
    low, high : float
        The interval, above 0.
    """

    _above: ClassVar[str] = " above 0"

    def _width(self) -> float:
        return self.high / self.low if self.low > 0 else math.inf

    def at(self, u: float) -> float:
        """Return the value below which the share ``u`` in [0, 1] of the draws lies."""
        return min(float(self.low * self._width() ** u), float(self.high))

    def share(self, value: float) -> float:
        """Undo ``at``."""
        return math.log(value / self.low) / math.log(self._width())


def points(
    space: Mapping[str, Any] | Iterable[Mapping[str, Any]], *, draws: int = 8, draw_seed: int = 0
) -> list[dict[str, Any]]:
    """List the points of a space.

    Parameters
    ----------
    space : mapping, or iterable of mappings
        Explicit points; or for each name a value, a sequence of values, or a distribution. Sequences are
        crossed with each other and with the draws. Widths of layers are one value where they stand in a
        sequence of their own: ``{"hidden": [[50], [50, 50]]}``. NumPy's numbers and arrays become Python's.
    draws : int
        Points drawn from the distributions, jointly.
    draw_seed : int
        Seed of the draws. Each of ``draws`` equal shares of a distribution gets one draw (a Latin hypercube:
        McKay, Beckman and Conover, Technometrics 21, 1979), so that none are bunched.

    Returns
    -------
    list of dict
        The values of each point, by name.

    Raises
    ------
    ValueError
        If there are no points, or explicit points do not have the same names.
    TypeError
        If the space is neither a mapping nor mappings, or a value is a set, a mapping or an iterator.
    """
    return _crossed(space, draws, draw_seed) if isinstance(space, Mapping) else _listed(space)


def _listed(space: Any) -> list[dict[str, Any]]:
    """Return explicit points."""
    listed: list[Any] = [] if isinstance(space, str) or not isinstance(space, Iterable) else list(space)
    if not all(isinstance(point, Mapping) for point in listed) or (not listed and not is_array(space)):
        raise TypeError("sweep: expected a mapping of names to values, like {'l2': [0.0, 0.01], 'seed': range(3)}, or "
                        f"a sequence of mappings, one per point; got {space!r}")
    if not listed or any(point.keys() != listed[0].keys() for point in listed):
        raise ValueError("sweep: expected at least one point, and the same names in all of them, got "
                         f"{sorted({', '.join(map(str, point)) for point in listed}) or 'none'}")
    return [{name: _python(value) for name, value in point.items()} for point in listed]


def _crossed(space: Mapping[str, Any], draws: int, draw_seed: int) -> list[dict[str, Any]]:
    """Cross values with each other and with the draws."""
    draws = integer("sweep", "draws", draws)
    for name, value in space.items():
        if isinstance(value, Set | Mapping | Iterator):
            raise TypeError(f"sweep: expected {name} as a value, a sequence of values or a distribution, got {value!r}")
    drawn = {name: _draw(value, name, draws, draw_seed) for name, value in space.items() if isinstance(value, Uniform)}
    together = [{name: values[i] for name, values in drawn.items()} for i in range(draws if drawn else 1)]
    given = {name: _python(value) for name, value in space.items() if name not in drawn}
    crossed = {name: list(value) if is_array(value) else [value] for name, value in given.items()}
    empty = [name for name, values in crossed.items() if not values]
    if empty or not space:
        raise ValueError(f"sweep: expected at least one value of {', '.join(empty) or 'one name'}, got none")
    grid = [dict(zip(crossed, values, strict=True)) for values in itertools.product(*crossed.values())]
    return [{name: (a | b)[name] for name in space} for a in together for b in grid]


def _python(value: Any) -> Any:
    """Return NumPy's numbers and arrays, and those among values, as Python's, which JSON has."""
    if type(value) in (list, tuple):
        return type(value)(map(_python, value))
    return value.tolist() if hasattr(value, "tolist") else value


def _draw(distribution: Uniform, name: str, n: int, seed: int) -> list[float]:
    stream = random.stream(seed, f"draws of {name}")
    shares = (stream.permutation(n) + stream.random(n)) / n
    return [distribution.at(u) for u in shares]


def parse(text: str, kind: type = float) -> Uniform | list[Any]:
    """Read values from a command line: ``1,2,3``, numbers also ``log-uniform(1e-5, 1e-1)``, integers also ``0:5``.

    Parameters
    ----------
    text : str
        What was written.
    kind : type
        ``float`` or ``int``: what the values are.

    Returns
    -------
    Uniform or list
        A distribution, or the values.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    found = re.fullmatch(rf"(log-)?uniform\({_NUMBER},{_NUMBER}\)", text.strip())
    try:
        if found and kind is float:
            return (LogUniform if found[1] else Uniform)(float(found[2]), float(found[3]))
        if kind is int and ":" in text:
            low, high = map(int, text.split(":"))
            if high - low > _MOST:
                raise ValueError(f"expected at most {_MOST:,} values, got {text!r}")
            values: Sequence[Any] = range(low, high)
        else:
            values = [kind(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        if "expected" in str(error):
            raise
        values = []
    if not values:
        ranges = ", 0:5" if kind is int else ", log-uniform(1e-5, 1e-1) or uniform(0, 1)"
        raise ValueError(f"expected values like 1,2,3{ranges}, got {text!r}")
    return list(values)
