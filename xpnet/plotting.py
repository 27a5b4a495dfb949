"""Figures of runs, searches, checks and images, drawn with matplotlib from plain host arrays.

Matplotlib is imported when a function draws, and only its `Figure` is used: there is no display and no global
state. Every function returns a figure, and `save` writes it as a PNG that is the same byte for byte for the
same figure.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["confusion", "curves", "gradient_check", "history", "images", "save", "search", "weights"]

# Okabe and Ito's colours, told apart with every kind of colour vision.
_BLUE, _VERMILLION, _GREEN, _PURPLE, _GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
_TRAIN, _VALIDATION = {"color": _BLUE, "linestyle": "-"}, {"color": _VERMILLION, "linestyle": (0, (5, 1.5))}
_ERRORS = {"error": "relative error", "strict_error": "strict error", "complex_step_error": "complex step"}


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
    figure = _figure((5.0 * max(2, len(panels)), 6.4 if several else 3.8), title)
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
    """Draw a run: loss, accuracy and, beneath, the learning rate, against the update step.

    Parameters
    ----------
    columns : mapping from name to array_like of shape (n,)
        Equally long columns: ``step``, ``lr``, ``train_loss``, ``validation_loss``, ``train_accuracy``,
        ``validation_accuracy`` (in [0, 1]) and, where there are any, ``train_cost`` and ``validation_cost``.
        A column that is not there is not drawn; only ``step`` is needed.
    title : str, optional
        The title of the whole figure.

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
    figure = _figure((7.0, 7.2), title)
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.3])
    steps = _floats(columns["step"])
    drawn: dict[str, list[NDArray[np.float64]]] = {"loss": [], "accuracy": []}
    for quantity, axes, suffix, width in (
        ("loss", loss, "", 1.6),
        ("cost", loss, " cost", 0.9),
        ("accuracy", accuracy, "", 1.6),
    ):
        for name, style in (("train", _TRAIN), ("validation", _VALIDATION)):
            if (values := columns.get(f"{name}_{quantity}")) is not None:
                label = ("training" if name == "train" else name) + (suffix or f" {quantity}")
                _line(axes, steps, _floats(values), label=label, **{**style, "linewidth": width})
                drawn["accuracy" if axes is accuracy else "loss"].append(_floats(values))
    loss.set_ylabel("loss and cost" if len(drawn["loss"]) > 2 else "loss")
    accuracy.set_ylabel("accuracy")
    if drawn["loss"]:
        low, high = _limits(drawn["loss"])
        loss.set_ylim(low, high)
        _remark(loss, steps, drawn["loss"], high)
    for axes, place in ((loss, "upper right"), (accuracy, "lower right")):
        if axes.lines:
            axes.legend(loc=place)
    if "lr" in columns:
        _line(rate, steps, _floats(columns["lr"]), color=_GREY)
    rate.set_ylabel("learning rate")
    rate.set_xlabel("update step")
    return figure


