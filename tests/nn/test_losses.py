"""Losses: softmax cross-entropy and mean squared error against their definitions, their extremes, and the penalty."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from helpers import assert_close, blobs, draw, eps
from hypothesis import given
from hypothesis import strategies as st

import xpnet
from xpnet import Adam, Trainer, mlp
from xpnet.backend import Device, to_numpy
from xpnet.nn.losses import (
    MeanSquaredError,
    SoftmaxCrossEntropy,
    l2_penalty,
    log_softmax,
    softmax,
    undefined_measures,
)
from xpnet.nn.measures import UndefinedMeasureWarning
from xpnet.training.batches import Batches

LOSS = SoftmaxCrossEntropy()
SQUARED = MeanSquaredError()


def one_hot(device: Device, labels: list[int], classes: int, dtype: str = "float64") -> object:
    """Return one-hot rows."""
    return device.asarray(np.eye(classes)[labels], dtype)


def reference(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean cross-entropy, number by number."""
    total = 0.0
    for row, target in zip(outputs.tolist(), targets.tolist(), strict=True):
        normaliser = math.fsum(math.exp(v) for v in row)
        total -= math.fsum(t * math.log(math.exp(v) / normaliser) for v, t in zip(row, target, strict=True) if t)
    return total / len(outputs)


@given(
    n=st.integers(1, 8), classes=st.integers(1, 6), labels=st.lists(st.integers(0, 5), min_size=8, max_size=8),
)
def test_the_value_is_the_mean_cross_entropy(device: Device, n: int, classes: int, labels: list[int]) -> None:
    outputs = draw(device, "outputs", (n, classes), std=3.0)
    targets = np.eye(classes)[[label % classes for label in labels[:n]]]
    value, _ = LOSS.forward(outputs, device.asarray(targets))
    expected = reference(to_numpy(outputs), targets)
    assert abs(float(value) - expected) < 1e-13 * max(1.0, expected)


def test_the_gradient_is_probabilities_less_targets_over_n(device: Device) -> None:
    outputs, targets = draw(device, "outputs", (5, 3)), one_hot(device, [0, 1, 2, 2, 2], 3)
    value, pullback = LOSS.forward(outputs, targets)
    exp = np.exp(to_numpy(outputs))
    expected = (exp / exp.sum(axis=-1, keepdims=True) - to_numpy(targets)) / 5
    assert_close(pullback(), expected, 1e-14)
    assert_close(pullback(3.0), 3.0 * expected, 1e-14)
    assert_close(to_numpy(pullback()).sum(axis=-1), np.zeros(5), 1e-15)
    assert value.ndim == 0


def test_targets_may_be_probabilities(device: Device) -> None:
    outputs, targets = draw(device, "outputs", (2, 3)), np.asarray([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    value, _ = LOSS.forward(outputs, device.asarray(targets))
    assert abs(float(value) - reference(to_numpy(outputs), targets)) < 1e-14


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_outputs_cost_log_of_the_classes(device: Device, dtype: str) -> None:
    value, _ = LOSS.forward(device.asarray(np.full((4, 10), 7.0), dtype), one_hot(device, [0, 1, 2, 3], 10, dtype))
    assert abs(float(value) - math.log(10)) < 4 * eps(dtype)
    assert to_numpy(value).dtype == dtype


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e3, 1e30])
def test_large_outputs_do_not_overflow(device: Device, dtype: str, size: float) -> None:
    outputs = device.asarray([[size, 0.0], [0.0, -size]], dtype)
    value, pullback = LOSS.forward(outputs, one_hot(device, [1, 0], 2, dtype))
    assert float(value) == pytest.approx(size / 2, rel=1e-6)  # (size + 0) / 2
    assert to_numpy(pullback()).tolist() == [[0.5, -0.5], [0.0, 0.0]]
    assert to_numpy(softmax(outputs)).tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_a_shift_of_all_outputs_changes_nothing(device: Device) -> None:
    outputs, targets = draw(device, "outputs", (5, 3)), one_hot(device, [0, 1, 2, 0, 1], 3)
    assert_close(LOSS.forward(outputs + 64.0, targets)[0], LOSS.forward(outputs, targets)[0], 1e-13)
    assert_close(softmax(outputs + 64.0), softmax(outputs), 1e-13)


