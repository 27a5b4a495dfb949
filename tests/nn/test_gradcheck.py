"""Gradients: the registry passes on every backend, is complete, and catches what is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from helpers import difference, draw
from hypothesis import given, settings
from hypothesis import strategies as st

from xpnet import random
from xpnet.backend import Deferred, Device, form, namespace, to_numpy
from xpnet.nn import gradcheck, gradient_cases
from xpnet.nn.initializers import Normal
from xpnet.nn.layers import LAYERS, BatchNorm, Layer, Linear, ReLU, Tanh
from xpnet.nn.losses import LOSSES, MeanSquaredError, SoftmaxCrossEntropy
from xpnet.nn.sequential import Sequential, mlp

# The registry -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", gradcheck.CASES)
def test_every_case_passes_by_both_methods(device: Device, case: str) -> None:
    rows = gradcheck.check(*gradcheck.CASES[case](device))
    assert rows
    for row in rows:
        assert {"error", "strict_error", "complex_step_error"} < row.keys()
        assert gradcheck.passes(row), row


def test_every_layer_and_loss_has_a_case() -> None:
    have = {name.partition(",")[0] for name in gradcheck.CASES}
    assert not (LAYERS.keys() | LOSSES.keys()) - have


def test_cases_check_every_parameter_and_the_input() -> None:
    for name, cls in LAYERS.items():
        rows = gradcheck.check(*gradcheck.CASES[name](Device()), methods=["complex"])
        assert {row["parameter"] for row in rows} == {"x", *cls.parameters}, name


# Canaries: a wrong pullback is caught -------------------------------------------------------------------------

Change = Callable[[Any], Any]
CHANGES: dict[str, Change] = {
    "sign": lambda g: -g,
    "dropped": lambda g: g * 0.0,
    "scale": lambda g: g * (1.0 + 1e-5),
    "shifted": lambda g: namespace(g).roll(g, 1, axis=-1),
}


def failures() -> list[str]:
    """Return the names of the cases that fail now."""
    found = []
    for name, case in gradcheck.CASES.items():
        if not all(gradcheck.passes(row) for row in gradcheck.check(*case(Device()))):
            found.append(name)
    return found


def with_changed_gradient(cls: type[Layer], which: int, change: Change) -> Callable[..., Any]:
    """Return a ``forward`` whose pullback changes its first result (dx, 0) or a parameter's (1, 2, ...)."""
    forward = cls.forward

    def wrong(self: Layer, x: Any, *arrays: Any, **options: Any) -> Any:
        y, pullback, statistics = forward(self, x, *arrays, **options)

        def wrong_pullback(dy: Any) -> Any:
            dx, own = pullback(dy)
            results = [form(g) for g in (dx, *own)]
            results[which] = change(results[which])
            return results[0], tuple(results[1:])

        return y, wrong_pullback, statistics

    return wrong


PULLBACK_RESULTS = [
    pytest.param(cls, i, id=f"{name}-{'x' if i == 0 else cls.parameters[i - 1]}")
    for name, cls in LAYERS.items()
    for i in range(1 + len(cls.parameters))
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("cls", "which"), PULLBACK_RESULTS)
def test_a_wrong_layer_gradient_is_caught(
    cls: type[Layer], which: int, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cls, "forward", with_changed_gradient(cls, which, CHANGES[change]))
    assert cls.__name__ in failures()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", LOSSES)
