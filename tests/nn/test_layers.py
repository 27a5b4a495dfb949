"""Layers: their formulas, the model axis, and their errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from helpers import assert_close, draw
from hypothesis import given
from hypothesis import strategies as st

import xpnet.nn.layer
from xpnet.backend import Device, form, to_numpy
from xpnet.nn.gradcheck import EXAMPLES
from xpnet.nn.initializers import He, Normal
from xpnet.nn.layers import LAYERS, BatchNorm, Dropout, Layer, LeakyReLU, Linear, ReLU, Standardize, Tanh
from xpnet.nn.layers import layer as register

FEATURES, N = 4, 6
CASES = EXAMPLES


def make_arrays(layer: Layer, device: Device, models: tuple[int, ...] = ()) -> list[Any]:
    """Return random arrays for a layer, in its order."""
    arrays = []
    for name in (*layer.parameters, *layer.statistics):
        a = draw(device, name, (*models, *layer.shapes(FEATURES)[name]))
        arrays.append(a * a + 0.5 if name in layer.positive else a)
    return arrays


def test_every_layer_is_among_the_examples_in_training_and_in_prediction_if_that_differs() -> None:
    mine = [name for name, cls in LAYERS.items() if cls.__module__ == Layer.__module__.replace(".layer", ".layers")]
    assert {"Linear", "BatchNorm", "ReLU", "LeakyReLU", "Tanh", "Dropout", "Standardize"} <= set(mine)
    assert set(CASES) == {*mine, "BatchNorm, prediction", "Dropout, prediction"}
    assert all(type(layer).__name__ == name.partition(",")[0] for name, (layer, _) in CASES.items())


def test_a_layer_is_registered_with_its_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xpnet.nn.layer, "LAYERS", {})

    @dataclass(frozen=True)
    class Times(Layer):
        factor: float
        shift: float = 0.0

    assert register(example={"factor": 2.0})(Times) is Times
    assert Times.example == Times(2.0)
    assert xpnet.nn.layer.LAYERS == {"Times": Times}
    with pytest.raises(TypeError, match=r"Times needs an example, like @layer\(example=.*'factor'"):
        register(Times)


# The formulas ---------------------------------------------------------------------------------------------


def test_linear_is_x_w_plus_b(device: Device) -> None:
    x, dy = draw(device, "x", (N, FEATURES)), draw(device, "dy", (N, 3))
    W, b = make_arrays(Linear(3), device)
    y, pullback, statistics = Linear(3).forward(x, W, b)
    dx, own = pullback(dy)
    dx, dW, db = map(form, (dx, *own))
    hx, hdy, hW, hb = (to_numpy(a) for a in (x, dy, W, b))
    assert_close(y, np.einsum("ni,io->no", hx, hW) + hb, 1e-14, "y")
    assert_close(dx, np.einsum("no,io->ni", hdy, hW), 1e-14, "dx")
    assert_close(dW, np.einsum("ni,no->io", hx, hdy), 1e-14, "dW")
    assert_close(db, hdy.sum(axis=0), 1e-14, "db")
    assert statistics == ()


def test_batch_norm_normalises_the_batch_with_the_biased_variance(device: Device) -> None:
    x = draw(device, "x", (N, FEATURES), std=3.0) + 2.0
    gamma, beta, mean, var = make_arrays(BatchNorm(), device)
    y, _, statistics = BatchNorm(eps=1e-3).forward(x, gamma, beta, mean, var, train=True)
    hx = to_numpy(x)
    batch_mean, batch_var = hx.mean(axis=0), ((hx - hx.mean(axis=0)) ** 2).mean(axis=0)
    expected = (hx - batch_mean) / np.sqrt(batch_var + 1e-3) * to_numpy(gamma) + to_numpy(beta)
    assert_close(y, expected, 1e-13, "y")
    assert_close(statistics[0], batch_mean, 1e-13, "mean")
    assert_close(statistics[1], batch_var, 1e-13, "variance")


def test_batch_norm_predicts_with_the_running_statistics(device: Device) -> None:
    x = draw(device, "x", (N, FEATURES))
    gamma, beta, mean, var = make_arrays(BatchNorm(), device)
    y, pullback, statistics = BatchNorm().forward(x, gamma, beta, mean, var)
    hgamma, hbeta, hmean, hvar = (to_numpy(a) for a in (gamma, beta, mean, var))
    assert_close(y, (to_numpy(x) - hmean) / np.sqrt(hvar + 1e-5) * hgamma + hbeta, 1e-13, "y")
    assert statistics == ()
    single, _, _ = BatchNorm().forward(x[:1, :], gamma, beta, mean, var)
    assert_close(single, to_numpy(y)[:1], 1e-14, "a batch of one")
    assert_close(pullback(x)[0], to_numpy(x) * hgamma / np.sqrt(hvar + 1e-5), 1e-13, "dx")


def test_batch_norm_ignores_a_shift_of_its_input_and_almost_its_scale(device: Device) -> None:
    x = draw(device, "x", (N, FEATURES))
    arrays = make_arrays(BatchNorm(), device)
    plain, _, _ = BatchNorm(eps=0.0).forward(x, *arrays, train=True)
    moved, _, _ = BatchNorm(eps=0.0).forward(x * 7.0 + 100.0, *arrays, train=True)
    assert_close(moved, plain, 1e-12)


def test_batch_norm_refuses_to_train_on_one_example_and_says_why(device: Device) -> None:
    x = draw(device, "x", (1, FEATURES))
    with pytest.raises(ValueError, match=r"at least 2 examples.*got 1: one example has no variance.*batch_size"):
        BatchNorm().forward(x, *make_arrays(BatchNorm(), device), train=True)


def test_batch_norm_trains_on_two_examples(device: Device) -> None:
    x = device.asarray([[0.0, 5.0], [2.0, 5.0]], "float64")
    one, zero = device.asarray([1.0, 1.0], "float64"), device.asarray([0.0, 0.0], "float64")
    y, _, (mean, var) = BatchNorm().forward(x, one, zero, zero, one, train=True)
    assert_close(y, np.asarray([[-1.0, 0.0], [1.0, 0.0]]) / math.sqrt(1 + 1e-5), 1e-14)
    assert to_numpy(mean).tolist() == [1.0, 5.0]
    assert to_numpy(var).tolist() == [1.0, 0.0]


def test_relu_is_the_positive_part_with_slope_0_at_0(device: Device) -> None:
    x = device.asarray([[-2.0, 0.0, 3.0, -0.0]], "float64")
    y, pullback, _ = ReLU().forward(x)
    dx, own = pullback(device.asarray([[5.0, 6.0, 7.0, 8.0]], "float64"))
    assert to_numpy(y).tolist() == [[0.0, 0.0, 3.0, 0.0]]
    assert to_numpy(dx).tolist() == [[0.0, 0.0, 7.0, 0.0]]
    assert own == ()


def test_leaky_relu_lets_a_share_of_the_negative_part_through(device: Device) -> None:
    x = device.asarray([[-2.0, 0.0, 3.0, -math.inf]], "float64")
    y, pullback, _ = LeakyReLU(0.25).forward(x)
    dx, own = pullback(device.asarray([[4.0, 8.0, 7.0, 4.0]], "float64"))
    assert to_numpy(y).tolist() == [[-0.5, 0.0, 3.0, -math.inf]]
    assert to_numpy(dx).tolist() == [[1.0, 2.0, 7.0, 1.0]]
    assert own == ()


def test_tanh_is_the_hyperbolic_tangent(device: Device) -> None:
    x = device.asarray([[-20.0, -0.5, 0.0, 1.0]], "float64")
    y, pullback, _ = Tanh().forward(x)
    assert_close(y, np.tanh([[-20.0, -0.5, 0.0, 1.0]]), 1e-15)
    assert_close(pullback(x)[0], to_numpy(x) / np.cosh(to_numpy(x)) ** 2, 1e-14)


def test_dropout_zeroes_below_its_rate_and_scales_the_rest(device: Device) -> None:
    x = device.asarray([[1.0, 2.0, 3.0, 4.0]], "float64")
    noise = device.asarray([[0.0, 0.2499, 0.25, 0.999]], "float64")
    y, pullback, _ = Dropout(0.25).forward(x, train=True, noise=noise)
    assert_close(y, [[0.0, 0.0, 4.0, 16.0 / 3.0]], 1e-15)
    assert_close(pullback(x)[0], [[0.0, 0.0, 4.0, 16.0 / 3.0]], 1e-15)
    same, pullback, _ = Dropout(0.25).forward(x)
    assert same is x
    assert pullback(x)[0] is x


def test_dropout_keeps_the_mean(device: Device) -> None:
    x = draw(device, "x", (20, 1000)) + 5.0
    noise = device.asarray(np.random.Generator(np.random.Philox(0)).random((20, 1000)), "float64")
    y = to_numpy(Dropout(0.4).forward(x, train=True, noise=noise)[0])
    assert abs((y == 0).mean() - 0.4) < 0.02
    assert abs(y.mean() / to_numpy(x).mean() - 1.0) < 0.03


def test_dropout_without_draws_is_an_error(device: Device) -> None:
    with pytest.raises(ValueError, match=r"Dropout: expected uniform draws \(noise=\)"):
        Dropout(0.5).forward(draw(device, "x", (2, 3)), train=True)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "bool", "float32", "float64"])
def test_standardize_takes_any_real_dtype(device: Device, dtype: str) -> None:
    x = device.asarray([[0, 1], [1, 0], [1, 1]], dtype)
    kind = "float64" if dtype == "float64" else "float32"
    offset, scale = device.asarray([0.5, 0.25], kind), device.asarray([2.0, 4.0], kind)
    y, pullback, statistics = Standardize().forward(x, offset, scale)
    assert to_numpy(y).tolist() == [[-1.0, 3.0], [1.0, -1.0], [1.0, 3.0]]
    assert to_numpy(y).dtype == kind
    assert to_numpy(pullback(y)[0]).tolist() == [[-2.0, 12.0], [2.0, -4.0], [2.0, 12.0]]
    assert statistics == ()


# The model axis -------------------------------------------------------------------------------------------


def run(
    layer: Layer, train: bool, x: Any, arrays: list[Any], dy: Any, noise: Any, into: list[Any] | None = None
) -> list[np.ndarray]:
    """Return everything that a layer computes, on the host: y, dx, the parameters' gradients, statistics."""
    y, pullback, statistics = layer.forward(x, *arrays, train=train, noise=noise if layer.noisy else None)
    dx, own = pullback(dy)
    gradients = map(form, own, into or [None] * len(own))
    return [to_numpy(a) for a in (y, form(dx), *gradients, *statistics)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("models", [(3,), (2, 3), (1,)], ids=str)
@pytest.mark.parametrize("shared", [True, False], ids=["shared input", "own inputs"])
@pytest.mark.parametrize("write_into", [True, False], ids=["into", "no into"])
def test_models_are_the_stack_of_single_runs(
    device: Device, case: str, models: tuple[int, ...], shared: bool, write_into: bool
) -> None:
    layer, train = CASES[case]
    x = draw(device, "x", (N, FEATURES) if shared else (*models, N, FEATURES))
    arrays = make_arrays(layer, device, models)
    dy = draw(device, "dy", (*models, N, layer.out_features(FEATURES)))
    noise = device.asarray(abs(to_numpy(draw(device, "u", (*models, N, FEATURES)))) % 1.0, "float64")
    into = [device.empty((*models, *layer.shapes(FEATURES)[p]), "float64") for p in layer.parameters]
    together = run(layer, train, x, arrays, dy, noise, into if write_into else None)
    for m in np.ndindex(*models):
        one = [device.asarray(to_numpy(a)[m]) for a in arrays]
        own_x = x if shared else device.asarray(to_numpy(x)[m])
        alone = run(layer, train, own_x, one, device.asarray(to_numpy(dy)[m]), device.asarray(to_numpy(noise)[m]))
        assert len(alone) == len(together)
        for i, (a, b) in enumerate(zip(together, alone, strict=True)):
            whole = np.broadcast_to(a, (*models, *b.shape))  # what models share has no model axis
            assert_close(whole[m], b, 1e-13, f"result {i} of model {m}")


@pytest.mark.parametrize("case", CASES)
def test_plain_parameters_serve_many_inputs(device: Device, case: str) -> None:
    layer, train = CASES[case]
    x = draw(device, "x", (3, N, FEATURES))
    dy, noise = draw(device, "dy", (3, N, layer.out_features(FEATURES))), device.asarray(np.full((N, FEATURES), 0.5))
    arrays = make_arrays(layer, device)
    together = run(layer, train, x, arrays, dy, noise)
    for m in range(3):
        alone = run(layer, train, x[m, ...], arrays, dy[m, ...], noise)
        for i, (a, b) in enumerate(zip(together, alone, strict=True)):
            assert_close(a[m], b, 1e-13, f"result {i} of input {m}")


@pytest.mark.parametrize("sequence", [[0.0, 0.5, 0.9], np.asarray([0.0, 0.5, 0.9])], ids=["list", "array"])
def test_dropout_rates_per_model(device: Device, sequence: Any) -> None:
    x, noise = draw(device, "x", (3, N, FEATURES)), device.asarray(np.linspace(0, 0.99, 24).reshape(N, FEATURES))
    rates = device.asarray(sequence, "float64")[..., None, None]
    together = to_numpy(Dropout(rates).forward(x, train=True, noise=noise)[0])
    for m, rate in enumerate([0.0, 0.5, 0.9]):
        assert_close(together[m], Dropout(rate).forward(x[m, ...], train=True, noise=noise)[0], 1e-15, f"rate {rate}")


def test_slopes_per_model(device: Device) -> None:
    x, dy = draw(device, "x", (N, FEATURES)), draw(device, "dy", (3, N, FEATURES))
    slopes = [0.0, 0.1, 1.5]
    y, pullback, _ = LeakyReLU(device.asarray(slopes, "float64")[..., None, None]).forward(x)
    for m, slope in enumerate(slopes):
        own, back, _ = LeakyReLU(slope).forward(x)
        assert_close(y[m, ...], own, 1e-15)
        assert_close(pullback(dy)[0][m, ...], back(dy[m, ...])[0], 1e-15)


@given(
    case=st.sampled_from(sorted(CASES)), n=st.integers(2, 9), features=st.integers(1, 7), models=st.integers(0, 3)
)
def test_shapes_and_dtypes_out_follow_those_in(device: Device, case: str, n: int, features: int, models: int) -> None:
    layer, train = CASES[case]
    lead = (models,) if models else ()
    for dtype in ("float32", "float64"):
        x = draw(device, "x", (*lead, n, features), dtype)
        shapes = layer.shapes(features)
        arrays = [abs(draw(device, p, (*lead, *shapes[p]), dtype)) for p in (*layer.parameters, *layer.statistics)]
        noise = device.asarray(np.full((n, features), 0.7), dtype) if layer.noisy else None
        y, pullback, statistics = layer.forward(x, *arrays, train=train, noise=noise)
        dx, *own = (form(g) for part in pullback(y) for g in (part if isinstance(part, tuple) else [part]))
        assert tuple(y.shape) == (*lead, n, layer.out_features(features))
        assert tuple(dx.shape) == tuple(x.shape)
        assert [tuple(a.shape) for a in own] == [tuple(a.shape) for a in arrays[: len(own)]]
        assert len(own) == len(layer.parameters)
        assert all(a.dtype == x.dtype and Device.of(a) == device for a in (y, dx, *own, *statistics))


@pytest.mark.parametrize("case", CASES)
def test_nothing_that_comes_in_is_changed(device: Device, case: str) -> None:
    layer, train = CASES[case]
    x, arrays = draw(device, "x", (N, FEATURES)), make_arrays(layer, device)
    dy, noise = draw(device, "dy", (N, layer.out_features(FEATURES))), device.asarray(np.full((N, FEATURES), 0.5))
    before = [to_numpy(a).copy() for a in (x, dy, noise, *arrays)]
    run(layer, train, x, arrays, dy, noise)
    for a, b in zip((x, dy, noise, *arrays), before, strict=True):
        assert to_numpy(a).tobytes() == b.tobytes()


# What layers say of themselves ------------------------------------------------------------------------------


def test_shapes_initial_values_and_widths() -> None:
    assert Linear(3).shapes(4) == {"W": (4, 3), "b": (3,)}
    assert Linear(3).out_features(4) == 3
    assert Linear(3).initial("W") == He()
    assert Linear(3).initial("b") == 0.0
    assert Linear(3, Normal(0.1)).initial("W") == Normal(0.1)
    assert BatchNorm().shapes(4) == dict.fromkeys(("gamma", "beta", "mean", "var"), (4,))
    assert {name: BatchNorm().initial(name) for name in BatchNorm().shapes(4)} == {
        "gamma": 1.0, "beta": 0.0, "mean": 0.0, "var": 1.0,
    }
    assert Standardize().shapes(4) == {"offset": (4,), "scale": (4,)}
    assert (Standardize().initial("offset"), Standardize().initial("scale")) == (0.0, 1.0)
    assert (ReLU().shapes(4), Dropout().shapes(4), ReLU().out_features(4)) == ({}, {}, 4)
    assert BatchNorm() == BatchNorm(momentum=0.9, eps=1e-5)
    assert Linear.weights == ("W",)
    assert BatchNorm.weights == ()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Linear(0), "Linear: expected out_width of at least 1, got 0"),
        (lambda: LeakyReLU(-0.1), "LeakyReLU: expected slope of at least 0, got -0.1"),
        (lambda: Dropout(1.0), "at least 0 and below 1, got 1.0"),
        (lambda: Dropout(-0.1), "at least 0 and below 1, got -0.1"),
        (lambda: Dropout([0.1, 1.5]), "Dropout: expected rate of at least 0 and below 1, got 1.5"),
        (lambda: Dropout(np.asarray([0.1, 1.25])), "Dropout: expected rate of at least 0 and below 1, got 1.25"),
    ],
)
def test_wrong_hyper_parameters_are_refused(make: Callable[[], Layer], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_a_layer_without_forward_says_so() -> None:
    with pytest.raises(NotImplementedError):
        Layer().forward(np.zeros((1, 1)))