@pytest.mark.parametrize("models", [(3,), (2, 3)], ids=str)
def test_models_are_the_stack_of_single_runs(device: Device, models: tuple[int, ...]) -> None:
    outputs, targets = draw(device, "outputs", (*models, 5, 4)), one_hot(device, [0, 1, 2, 3, 3], 4)
    value, pullback = LOSS.forward(outputs, targets)
    assert tuple(value.shape) == models
    for m in np.ndindex(*models):
        alone, alone_pullback = LOSS.forward(device.asarray(to_numpy(outputs)[m]), targets)
        assert_close(to_numpy(value)[m], alone, 1e-14)
        assert_close(to_numpy(pullback())[m], alone_pullback(), 1e-14)


def test_softmax_rows_are_probabilities(device: Device) -> None:
    p = to_numpy(softmax(draw(device, "outputs", (2, 5, 4), std=10.0)))
    assert (p >= 0).all()
    assert_close(p.sum(axis=-1), np.ones((2, 5)), 1e-15)


def test_log_softmax_is_the_logarithm_and_does_not_underflow(device: Device) -> None:
    outputs = draw(device, "outputs", (2, 5, 4))
    assert_close(log_softmax(outputs), np.log(to_numpy(softmax(outputs))), 1e-14)
    assert to_numpy(log_softmax(device.asarray([[1e4, 0.0]], "float64"))).tolist() == [[0.0, -1e4]]


def test_labels_are_checked_and_become_one_hot_rows(device: Device) -> None:
    y = device.asarray([2, 0], "int32")
    kept = LOSS.check(y, 3)
    assert kept.dtype == device.xp.int64
    assert to_numpy(LOSS.encoder(3, device, "float32")(kept)).tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(ValueError, match=r"here labels: expected 0 to 1 \(the network has 2 outputs\), got 0 to 2"):
        LOSS.check(y, 2, "here ")
    with pytest.raises(TypeError, match=r"labels: expected integers from 0, got dtype .*float32; for whole numbers"):
        LOSS.check(device.asarray([0.0], "float32"), 2)


def test_accuracy_adds_up_over_blocks(device: Device) -> None:
    outputs, y = draw(device, "outputs", (2, 9, 3)), device.asarray(np.arange(9) % 3)
    tally = LOSS.tally(outputs[:, :4, :], y[:4]) + LOSS.tally(outputs[:, 4:, :], y[4:])
    expected = (to_numpy(outputs).argmax(axis=-1) == to_numpy(y)).mean(axis=-1)
    assert to_numpy(LOSS.score(tally, y)["accuracy"]).tolist() == expected.tolist()


# Mean squared error ---------------------------------------------------------------------------------------------


@given(n=st.integers(1, 8), outputs=st.integers(1, 4))
def test_the_value_is_the_mean_of_the_squares(device: Device, n: int, outputs: int) -> None:
    found, targets = draw(device, "found", (n, outputs)), draw(device, "targets", (n, outputs))
    value, pullback = SQUARED.forward(found, targets)
    off = to_numpy(found) - to_numpy(targets)
    assert_close(value, (off**2).mean(), 1e-14)
    assert value.ndim == 0
    assert_close(pullback(), 2 * off / off.size, 1e-14)
    assert_close(pullback(3.0), 6 * off / off.size, 1e-14)


@pytest.mark.parametrize("models", [(3,), (2, 3)], ids=str)
def test_squares_of_models_are_the_stack_of_single_runs(device: Device, models: tuple[int, ...]) -> None:
    found, targets = draw(device, "found", (*models, 5, 2)), draw(device, "targets", (5, 2))
    value, pullback = SQUARED.forward(found, targets)
    assert tuple(value.shape) == models
    for m in np.ndindex(*models):
        alone, alone_pullback = SQUARED.forward(device.asarray(to_numpy(found)[m]), targets)
        assert_close(to_numpy(value)[m], alone, 1e-14)
        assert_close(to_numpy(pullback())[m], alone_pullback(), 1e-14)