def test_a_wrong_loss_gradient_is_caught(name: str, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = LOSSES[name].forward

    def wrong(self: Any, outputs: Any, targets: Any) -> Any:
        value, pullback = forward(self, outputs, targets)
        return value, lambda factor=1.0: CHANGES[change](pullback(factor))

    monkeypatch.setattr(LOSSES[name], "forward", wrong)
    assert name in failures()


@pytest.mark.parametrize("term", ["mean of dy", "x_hat * mean of dy x_hat", "both"])
def test_a_term_missing_in_batch_norm_is_caught(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = BatchNorm.forward

    def wrong(self: BatchNorm, x: Any, *arrays: Any, train: bool = False, noise: Any = None) -> Any:
        y, pullback, statistics = forward(self, x, *arrays, train=train)

        def wrong_pullback(dy: Any) -> Any:
            dx, own = pullback(dy)
            if train:
                n, (mean, var) = x.shape[-2], statistics
                inverse = 1.0 / namespace(x).sqrt(var + self.eps)
                x_hat = (x - mean) * inverse
                if term != "x_hat * mean of dy x_hat":
                    dx = dx + arrays[0] * inverse * own[1] / n
                if term != "mean of dy":
                    dx = dx + arrays[0] * inverse * x_hat * own[0] / n
            return dx, own

        return y, wrong_pullback, statistics

    monkeypatch.setattr(BatchNorm, "forward", wrong)
    found = failures()
    assert {"BatchNorm", "dense + batch norm + ReLU, L2"} <= set(found)
    assert "BatchNorm, prediction" not in found  # there the terms do not belong


def test_a_missing_penalty_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_cases, "l2_penalty", lambda *arguments: 0.0)
    assert set(failures()) == {name for name in gradcheck.CASES if "L2" in name}


def test_nothing_fails_when_nothing_is_wrong() -> None:
    assert failures() == []


# Numerical gradients ------------------------------------------------------------------------------------------


def sines(a: Mapping[str, Any]) -> tuple[Any, Callable[[], Mapping[str, Any]]]:
    """Sum of sin(x) * y over the last two axes."""
    xp = namespace(a["x"])
    return xp.sum(xp.sin(a["x"]) * a["y"], axis=(-2, -1)), lambda: {
        "x": xp.cos(a["x"]) * a["y"], "y": xp.sin(a["x"]),
    }


@pytest.mark.parametrize(("method", "limit"), [("central", 1e-9), ("complex", 1e-15)])
def test_numerical_gradients_of_a_known_function(device: Device, method: str, limit: float) -> None:
    a = {"x": draw(device, "x", (3, 2)), "y": draw(device, "y", (3, 2))}
    for name, expected in sines(a)[1]().items():
        got = gradcheck.numerical_gradient(sines, a, name, method=method)
        assert Device.of(got) == device
        assert to_numpy(got).dtype == np.float64
        assert difference(got, expected) < limit


@pytest.mark.parametrize("method", ["central", "complex"])
def test_numerical_gradients_do_not_depend_on_the_blocks(device: Device, method: str) -> None:
    a = {"x": draw(device, "x", (3, 2)), "y": draw(device, "y", (3, 2))}
    whole = gradcheck.numerical_gradient(sines, a, "x", method=method)
    for block_bytes in (1, 32 * 6 * 4):
        parts = gradcheck.numerical_gradient(sines, a, "x", method=method, block_bytes=block_bytes)
        assert to_numpy(parts).tolist() == to_numpy(whole).tolist()


def test_the_step_counts() -> None:
    a = {"x": np.full((1, 1), 1.0), "y": np.ones((1, 1))}
    coarse = gradcheck.numerical_gradient(sines, a, "x", h=0.1)
    assert coarse[0, 0] == pytest.approx(math.cos(1.0) * math.sin(0.1) / 0.1, rel=1e-12)
    tiny = gradcheck.numerical_gradient(sines, a, "x", h=1e-14)
    assert abs(tiny[0, 0] - math.cos(1.0)) > 1e-5  # cancellation, which the complex step has not
    assert abs(gradcheck.numerical_gradient(sines, a, "x", method="complex", h=1e-100)[0, 0] - math.cos(1.0)) < 1e-15


def test_arrays_come_back_as_they_were() -> None:
    a = {"x": np.ones((2, 2)), "y": np.ones((2, 2))}
    for x in a.values():
        x.flags.writeable = False
    gradcheck.check(sines, a)
    assert all((x == 1.0).all() for x in a.values())


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 'central' or 'complex', got 'forward'"):
        gradcheck.numerical_gradient(sines, {"x": np.ones((1, 1))}, "x", method="forward")


# Rows and their judgement ---------------------------------------------------------------------------------------


def test_rows_carry_the_three_norms_and_errors() -> None:
    a = {"x": np.asarray([[0.3, 0.4]]), "y": np.asarray([[2.0, 3.0]])}
    row = gradcheck.check(sines, a, ["x"])[0]
    norm = math.hypot(2.0 * math.cos(0.3), 3.0 * math.cos(0.4))
    for name in ("analytical_norm", "numerical_norm", "complex_step_norm"):
        assert row[name] == pytest.approx(norm, rel=1e-9)
    assert row["parameter"] == "x"
    assert 0.0 <= row["error"] <= row["strict_error"] < 1e-9


def test_the_error_compares_norms_and_the_strict_one_the_difference() -> None:
    def rotated(a: Mapping[str, Any]) -> Any:
        value, gradients = sines(a)
        return value, lambda: {"x": -gradients()["x"]}

    row = gradcheck.check(rotated, {"x": np.ones((2, 2)), "y": np.ones((2, 2))}, ["x"])[0]
    assert row["error"] < 1e-9
    assert row["strict_error"] == pytest.approx(1.0) == row["complex_step_error"]
    assert not gradcheck.passes(row)


def test_a_gradient_of_the_wrong_shape_fails() -> None:
    def wrong(a: Mapping[str, Any]) -> Any:
        value, gradients = sines(a)
        return value, lambda: {"x": gradients()["x"][0]}

    row = gradcheck.check(wrong, {"x": np.ones((2, 2)), "y": np.ones((2, 2))})[0]
    assert row["strict_error"] == row["complex_step_error"] == float("inf")
    assert not gradcheck.passes(row)


GOOD = {
    "analytical_norm": 1.0, "numerical_norm": 1.0, "complex_step_norm": 1.0, "error": 1e-9, "strict_error": 1e-8,
    "complex_step_error": 1e-15,
}
ZERO = GOOD | {"analytical_norm": 1e-17, "numerical_norm": 1e-9, "complex_step_norm": 1e-17, "error": 1e-4}


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (GOOD, True),
        (GOOD | {"error": 2e-7}, False),
        (GOOD | {"strict_error": 2e-6}, False),
        (GOOD | {"complex_step_error": 2e-12}, False),
        (GOOD | {"complex_step_error": float("nan")}, False),
        (GOOD | {"analytical_norm": float("nan"), "error": float("nan")}, False),
        (ZERO, True),
        (ZERO | {"numerical_norm": 2e-8}, False),
        (ZERO | {"complex_step_norm": 2e-14}, False),
        ({"analytical_norm": 1.0, "complex_step_error": 1e-15}, True),
    ],
    ids=["good", "error", "strict", "complex", "NaN", "NaN norm", "zero", "zero?", "zero complex?", "one method"],
)
def test_passes_judges_rows(row: dict[str, float], verdict: bool) -> None:
    assert gradcheck.passes(row) is verdict


