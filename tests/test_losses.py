"""Losses: softmax cross-entropy against its definition, its extremes, and the penalty."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import assert_close, draw, eps
from hypothesis import given
from hypothesis import strategies as st

from xpnet.backend import Device, to_numpy
from xpnet.losses import LOSSES, SoftmaxCrossEntropy, l2_penalty, loss, softmax

LOSS = SoftmaxCrossEntropy()


def one_hot(device: Device, labels: list[int], classes: int, dtype: str = "float64") -> object:
    """Give one-hot rows."""
    return device.asarray(np.eye(classes)[labels], dtype)


def reference(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Give the mean cross-entropy, number by number."""
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


def test_the_penalty_is_the_sum_of_squares(device: Device) -> None:
    a, b = draw(device, "a", (3, 2)), draw(device, "b", (2, 4))
    expected = 0.01 * ((to_numpy(a) ** 2).sum() + (to_numpy(b) ** 2).sum())
    assert_close(l2_penalty(0.01, [a, b]), expected, 1e-14)
    assert float(l2_penalty(0.0, [a, b])) == 0.0
    factors = device.asarray([0.0, 0.1], "float64")
    c = draw(device, "c", (2, 3, 3))
    assert_close(l2_penalty(factors, [c]), [0.0, 0.1 * (to_numpy(c)[1] ** 2).sum()], 1e-14)


def test_a_new_loss_is_registered() -> None:
    assert LOSSES["SoftmaxCrossEntropy"] is SoftmaxCrossEntropy
    try:
        new = loss(type("Another", (), {}))
        assert LOSSES["Another"] is new
    finally:
        LOSSES.pop("Another", None)
