"""Summaries: the numbers of a network counted by hand, and its activations measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from helpers import blobs, draw

from xpnet import BatchNorm, Dropout, Layer, Linear, Network, Normal, ReLU, Sequential, Trainer, mlp
from xpnet.backend import Device, to_numpy
from xpnet.nn.summary import activation_statistics, layers, summary


class Square(Layer):
    """A layer that does not say how many operations it takes."""

    def forward(self, x: Any, *arrays: Any, train: bool = False, noise: Any = None) -> Any:
        """Return x squared."""
        return x * x, None, ()


@dataclass(frozen=True)
class Wide(Linear):
    """A layer of one's own that inherits forward, and so the count of its operations."""


def test_rows_hold_what_can_be_counted_by_hand() -> None:
    rows = layers(mlp(6, [4], 3, batch_norm=True, dropout=0.5, standardize=True))
    assert [(row["layer"], row["type"], row["output_shape"], row["parameters"], row["statistics"], row["flops"])
            for row in rows] == [
        (1, "Standardize", [None, 6], 0, 12, 12),
        (2, "Linear", [None, 4], 28, 0, 48),
        (3, "BatchNorm", [None, 4], 8, 8, 12),
        (4, "ReLU", [None, 4], 0, 0, 4),
        (5, "Dropout", [None, 4], 0, 0, 0),
        (6, "Linear", [None, 3], 15, 0, 24),
    ]
    assert rows[1]["arrays"] == {"W1": [6, 4], "b1": [4]}
    assert rows[5]["arrays"] == {"W2": [4, 3], "b2": [3]}


def test_operations_are_those_of_the_product(device: Device) -> None:
    # k products and k - 1 sums for each of m outputs, and m additions of the bias
    k, m = 7, 5
    assert layers(Sequential(k, [Linear(m)]))[0]["flops"] == m * (k + (k - 1) + 1)


def test_an_unknown_layer_is_not_counted_and_the_total_says_so() -> None:
    network = Sequential(6, [Linear(4), Square(), Wide(3)])
    assert [row["flops"] for row in layers(network)] == [48, None, 24]
    assert [row["parameters"] for row in layers(network)] == [28, 0, 15]
    assert "at least 72" in summary(network)
    assert "at least" not in summary(mlp(6, [4], 3))


def test_the_text_has_a_line_for_each_layer_and_the_totals(device: Device) -> None:
    trainer = Trainer(mlp(3072, [50, 50], 10, batch_norm=True))
    lines = summary(trainer.architecture).split("\n")
    assert len(lines) == 1 + 1 + 7 + 1 + 1
    assert lines[0].split() == ["layer", "output", "parameters", "statistics", "FLOPs", "per", "example", "arrays"]
    assert lines[2].split() == ["1", "Linear", "(n,", "50)", "153,650", "0", "307,200", "W1", "(3072,", "50),",
                                "b1", "(50,)"]
    assert lines[-1].split() == ["total", "156,910", "200", "313,600"]
    assert max(map(len, lines)) == len(lines[1])


def test_a_network_says_how_many_models_it_is_and_where(device: Device) -> None:
    x, y = blobs(device, 32)
    for seeds, many in ((0, ""), ([0, 1, 2], "3 models of this kind: ")):
        trainer = Trainer(mlp(6, [4], 3), batch_size=16, seed=seeds, dtype="float64")  # type: ignore[arg-type]
        trainer.fit(x, y, steps=1)
        size = 8 * 43 * (3 if many else 1)
        text = trainer.network.summary()
        assert text == f"{summary(trainer.architecture)}\n{many}{size:,} bytes of float64 on {device.name}"


