"""Divergence: when it is noticed, which layer is named, what is kept, and going on with half the rate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from helpers import assert_same, blobs, draw

from xpnet import SGD, Adam, Constant, DivergenceError, Linear, ReLU, Sequential, Standardize, Trainer, mlp
from xpnet.backend import Array, Device, OutOfMemoryError, to_numpy
from xpnet.datasets.admission import check_finite
from xpnet.nn.layers import Layer
from xpnet.training.divergence import (
    POLICIES,
    DivergencePolicy,
    DivergenceWarning,
    NotFiniteError,
    finite_flags,
)
from xpnet.training.state import RunState

PLAIN = mlp(6, [8, 5], 3)


class Poison(Layer):
    """Passes its input on until update ``at``, where its output, or its gradient, is not finite in one model."""

    def __init__(self, at: int, where: str, model: int | None = None) -> None:
        self.at, self.where, self.model, self.calls = at, where, model, 0

    def _spoil(self, a: Array, word: str) -> Array:
        # The trainer's count tells an update from its repetition; a layer must not know it, so it looks it up here.
        if self.where != word or Poison.trainer.step < self.at:
            return a
        a = a * 1.0
        a[(self.model, 0, 0) if self.model is not None else (0, 0)] = math.nan
        return a

    def forward(self, x: Array, *arrays: Array, train: bool = False, noise: Array | None = None) -> Any:
        """Spoil the outputs in training."""
        def pullback(dy: Array) -> Any:
            return self._spoil(dy, "gradient"), ()

        return (self._spoil(x, "outputs") if train else x), pullback, ()

    trainer: Any = None


def poisoned(at: int, where: str, place: int, **options: Any) -> Trainer:
    """Return a trainer of three Linear layers, with a layer that spoils things at ``place``."""
    layers: list[Layer] = [Linear(8), ReLU(), Linear(5), ReLU(), Linear(3)]
    layers.insert(place, Poison(at, where, 1 if "seed" in options else None))
    trainer = Poison.trainer = Trainer(Sequential(6, layers), schedule=0.01, batch_size=16, **options)
    return trainer


@pytest.mark.backends("numpy", "torch", "cupy")
@pytest.mark.parametrize(("where", "place", "words"), [
    ("outputs", 1, "the outputs of layer 2, Poison, at update 7"),
    ("outputs", 3, "the outputs of layer 4, Poison, at update 7"),
    ("gradient", 5, r"the gradient of W3, of Linear, at update 7"),
    ("gradient", 3, r"the gradient of W2, of Linear, at update 7"),
], ids=["first", "middle", "gradient behind", "gradient before"])
@pytest.mark.parametrize("models", [False, True], ids=["one", "several"])
def test_the_first_layer_affected_is_named(
    device: Device, where: str, place: int, words: str, models: bool
) -> None:
    x, y = blobs(device, 64)
    trainer = poisoned(7, where, place, **({"seed": [1, 2, 3]} if models else {}))
    with pytest.raises(DivergenceError, match=words) as caught:
        trainer.fit(x, y, steps=40, evaluate_every=10)
    text = str(caught.value)
    assert f"the loss of {'model 1' if models else 'the network'} was nan at update {7 + (where == 'gradient')}" in text
    assert "(learning rate 0.01)" in text
    assert "lower the rate or the initial weights" in text
    assert "as it was at update 0" in text
    assert f"divergence='{'freeze' if models else 'halve'}'" in text


def test_the_trainer_is_left_as_it_was_when_last_evaluated(device: Device) -> None:
    x, y = blobs(device, 64)
    good, trainer = poisoned(100, "outputs", 3), poisoned(17, "outputs", 3)
    Poison.trainer = good
    good.fit(x, y, steps=10, evaluate_every=10)
    Poison.trainer = trainer
    with pytest.raises(DivergenceError, match=r"at update 17.*as it was at update 10"):
        trainer.fit(x, y, steps=40, evaluate_every=10)
    assert trainer.step == 10
    assert_same({k: to_numpy(v) for k, v in trainer.state().items()}, {k: to_numpy(v) for k, v in good.state().items()})


@pytest.mark.parametrize("optimizer", [SGD(), SGD(0.9, True), Adam()], ids=["sgd", "nesterov", "adam"])
def test_too_high_a_rate_names_the_first_update_that_overflowed(device: Device, optimizer: Any) -> None:
    x, y = blobs(device, 64)
    trainer = Trainer(PLAIN, optimizer=optimizer, schedule=1e25, batch_size=16)
    with pytest.raises(DivergenceError, match=r"not finite first: the (outputs|gradient|new value) of .* at update"):
        trainer.fit(x, y, steps=40, evaluate_every=10)
    assert all(np.isfinite(to_numpy(a)).all() for a in trainer.state().values())


def test_a_weight_of_minus_infinity_behind_a_relu_is_found(device: Device) -> None:
    """It makes zeros of a unit's outputs: the loss stays finite, and tells nothing."""
    x, y = blobs(device, 64)
    trainer = Trainer(PLAIN, schedule=0.0, batch_size=16)
    trainer.fit(x, y, steps=2, evaluate_every=2)
    trainer.arrays["b1"][0] = -math.inf
    assert math.isfinite(trainer.evaluate(x, y)["loss"])
    with pytest.raises(DivergenceError, match="the parameters of the network were not finite at update 4"):
        trainer.fit(x, y, steps=4, evaluate_every=2)