# Whole networks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [[50], [50, 50, 50]], ids=str)
@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "batch norm"])
def test_the_networks_of_the_report_pass(hidden: list[int], batch_norm: bool) -> None:
    network = mlp(10, hidden, 10, batch_norm=batch_norm)
    rows = gradcheck.check_network(network, samples=20)
    inputs = [f"input of {type(layer).__name__} (layer {i + 2})" for i, layer in enumerate(network.layers[1:])]
    assert [row["parameter"] for row in rows] == [*network.parameters, *inputs]
    assert all(gradcheck.passes(row) for row in rows), rows
    cancelled = {f"b{i + 1}" for i in range(len(hidden))} if batch_norm else set()
    assert {row["parameter"] for row in rows if row["analytical_norm"] < 1e-14} == cancelled


def changed(cls: type[Layer], change: Callable[..., Any], **options: Any) -> Layer:
    """Return a layer of a subclass whose pullback's results go through ``change(layer's arrays, dx, own)``."""

    def forward(self: Layer, x: Any, *arrays: Any, **given: Any) -> Any:
        y, pullback, statistics = cls.forward(self, x, *arrays, **given)

        def wrong(dy: Any) -> Any:
            dx, own = pullback(dy)
            return change(arrays, form(dx), own)

        return y, wrong, statistics

    return type(f"Wrong{cls.__name__}", (cls,), {"forward": forward})(**options)


