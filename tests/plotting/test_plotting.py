"""The figures: what their axes hold is what was given, and their files do not change from run to run."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from xpnet import plotting

KEYS = ("train_cost", "validation_cost", "train_loss", "validation_loss")


def panel(seed: int = 0, title: str = "panel", **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    steps = np.arange(0, 100, 10)
    columns = {key: 1 + rng.random(steps.size) for key in KEYS}
    return {"title": title, "steps": steps, **columns, **changes}


def lines(axes: Any) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    return [line.get_data() for line in axes.lines]


def check_lines(axes: Any, x: Any, ys: list[Any]) -> None:
    """Check that the axes hold the lines given, in this order and no others."""
    drawn = lines(axes)
    assert len(drawn) == len(ys)
    for (got_x, got_y), y in zip(drawn, ys, strict=True):
        assert_array_equal(got_x, x)
        assert_array_equal(got_y, y)


def texts(axes: Any) -> str:
    return "\n".join(text.get_text() for text in axes.texts)


def test_canary_check_lines_sees_a_changed_line() -> None:
    p = panel()
    axes = plotting.curves([p]).axes[0]
    with pytest.raises(AssertionError):
        check_lines(axes, p["steps"], [p["train_cost"], p["train_cost"]])


def test_curves_of_one_network_are_cost_left_and_loss_right() -> None:
    p = panel(title="[50, 50]")
    figure = plotting.curves([p], title="Figure 1")
    cost, loss = figure.axes
    check_lines(cost, p["steps"], [p["train_cost"], p["validation_cost"]])
    check_lines(loss, p["steps"], [p["train_loss"], p["validation_loss"]])
    assert (cost.get_ylabel(), loss.get_ylabel()) == ("cost", "loss")
    assert figure.get_suptitle() == "Figure 1\n[50, 50]"
    assert texts(cost) == texts(loss) == ""


def test_curves_of_two_networks_are_columns_on_one_scale() -> None:
    left, right = panel(0, "without"), panel(1, "with")
    figure = plotting.curves([left, right], title="Figure 7")
    grid = np.array(figure.axes).reshape(2, 2)
    for row, quantity in enumerate(("cost", "loss")):
        for column, p in enumerate((left, right)):
            check_lines(grid[row, column], p["steps"], [p[f"train_{quantity}"], p[f"validation_{quantity}"]])
        assert grid[row, 0].get_ylim() == grid[row, 1].get_ylim()
    assert [axes.get_title() for axes in grid[0]] == ["without", "with"]


def test_a_diverged_run_is_cut_off_and_says_so() -> None:
    y = np.full(10, 2.0) - 0.05 * np.arange(10)
    y[8:] = [1e9, np.nan]
    figure = plotting.curves([panel(train_loss=y)])
    loss = figure.axes[1]
    assert loss.get_ylim()[1] < 20
    assert loss.get_xlim()[1] >= 90
    assert "cut off: highest 1e+09" in texts(loss)
    assert "not finite at 1 of 10 points" in texts(loss)
    assert "first at step 90" in texts(loss)


def test_a_run_that_is_nowhere_finite_is_drawn() -> None:
    nothing = dict.fromkeys(KEYS, np.full(10, np.nan))
    figure = plotting.curves([panel(**nothing)])
    assert "10 of 10" in texts(figure.axes[0])


def test_a_flat_line_is_not_magnified_to_its_rounding() -> None:
    flat = 2.3026 + 1e-7 * np.random.default_rng(0).random(10)
    low, high = plotting.curves([panel(**dict.fromkeys(KEYS, flat))]).axes[0].get_ylim()
    assert high - low > 0.05


def test_curves_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one panel"):
        plotting.curves([])


def history_columns() -> dict[str, Any]:
    p = panel()
    rng = np.random.default_rng(3)
    accuracies = {f"{name}_accuracy": rng.random(10) for name in ("train", "validation")}
    return {
        "step": p["steps"],
        "lr": np.linspace(1e-5, 1e-1, 10),
        **{key: p[key] for key in KEYS},
        **accuracies,
    }


def test_history_has_loss_accuracy_and_rate_beneath() -> None:
    columns = history_columns()
    loss, accuracy, rate = plotting.history(columns, title="run").axes
    check_lines(
        loss,
        columns["step"],
        [columns[k] for k in ("train_loss", "validation_loss", "train_cost", "validation_cost")],
    )
    check_lines(accuracy, columns["step"], [columns["train_accuracy"], columns["validation_accuracy"]])
    check_lines(rate, columns["step"], [columns["lr"]])
    assert loss.get_shared_x_axes().joined(loss, rate)
    assert loss.get_ylabel() == "loss and cost"


def test_history_draws_no_cost_that_is_the_loss_and_the_rate_from_zero() -> None:
    columns = history_columns() | {"lr": np.full(10, 0.01)}
    columns |= {f"{name}_cost": columns[f"{name}_loss"] for name in ("train", "validation")}
    loss, _, rate = plotting.history(columns).axes
    check_lines(loss, columns["step"], [columns["train_loss"], columns["validation_loss"]])
    assert loss.get_ylabel() == "loss"
    assert rate.get_ylim()[0] == 0


def test_history_draws_the_measure_of_any_loss() -> None:
    """Regression has no accuracy."""
    columns = {"step": [0, 10], "train_loss": [2.0, 1.0], "train_r2": [0.1, 0.5], "validation_r2": [0.0, 0.4]}
    _, measure, _ = plotting.history(columns).axes
    assert measure.get_ylabel() == "r2"
    assert [line.get_label() for line in measure.lines] == ["training r2", "validation r2"]


def test_history_draws_what_there_is() -> None:
    columns = {k: v for k, v in history_columns().items() if k in ("step", "train_loss")}
    loss, accuracy, rate = plotting.history(columns).axes
    check_lines(loss, columns["step"], [columns["train_loss"]])
    assert not accuracy.lines
    assert not rate.lines
    with pytest.raises(ValueError, match="expected a column 'step'"):
        plotting.history({"lr": [1.0]})
    with pytest.raises(ValueError, match=r"'train_loss' is \(2, 3\) and 'step' is \(2,\)"):
        plotting.history({"step": [0, 1], "train_loss": np.ones((2, 3))})


def test_a_number_between_gaps_is_a_dot() -> None:
    y = np.array([1, np.nan, 2, np.nan, 3, 3.5, np.nan, np.nan, np.nan, 4])
    columns = {"step": np.arange(10), "validation_loss": y}
    (line,) = plotting.history(columns).axes[0].lines
    assert line.get_markevery() == [0, 2, 9]


def test_gradient_check_has_a_block_for_each_network() -> None:
    rows = [
        {
            "hidden": [50],
            "batch_norm": False,
            "parameter": "W1",
            "error": 1e-9,
            "strict_error": 1e-8,
            "complex_step_error": 0.0,
        },
        {"hidden": [50], "batch_norm": False, "parameter": "b1", "error": 1e-4, "strict_error": 1e-7},
        {
            "hidden": [50],
            "batch_norm": True,
            "parameter": "W1",
            "error": 1e-10,
            "strict_error": 1e-9,
            "complex_step_error": 1e-15,
        },
    ]
    figure = plotting.gradient_check(rows)
    first, second = figure.axes[:2]
    values = first.images[0].get_array()
    assert_allclose(values[:2], [[-9, -4], [-8, -7]])
    assert [text.get_text() for text in first.texts] == ["-9.0", "-4.0", "-8.0", "-7.0", "0", "\N{EN DASH}"]
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["W1", "b1"]
    rows = [{**rows[2], "parameter": f"gamma{i}"} for i in range(9)]
    wide = plotting.gradient_check(rows)
    wide.draw_without_rendering()
    boxes = [tick.get_window_extent() for tick in wide.axes[0].get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    assert_allclose(second.images[0].get_array().ravel(), [-10, -9, -15])
    assert "without batch norm" in first.get_title(loc="left")
    with pytest.raises(ValueError, match="at least one row"):
        plotting.gradient_check([])


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_shown_pixel_for_pixel(channels: int) -> None:
    x = np.random.default_rng(0).integers(0, 255, (5, channels * 6 * 4), dtype=np.uint8)
    figure = plotting.images(
        x, (channels, 6, 4), labels=[0, 1, 0, 1, 1], classes=["cat", "dog"], columns=3, title="synthetic"
    )
    axes = figure.axes[0]
    canvas = np.asarray(axes.images[0].get_array())
    for k in range(5):
        expected = x[k].reshape(channels, 6, 4).transpose(1, 2, 0).squeeze()
        windows = np.lib.stride_tricks.sliding_window_view(canvas, (6, 4), axis=(0, 1))
        windows = windows if channels == 1 else np.moveaxis(windows, 2, -1)
        assert (windows == expected).reshape(*windows.shape[:2], -1).all(-1).sum() == 1
    assert [text.get_text() for text in axes.texts] == ["cat", "dog", "cat", "dog", "dog"]
    assert axes.get_title() == "synthetic"


def test_images_errors() -> None:
    x = np.zeros((2, 12), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"shape \(n, 27\)"):
        plotting.images(x, (3, 3, 3))
    with pytest.raises(ValueError, match="dtype uint8"):
        plotting.images(x.astype(np.float32), (3, 2, 2))
    with pytest.raises(ValueError, match="expected 2 labels"):
        plotting.images(x, (3, 2, 2), labels=[1])


def test_weights_are_scaled_symmetrically() -> None:
    w = np.array([[1.0, -4.0, 0.0], [0.0, 2.0, 0.0], [-0.5, 0.0, 0.0], [1.0, 4.0, 0.0]])
    canvas = np.asarray(plotting.weights(w, (1, 2, 2)).axes[0].images[0].get_array())
    blocks = np.stack([canvas[-2:, left : left + 2] for left in (0, 3, 6)])
    assert_array_equal(blocks, [[[255, 128], [64, 255]], [[0, 191], [128, 255]], [[128, 128], [128, 128]]])


def test_confusion_shows_counts_and_shares() -> None:
    matrix = np.array([[8, 2], [0, 0]])
    axes = plotting.confusion(matrix, ["cat", "dog"], title="test").axes[0]
    assert_allclose(axes.images[0].get_array(), [[0.8, 0.2], [0, 0]])
    assert [text.get_text() for text in axes.texts] == ["8", "2", "0", "0"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    with pytest.raises(ValueError, match=r"shape \(3, 3\)"):
        plotting.confusion(matrix, ["a", "b", "c"])


def test_files_are_the_same_from_run_to_run(tmp_path: Path) -> None:
    first, second = (
        plotting.save(plotting.curves([panel()], title="t"), tmp_path / "new" / f"{i}.png") for i in range(2)
    )
    content = first.read_bytes()
    assert content == second.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert b"Software" not in content
    other = plotting.save(plotting.curves([panel(1)], title="t"), tmp_path / "other.png")
    assert other.read_bytes() != content


def test_matplotlib_is_imported_only_to_draw_and_pyplot_never() -> None:
    code = (
        "import sys; from xpnet import plotting; assert 'matplotlib' not in sys.modules; "
        "plotting.confusion([[1]], ['a']); assert 'matplotlib.pyplot' not in sys.modules; print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "fine"), done.stderr
