"""Line charts of runs, and figures as files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .pictures import new_figure
from .training import tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curves", "history", "save"]

# Okabe and Ito's colours, told apart with every kind of colour vision.
_BLUE, _VERMILLION, _GREEN, _PURPLE, _GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
_TRAIN, _VALIDATION = {"color": _BLUE, "linestyle": "-"}, {"color": _VERMILLION, "linestyle": (0, (5, 1.5))}


def save(figure: Figure, path: str | os.PathLike[str], *, dpi: int = 120) -> Path:
    """Write a figure as a PNG file without dates or versions in it, and return where it is.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        What to write.
    path : path
        The file; missing directories are made.
    dpi : int, optional
        Pixels per inch.

    Returns
    -------
    pathlib.Path
        The file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, format="png", dpi=dpi, metadata={"Software": None})
    return target


def curves(panels: Sequence[Mapping[str, Any]], *, title: str = "") -> Figure:
    """Draw the cost and the loss of one or several networks against the update step.

    Parameters
    ----------
    panels : sequence of mappings
        One for each network, with the keys ``title``, ``steps``, ``train_loss``, ``validation_loss``,
        ``train_cost`` and ``validation_cost``; all but the first are equally long sequences of numbers. One
        network is drawn as cost (left) and loss (right), several as a column each, cost above loss on shared
        scales.
    title : str, optional
        The title of the whole figure.

    Returns
    -------
    matplotlib.figure.Figure
        With the axes in reading order. Values far above the others are cut off and the panel says so, and
        says where the first number is that is not finite.

    Raises
    ------
    ValueError
        If there are no panels.
    """
    if not panels:
        raise ValueError("expected at least one panel, but panels is empty: give one for each network")
    several = len(panels) > 1
    figure = new_figure((5.0 * max(2, len(panels)), 6.4 if several else 3.8), title)
    shape = (2, len(panels)) if several else (1, 2)
    grid = figure.subplots(*shape, sharex="col", sharey="row" if several else False, squeeze=False)
    for row, quantity in enumerate(("cost", "loss")):
        keys = (f"train_{quantity}", f"validation_{quantity}")
        groups = [[_floats(panel[key]) for key in keys] for panel in panels]
        shared = _limits([values for group in groups for values in group])
        for column, (panel, values) in enumerate(zip(panels, groups, strict=True)):
            axes = grid[row, column] if several else grid[0, row]
            steps = _floats(panel["steps"])
            _line(axes, steps, values[0], label="training", **_TRAIN)
            _line(axes, steps, values[1], label="validation", **_VALIDATION)
            axes.set_ylim(*shared)
            _remark(axes, steps, values, shared[1])
            axes.set_ylabel(quantity)
            if several and row == 0:
                axes.set_title(str(panel.get("title", "")))
            if not several or row == 1:
                axes.set_xlabel("update step")
    grid[0, -1].legend(loc="best")
    if not several and (name := str(panels[0].get("title", ""))):
        figure.suptitle(f"{title}\n{name}" if title else name)
    return figure