# Half the rate ------------------------------------------------------------------------------------------------------


def test_halving_goes_back_and_on_with_half_the_rate(device: Device) -> None:
    x, y = blobs(device, 64)

    def rate(step: int) -> float:
        return 1e30 if step == 7 else 0.01

    trainer = Trainer(PLAIN, schedule=rate, batch_size=16, divergence="halve")
    # Half of 1e30 is too much as well.
    with pytest.warns(DivergenceWarning, match="going back to update 5, and on with half the rate") as told, \
            pytest.raises(DivergenceError, match=r"at update 8.*: the rate was halved 10 times"):
        trainer.fit(x, y, steps=20, evaluate_every=5)
    assert len(told) == 10 == len(trainer.halvings)
    assert trainer.step == 5
    assert len(trainer.history) == 2

    def once(step: int) -> float:
        return 1e30 if step == 7 and not trainer.halvings else 0.01

    trainer = Trainer(PLAIN, schedule=once, batch_size=16, divergence="halve")
    with pytest.warns(DivergenceWarning):
        history = trainer.fit(x, y, steps=20, evaluate_every=5)
    assert trainer.step == 20 == len(history.batch_loss)
    assert history["step"].tolist() == [0, 5, 10, 15, 20]
    assert history["lr"].tolist() == [0.01, 0.01, 0.005, 0.005, 0.005]
    assert not trainer.diverged
    assert np.isfinite(history.batch_loss).all()
    assert len(trainer.halvings) == 1

    def by_hand(step: int) -> float:
        return 0.01 if step < 5 else 0.005

    expected = Trainer(PLAIN, schedule=by_hand, batch_size=16)
    expected.fit(x, y, steps=20, evaluate_every=5)
    assert_same(history.batch_loss, expected.history.batch_loss)
    assert_same(trainer.arrays["W1"], expected.arrays["W1"])


def test_halving_is_for_one_network() -> None:
    with pytest.raises(ValueError, match="for one network; several have 'freeze'"):
        Trainer(PLAIN, seed=[1, 2], divergence="halve")


def test_frozen_models_are_found_at_the_same_update_whether_or_not_the_run_was_stopped(device: Device) -> None:
    x, y = blobs(device, 64)
    rates = Constant(np.asarray([0.01, 1e20, 0.02]))
    whole = Trainer(PLAIN, schedule=rates, batch_size=16, divergence="freeze")
    whole.fit(x, y, steps=30, evaluate_every=10)
    parts = Trainer(PLAIN, schedule=rates, batch_size=16, divergence="freeze")
    update = parts.update

    def ignore_overflow(*arguments: Any) -> Any:
        if parts.step in (5, 6, 12):
            parts.stop()
        return update(*arguments)

    parts.update = ignore_overflow  # type: ignore[method-assign]
    stops = []
    while parts.step < 30:
        parts.fit(x, y, steps=30, evaluate_every=10)
        stops.append(parts.step)
    assert stops == [6, 7, 13, 30]
    assert set(whole.diverged) == {1}
    assert parts.diverged == whole.diverged
    assert parts.causes == whole.causes
    assert_same(parts.history.rows, whole.history.rows)
    assert_same(parts.history.batch_loss, whole.history.batch_loss)
    assert_same(dict(parts.arrays), dict(whole.arrays))


