"""The figures of sweeps, range tests and activations, and of mistakes: their axes hold what was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.testing import assert_allclose, assert_array_equal

from xpnet import plotting
from xpnet.intervals import interval
from xpnet.plotting.pictures import confusion, mistakes
from xpnet.plotting.training import activations, lr_range, sweep


def labels(axes: Any) -> list[str]:
    """Return the texts of the legend."""
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


# Sweeps -------------------------------------------------------------------------------------------------------------


def test_a_sweep_shows_means_intervals_and_seeds() -> None:
    values, rows = [1e-1, 1e-3, 1e-2], [[0.2, 0.3, 0.4], [0.5, 0.5, 0.5], [0.1, 0.3]]
    figure = sweep(values, rows, xlabel="lambda", title="a sweep")
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("lambda", "validation accuracy")
    (bars,) = axes.containers
    assert_allclose(bars.lines[0].get_xdata(orig=False), [1e-3, 1e-2, 1e-1])  # sorted
    assert_allclose(bars.lines[0].get_ydata(orig=False), [0.5, 0.2, 0.3])
    ends = [segment[:, 1] for segment in bars.lines[2][0].get_segments()]
    expected = [interval(rows[k]) for k in (1, 2, 0)]
    assert_allclose(ends, [[found.mean - found.margin, found.mean + found.margin] for found in expected])
    assert ends[2][1] - ends[2][0] == pytest.approx(2 * 4.30265 * 0.1 / 3**0.5)  # Student's t for 3 seeds
    dots = axes.lines[0]
    assert sorted(dots.get_ydata()) == sorted(v for row in rows for v in row)
    assert dots.get_markerfacecolor() == "white"
    assert axes.get_title(loc="right") == "mean, 95 % interval and each seed"
    assert axes.yaxis.get_major_formatter()(0.07, None) == "7 %"
    assert figure.get_suptitle() == "a sweep"


@pytest.mark.parametrize(("values", "scale"), [
    ([1.0, 30.0], "linear"), ([1.0, 31.0], "log"), ([0.0, 1.0, 31.0], "symlog"), ([-1.0, 1.0, 100.0], "linear"),
    ([0.0, 0.1, 0.5], "linear"), ([0.0], "linear"), ([3.0], "linear"),
])
def test_the_axis_follows_the_values(values: list[float], scale: str) -> None:
    axes = sweep(values, [0.5] * len(values)).axes[0]
    assert axes.get_xscale() == scale
    assert_allclose(axes.containers[0].lines[0].get_xdata(orig=False), values)
    low, high = axes.get_xlim()
    assert low <= min(values)
    assert high >= max(values)
    assert axes.get_title(loc="right") == ""  # one seed: nothing to say


def test_groups_are_series_side_by_side() -> None:
    values, rows = ["he", "he", "1e-4", "1e-4"], [[0.5, 0.6], [0.4, 0.5], [0.3, 0.4], [0.1, 0.1]]
    axes = sweep(values, rows, groups=["with", "without"] * 2, percent=False, ylabel="score").axes[0]
    assert labels(axes) == ["with", "without"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["he", "1e-4"]
    one, two = (container.lines[0] for container in axes.containers)
    assert_allclose(one.get_ydata(orig=False), [0.55, 0.35])
    assert_allclose(two.get_ydata(orig=False), [0.45, 0.1])
    assert (one.get_xdata(orig=False) < two.get_xdata(orig=False)).all()
    assert_allclose((one.get_xdata(orig=False) + two.get_xdata(orig=False)) / 2, [0, 1])
    assert one.get_color() != two.get_color()
    assert one.get_marker() != two.get_marker()
    assert axes.get_ylabel() == "score"


def test_what_is_not_finite_is_left_out_and_said() -> None:
    axes = sweep([1.0, 2.0, 3.0], [[0.5, np.nan, 0.7], [np.inf], [0.4]]).axes[0]
    assert_allclose(axes.containers[0].lines[0].get_ydata(orig=False), [0.6, 0.4])
    assert_allclose(axes.containers[0].lines[0].get_xdata(orig=False), [1.0, 3.0])
    assert axes.get_title(loc="right").endswith("2 not finite, left out")


@pytest.mark.parametrize(("values", "rows", "groups", "message"), [
    ([], [], None, "there are 0 values, 0 rows and 0 groups"),
    ([1.0], [0.5, 0.6], None, "1 values, 2 rows"),
    ([1.0], [0.5], ["a", "b"], "2 groups"),
    ([1.0, 2.0], [np.nan, []], None, "an accuracy that is finite, but there is none"),
])
def test_sweeps_that_cannot_be_drawn(values: Any, rows: Any, groups: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sweep(values, rows, groups=groups)


# The range test -----------------------------------------------------------------------------------------------------


def test_the_range_test_shows_loss_accuracy_and_bounds() -> None:
    rates = np.logspace(-4, 0, 21)
    losses, smoothed = np.linspace(3, 1, 21), np.linspace(2.9, 1.1, 21)
    columns = {"lr": rates[::5], "train_accuracy": np.linspace(0.1, 0.5, 5), "validation_accuracy": np.full(5, 0.2)}
    loss, accuracy = lr_range(rates, losses, smoothed, columns, bounds=(1e-3, 1e-1), title="t").axes
    assert_array_equal(loss.lines[0].get_ydata(), losses)
    assert_array_equal(loss.lines[1].get_ydata(), smoothed)
    assert_array_equal(accuracy.lines[0].get_ydata(), columns["train_accuracy"])
    assert_array_equal(accuracy.lines[1].get_xdata(), rates[::5])
    for axes in (loss, accuracy):
        assert axes.get_xscale() == "log"
        assert [line.get_xdata()[0] for line in axes.lines[2:]] == [1e-3, 1e-1]
    assert "0.001 to 0.1" in labels(loss)
    assert (loss.get_ylabel(), accuracy.get_xlabel()) == ("loss (nats)", "learning rate")


def test_the_range_test_draws_what_there_is() -> None:
    (axes,) = lr_range(np.linspace(0.001, 1, 20), np.ones(20), np.ones(20)).axes
    assert axes.get_xscale() == "linear"
    assert len(axes.lines) == 2
    assert axes.get_xlabel() == "learning rate"
    with pytest.raises(ValueError, match=r"one shape \(n,\), n > 0, but came \(1,\), \(2,\) and \(2,\)"):
        lr_range([1.0], [1.0, 2.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="n > 0"):
        lr_range([], [], [])


# Activations --------------------------------------------------------------------------------------------------------


def rows(*sizes: float, zeros: float = 0.5) -> list[dict[str, Any]]:
    """Return the statistics of a network with so many hidden layers and an output."""
    found = []
    for size in sizes[:-1]:
        found += [{"type": "Linear", "mean_abs": 9.0, "zeros": 0.0}, {"type": "ReLU", "mean_abs": size, "zeros": zeros}]
    return [*found, {"type": "Linear", "mean_abs": sizes[-1], "zeros": 0.0}]


def test_activations_are_lines_over_the_hidden_layers_and_the_output() -> None:
    panels = {"without": {"0.1": rows(1, 0.1, 0.01), "1e-4": rows(1e-3, 1e-8, 1e-15, zeros=0.25)},
              "with": {"0.1": rows(1, 1, 1, 0.5)}}
    figure = activations(panels, title="t")
    sizes, others, zeros, _ = figure.axes
    assert sizes.get_yscale() == "log"
    assert_array_equal(sizes.lines[0].get_ydata(), [1, 0.1, 0.01])
    assert_array_equal(sizes.lines[1].get_ydata(), [1e-3, 1e-8, 1e-15])
    assert_array_equal(zeros.lines[1].get_ydata(), [0.25, 0.25])
    assert [axes.get_title() for axes in (sizes, others)] == ["without", "with"]
    assert labels(sizes) == ["0.1", "1e-4"]
    assert [tick.get_text() for tick in zeros.get_xticklabels()] == ["1", "2", "output"]
    assert sizes.get_ylim() == others.get_ylim()


def test_activations_that_are_all_zero_are_said() -> None:
    sizes = activations({"": {"dead": rows(1.0, 0.0, 0.0)}}).axes[0]
    assert_array_equal(sizes.lines[0].get_ydata(), [1, np.nan, np.nan])
    assert [text.get_text() for text in sizes.texts] == ["0"]


def test_activations_that_cannot_be_drawn() -> None:
    for panels in ({}, {"a": {}}):
        with pytest.raises(ValueError, match="at least one network in each panel"):
            activations(panels)
    with pytest.raises(ValueError, match=r"a layer 'Tanh' for 'x', but came layers \['Linear', 'ReLU'\]"):
        activations({"a": {"x": rows(1.0, 1.0)}}, layer="Tanh")
    several = [{"type": "ReLU", "mean_abs": [1.0, 2.0], "zeros": [0.0, 0.0]}]
    with pytest.raises(ValueError, match="give one member of a sweep"):
        activations({"a": {"x": several}})


# Mistakes -----------------------------------------------------------------------------------------------------------


def test_mistakes_are_the_first_image_of_the_most_frequent_pairs() -> None:
    true = np.array([0, 1, 1, 1, 2, 2, 0, 1])
    taken = np.array([0, 1, 0, 0, 1, 2, 2, 1])
    x = np.arange(8, dtype=np.uint8)[:, None] * np.ones(12, np.uint8)
    figure = mistakes(true, taken, x, (3, 2, 2), ["cat", "dog", "owl"], title="t", count=2)
    matrix, strip = figure.axes[0], figure.axes[1]
    assert [text.get_text() for text in matrix.texts] == ["1", "0", "1", "2", "2", "0", "0", "1", "1"]
    assert_allclose(matrix.images[0].get_array()[1], [0.5, 0.5, 0.0])
    assert [text.get_text() for text in strip.texts] == ["dog\nas cat", "cat\nas owl"]  # 2 of them, then the first
    canvas = np.asarray(strip.images[0].get_array())
    assert_array_equal(np.unique(canvas), [2, 6, 255])
    assert "accuracy 50.00 %" in strip.get_title()
    assert matrix.get_title() == "t"


@pytest.mark.parametrize("count", [1, 6])
def test_mistakes_alone_have_names_that_touch_nothing(count: int) -> None:
    names = ["horizontal stripes", "vertical stripes", "owl"]
    true, taken = np.array([0, 0, 1, 1, 2, 2]), np.array([1, 2, 0, 2, 0, 1])
    figure = mistakes(true, taken, np.zeros((6, 768), np.uint8), (3, 16, 16), names, count=count, matrix=False)
    (strip,) = figure.axes
    assert len(strip.texts) == count
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in strip.texts]
    black = np.asarray(strip.images[0].get_array())[:, :, 0] == 0
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1:])
        (left, bottom), (right, top) = strip.transData.inverted().transform(box.get_points())
        rows, columns = slice(max(int(top), 0), int(bottom + 1.5)), slice(max(int(left), 0), int(right + 1.5))
        assert not black[rows, columns].any()


@pytest.mark.parametrize("names", [["cat", "dog", "owl"], [f"quite a long name {i}" for i in range(10)]])
def test_a_matrix_of_classes_has_little_white_around_it(names: list[str]) -> None:
    figure = confusion(np.ones((len(names), len(names)), int), names)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[:, :, :3].min(axis=2) < 250
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    white = [rows[0], pixels.shape[0] - 1 - rows[-1], columns[0], pixels.shape[1] - 1 - columns[-1]]
    assert max(white) <= 0.5 * figure.dpi, white


@pytest.mark.parametrize("draw", ["mistakes", "confusion"])
@pytest.mark.parametrize("names", [["cat", "dog", "owl"], [f"quite a long name {i}" for i in range(10)]])
def test_the_labels_of_a_matrix_are_inside_the_figure(draw: str, names: list[str]) -> None:
    k = len(names)
    figure = confusion(np.eye(k), names, title="t") if draw == "confusion" else mistakes(
        np.arange(k), np.roll(np.arange(k), 1), np.zeros((k, 768), np.uint8), (3, 16, 16), names, title="t")
    figure.draw_without_rendering()
    for axes in figure.axes:
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
            box = text.get_window_extent()
            assert min(box.x0, box.y0) >= 0, text
            assert box.x1 <= figure.bbox.x1, text
            assert box.y1 <= figure.bbox.y1, text


def test_without_mistakes_the_figure_says_so() -> None:
    figure = mistakes([0, 1], [0, 1], np.zeros((2, 4), np.uint8), (1, 2, 2), ["a", "b"])
    assert [text.get_text() for text in figure.axes[1].texts] == ["no mistakes"]


def test_mistakes_that_do_not_fit() -> None:
    x = np.zeros((2, 4), np.uint8)
    with pytest.raises(ValueError, match=r"n > 0, but came \(2,\), \(1,\) and \(2, 4\)"):
        mistakes([0, 1], [0], x, (1, 2, 2), ["a", "b"])
    with pytest.raises(ValueError, match="classes from 0 to 1, but there are others"):
        mistakes([0, 2], [0, 1], x, (1, 2, 2), ["a", "b"])
    with pytest.raises(ValueError, match="dtype uint8"):
        mistakes([0, 1], [1, 0], x.astype(float), (1, 2, 2), ["a", "b"])


def test_the_figures_can_be_written(tmp_path: Path) -> None:
    figures = [sweep([1e-3, 1.0, 0.0], [[0.1, 0.2], [0.3], [0.2]]), activations({"": {"a": rows(1.0, 0.5)}}),
               lr_range([0.1, 0.2], [2.0, 1.0], [2.0, 1.0]),
               mistakes([0, 1], [1, 0], np.zeros((2, 12), np.uint8), (3, 2, 2), ["a", "b"])]
    for i, figure in enumerate(figures):
        content = plotting.save(figure, tmp_path / f"{i}.png").read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 2000
