"""What a layer declares reaches training, whatever the layer's class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from xpnet import Adam, BatchNorm, Dropout, Layer, Linear, ReLU, Sequential, Standardize, Trainer, mlp, sweep
from xpnet.backend import Array

RNG = np.random.default_rng(0)
X, Y = RNG.normal(3.0, 2.0, size=(14, 4)), RNG.integers(2, size=14)


@dataclass(frozen=True)
class Centre(Layer):
    """Subtract the batch's mean, or the running one in prediction."""

    momentum: float = 0.5
    statistics: ClassVar[tuple[str, ...]] = ("level",)
    least_batch: ClassVar[int] = 3
    cancels_bias: ClassVar[bool] = True

    def shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        return {"level": (features,)}

    def forward(self, x: Array, *arrays: Array, train: bool = False, noise: Array | None = None) -> Any:
        level = x.mean(axis=-2, keepdims=True) if train else arrays[0][..., None, :]

        def pullback(dy: Array) -> Any:
            return dy - dy.mean(axis=-2, keepdims=True), ()

        return x - level, pullback, (level[..., 0, :],) if train else ()


def make(seed: int = 0, layer: Layer | None = None, **options: Any) -> Trainer:
    network = Sequential(4, [Linear(3), layer or Centre(), Linear(2)])
    return Trainer(network, seed=seed, order_seed=0, **{"schedule": 0.1, "dtype": "float64", **options})


def test_the_smallest_batch_is_the_layers() -> None:
    layers = Linear(1), BatchNorm(), ReLU(), Dropout(), Standardize()
    assert [layer.least_batch for layer in layers] == [1, 2, 1, 1, 1]
    assert mlp(4, [3], 2).least_batch == 1
    assert mlp(4, [3], 2, batch_norm=True).least_batch == 2
    with pytest.raises(ValueError, match="batch_size of at least 3, since Centre cannot train on 2"):
        make(batch_size=2)


@pytest.mark.parametrize(("size", "updates"), [(4, 3), (11, 2), (5, 3)])  # of 14 examples: a rest of 2, 3, 4
def test_a_last_batch_below_the_smallest_is_left_out_alone_and_in_a_sweep(size: int, updates: int) -> None:
    trainer = make(batch_size=size)
    trainer.fit(X, Y, epochs=1)
    assert trainer.step == updates
    found = sweep(lambda seed: make(seed, batch_size=size), {"seed": [0, 1]}, X, Y, epochs=1)
    assert [history["step"][-1] for history in found.histories] == [updates, updates]


def test_running_statistics_follow_the_batches_with_the_layers_own_momentum() -> None:
    trainer = make(batch_size=14, layer=Centre(0.25), schedule=0.0)
    trainer.fit(X, Y, steps=1)
    level = (X @ trainer.arrays["W1"]).mean(axis=0)
    np.testing.assert_allclose(trainer.arrays["level1"], level, rtol=1e-12)
    trainer.arrays["level1"][...] = 0.0
    trainer.fit(X, Y, steps=2)
    np.testing.assert_allclose(trainer.arrays["level1"], 0.75 * level, rtol=1e-12)


@pytest.mark.parametrize(("layer", "cancels"), [(Centre(), True), (BatchNorm(), True), (ReLU(), False)], ids=repr)
def test_a_bias_in_front_of_a_layer_that_cancels_it_stays_as_it_is(layer: Layer, cancels: bool) -> None:
    trainer = make(layer=layer, optimizer=Adam())
    trainer.fit(X, Y, steps=20)
    assert (trainer.arrays["b1"] == 0.0).all() == cancels
    assert (trainer.arrays["b2"] != 0.0).all()