# The policies by themselves -----------------------------------------------------------------------------------------

NETWORK = Sequential(2, [Standardize(), Linear(3)])


def state_of(device: Device, models: tuple[int, ...]) -> RunState:
    """Return a state of two updates, with a slot and an array that the models share."""
    shapes = {"W1": (*models, 2, 3), "velocity.W1": (*models, 2, 3), "offset1": (2,)}
    run = RunState(2, {name: draw(device, name, shape, "float32") for name, shape in shapes.items()})
    run.history.batch_loss = [1.0, 1.0]
    return run


def policy_of(name: str, models: tuple[int, ...]) -> tuple[DivergencePolicy, list[tuple[int, int]]]:
    """Return a policy, and the list of what it has located; the rate is 0.1 for every model."""
    located: list[tuple[int, int]] = []

    def locate(until: int, model: int) -> str:
        located.append((until, model))
        return f"something at update {until}"

    return POLICIES[name](models, lambda step: np.full(models, 0.1), locate), located


@pytest.mark.parametrize("models", [(), (3,)], ids=["one", "several"])
@pytest.mark.parametrize("name", POLICIES)
def test_finite_values_change_nothing(device: Device, name: str, models: tuple[int, ...]) -> None:
    run, (policy, located) = state_of(device, models), policy_of(name, models)
    before = run.detached(device)
    assert policy.handle_non_finite(run, np.ones((2, *models), "float32"), 0) is False
    assert (run.diverged, run.causes, run.halvings, located) == ({}, {}, [], [])
    policy.remember_finite(run, NETWORK)
    assert run.finite_step == 2
    for arrays in (run.arrays, run.finite_arrays):
        assert_same({k: to_numpy(a) for k, a in arrays.items()}, {k: to_numpy(a) for k, a in before.arrays.items()})
    run.arrays["W1"] += 1.0
    assert_same(to_numpy(run.finite_arrays["W1"]), to_numpy(before.arrays["W1"]))


def test_raising_names_the_model_that_diverged_first(device: Device) -> None:
    run, (policy, located) = state_of(device, (3,)), policy_of("raise", (3,))
    losses = np.ones((4, 3), "float32")
    losses[3, 0] = losses[1:, 2] = math.nan
    with pytest.raises(DivergenceError, match=r"^the loss of model 2 was nan at update 11 \(.* 0.1\); lower"):
        policy.handle_non_finite(run, losses, 10)
    assert located == []  # there is no finite state to begin from
    assert run.diverged == {0: 13, 2: 11}
    policy.remember_finite(run, NETWORK)
    with pytest.raises(DivergenceError, match=r"not finite first: something at update 11; .* divergence='freeze'"):
        policy.handle_non_finite(run, losses, 10)
    assert located == [(11, 2)]


def test_freezing_puts_back_what_diverged_and_leaves_the_others(device: Device) -> None:
    run, (policy, located) = state_of(device, (3,)), policy_of("freeze", (3,))
    policy.remember_finite(run, NETWORK)
    before = {name: to_numpy(a).copy() for name, a in run.arrays.items()}
    run.step = 4
    for array in run.arrays.values():
        array += 1.0
    assert policy.handle_non_finite(run, np.asarray([1.0, math.inf, 1.0]), 4) is False
    assert policy.handle_non_finite(run, np.asarray([1.0, math.nan, 1.0]), 5, "parameters") is False
    assert (run.diverged, located) == ({1: 4}, [])
    assert run.causes == {1: "the loss of model 1 was inf at update 4 (learning rate 0.1)"}
    policy.remember_finite(run, NETWORK)
    assert run.finite_step == 4
    for arrays in (run.arrays, run.finite_arrays):
        for name, array in arrays.items():
            expected = before[name] + np.float32(1.0)
            if name != "offset1":
                expected[1] = before[name][1]
            assert_same(to_numpy(array), expected)