def test_activations_are_those_of_the_forward_pass(device: Device) -> None:
    x, y = blobs(device, 40, dtype="float64")
    trainer = Trainer(mlp(6, [5, 4], 3, batch_norm=True, standardize=True, dropout=0.3), batch_size=16, dtype="float64")
    trainer.fit(x, y, steps=5)
    rows = activation_statistics(trainer.network, x)
    assert [row["type"] for row in rows] == [type(layer).__name__ for layer in trainer.architecture.layers]
    outputs = to_numpy(trainer.network(x))
    assert rows[-1]["mean_abs"] == pytest.approx(float(np.abs(outputs).mean()))
    assert rows[-1]["zeros"] == 0.0
    a, h = {n: to_numpy(v) for n, v in trainer.arrays.items()}, to_numpy(x)
    z = (h - a["offset1"]) * a["scale1"] @ a["W1"] + a["b1"]
    h = np.maximum((z - a["mean1"]) / np.sqrt(a["var1"] + 1e-5) * a["gamma1"] + a["beta1"], 0)
    assert rows[3]["type"] == "ReLU"
    assert rows[3]["mean_abs"] == pytest.approx(float(h.mean()))
    assert rows[3]["zeros"] == pytest.approx(float((h == 0).mean()))
    assert rows[4] == {**rows[3], "layer": 5, "type": "Dropout"}  # left out
    train = activation_statistics(trainer.network, x, train=True)
    assert train[2]["mean_abs"] != rows[2]["mean_abs"]
    assert activation_statistics(trainer.network, x, train=True) == train


def test_activations_of_several_models_are_lists(device: Device) -> None:
    x, y = blobs(device, 40)
    trainer = Trainer(mlp(6, [5], 3), batch_size=16, seed=[1, 2])
    trainer.fit(x, y, steps=2)
    rows = activation_statistics(trainer.network, x)
    for m in range(2):
        one = activation_statistics(trainer.network.member(m), x)
        for row, alone in zip(rows, one, strict=True):
            assert row["mean_abs"][m] == pytest.approx(alone["mean_abs"], rel=1e-5)
            assert row["zeros"][m] == pytest.approx(alone["zeros"])


def test_small_weights_die_without_batch_norm_only(device: Device) -> None:
    """What the picture shows: the output shrinks by sigma a layer, unless batch norm undoes it."""
    x = draw(device, "x", (200, 30))
    size = {}
    for batch_norm in (False, True):
        for sigma in (0.1, 1e-4):
            trainer = Trainer(mlp(30, [20] * 4, 5, batch_norm=batch_norm, initializer=Normal(sigma)), dtype="float64")
            trainer.start(device)
            rows = activation_statistics(trainer.network, x, train=True)
            size[batch_norm, sigma] = [row["mean_abs"] for row in rows if row["type"] == "ReLU"]
    ratio = np.array(size[False, 1e-4]) / size[False, 0.1]
    assert np.allclose(ratio, [1e-3, 1e-6, 1e-9, 1e-12])  # homogeneous in each layer's weights
    assert size[True, 1e-4][-1] > 1e8 * size[False, 1e-4][-1]
    assert size[True, 0.1][-1] > 0.2


def test_bytes_are_read_as_the_network_reads_them(device: Device) -> None:
    pixels = device.asarray(np.arange(60).reshape(10, 6), "uint8")
    y = device.asarray(np.arange(10) % 3, "int64")
    for standardize in (False, True):
        trainer = Trainer(mlp(6, [4], 3, standardize=standardize), batch_size=5)
        trainer.fit(pixels, y, steps=2)
        outputs = to_numpy(trainer.network(pixels))
        rows = activation_statistics(trainer.network, pixels)
        assert rows[-1]["mean_abs"] == pytest.approx(float(np.abs(outputs).mean()), rel=1e-5)


def test_features_that_do_not_fit_are_refused(device: Device) -> None:
    network = Network(Sequential(6, [Linear(3), BatchNorm(), ReLU(), Dropout()]), {
        name: device.asarray(np.ones(shape), "float64")
        for name, shape in Sequential(6, [Linear(3), BatchNorm()]).shapes.items()})
    with pytest.raises(ValueError, match=r"expected shape \(n, 6\), got \(10, 5\)"):
        activation_statistics(network, draw(device, "x", (10, 5)))
