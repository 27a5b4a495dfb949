"""Search in two rounds: a coarse sweep, then a finer one around its best."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..backend import Array
from ..nn.per_model import integer, number
from ..training.trainer import DivergenceError, Trainer
from .results import Sweep
from .space import Uniform
from .sweep import sweep

__all__ = ["Refined", "coarse_to_fine"]


class Refined(NamedTuple):
    """Both rounds of a search.

    Parameters
    ----------
    coarse, fine : Sweep
        The rounds.
    space : dict
        What the fine one was drawn from.
    """

    coarse: Sweep
    fine: Sweep
    space: dict[str, Any]

    @property
    def better(self) -> Sweep:
        """The round with the best point."""
        return min((self.coarse, self.fine), key=lambda found: found.rank(found.table()[0]))

    @property
    def best(self) -> dict[str, Any]:
        """The row of the best point of both rounds, its mean over seeds."""
        return self.better.table()[0]


def coarse_to_fine(
    make: Callable[..., Trainer],
    space: Mapping[str, Any],
    x: Array,
    y: Array,
    *,
    keep: int = 3,
    margin: float = 0.075,
    directory: str | Path | None = None,
    **options: Any,
) -> Refined:
    """Sweep over wide intervals, then over those that the best points span.

    Parameters
    ----------
    make, space, x, y : function, mapping, arrays
        As for ``sweep``; at least one value of the space is a distribution.
    keep : int
        The fine intervals are those of so many best points (means over seeds).
    margin : float
        By how much of the coarse interval's width, on its own scale, the fine one is widened on each side;
        it does not leave the coarse one. Above 0.
    directory : path, optional
        The rounds are kept in ``coarse`` and ``fine`` beneath it.
    **options
        For both sweeps: ``steps``, ``validation``, ``draws``, ...

    Returns
    -------
    Refined
        Both rounds.

    Raises
    ------
    ValueError, TypeError
        If nothing is drawn, ``keep`` or ``margin`` is no such number, or as ``sweep`` says.
    DivergenceError
        If every point of the coarse sweep diverged.
    """
    keep, margin = integer("coarse_to_fine", "keep", keep), number("coarse_to_fine", "margin", margin)
    if not margin:
        raise ValueError("coarse_to_fine: expected margin above 0, since the best points may be one, got 0")
    if not isinstance(space, Mapping):
        raise TypeError(f"coarse_to_fine: expected a mapping of names to values and distributions, got {space!r}")
    wide = {name: v for name, v in space.items() if isinstance(v, Uniform)}
    if not wide:
        raise ValueError(f"coarse_to_fine: expected a distribution, like LogUniform(1e-5, 1e-1), among {list(space)}")
    folders = [Path(directory) / name if directory else None for name in ("coarse", "fine")]
    coarse = sweep(make, space, x, y, directory=folders[0], **options)
    best = [row for row in coarse.table() if not row["diverged"]][:keep]
    if not best:
        cause = next(iter(coarse.diverged.values()))[1]
        raise DivergenceError(f"every point of the coarse sweep diverged at some seed: {cause}. Lower the rates")
    narrow = {name: _around(v, [row[name] for row in best], margin) for name, v in wide.items()}
    fine = sweep(make, {**space, **narrow}, x, y, directory=folders[1],
                 **{**options, "draw_seed": options.get("draw_seed", 0) + 1})
    return Refined(coarse, fine, narrow)


def _around(wide: Uniform, values: list[float], margin: float) -> Uniform:
    """Return the interval that the values span, widened on the distribution's own scale."""
    shares = [wide.share(v) for v in values]
    low, high = max(min(shares) - margin, 0.0), min(max(shares) + margin, 1.0)
    return dataclasses.replace(wide, low=wide.at(low), high=wide.at(high))