def test_halving_forgets_the_updates_since_the_last_finite_state(device: Device) -> None:
    run, (policy, located) = state_of(device, ()), policy_of("halve", ())
    policy.remember_finite(run, NETWORK)
    run.halvings = ["?"] * 9
    run.step, run.unchecked, run.history.batch_loss = 5, 3, [1.0, 1.0, 1.0, math.nan, math.nan]
    policy._locate = lambda until, model: run.go_back() or "W1"  # type: ignore[func-returns-value]
    with pytest.warns(DivergenceWarning, match="the loss of the network was nan at update 3 .*: W1; going back to "
                                               "update 2"):
        assert policy.handle_non_finite(run, np.asarray(run.history.batch_loss[2:]), 2) is True
    assert (run.step, run.unchecked, run.history.batch_loss) == (2, 0, [1.0, 1.0])
    assert (run.diverged, run.causes, len(run.halvings), located) == ({}, {}, 10, [])
    with pytest.raises(DivergenceError, match=r"look at the data: the rate was halved 10 times; .* at update 2$"):
        policy.handle_non_finite(run, np.asarray([math.nan]), 3)
    assert run.diverged == {0: 3}


def test_flags_are_nan_for_models_with_an_array_that_is_not_finite(device: Device) -> None:
    arrays = state_of(device, (3,)).arrays
    del arrays["velocity.W1"]
    assert_same(to_numpy(finite_flags(arrays, NETWORK)), np.zeros(3, "float32"))
    arrays["W1"][2, 1, 0] = -math.inf
    with device.ignore_overflow():
        assert np.isnan(to_numpy(finite_flags(arrays, NETWORK))).tolist() == [False, False, True]
        assert np.isnan(to_numpy(finite_flags({"offset1": arrays["offset1"] / 0.0}, NETWORK)))


def test_the_warning_is_about_the_line_that_trains() -> None:
    trainer = Trainer(PLAIN, batch_size=16, divergence="halve",
                      schedule=lambda step: 1e30 if step == 7 and not trainer.halvings else 0.01)
    with pytest.warns(DivergenceWarning) as told:
        trainer.fit(*blobs(Device(), 64), steps=20, evaluate_every=5)
    assert [warning.filename for warning in told] == [__file__]


# Data and memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_number_that_is_not_finite_is_named(device: Device, value: float) -> None:
    raw = np.zeros((12_345, 3), "float32")
    raw[11_111, 2] = raw[12_000, 0] = value
    with pytest.raises(NotFiniteError, match=f"some features: .* got {value} in example 11111, feature 2; check the"):
        check_finite(device.asarray(raw), "some features")
    with pytest.raises(ValueError, match=r"labels: .* in example 1; check the labels"):
        check_finite(device.asarray([0.0, value]), "labels")
    assert issubclass(NotFiniteError, ArithmeticError)
    raw[11_111, 2] = raw[12_000, 0] = np.finfo("float32").max  # their sum would not be finite
    check_finite(device.asarray(raw), "features")
    check_finite(device.asarray([1, 2]), "features")
    check_finite(device.asarray(raw[:0]), "features")


def test_a_network_that_does_not_fit_is_refused_before_memory_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = blobs(Device(), 20)
    trainer = Trainer(mlp(6, [10**6, 10**6], 3), batch_size=16)
    with pytest.raises(OutOfMemoryError, match=r"needs 12 TB on cpu \(3 copies of 1,000,\d{3},\d{3},\d{3} float32 "
                       r"numbers\), [\d.]+ [A-Z]B are free: lower the widths"):
        trainer.fit(x, y, steps=1)
    monkeypatch.setattr(Device, "free_memory", lambda self: 1000)
    with pytest.raises(MemoryError, match=r"needs [\d.]+ kB on cpu .*, 1 kB are free"):
        Trainer(PLAIN, batch_size=16).fit(x, y, steps=1)
    monkeypatch.setattr(Device, "free_memory", lambda self: None)
    assert Trainer(PLAIN, batch_size=16).fit(x, y, steps=1)


def test_moments_that_overflow_are_noticed(device: Device) -> None:
    """Adam's square of a large gradient is infinite, and the parameter would not move any more."""
    x, y = blobs(device, 40, dtype="float32")
    trainer = Trainer(Sequential(6, [Linear(3)]), optimizer=Adam(), schedule=1e-3, batch_size=40)
    with pytest.raises(DivergenceError, match=r"the (gradient|optimizer's v) of W1, of Linear, at update 0"):
        trainer.fit(x * 1e22, y, steps=3, evaluate_every=1)
