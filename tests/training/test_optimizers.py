"""Optimisers: one table of every optimiser against formulas in plain Python, and against PyTorch's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import assert_close, draw, eps

from xpnet import Trainer, mlp
from xpnet.backend import Device, namespace, real, to_numpy
from xpnet.nn import gradcheck
from xpnet.nn.layers import BatchNorm, Layer, Linear
from xpnet.nn.per_model import bind
from xpnet.nn.sequential import Sequential
from xpnet.training.optimizers import SGD, Adam, AdamW, Segment, apply, cast, clip

SIZE = 5
RATES = [0.1, 0.05, 0.2, 0.1, 0.0, 0.01, 0.1, 0.3]


# The references: one number at a time, in plain Python ---------------------------------------------------------


def sgd(w: float, gradient: Callable[[int, float], float], rates: list[float], l2: float | None, p: Any) -> float:
    velocity = 0.0
    for t, lr in enumerate(rates):
        g = gradient(t, w) + (2.0 * l2 * w if l2 else 0.0)
        velocity = p.momentum * velocity + g
        w = w - lr * (g + p.momentum * velocity if p.nesterov else velocity)
    return w


def adam(w: float, gradient: Callable[[int, float], float], rates: list[float], l2: float | None, p: Any) -> float:
    m = v = 0.0
    for t, lr in enumerate(rates, start=1):
        g = gradient(t - 1, w) + (2.0 * l2 * w if l2 else 0.0)
        w = w - lr * p.weight_decay * w  # AdamW: after the gradient is taken
        m = p.beta1 * m + (1 - p.beta1) * g
        v = p.beta2 * v + (1 - p.beta2) * g * g
        w = w - lr * (m / (1 - p.beta1**t)) / (math.sqrt(v / (1 - p.beta2**t)) + p.eps)
    return w


M = [0.0, 0.5, 0.9]
TABLE: dict[str, tuple[Any, Any, Callable[..., float]]] = {
    # name: (the optimiser, the same with a hyper-parameter per model, the reference)
    "sgd": (SGD(), None, sgd),
    "momentum": (SGD(momentum=0.9), SGD(momentum=M), sgd),
    "nesterov": (SGD(momentum=0.9, nesterov=True), SGD(momentum=M, nesterov=True), sgd),
    "adam": (Adam(), Adam(beta1=[0.5, 0.8, 0.9], beta2=[0.9, 0.99, 0.999]), adam),
    "adam, eps": (Adam(eps=1e-2), None, adam),
    "adamw": (AdamW(), AdamW(beta1=[0.5, 0.8, 0.9], weight_decay=[0.0, 0.1, 0.3]), adam),
}
PENALTIES: dict[str, Any] = {"none": None, "zero": 0.0, "one": 0.05, "per model": [0.0, 0.05, 0.2]}


def pick(optimizer: Any, model: int) -> Any:
    """Return the optimiser of one model."""
    values = {k: v[model] if isinstance(v, list) else v for k, v in vars(optimizer).items()}
    return type(optimizer)(**values)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("rates", ["shared rate", "rate per model"])
@pytest.mark.parametrize("models", ["one model", "models", "hyper-parameters per model"])
@pytest.mark.parametrize("name", TABLE)
def test_several_updates_follow_the_formulas(
    device: Device, name: str, models: str, rates: str, penalty: str, dtype: str
) -> None:
    plain, per_model, reference = TABLE[name]
    several = models != "one model"
    optimizer = per_model if models.startswith("hyper") and per_model else plain
    l2, factors = PENALTIES[penalty], [1.0, 0.5, 2.0] if rates == "rate per model" and several else [1.0] * 3
    if isinstance(l2, list) and not several:
        l2 = l2[1]
    shape = (3, SIZE) if several else (SIZE,)
    w, curvature = draw(device, "w", shape, dtype), draw(device, "c", shape, dtype)
    start, curve = to_numpy(w).astype("float64"), to_numpy(curvature).astype("float64")
    bound = bind(optimizer, device, "float64", axes=1)
    slots = {slot: device.empty(shape, dtype) for slot in bound.slots}
    penalty_here = 2.0 * device.asarray(l2, dtype)[..., None] if isinstance(l2, list) else l2 and 2.0 * l2
    for t, lr in enumerate(RATES):
        g = curvature * w + 0.1 * t  # of the loss curvature w^2 / 2 + t w / 10
        rate = device.asarray([lr * f for f in factors], dtype)[..., None] if rates == "rate per model" else lr
        if not several and rates == "rate per model":
            rate = device.asarray(lr, dtype)
        apply(bound, [Segment(w, g, slots, penalty_here, cast(bound.weight_decay, w))], rate, t)
    got = to_numpy(w)
    assert got.dtype == dtype
    assert Device.of(w) == device
    expected = np.empty(shape)
    for index in np.ndindex(*shape):
        m = index[0] if several else 0
        expected[index] = reference(
            float(start[index]), lambda t, v, c=float(curve[index]): c * v + 0.1 * t,  # type: ignore[misc]
            [lr * factors[m] for lr in RATES], l2[m] if isinstance(l2, list) else l2, pick(optimizer, m),
        )
    assert_close(got, expected, 40 * eps(dtype), name)


def test_slots_are_those_that_are_needed() -> None:
    assert SGD().slots == ()
    assert SGD(0.9).slots == SGD([0.0, 0.9]).slots == SGD(np.asarray([0.0, 0.9])).slots == ("velocity",)
    assert Adam().slots == AdamW().slots == ("m", "v")


def test_defaults_are_the_fields_usual_ones() -> None:
    assert SGD() == SGD(momentum=0.0, nesterov=False)
    assert Adam() == Adam(beta1=0.9, beta2=0.999, eps=1e-8)
    assert AdamW().weight_decay == 1e-2


def test_a_rate_of_zero_changes_nothing(device: Device) -> None:
    for optimizer, _, _ in TABLE.values():
        w = draw(device, "w", (SIZE,))
        before = to_numpy(w).copy()
        slots = {slot: device.empty((SIZE,), "float64") for slot in optimizer.slots}
        apply(optimizer, [Segment(w, draw(device, "g", (SIZE,)), slots, 0.2, optimizer.weight_decay)], 0.0, 0)
        assert to_numpy(w).tolist() == before.tolist()


def test_the_decay_spares_what_has_no_penalty(device: Device) -> None:
    """Weight matrices decay and pay the penalty; biases, gamma and beta do neither."""
    network = mlp(4, [3], 2, batch_norm=True)
    trainer = Trainer(network, optimizer=AdamW(weight_decay=0.5), l2=0.1)
    trainer.start(device)
    learner = trainer.learner
    for name, w in learner.parameters.views.items():
        w[...] = 1.0
        learner.gradients.views[name][...] = 0.0
    learner.apply(0.1, 0)
    for name, w in learner.parameters.views.items():
        # Adam's first step is the rate, in the direction of the penalty's gradient.
        expected = 0.95 - 0.1 if name in network.weights else 1.0
        assert_close(w, np.full(w.shape, expected), 1e-6, name)


# Clipping ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("models", [0, 3])
def test_clipping_bounds_the_norm_over_all_parameters(device: Device, models: int, dtype: str) -> None:
    shapes = [(4, models, 2), (models, SIZE)] if models else [(8,), (SIZE,)]
    gradients = [draw(device, f"g{i}", shape, dtype) for i, shape in enumerate(shapes)]
    before = [to_numpy(g).astype("float64") for g in gradients]
    squares = [np.sum(b * b, axis=(-1, 0) if b.ndim == 3 else -1) for b in before]
    norms = np.sqrt(squares[0] + squares[1])
    limits = norms * ([0.5, 1.0, 2.0] if models else 0.5)
    limit = device.asarray(limits.tolist(), "float64")[..., None] if models else float(limits)
    clip(gradients, limit, int(models > 0))
    factors = np.minimum(1.0, limits / norms)[..., None]
    for g, b in zip(gradients, before, strict=True):
        assert_close(g, b * factors, 4 * eps(dtype))


def test_clipping_of_large_numbers_does_not_overflow(device: Device) -> None:
    g = device.asarray([3e30, 4e30], "float32")
    clip([g], 5.0, 0)
    assert_close(g, np.asarray([3.0, 4.0]), 1e-6)


def test_clipping_leaves_what_is_not_finite(device: Device) -> None:
    g = device.asarray([1.0, math.nan], "float32")
    clip([g], 0.1, 0)
    assert np.isnan(to_numpy(g)[1])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_trainer_clips_the_gradient_of_the_cost(device: Device, momentum: float) -> None:
    """Also where plain descent is otherwise part of the product, and for each model on its own."""
    x, y = draw(device, "x", (20, 300)), device.asarray(np.arange(20) % 60, "int64")
    moved = {}
    for limit in (None, 1e-3, 1e9):
        trainer = Trainer(mlp(300, [], 60), optimizer=SGD(momentum), schedule=1.0, l2=[0.0, 0.1], dtype="float64",
                          batch_size=20, clip_norm=limit)
        trainer.start(device)
        start = {name: to_numpy(a).copy() for name, a in trainer.arrays.items()}
        trainer.fit(x, y, steps=1)
        changes = [to_numpy(a) - start[name] for name, a in trainer.arrays.items()]
        moved[limit] = np.sqrt(sum(np.sum(c.reshape(2, -1) ** 2, axis=1) for c in changes))
    assert_close(moved[1e-3], np.full(2, 1e-3), 1e-9)
    assert (moved[None] > 1e-2).all()
    assert_close(moved[1e9], moved[None], 1e-9)


# In training ----------------------------------------------------------------------------------------------------


def test_hyper_parameters_per_model_are_as_exact_as_shared_ones(device: Device) -> None:
    """1 - beta2 of a float32 array would be off by 1e-5 of itself."""
    x, y = draw(device, "x", (20, 4), "float32"), device.asarray(np.arange(20) % 3, "int64")
    options: dict[str, Any] = {"schedule": 0.01, "batch_size": 10, "seed": [0, 0]}
    shared = Trainer(mlp(4, [3], 3), optimizer=Adam(beta2=0.999), **options)
    apart = Trainer(mlp(4, [3], 3), optimizer=Adam(beta2=[0.999, 0.9999]), **options)
    for trainer in (shared, apart):
        trainer.fit(x, y, steps=3)
    for name in ("W1", "v.W1"):
        assert_close(to_numpy(apart.state()[name])[0], to_numpy(shared.state()[name])[0], 1e-6, name)


class PReLU(Layer):
    """A layer with a vector that has a penalty."""

    parameters = ("a",)
    weights = ("a",)

    def shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        return {"a": (features,)}

    def initial(self, name: str) -> Any:
        return 0.25

    def forward(self, x: Any, *arrays: Any, train: bool = False, noise: Any = None) -> Any:
        xp, slope = namespace(x), arrays[0][..., None, :]
        positive = xp.astype(real(x) > 0, x.dtype)
        factor = positive + (1.0 - positive) * slope

        def pullback(dy: Any) -> Any:
            return dy * factor, (xp.sum(dy * x * (1.0 - positive), axis=-2),)

        return x * factor, pullback, ()


@pytest.mark.parametrize("layers", [[Linear(6), PReLU(), Linear(3)], [PReLU(), Linear(3)], [BatchNorm()]],
                         ids=["in the middle", "first", "no weights"])
def test_weights_of_any_shape_take_the_penalty(device: Device, layers: list[Layer]) -> None:
    network = Sequential(3, layers)
    assert all(map(gradcheck.passes, gradcheck.check_network(network, l2=0.1, device=device)))
    x, y = draw(device, "x", (30, 3)), device.asarray(np.arange(30) % 3, "int64")
    options: dict[str, Any] = {"dtype": "float64", "batch_size": 10, "order_seed": 0}
    several = Trainer(network, l2=[0.0, 0.1, 0.2], seed=[1, 2, 3], **options)
    several.fit(x, y, steps=4)
    for m in range(3):
        solo = Trainer(network, l2=0.1 * m, seed=m + 1, **options)
        solo.fit(x, y, steps=4)
        for name, array in solo.arrays.items():
            assert_close(to_numpy(several.arrays[name])[m], array, 1e-12, name)
        found = solo.evaluate(x, y)
        penalty = sum(0.1 * m * (to_numpy(solo.arrays[name]) ** 2).sum() for name in network.weights)
        assert_close(found["cost"] - found["loss"], penalty, 1e-12)
        assert_close(several.evaluate(x, y)["cost"][m], found["cost"], 1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_first_batch_sets_the_running_statistics(device: Device, dtype: str) -> None:
    """Also a variance that is small beside the initial 1."""
    x, y = draw(device, "x", (20, 4), dtype) * 1e-4, device.asarray(np.arange(20) % 3, "int64")
    trainer = Trainer(Sequential(4, [BatchNorm(), Linear(3)]), dtype=dtype, batch_size=20)
    trainer.fit(x, y, steps=1)
    assert_close(trainer.arrays["var1"], to_numpy(x).astype("float64").var(axis=0), 8 * eps(dtype))
    assert_close(trainer.arrays["mean1"], to_numpy(x).astype("float64").mean(axis=0), 64 * eps(dtype))


# PyTorch's own ------------------------------------------------------------------------------------------------


@pytest.mark.backends("torch")
@pytest.mark.parametrize("l2", [0.0, 0.05])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (SGD(), ("SGD", {})),
        (SGD(0.9), ("SGD", {"momentum": 0.9})),
        (SGD(0.9, nesterov=True), ("SGD", {"momentum": 0.9, "nesterov": True})),
        (Adam(), ("Adam", {})),
        (Adam(0.8, 0.99, 1e-3), ("Adam", {"betas": (0.8, 0.99), "eps": 1e-3})),
        (AdamW(weight_decay=0.1), ("AdamW", {"weight_decay": 0.1})),
    ],
    ids=["sgd", "momentum", "nesterov", "adam", "adam options", "adamw"],
)
def test_updates_are_those_of_torch_optim(device: Device, ours: Any, theirs: Any, l2: float) -> None:
    import torch

    name, options = theirs
    if name != "AdamW":
        options = {**options, "weight_decay": 2.0 * l2}  # theirs adds weight_decay * w to the gradient
    w = draw(device, "w", (SIZE,))
    parameter = torch.nn.Parameter(w.clone())
    optimizer = getattr(torch.optim, name)([parameter], lr=1.0, **options)
    slots = {slot: device.empty((SIZE,), "float64") for slot in ours.slots}
    for t, lr in enumerate(RATES):
        for group in optimizer.param_groups:
            group["lr"] = lr
        parameter.grad = torch.sin(parameter.detach() * 3.0) + t
        if name == "AdamW":  # theirs has the decay only: the penalty is part of the loss
            parameter.grad += 2.0 * l2 * parameter.detach()
        optimizer.step()
        apply(ours, [Segment(w, torch.sin(w * 3.0) + t, slots, 2.0 * l2, ours.weight_decay)], lr, t)
        assert_close(w, parameter, 1e-12, f"after update {t}")