def search(
    log10_lambda: ArrayLike,
    accuracy: ArrayLike,
    *,
    title: str = "",
    groups: Sequence[str] | None = None,
    intervals: ArrayLike | None = None,
) -> Figure:
    """Draw validation accuracy against log10 lambda, and mark the best.

    Parameters
    ----------
    log10_lambda, accuracy : array_like of shape (n,)
        The values tried and the accuracy each reached, in [0, 1].
    title : str, optional
        The title of the figure.
    groups : sequence of n str, optional
        The search that each value belongs to, such as coarse and fine.
    intervals : array_like of shape (n,) or (2, n), optional
        Half widths of error bars, or their lengths downwards and upwards.

    Raises
    ------
    ValueError
        If there is no finite accuracy, or `accuracy` or `groups` is not as long as `log10_lambda`.
    """
    x, y = _floats(log10_lambda), _floats(accuracy)
    names = np.asarray(["" for _ in x] if groups is None else list(groups))
    if x.shape != y.shape or names.shape != x.shape or not np.isfinite(y).any():
        raise ValueError(
            "expected one accuracy and one group for each log10_lambda, and one accuracy that is finite, but "
            f"there are {x.size} log10_lambda, {y.size} accuracy of which {np.isfinite(y).sum()} finite, and "
            f"{names.size} groups: give sequences of one length"
        )
    bars = None if intervals is None else np.broadcast_to(_floats(intervals), (2, x.size))
    figure = _figure((6.4, 4.2), title)
    axes = figure.subplots()
    for i, name in enumerate(dict.fromkeys(names.tolist())):
        here = np.flatnonzero(names == name)[np.argsort(x[names == name])]
        axes.errorbar(
            x[here],
            y[here],
            yerr=None if bars is None else bars[:, here],
            label=name or None,
            capsize=2.5,
            linestyle="none",
            marker="osD^"[i % 4],
            color=(_BLUE, _VERMILLION, _GREEN, _PURPLE)[i % 4],
            markersize=6,
        )
    best = int(np.nanargmax(np.where(np.isfinite(y), y, np.nan)))
    note = rf"best: {100 * y[best]:.2f} % at $\log_{{10}}\,\lambda$ = {x[best]:.2f}"
    axes.plot(
        x[best],
        y[best],
        marker="o",
        markersize=14,
        color="black",
        fillstyle="none",
        linestyle="none",
        label=note,
    )
    axes.set_xlabel(r"$\log_{10}\,\lambda$")
    axes.set_ylabel("validation accuracy")
    axes.margins(0.06, 0.12)
    _tidy(axes)
    axes.legend(loc="best")
    return figure


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
    figure = _figure((2.6 + 0.62 * max(widest, 6), 0.9 + 1.65 * len(networks)), title)
    blocks = figure.subplots(len(networks), 1, squeeze=False)[:, 0]
    for axes, ((hidden, batch_norm), members) in zip(blocks, networks.items(), strict=True):
        errors = np.array([[_or_nan(row.get(key)) for row in members] for key in _ERRORS])
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
        axes.set_xticks(range(len(members)), [str(row["parameter"]) for row in members])
        axes.set_yticks(range(len(_ERRORS)), list(_ERRORS.values()))
        axes.set_title(f"hidden {list(hidden)}, {'with' if batch_norm else 'without'} batch norm", loc="left")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
    figure.colorbar(
        image, ax=list(blocks), label=r"$\log_{10}$ error", extend="both", shrink=min(1.0, 2 / len(blocks))
    )
    return figure


def images(
    x: ArrayLike,
    image_shape: tuple[int, int, int],
    *,
    labels: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    title: str = "",
    columns: int = 10,
) -> Figure:
    """Draw images in a grid.

    Parameters
    ----------
    x : array_like of uint8, shape (n, channels * height * width)
        The images, channel by channel and row by row.
    image_shape : (channels, height, width)
        One channel is drawn in greys, three as red, green and blue.
    labels : sequence of n int, optional
        The class of each image, written above it.
    classes : sequence of str, optional
        The names of the classes; without them the labels are written as numbers.
    title : str, optional
        The title of the figure.
    columns : int, optional
        How many images stand in a row.

    Raises
    ------
    ValueError
        If the shapes do not fit one another.
    """
    names = None
    if labels is not None:
        names = [str(int(k)) if classes is None else classes[int(k)] for k in labels]
    return _mosaic(np.asarray(x), image_shape, names, title, columns)


def weights(w: ArrayLike, image_shape: tuple[int, int, int], *, title: str = "") -> Figure:
    """Draw the weights of a first layer as images, one for each unit.

    Parameters
    ----------
    w : array_like of float, shape (channels * height * width, units)
        The weight matrix. Each unit is scaled by its own largest magnitude: grey is zero.
    image_shape : (channels, height, width)
        The shape of one input image.
    title : str, optional
        The title of the figure.

    Raises
    ------
    ValueError
        If the shapes do not fit one another.
    """
    units = np.asarray(w, dtype=np.float64).T
    largest = np.abs(units).max(axis=-1, keepdims=True, initial=0.0)
    scaled = 0.5 + 0.5 * units / np.where(largest > 0, largest, 1.0)
    return _mosaic(np.round(255 * scaled).astype(np.uint8), image_shape, None, title, 10)


