"""Initial weights: standard deviations by formula, and the draws by statistics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from xpnet import random
from xpnet.backend import Device, to_numpy
from xpnet.nn.initializers import He, Normal, Xavier
from xpnet.nn.sequential import mlp

IN, OUT = 500, 400


def test_standard_deviations() -> None:
    assert He().std(50, 7) == math.sqrt(2 / 50)
    assert Xavier().std(50, 7) == math.sqrt(2 / 57)
    assert Normal(1e-3).std(50, 7) == 1e-3
    assert Normal([0.1, 0.2]).std(50, 7) == [0.1, 0.2]


@pytest.mark.parametrize(
    ("initializer", "std"),
    [(None, math.sqrt(2 / IN)), (He(), math.sqrt(2 / IN)), (Xavier(), math.sqrt(2 / (IN + OUT))), (Normal(1e-4), 1e-4)],
    ids=["default", "He", "Xavier", "Normal"],
)
def test_weights_have_the_moments_of_their_normal_distribution(initializer: Any, std: float) -> None:
    network = mlp(IN, [], OUT, initializer=initializer)
    arrays = {n: v for part in network.allocate((), Device(), "float64") for n, v in part.views.items()}
    network.initialize(arrays, 3, Device(), "float64")
    z, n = to_numpy(arrays["W1"]) / std, IN * OUT
    assert not arrays["b1"].any()
    # 5 standard errors of the mean, the variance, the skewness and the kurtosis of n normal draws
    assert abs(z.mean()) < 5 / math.sqrt(n)
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((z**3).mean()) < 5 * math.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / n)
    assert abs((abs(z) < 1).mean() - math.erf(1 / math.sqrt(2))) < 5 * 0.47 / math.sqrt(n)
    for axis in (0, 1):  # rows and columns are independent draws
        a = np.moveaxis(z, axis, 0)
        assert abs((a[:-1] * a[1:]).mean()) < 5 / math.sqrt(n)


def test_he_keeps_the_signal_through_relu_layers_and_small_weights_lose_it() -> None:
    x, sizes = random.normal(0, "x", (200, 100)), {}
    for name, initializer in (("he", He()), ("small", Normal(1e-3))):
        network = mlp(100, [100] * 8, 10, initializer=initializer)
        arrays = {n: v for part in network.allocate((), Device(), "float64") for n, v in part.views.items()}
        network.initialize(arrays, 0, Device(), "float64")
        sizes[name] = float(np.std(network.forward(arrays, x)[0]))
    assert 0.2 < sizes["he"] < 5.0
    assert sizes["small"] < 1e-12


def test_networks_that_differ_in_sigma_start_from_the_same_draws() -> None:
    a, b = random.normal(0, "W1", (5, 4), 0.1), random.normal(0, "W1", (5, 4), 0.001)
    assert np.allclose(a, 100.0 * b, rtol=1e-15)