def named(layer: Layer) -> set[str]:
    """Return the inputs and parameters that fail in a network with this layer in it, third of five."""
    network = Sequential(5, [Linear(4), Tanh(), layer, Tanh(), Linear(3)])
    return {row["parameter"] for row in gradcheck.check_network(network, samples=8) if not gradcheck.passes(row)}


def test_a_factor_that_is_1_at_first_is_not_forgotten() -> None:
    assert not named(BatchNorm())
    forgotten = named(changed(BatchNorm, lambda arrays, dx, own: (dx / arrays[0][..., None, :], own)))
    assert {"W1", "b1", "input of WrongBatchNorm (layer 3)"} <= forgotten


def test_a_wrong_gradient_of_an_input_is_reported_as_its_layers() -> None:
    found = named(changed(Linear, lambda arrays, dx, own: (dx * 1.01, own), out_width=4))
    assert {name for name in found if name.startswith("input")} == {"input of WrongLinear (layer 3)"}
    assert {"W1", "b1"} <= found  # they follow from it
    assert not {"W2", "b2", "W3", "b3"} & found


def test_what_is_written_in_place_is_checked() -> None:
    def change(arrays: Any, dx: Any, own: Any) -> Any:
        def total(out: Any = None) -> Any:
            found = form(own[1], out)
            if out is not None:
                out *= 1.01
            return found

        return dx, (own[0], Deferred(total))

    assert named(changed(Linear, change, out_width=4)) == {"b2"}


def test_gradients_of_several_models_are_checked() -> None:
    def change(arrays: Any, dx: Any, own: Any) -> Any:
        return (dx[::-1] if dx.ndim > 2 else dx), own  # of the other model

    assert named(changed(Linear, change, out_width=4)) == {"W1", "b1"}


def test_a_missing_gradient_is_an_error_that_names_the_layer() -> None:
    layer = changed(Linear, lambda arrays, dx, own: (dx, own[:1]), out_width=4)
    with pytest.raises(ValueError, match=r"WrongLinear \(layer 3\): expected its pullback to return 2 gradients of "
                                         r"parameters, got 1"):
        named(layer)


def test_any_loss_can_be_checked() -> None:
    network = mlp(5, [4], 3)
    for loss in (MeanSquaredError(), SoftmaxCrossEntropy()):
        assert all(map(gradcheck.passes, gradcheck.check_network(network, samples=8, loss=loss)))

    class Doubled(MeanSquaredError):
        def forward(self, outputs: Any, targets: Any) -> Any:
            value, pullback = super().forward(outputs, targets)
            return value, lambda factor=1.0: pullback(2.0 * factor)

    assert not any(map(gradcheck.passes, gradcheck.check_network(network, samples=8, loss=Doubled())[:4]))


@pytest.mark.slow
def test_a_network_that_begins_with_a_kink_is_checked() -> None:
    """Its own input is not perturbed, and so may be as near to 0 as it likes."""
    network = Sequential(4000, [ReLU(), Linear(3), Tanh(), Linear(2)])
    rows = gradcheck.check_network(network, samples=4, methods=["central"])
    assert all(map(gradcheck.passes, rows))


def test_check_network_on_every_backend(device: Device) -> None:
    network = mlp(5, [4, 3], 3, batch_norm=True, dropout=0.2, standardize=True)
    rows = gradcheck.check_network(network, samples=8, l2=0.1, seed=3, device=device)
    assert all(gradcheck.passes(row) for row in rows), rows
    for row in gradcheck.check_network(network, samples=8, device=device, methods=["complex"]):
        assert "error" not in row
        assert gradcheck.passes(row), row


