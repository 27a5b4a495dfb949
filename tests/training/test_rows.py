"""Standardisation at the ends of what a dtype holds: right, or refused."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet import Trainer, mlp
from xpnet.backend import Device, to_numpy
from xpnet.datasets.admission import NotFiniteError
from xpnet.estimators import MLPClassifier, MLPRegressor
from xpnet.training.rows import moments

Z = np.random.default_rng(0).normal([0.0, 1.0, -2.0], size=(450, 3))
EXTREME = (1e155, 1e200, 1e300, 1e-155, 1e-170, 1e-300)


@pytest.mark.parametrize("size", EXTREME)
def test_deviations_whose_square_overflows_or_vanishes(device: Device, size: float) -> None:
    x = Z * [size, 1.0, size]
    x[:, 1] = 3.0  # does not vary
    mean, inverse = (to_numpy(a) for a in moments(device.asarray(x), device))
    scaled = x / [size, 1.0, size]
    assert np.allclose(mean / [size, 1.0, size], scaled.mean(axis=0), rtol=1e-12, atol=1e-13)
    assert np.allclose((inverse * [size, 1.0, size])[[0, 2]], 1.0 / Z.std(axis=0)[[0, 2]], rtol=1e-12)
    assert inverse[1] == 1.0


@pytest.mark.parametrize("value", [0.0, 1e-310, -1e-200, 1e200, -1.7e308])
def test_features_that_do_not_vary_stay_so_at_any_size(device: Device, value: float) -> None:
    mean, inverse = moments(device.asarray(np.full((450, 2), value)), device)
    assert to_numpy(inverse).tolist() == [1.0, 1.0]
    assert np.allclose(to_numpy(mean), value, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("size", [1e39, 1e60, 1e-39, 1e-60])
def test_float32_networks_standardise_what_float32_does_not_hold(device: Device, size: float) -> None:
    x = device.asarray(Z * [1.0, size, 1.0])
    y = device.asarray((Z[:, 1] > 1).astype("int64"))
    trainer = Trainer(mlp(3, [8], 2, standardize=True), schedule=0.3)
    trainer.fit(x, y, epochs=20)
    assert trainer.evaluate(x, y)["accuracy"] > 0.95
    assert (to_numpy(trainer.network.predict(x)) == to_numpy(y)).mean() > 0.95


def test_what_float64_cannot_standardise_is_refused(device: Device) -> None:
    x = device.asarray(Z * [1.0, 1e-310, 1.0])
    with pytest.raises(NotFiniteError, match=r"feature 1 has mean .* by which float64 cannot standardise it; rescale"):
        moments(x, device)


@pytest.mark.parametrize("size", EXTREME)
@pytest.mark.filterwarnings("ignore:.*has not converged")
def test_estimators_learn_at_any_size(size: float) -> None:
    y = (Z[:, 0] > 0).astype(int)
    options = {"hidden_layer_sizes": (8,), "max_iter": 30, "learning_rate_init": 0.01, "random_state": 0}
    assert MLPClassifier(**options).fit(Z * size, y).score(Z * size, y) > 0.95
    assert MLPRegressor(**options).fit(Z * size, Z[:, 0]).score(Z * size, Z[:, 0]) > 0.5
