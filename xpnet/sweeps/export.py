"""A sweep's tables, curves, picture and best network as files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import plotting
from ..files import write_text
from ..files.json_form import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .results import Sweep

__all__ = ["picture", "save"]

_SERIES = 7  # in one picture: as many as there are colours


def picture(sweep: Sweep, against: str | None, title: str) -> Figure:
    """Draw the score against one swept value: see ``Sweep.plot``."""
    swept = [name for name in sweep.points[0] if name != "seed" and len({repr(p[name]) for p in sweep.points}) > 1]
    name = against or next((n for n in swept if _is_number(sweep.points[0][n])), (swept or ["seed"])[0])
    if name not in sweep.points[0]:
        raise KeyError(f"plot: expected one of {', '.join(sweep.points[0])}, got {name!r}")
    others = [n for n in swept if n != name]
    few = len({repr([p[n] for n in others]) for p in sweep.points}) <= _SERIES
    numbers = all(_is_number(p[name]) for p in sweep.points)
    groups: dict[tuple[str, str], list[int]] = {}
    values: dict[tuple[str, str], Any] = {}
    for member, point in enumerate(sweep.points):
        rest = ", ".join(f"{n} = {_short(point[n])}" for n in others)
        key = (repr(point[name]), rest)
        values[key] = point[name] if numbers else _short(point[name])
        groups.setdefault(key, []).append(member)
    figure = plotting.sweep(
        list(values.values()), [_scores(sweep, members) for members in groups.values()],
        groups=[rest for _, rest in values] if others and few else None, xlabel=name,
        ylabel=sweep.score.replace("_", " "), percent=sweep.measure.share, title=title,
    )
    for container in () if few else figure.axes[0].containers:
        container[0].set_linestyle("none")  # neighbours differ in the other values too: no line joins them
    return figure


def _scores(sweep: Sweep, members: Sequence[int]) -> list[float]:
    """Return the scores of members at one update, NaN for those that diverged."""
    going = [m for m in members if m not in sweep.diverged]
    rows = sweep.reached(going) if going else []
    return [row[sweep.score] for row in rows] + [math.nan] * (len(members) - len(going))


def save(sweep: Sweep, folder: Path) -> None:
    """Write a sweep's files: see ``Sweep.save``."""
    try:
        _save(sweep, folder)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror or error}: not all tables and pictures are written; the same "
                      "command, or save(), writes them", str(folder)) from error


def _save(sweep: Sweep, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = sweep.table()
    write_text(folder / "table.json", json.dumps(plain(table), indent=1, allow_nan=False) + "\n")
    for name, rows in (("table.csv", table), ("members.csv", sweep.members())):
        _write_csv(folder / name, rows)
    curves = [{"point": point, **{name: column.tolist() for name, column in history.columns.items()}}
              for point, history in zip(sweep.points, sweep.histories, strict=True)]
    write_text(folder / "curves.json", json.dumps(plain(curves), allow_nan=False) + "\n")
    if len(sweep.diverged) < len(sweep):
        sweep.network().save(folder / "best.safetensors")
        plotting.save(sweep.plot(), folder / "sweep.png")


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: json.dumps(v) if isinstance(v, list | tuple | dict) else v for name, v in row.items()}
                     for row in rows)
    write_text(path, text.getvalue())