def test_targets_of_any_real_dtype_become_columns(device: Device) -> None:
    assert SQUARED.shapes(1) == {"targets (n, 1)": (1,), "targets (n,)": ()}
    assert SQUARED.shapes(2) == {"targets (n, 2)": (2,)}
    y = SQUARED.check(device.asarray([3, 1], "int32"), 1)
    columns = SQUARED.encoder(1, device, "float32")(y)
    assert columns.dtype == device.xp.float32
    assert to_numpy(columns).tolist() == [[3.0], [1.0]]
    with pytest.raises(ValueError, match="validation targets: expected finite numbers, got NaN or infinite ones"):
        SQUARED.check(device.asarray([1.0, float("nan")]), 1, "validation ")
    with pytest.raises(TypeError, match=r"targets: expected real numbers, got dtype .*complex"):
        SQUARED.check(device.xp.zeros(2, dtype=device.xp.complex128, device=device.native), 1)


def test_r2_is_the_coefficient_of_determination(device: Device) -> None:
    found, y = draw(device, "found", (2, 9, 3)), draw(device, "y", (9, 3))
    tally = SQUARED.tally(found[:, :4, :], y[:4, :]) + SQUARED.tally(found[:, 4:, :], y[4:, :])
    h, hy = to_numpy(found), to_numpy(y)
    expected = (1 - ((h - hy) ** 2).sum(axis=-2) / ((hy - hy.mean(axis=0)) ** 2).sum(axis=0)).mean(axis=-1)
    assert_close(SQUARED.score(tally, y)["r2"], expected, 1e-13)
    flat = device.asarray([1, 2, 3])  # (n,) where there is one output
    exact = SQUARED.tally(device.asarray([[1.0], [2.0], [3.0]], "float64"), flat)
    assert float(SQUARED.score(exact, flat)["r2"]) == 1.0


@pytest.mark.parametrize(("y", "why"), [
    ([2.0], "one target has no variance"), ([0.1] * 30, "the 30 targets are all alike:"),
    ([1e-200, 2e-200], "the 2 targets are all alike:"),
    ([[1.0, 7.0], [2.0, 7.0], [3.0, 7.0]], "the 3 targets are all alike in an output:"),
], ids=["one", "alike", "alike when squared", "one output of two"])
@pytest.mark.parametrize("off", [0.0, 3.0])
def test_r2_of_targets_that_do_not_vary_is_nan_with_the_reason(device: Device, y: Any, why: str, off: float) -> None:
    targets = device.asarray(y, "float64")
    tally = device.asarray([off] * (2 if targets.ndim > 1 else 1), "float64")
    with pytest.warns(UndefinedMeasureWarning, match=f"r2 is NaN, since {why}"):
        assert math.isnan(float(SQUARED.score(tally, targets)["r2"]))
    assert list(undefined_measures(SQUARED, targets)) == ["r2"]


def test_measures_that_are_always_defined(device: Device) -> None:
    assert undefined_measures(xpnet.SoftmaxCrossEntropy(), device.asarray([1])) == {}
    assert undefined_measures(SQUARED, device.asarray([[1.0, 2.0], [2.0, 3.0]])) == {}


# In training ----------------------------------------------------------------------------------------------------


def line(device: Device, n: int = 64) -> tuple[Any, Any]:
    """Return features, and two targets that are linear in them."""
    x = draw(device, "x", (n, 3), "float32")
    factors = device.asarray([[1.0, 0.5], [-2.0, 0.0], [0.5, 3.0]], "float32")
    return x, x @ factors + 1.0


def test_a_linear_network_learns_linear_targets(device: Device) -> None:
    x, y = line(device)
    trainer = Trainer(mlp(3, [], 2), loss=SQUARED, optimizer=Adam(), schedule=0.1, batch_size=16)
    history = trainer.fit(x, y, steps=400, validation=(x, y))
    assert set(history.rows[-1]) >= {"train_loss", "train_cost", "train_r2", "validation_r2"}
    assert history["train_r2"][0] < 0.5
    assert history["validation_r2"][-1] > 0.999
    assert trainer.evaluate(x, y).keys() == {"loss", "cost", "r2"}
    assert_close(trainer.network(x), to_numpy(y), 0.01)


