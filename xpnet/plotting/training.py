"""Figures of what is measured: sweeps, the learning-rate range test, activations, gradients. ``plotting`` has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..intervals import interval
from .pictures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["activations", "gradient_check", "lr_range", "sweep"]

# Okabe and Ito's colours, told apart with every kind of colour vision; shapes and dashes tell them apart in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS, _DASHES = "osD^vPX", ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
_LOG_FROM = 30.0  # values that span more than this factor stand on a logarithmic axis


def sweep(
    values: Sequence[Any],
    rows: Sequence[ArrayLike],
    *,
    groups: Sequence[str] | None = None,
    xlabel: str = "value",
    ylabel: str = "validation accuracy",
    percent: bool = True,
    title: str = "",
) -> Figure:
    """Draw what a sweep reached against the value that it swept: the mean, its 95 % interval, and each seed.

    Parameters
    ----------
    values : sequence of n numbers, or of n str
        What was swept. Numbers that are positive and span more than a factor of 30 stand on a logarithmic axis,
        zero at its left end; strings are categories, in the order in which they first come.
    rows : sequence of n array_like, each of shape (seeds,) or a number
        The accuracies that each value reached, one for each seed; how many may differ. Those that are not finite
        are left out, and the panel says so.
    groups : sequence of n str, optional
        The series that each value belongs to.
    xlabel, ylabel : str, optional
        What the axes say, with the unit.
    percent : bool, optional
        Write the accuracies, fractions in [0, 1], as per cent.
    title : str, optional
        The title of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    ValueError
        If there are no values, or `rows` or `groups` is not as long as `values`, or nothing is finite.
    """
    names = [""] * len(values) if groups is None else list(groups)
    samples = [_floats(row).ravel() for row in rows]
    if not len(values) or len(samples) != len(values) or len(names) != len(values):
        raise ValueError(
            f"expected one row and one group for each value, but there are {len(values)} values, {len(samples)} rows "
            f"and {len(names)} groups: give sequences of one length, not empty"
        )
    if not any(np.isfinite(sample).any() for sample in samples):
        raise ValueError("expected an accuracy that is finite, but there is none: look for what diverged")
    categories = any(isinstance(value, str) for value in values)
    labels = list(dict.fromkeys(str(value) for value in values))
    x = _floats([labels.index(str(v)) for v in values] if categories else values)
    series = list(dict.fromkeys(names))
    figure = new_figure((max(6.4, 0.9 * len(labels)) if categories else 6.4, 4.4), title)
    axes = figure.subplots()
    shift = _scale(axes, x, len(series), labels if categories else None)
    for i, name in enumerate(series):
        style: dict[str, Any] = {"color": _COLOURS[i % len(_COLOURS)], "marker": _MARKERS[i % len(_MARKERS)]}
        finite = {k: samples[k][np.isfinite(samples[k])] for k in range(len(names)) if names[k] == name}
        here = sorted((k for k in finite if finite[k].size), key=lambda k: float(x[k]))
        places = [shift(float(x[k]), i) for k in here]
        spread = [(place, y) for place, k in zip(places, here, strict=True) for y in finite[k] if finite[k].size > 1]
        if spread:
            axes.plot(*zip(*spread, strict=True), linestyle="none", marker="o", markersize=4,
                      markerfacecolor="white", color=style["color"], zorder=4)  # open, over the line of the interval
        middle = [interval(finite[k].tolist()) for k in here]
        axes.errorbar(
            places, [m.mean for m in middle], yerr=[m.margin if m.n > 1 else 0.0 for m in middle],
            label=name or None, capsize=3, markersize=5.5, linewidth=1.4, zorder=3,
            linestyle="none" if categories else _DASHES[i % len(_DASHES)], elinewidth=1.2, **style,
        )
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    if percent:
        _percent(axes)
    tidy(axes)
    lost = sum(int((~np.isfinite(sample)).sum()) for sample in samples)
    several = max(len(sample) for sample in samples) > 1
    said = ["mean, 95 % interval and each seed"] * several + [f"{lost} not finite, left out"] * bool(lost)
    if said:
        axes.set_title("; ".join(said), fontsize=9, color="#444444", loc="right")
    if series != [""]:
        axes.legend(loc="best")
    return figure


def _scale(axes: Axes, x: NDArray[np.float64], series: int, labels: Sequence[str] | None) -> Any:
    """Choose the x axis for the values, and give the function that moves a series a little aside."""
    if labels is not None:
        axes.set_xticks(range(len(labels)), list(labels))
        axes.set_xlim(-0.6, len(labels) - 0.4)
        step = min(0.16, 0.7 / series)
        return lambda value, i: value + step * (i - (series - 1) / 2)
    positive = x[x > 0]
    if x.min() < 0 or not positive.size or positive.max() <= _LOG_FROM * positive.min():
        step = 0.006 * float(np.ptp(x))
        return lambda value, i: value + step * (i - (series - 1) / 2)
    if positive.size == x.size:
        axes.set_xscale("log")
    else:  # zero has a place of its own, left of the smallest
        axes.set_xscale("symlog", linthresh=float(positive.min()), linscale=0.6)
        axes.set_xlim(left=-0.25 * float(positive.min()), right=1.5 * float(positive.max()))
    factor = (float(positive.max()) / float(positive.min())) ** 0.006
    return lambda value, i: value * factor ** (i - (series - 1) / 2)


def lr_range(
    rates: ArrayLike,
    losses: ArrayLike,
    smoothed: ArrayLike,
    columns: Mapping[str, ArrayLike] | None = None,
    *,
    bounds: tuple[float, float] | None = None,
    title: str = "",
    measure: str = "accuracy",
    share: bool = True,
) -> Figure:
    """Draw a learning-rate range test: loss and, beneath, a measure against the rate, with the suggested bounds.

    Parameters
    ----------
    rates, losses, smoothed : array_like of shape (n,)
        The rate of each update, the minibatch's loss, and that smoothed.
    columns : mapping from name to array_like of shape (m,), optional
        What was measured on the way: ``lr`` and ``train_accuracy`` or ``validation_accuracy``, or another measure.
    bounds : (eta_min, eta_max), optional
        The suggested bounds of a cyclical rate.
    title : str, optional
        The title of the figure.
    measure, share : str and bool, optional
        The measure's name, without the split, and whether it is a share of the whole, drawn in percent.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    ValueError
        If there is no loss, or the losses are not as many as the rates.
    """
    x, y, smooth = _floats(rates), _floats(losses), _floats(smoothed)
    if x.shape != y.shape or x.shape != smooth.shape or not x.size:
        raise ValueError(
            f"expected rates, losses and smoothed losses of one shape (n,), n > 0, but came {x.shape}, {y.shape} and "
            f"{smooth.shape}: give one of each for each update"
        )
    measured = {name: _floats(column) for name, column in (columns or {}).items()}
    drawn = [name for name in (f"train_{measure}", f"validation_{measure}")
             if measure != "loss" and name in measured and "lr" in measured]
    figure = new_figure((6.6, 5.6 if drawn else 3.8), title)
    grid = figure.subplots(2 if drawn else 1, 1, sharex=True, squeeze=False, height_ratios=[3, 2][: 1 + bool(drawn)])
    loss, beneath = grid[0, 0], grid[-1, 0]
    loss.plot(x, y, color=_COLOURS[0], alpha=0.3, linewidth=0.9, label="minibatch")
    loss.plot(x, smooth, color=_COLOURS[0], linewidth=1.9, label="running median")
    low, high = float(smooth.min()), float(smooth[: max(1, x.size // 20)].max())
    loss.set_ylim(low - 0.15 * (high - low) - 0.02, high + 0.5 * (high - low) + 0.02)
    loss.set_ylabel("loss (nats)" if share else "loss")
    for i, name in enumerate(drawn):
        label = ("training" if name.startswith("train") else "validation") + f" {measure}"
        beneath.plot(measured["lr"], measured[name], color=_COLOURS[i], linestyle=_DASHES[i], marker=".",
                     markersize=4, label=label)
    if drawn:
        if share:
            _percent(beneath)
        beneath.set_ylabel(measure)
    exponential = x.min() > 0 and 4 * np.median(x) < x.min() + x.max()
    for axes in {id(axes): axes for axes in (loss, beneath)}.values():
        if exponential:
            axes.set_xscale("log")
        if bounds:
            axes.axvspan(*bounds, color=_COLOURS[2], alpha=0.12, linewidth=0,
                         label=f"{bounds[0]:.2g} to {bounds[1]:.2g}" if axes is loss else None)
            for bound in bounds:
                axes.axvline(bound, color=_COLOURS[2], linewidth=1.2, linestyle=_DASHES[1])
        tidy(axes)
        axes.legend(loc="best")
    beneath.set_xlabel("learning rate")
    return figure


def activations(
    panels: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]], *, layer: str = "ReLU", title: str = ""
) -> Figure:
    """Draw how large the layers' outputs are, on a logarithmic axis, and beneath how many of them are zero.

    Parameters
    ----------
    panels : mapping from title to a mapping from label to rows
        A column for each panel, a line for each label; the rows are what ``activation_statistics`` gives of one
        network.
    layer : str, optional
        Draw the outputs of this type of layer, and the network's own output after them.
    title : str, optional
        The title of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    ValueError
        If there is nothing to draw, or a network has no such layer, or the rows are of several models.
    """
    if not panels or not all(panels.values()):
        raise ValueError("expected at least one network in each panel, but one is empty: give its statistics")
    figure = new_figure((1.2 + 3.9 * max(len(panels), 1.3), 5.8), title)
    grid = figure.subplots(2, len(panels), sharex="col", sharey="row", squeeze=False, height_ratios=[3, 2])
    for (sizes, zeros), (name, lines) in zip(grid.T, panels.items(), strict=True):
        longest = 0
        for i, (label, rows) in enumerate(lines.items()):
            hidden = [row for row in rows if row["type"] == layer]
            if not hidden or any(np.ndim(row["mean_abs"]) for row in rows):
                raise ValueError(
                    f"expected the rows of one network with a layer {layer!r} for {label!r}, but came layers "
                    f"{sorted({row['type'] for row in rows})}: name another layer, or give one member of a sweep"
                )
            style: dict[str, Any] = {"color": _COLOURS[i % len(_COLOURS)], "linestyle": _DASHES[i % len(_DASHES)],
                                     "marker": _MARKERS[i % len(_MARKERS)], "markersize": 5, "linewidth": 1.5}
            last = [rows[-1]] if rows[-1] is not hidden[-1] else []
            size = _floats([row["mean_abs"] for row in hidden + last])
            sizes.plot(np.arange(size.size) + 1, np.where(size > 0, size, np.nan), label=label, **style)
            zeros.plot(np.arange(len(hidden)) + 1, [row["zeros"] for row in hidden], **style)
            if (size == 0).any():
                sizes.text(int((size == 0).argmax()) + 1, 0.02, "0", color=style["color"], ha="center",
                           transform=sizes.get_xaxis_transform())
            longest = max(longest, len(hidden))
        ticks = [str(k + 1) for k in range(longest)] + (["output"] if last else [])
        zeros.set_xticks(range(1, len(ticks) + 1), ticks)
        zeros.set_xlabel("hidden layer")
        zeros.set_ylim(-0.03, 1.03)
        sizes.set_yscale("log")
        sizes.set_title(name)
        for axes in (sizes, zeros):
            tidy(axes)
    _percent(grid[1, 0])
    grid[0, 0].set_ylabel("mean absolute activation")
    grid[1, 0].set_ylabel("share of zeros")
    grid[0, 0].legend(loc="best")
    return figure


ERRORS = {"error": "relative error", "strict_error": "strict error", "complex_step_error": "complex step"}


def gradient_check(rows: Sequence[Mapping[str, Any]], *, title: str = "") -> Figure:
    """Draw the errors of a gradient check as a heat map of their log10, one block for each network.

    Parameters
    ----------
    rows : sequence of mappings
        One for each parameter, with the keys ``hidden`` (sizes), ``batch_norm``, ``parameter`` and the errors
        ``error``, ``strict_error`` and ``complex_step_error``; an error that was not measured may be None or
        absent.
    title : str, optional
        The title of the figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    ValueError
        If there are no rows.
    """
    if not rows:
        raise ValueError("expected at least one row, but rows is empty: run the gradient check first")
    networks: dict[tuple[tuple[int, ...], bool], list[Mapping[str, Any]]] = {}
    for row in rows:
        networks.setdefault((tuple(row["hidden"]), bool(row["batch_norm"])), []).append(row)
    widest = max(map(len, networks.values()))
    figure = new_figure((2.6 + 0.62 * max(widest, 6), 0.9 + 1.65 * len(networks)), title)
    blocks = figure.subplots(len(networks), 1, squeeze=False)[:, 0]
    for axes, ((hidden, batch_norm), members) in zip(blocks, networks.items(), strict=True):
        errors = np.array([[_or_nan(row.get(key)) for row in members] for key in ERRORS])
        with np.errstate(divide="ignore"):
            exponents = np.log10(errors)
        image = axes.imshow(np.maximum(exponents, -18.0), cmap="viridis", vmin=-16, vmax=-2, aspect="auto")
        for (i, j), exponent in np.ndenumerate(exponents):
            text = "\N{EN DASH}" if np.isnan(exponent) else "0" if np.isinf(exponent) else f"{exponent:.1f}"
            axes.text(
                j,
                i,
                text,
                ha="center",
                va="center",
                fontsize=8,
                color="white" if exponent < -7.5 else "black",
            )
        axes.set_xlim(-0.5, max(widest, 6) - 0.5)
        axes.set_xticks(range(len(members)), [str(row["parameter"]) for row in members], fontsize=8)
        axes.set_yticks(range(len(ERRORS)), list(ERRORS.values()))
        axes.set_title(f"hidden {list(hidden)}, {'with' if batch_norm else 'without'} batch norm", loc="left")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
    figure.colorbar(
        image, ax=list(blocks), label=r"$\log_{10}$ error", extend="both", shrink=min(1.0, 2 / len(blocks))
    )
    return figure


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def tidy(axes: Axes) -> None:
    """Return axes the look that all figures share."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _percent(axes: Axes) -> None:
    """Write the fractions on the y axis as per cent."""
    axes.yaxis.set_major_formatter(lambda value, _position: f"{100 * value:g} %")


def _floats(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)
