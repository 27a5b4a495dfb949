"""Pictures made of cells: images, weights and confusion matrices. ``plotting`` offers them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["confusion", "images", "mistakes", "new_figure", "weights"]

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

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

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

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

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

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

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
    figure = new_figure(_size_of_cells(classes, bool(title)), "")
    axes = figure.subplots()
    axes.set_title(title)
    _cells(axes, counts, classes)
    return figure


def mistakes(
    labels: ArrayLike,
    predicted: ArrayLike,
    x: ArrayLike,
    image_shape: tuple[int, int, int],
    classes: Sequence[str],
    *,
    title: str = "",
    count: int = 20,
    matrix: bool = True,
) -> Figure:
    """Draw a confusion matrix and, beneath, a sample mistake of each of the most frequent confusions.

    Parameters
    ----------
    labels, predicted : array_like of int, shape (n,)
        The true and the predicted class of each image.
    x : array_like of uint8, shape (n, channels * height * width)
        The images, channel by channel and row by row.
    image_shape : (channels, height, width)
        One channel is drawn in greys, three as red, green and blue.
    classes : sequence of k str
        The names of the classes.
    title : str, optional
        The title of the figure.
    count : int, optional
        At most so many mistakes: the first image of the most frequent pair of a true class and another that it
        was taken for, of the next one, ...
    matrix : bool, optional
        Whether to draw the confusion matrix, or the mistakes alone.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    ValueError
        If the shapes do not fit one another, or a class has no name.
    """
    true, taken, pictures = np.asarray(labels), np.asarray(predicted), np.asarray(x)
    if true.shape != taken.shape or true.ndim != 1 or len(pictures) != true.size or not true.size:
        raise ValueError(
            f"expected labels and predictions of shape (n,) and n images, n > 0, but came {true.shape}, "
            f"{taken.shape} and {pictures.shape}: give one of each for each image"
        )
    k = len(classes)
    if min(true.min(), taken.min()) < 0 or max(true.max(), taken.max()) >= k:
        raise ValueError(f"expected classes from 0 to {k - 1}, but there are others: give the names of all classes")
    pairs = true * k + taken
    counts = np.bincount(pairs, minlength=k * k).reshape(k, k)
    wrong = np.where(np.eye(k, dtype=bool), 0, counts).ravel()
    order = [int(pair) for pair in np.argsort(-wrong, kind="stable")[:count] if wrong[pair]]
    chosen = [int(np.argmax(pairs == pair)) for pair in order]
    names = [f"{classes[pair // k]}\nas {classes[pair % k]}" for pair in order]
    width, side = _size_of_cells(classes, bool(title))
    letters = 3 + max(map(len, classes))  # each image is as wide as its name: 0.055 inches for a letter
    columns = min(max(int((width - 0.2) / max(0.055 * letters + 0.05, 0.9)), 3), 10) if matrix else 4
    inches = (side - 0.2) / columns if matrix else max(0.055 * letters + 0.05, 1.1)
    none: tuple[NDArray[np.uint8], list[tuple[float, float]]] = np.zeros((1, 4, 1), np.uint8), []
    lines = 1.1 * image_shape[2] / image_shape[1] / inches  # two lines are 0.32 inches high
    canvas, places = _canvas(pictures[chosen], image_shape, lines, columns) if chosen else none
    width = width if matrix else inches * min(columns, len(chosen) or columns) + 0.2
    strip = (inches * columns if matrix else width - 0.2) * canvas.shape[0] / canvas.shape[1] + 0.4
    figure = new_figure((width, strip + (side if matrix else 0)), "")
    figure.set_layout_engine("compressed")  # the constrained one cuts the label of square cells off
    if matrix:
        above, beneath = figure.subplots(2, 1, height_ratios=[side, strip])
        above.set_title(title)
        _cells(above, counts, classes)
    else:
        beneath = figure.subplots()
        figure.suptitle(title)
    beneath.set_axis_off()
    right = counts.trace() / counts.sum()
    if chosen and not matrix:
        _show(beneath, canvas, places, names)
    elif chosen:
        _show(beneath, canvas, places, names)
        beneath.set_title(f"accuracy {100 * right:.2f} %\nthe most frequent mistakes, first image of each", fontsize=9)
    else:
        beneath.text(0.5, 0.5, "no mistakes", ha="center", va="center", transform=beneath.transAxes)
    return figure


def _size_of_cells(classes: Sequence[str], titled: bool) -> tuple[float, float]:
    """Return the inches that a confusion matrix needs with its names: square cells leave what is over white."""
    names = 0.085 * max(map(len, classes))
    side = max(2.8, 0.55 * len(classes))
    return side + names + 1.6, side + 0.7 * names + 0.6 + 0.3 * titled


def _cells(axes: Axes, counts: NDArray[Any], classes: Sequence[str]) -> None:
    """Draw a confusion matrix in given axes, with its colour bar."""
    totals = counts.sum(axis=1, keepdims=True)
    share = counts / np.where(totals > 0, totals, 1)
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
    axes.figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8, pad=0.02)


def new_figure(size: tuple[float, float], title: str) -> Figure:
    """Make an empty figure with a title, of width and height in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    if title:
        figure.suptitle(title)
    return figure