def confusion(matrix: ArrayLike, classes: Sequence[str], *, title: str = "") -> Figure:
    """Draw a confusion matrix: counts as numbers, the share of each true class as colour.

    Parameters
    ----------
    matrix : array_like of int, shape (k, k)
        How many images of the row's class were taken for the column's.
    classes : sequence of k str
        The names of the classes.
    title : str, optional
        The title of the figure.

    Raises
    ------
    ValueError
        If the matrix has not one row and one column for each class.
    """
    counts = np.asarray(matrix)
    if counts.shape != (len(classes), len(classes)):
        raise ValueError(
            f"expected a matrix of shape {(len(classes), len(classes))}, one row and one column for each "
            f"class, but came {counts.shape}: give the names of all classes"
        )
    totals = counts.sum(axis=1, keepdims=True)
    share = counts / np.where(totals > 0, totals, 1)
    side = max(4.2, 0.6 * len(classes) + 1.6)
    figure = _figure((side + 1.2, side), "")
    axes = figure.subplots()
    axes.set_title(title)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(counts):
        axes.text(
            j,
            i,
            str(count),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if share[i, j] > 0.5 else "black",
        )
    axes.set_xticks(range(len(classes)), list(classes), rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), list(classes))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    return figure


def _figure(size: tuple[float, float], title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    if title:
        figure.suptitle(title)
    return figure


def _floats(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _line(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], **style: Any) -> None:
    """Draw one line, with a dot wherever a number stands alone between two gaps."""
    there = np.isfinite(np.concatenate([[np.nan], y, [np.nan]]))
    alone = np.flatnonzero(there[1:-1] & ~there[:-2] & ~there[2:])
    dots = {"marker": "o", "markersize": 3.5, "markevery": alone.tolist()} if alone.size else {}
    axes.plot(x, y, **{"linewidth": 1.6, **dots, **style})
    if x.size > 1 and np.ptp(x) > 0:  # a run that ended in NaN keeps its length
        space = 0.03 * float(np.ptp(x))
        axes.set_xlim(float(x.min()) - space, float(x.max()) + space)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


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


def _mosaic(
    x: NDArray[Any], image_shape: tuple[int, int, int], names: Sequence[str] | None, title: str, columns: int
) -> Figure:
    """Lay images (n, features) of uint8 out as one picture, with the names above them."""
    channels, height, width = image_shape
    if x.ndim != 2 or x.shape[1] != channels * height * width or channels not in (1, 3) or not len(x):
        raise ValueError(
            f"expected images of shape (n, {channels * height * width}) with 1 or 3 channels and n > 0, for "
            f"image_shape {tuple(image_shape)}, but came {x.shape}: give (channels, height, width)"
        )
    if x.dtype != np.uint8:
        raise ValueError(f"expected images of dtype uint8, but came {x.dtype}: convert with .astype('uint8')")
    if names is not None and len(names) != len(x):
        raise ValueError(f"expected {len(x)} labels, but came {len(names)}: give one for each image")
    columns = min(columns, len(x))
    rows = -(-len(x) // columns)
    gap = max(1, width // 16)
    head = gap if names is None else gap + max(1, round(0.32 * height))
    canvas = np.full((rows * (height + head), columns * (width + gap) - gap, channels), 255, dtype=np.uint8)
    inches = 0.9 * columns * canvas.shape[0] / canvas.shape[1]
    figure = _figure((max(4.0, 0.9 * columns), inches + (0.35 if title else 0)), "")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11)
    for k, picture in enumerate(x.reshape(-1, channels, height, width)):
        top, left = k // columns * (height + head) + head, k % columns * (width + gap)
        canvas[top : top + height, left : left + width] = picture.transpose(1, 2, 0)
        if names is not None:
            axes.text(left + width / 2 - 0.5, top - 1, names[k], ha="center", va="bottom", fontsize=7.5)
    axes.imshow(
        canvas[:, :, 0] if channels == 1 else canvas, cmap="gray", vmin=0, vmax=255, interpolation="nearest"
    )
    axes.set_axis_off()
    return figure