def test_one_output_takes_flat_targets_too(device: Device) -> None:
    x, y = line(device)
    runs = [Trainer(mlp(3, [4], 1), loss=SQUARED, schedule=0.01) for _ in range(2)]
    flat, column = (run.fit(x, part, steps=5) for run, part in zip(runs, (y[:, 0], y[:, :1]), strict=True))
    assert flat.rows == column.rows


def test_models_side_by_side_learn_as_alone(device: Device) -> None:
    x, y = line(device)
    both = Trainer(mlp(3, [4], 2), loss=SQUARED, schedule=0.01, l2=[0.0, 0.1], dtype="float64")
    both.fit(x, y, steps=5)
    for i, l2 in enumerate((0.0, 0.1)):
        alone = Trainer(mlp(3, [4], 2), loss=SQUARED, schedule=0.01, l2=l2, dtype="float64")
        alone.fit(x, y, steps=5)
        for name in ("loss", "cost", "r2"):
            assert_close(both.evaluate(x, y)[name][i], alone.evaluate(x, y)[name], 1e-12, name)


def test_labels_that_do_not_fit_the_loss_are_refused(device: Device) -> None:
    x, y = line(device)
    with pytest.raises(ValueError, match=r"features \(n, 3\) and targets \(n, 2\) with n at least 1, got .*\(64,\)"):
        Trainer(mlp(3, [], 2), loss=SQUARED).fit(x, y[:, 0], steps=1)
    with pytest.raises(ValueError, match=r"and targets \(n, 1\) or targets \(n,\) with n"):
        Trainer(mlp(3, [], 1), loss=SQUARED).fit(x, y, steps=1)
    with pytest.raises(TypeError, match=r"expected a loss, like xpnet\.SoftmaxCrossEntropy"):
        Trainer(mlp(3, [], 1), loss=MeanSquaredError)  # type: ignore[arg-type]


def test_trainers_of_different_losses_are_not_one(device: Device) -> None:
    a, b = Trainer(mlp(3, [], 1)), Trainer(mlp(3, [], 1), loss=SQUARED)
    assert a.config()["loss"] == {"type": "SoftmaxCrossEntropy"}
    assert b.config()["loss"] == {"type": "MeanSquaredError"}
    with pytest.raises(ValueError, match="stack: expected trainers of one model each"):
        Trainer.stack([a, b])


def test_batches_hold_what_the_loss_makes_of_labels(device: Device) -> None:
    x, y = blobs(device, 10)
    batches = Batches(x, y, 1, size=4, seed=0, device=device, dtype="float32", loss=SQUARED)
    batches.start = 7
    assert batches.sizes == [4, 4, 2]
    first = [(to_numpy(x).tolist(), to_numpy(t).tolist()) for x, t in batches.run(7, 10)]
    again = Batches(x, y, 1, size=4, seed=0, device=device, dtype="float32", loss=SQUARED)
    assert first == [(to_numpy(x).tolist(), to_numpy(t).tolist()) for x, t in again.run(0, 3)]
    assert sorted(t for _, targets in first for row in targets for t in row) == sorted(to_numpy(y).tolist())


# The penalty ----------------------------------------------------------------------------------------------------


def test_the_penalty_is_the_sum_of_squares(device: Device) -> None:
    network = mlp(3, [2], 4)
    arrays = {name: draw(device, name, shape) for name, shape in network.shapes.items()}
    expected = 0.01 * sum((to_numpy(arrays[name]) ** 2).sum() for name in ("W1", "W2"))
    assert_close(l2_penalty(0.01, arrays, network), expected, 1e-14)
    assert float(l2_penalty(0.0, arrays, network)) == 0.0
    factors = device.asarray([0.0, 0.1], "float64")
    several = {name: draw(device, name, (2, *shape)) for name, shape in network.shapes.items()}
    squares = sum((to_numpy(several[name])[1] ** 2).sum() for name in ("W1", "W2"))
    assert_close(l2_penalty(factors, several, network), [0.0, 0.1 * squares], 1e-14)