def _canvas(
    x: NDArray[Any], image_shape: tuple[int, int, int], lines: float, columns: int
) -> tuple[NDArray[np.uint8], list[tuple[float, float]]]:
    """Lay images (n, features) of uint8 out as one picture, with room for text above each, and say where."""
    channels, height, width = image_shape
    if x.ndim != 2 or x.shape[1] != channels * height * width or channels not in (1, 3) or not len(x):
        raise ValueError(
            f"expected images of shape (n, {channels * height * width}) with 1 or 3 channels and n > 0, for "
            f"image_shape {tuple(image_shape)}, but came {x.shape}: give (channels, height, width)"
        )
    if x.dtype != np.uint8:
        raise ValueError(f"expected images of dtype uint8, but came {x.dtype}: convert with .astype('uint8')")
    columns = min(columns, len(x))
    rows = -(-len(x) // columns)
    gap = max(1, width // 16)
    head = gap + (max(1, round(0.32 * lines * height)) if lines else 0)
    canvas = np.full((rows * (height + head), columns * (width + gap) - gap, channels), 255, dtype=np.uint8)
    places = []
    for k, picture in enumerate(x.reshape(-1, channels, height, width)):
        top, left = k // columns * (height + head) + head, k % columns * (width + gap)
        canvas[top : top + height, left : left + width] = picture.transpose(1, 2, 0)
        places.append((left + width / 2 - 0.5, top - 0.5 - 0.05 * height))  # text does not touch the image
    return canvas, places


def _show(axes: Axes, canvas: NDArray[Any], places: Sequence[tuple[float, float]], names: Sequence[str]) -> None:
    """Draw a picture that `_canvas` laid out, with the names above the images."""
    for (centre, top), name in zip(places, names, strict=bool(names)):
        axes.text(centre, top, name, ha="center", va="bottom", fontsize=7, linespacing=1.0)
    axes.imshow(
        canvas[:, :, 0] if canvas.shape[2] == 1 else canvas, cmap="gray", vmin=0, vmax=255, interpolation="nearest"
    )
    axes.set_axis_off()


def _mosaic(
    x: NDArray[Any], image_shape: tuple[int, int, int], names: Sequence[str] | None, title: str, columns: int
) -> Figure:
    """Lay images (n, features) of uint8 out as a figure, with the names above them."""
    canvas, places = _canvas(x, image_shape, 0 if names is None else 1, columns)
    if names is not None and len(names) != len(x):
        raise ValueError(f"expected {len(x)} labels, but came {len(names)}: give one for each image")
    columns = min(columns, len(x))
    inches = 0.9 * columns * canvas.shape[0] / canvas.shape[1]
    figure = new_figure((max(4.0, 0.9 * columns), inches + (0.35 if title else 0)), "")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11)
    _show(axes, canvas, places, names or ())
    return figure