@st.composite
def problems(draw_one: st.DrawFn) -> tuple[Sequential, np.ndarray, np.ndarray, float, int]:
    """Draw a network, a batch and its labels."""
    features, classes = draw_one(st.integers(1, 5)), draw_one(st.integers(2, 4))
    batch_norm = draw_one(st.booleans())
    network = mlp(
        features, draw_one(st.lists(st.integers(1, 5), max_size=3)), classes, batch_norm=batch_norm,
        dropout=draw_one(st.sampled_from([0.0, 0.3])), standardize=draw_one(st.booleans()),
        initializer=draw_one(st.sampled_from([None, Normal(0.5)])),
    )
    n = draw_one(st.one_of(st.sampled_from([1, 2]), st.integers(3, 8)))
    if batch_norm and any(isinstance(layer, BatchNorm) for layer in network.layers):
        n = max(n, 2)
    pattern = draw_one(st.sampled_from(["one class", "without class 0", "any"]))
    label = {"one class": st.just(draw_one(st.integers(0, classes - 1))), "without class 0": st.integers(
        1, classes - 1), "any": st.integers(0, classes - 1)}[pattern]
    labels = np.asarray(draw_one(st.lists(label, min_size=n, max_size=n)))
    x = random.normal(draw_one(st.integers(0, 1000)), "x", (n, features))
    return network, x, labels, draw_one(st.sampled_from([0.0, 0.05])), draw_one(st.integers(0, 1000))


def gradients_and_numbers(problem: Any, device: Device) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Return each parameter's analytical and complex-step gradient."""
    network, x, labels, l2, seed = problem
    arrays = {n: view for part in network.allocate((), device, "float64") for n, view in part.views.items()}
    network.initialize(arrays, seed, device, "float64")
    noise = {n: device.asarray(random.uniform(seed, n, 0, s), "float64")
             for n, s in network.noise_shapes(len(x)).items()}
    f = gradcheck.network_function(
        network, device.asarray(x), device.asarray(np.eye(network.out_features)[labels]), l2=l2, noise=noise
    )
    analytical = f(arrays)[1]()
    for name in network.parameters:
        numbers = gradcheck.numerical_gradient(f, arrays, name, method="complex")
        yield name, to_numpy(analytical[name]), to_numpy(numbers)


@given(problem=problems())
@settings(max_examples=40)
def test_any_network_agrees_with_the_complex_step_and_with_numpy(device: Device, problem: Any) -> None:
    found = {name: (a, n) for name, a, n in gradients_and_numbers(problem, device)}
    golden = {name: a for name, a, _ in gradients_and_numbers(problem, Device())}
    # Batch norm cancels nearly all of some gradients (all, in a batch of two), which are then rounding noise of the
    # others: so all are measured against the largest.
    scale = max(float(np.abs(n).max()) for _, n in found.values())
    for name, (a, n) in found.items():
        assert a.shape == n.shape == golden[name].shape
        assert np.abs(a - n).max() <= 1e-12 * scale, name
        assert np.abs(a - golden[name]).max() <= 1e-12 * scale, name


def test_any_network_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    network = mlp(3, [4], 2, batch_norm=True)
    problem = (network, random.normal(0, "x", (5, 3)), np.asarray([0, 1, 1, 0, 1]), 0.0, 0)
    monkeypatch.setattr(BatchNorm, "forward", with_changed_gradient(BatchNorm, 1, CHANGES["sign"]))
    with pytest.raises(AssertionError, match="gamma1"):
        test_any_network_agrees_with_the_complex_step_and_with_numpy.hypothesis.inner_test(Device(), problem)


def test_softmax_regression_by_hand() -> None:
    network, x = mlp(2, [], 2), np.asarray([[1.0, 2.0], [3.0, -1.0]])
    targets = np.eye(2)
    arrays = {"W1": np.zeros((2, 2)), "b1": np.zeros(2)}
    value, gradients = gradcheck.network_function(network, x, targets, l2=0.5)(arrays)
    assert value == pytest.approx(math.log(2))
    assert gradients()["W1"].tolist() == [[0.5, -0.5], [-0.75, 0.75]]
    assert gradients()["b1"].tolist() == [0.0, 0.0]
    assert isinstance(gradcheck.CASES["SoftmaxCrossEntropy"](Device())[1]["outputs"], np.ndarray)
    assert SoftmaxCrossEntropy.__name__ in LOSSES