def history(columns: Mapping[str, ArrayLike], *, title: str = "") -> Figure:
    """Draw a run: the loss, what else the loss measures and, beneath, the learning rate, against the update step.

    Parameters
    ----------
    columns : mapping from name to array_like of shape (n,)
        Equally long columns: ``step``, ``lr``, ``train_loss``, ``validation_loss``, another measure of each, such as
        ``train_accuracy`` or ``validation_r2``, and ``train_cost`` and ``validation_cost``, which are not drawn if
        they equal the loss. A column that is not there is not drawn; only ``step`` is needed.
    title : str, optional
        The title of the whole figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    ValueError
        If there is no column ``step``, or a column has not one number for each step.
    """
    if "step" not in columns:
        raise ValueError(f"expected a column 'step', but came {sorted(columns)}: add the update steps")
    for column, numbers in columns.items():
        if (shape := np.shape(numbers)) != np.shape(columns["step"]) or len(shape) != 1:
            raise ValueError(
                f"expected columns of one shape (n,), but {column!r} is {shape} and 'step' is "
                f"{np.shape(columns['step'])}: draw the models of a sweep one by one"
            )
    figure = new_figure((7.0, 7.2), title)
    other = next((name for column in columns for split, _, name in [column.partition("_")]
                  if split in ("train", "validation") and name not in ("loss", "cost")), "accuracy")
    loss, measure, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.3])
    steps = _floats(columns["step"])
    drawn: dict[str, list[NDArray[np.float64]]] = {"loss": [], other: []}
    for quantity, axes, suffix, width in (
        ("loss", loss, "", 1.6),
        ("cost", loss, " cost", 0.9),
        (other, measure, "", 1.6),
    ):
        for name, style in (("train", _TRAIN), ("validation", _VALIDATION)):
            values = columns.get(f"{name}_{quantity}")
            hidden = quantity == "cost" and np.array_equal(
                _floats(values if values is not None else []), _floats(columns.get(f"{name}_loss", [])), equal_nan=True)
            if values is not None and not hidden:
                label = ("training" if name == "train" else name) + (suffix or f" {quantity}")
                _line(axes, steps, _floats(values), label=label, **{**style, "linewidth": width})
                drawn[other if axes is measure else "loss"].append(_floats(values))
    loss.set_ylabel("loss and cost" if len(drawn["loss"]) > 2 else "loss")
    measure.set_ylabel(other)
    if drawn["loss"]:
        low, high = _limits(drawn["loss"])
        loss.set_ylim(low, high)
        _remark(loss, steps, drawn["loss"], high)
    for axes, place in ((loss, "upper right"), (measure, "lower right")):
        if axes.lines:
            axes.legend(loc=place)
    if "lr" in columns:
        _line(rate, steps, _floats(columns["lr"]), color=_GREY)
        rate.set_ylim(bottom=min(0.0, rate.get_ylim()[0]))  # a constant rate is not magnified to a narrow axis
    rate.set_ylabel("learning rate")
    rate.set_xlabel("update step")
    return figure


def _floats(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


def _line(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], **style: Any) -> None:
    """Draw one line, with a dot wherever a number stands alone between two gaps."""
    there = np.isfinite(np.concatenate([[np.nan], y, [np.nan]]))
    alone = np.flatnonzero(there[1:-1] & ~there[:-2] & ~there[2:])
    dots = {"marker": "o", "markersize": 3.5, "markevery": alone.tolist()} if alone.size else {}
    axes.plot(x, y, **{"linewidth": 1.6, **dots, **style})
    if x.size > 1 and np.ptp(x) > 0:  # a run that ended in NaN keeps its length
        space = 0.03 * float(np.ptp(x))
        axes.set_xlim(float(x.min()) - space, float(x.max()) + space)
    tidy(axes)


def _limits(lines: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Return the range of all finite values, without what has diverged, and never as narrow as rounding."""
    values = np.concatenate([line.ravel() for line in lines])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high, usual = float(values.min()), float(values.max()), float(np.percentile(values, 90))
    if high - low > 8 * (usual - low) and usual > low:
        high = low + 4 * (usual - low)
    space = max(0.04 * (high - low), 0.02 * abs(high), 1e-6)
    return low - space, high + space


def _remark(axes: Axes, steps: NDArray[np.float64], lines: Sequence[NDArray[np.float64]], top: float) -> None:
    """Say in the panel what its range does not show."""
    remarks = []
    finite = np.concatenate([line[np.isfinite(line)] for line in lines])
    if finite.size and finite.max() > top:
        remarks.append(f"cut off: highest {finite.max():.3g}")
    broken = np.any([~np.isfinite(line) for line in lines], axis=0)
    if broken.any():
        remarks.append(f"not finite at {broken.sum()} of {broken.size} points")
        remarks.append(f"first at step {steps[broken.argmax()]:g}")
    if remarks:
        axes.text(
            0.97,
            0.5,
            "\n".join(remarks),
            transform=axes.transAxes,
            fontsize=8,
            ha="right",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "#bbbbbb", "boxstyle": "round"},
        )
