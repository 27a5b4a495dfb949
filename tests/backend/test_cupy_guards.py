"""What xpnet does where CuPy differs from NumPy: the last column of ``docs/howto/cupy_differences.md``.

These tests run on every backend: what a user sees must not depend on it.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import assert_close, assert_same, blobs, draw

from xpnet import (
    Adam,
    BatchNorm,
    DivergenceError,
    GridSearch,
    MeanSquaredError,
    MLPClassifier,
    Network,
    NotFiniteError,
    Trainer,
    find_lr,
    mlp,
    sweep,
)
from xpnet.backend import Device, MixedDevicesError, constant, namespace, to_numpy, transposed
from xpnet.nn.losses import log_softmax
from xpnet.nn.measures import UndefinedMeasureWarning

NETWORK = mlp(6, [5], 3, standardize=True)


def model(**params: Any) -> MLPClassifier:
    return MLPClassifier((5,), max_iter=3, n_iter_no_change=3, random_state=0, **params)


def fitted(device: Device, **options: Any) -> tuple[Trainer, Any, Any]:
    """Train a little."""
    x, y = blobs(device, 40)
    trainer = Trainer(NETWORK, batch_size=16, **options)
    trainer.fit(x, y, steps=5)
    return trainer, x, y


# Indices -------------------------------------------------------------------------------------------------------

ENTRANCES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "fit": lambda x, _, bad: Trainer(NETWORK).fit(x, bad, steps=1),
    "fit's validation": lambda x, y, bad: Trainer(NETWORK).fit(x, y, steps=1, validation=(x, bad)),
    "evaluate": lambda x, _, bad: fitted(Device.of(x))[0].evaluate(x, bad),
    "sweep": lambda x, _, bad: sweep(lambda l2: Trainer(NETWORK, l2=l2), {"l2": [0.0, 0.1]}, x, bad, steps=1),
    "find_lr": lambda x, _, bad: find_lr(NETWORK, x, bad, steps=10),
    "partial_fit": lambda x, _, bad: model().partial_fit(x, bad, classes=[0, 1, 2]),
}


@pytest.mark.parametrize("label", [3, -1, 2**40])
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_labels_out_of_range_are_refused(device: Device, entrance: str, label: int) -> None:
    x, y = blobs(device, 30)
    bad = device.asarray([*to_numpy(y)[:-1].tolist(), label])
    with pytest.raises(ValueError, match=r"labels: expected 0 to 2|labels that are not among the classes \[0, 1, 2\]"):
        ENTRANCES[entrance](x, y, bad)


@pytest.mark.parametrize("rows", [[0, 1, 30], [0, 1, -31]], ids=repr)
@pytest.mark.parametrize("side", ["training", "test"])
def test_indices_of_folds_out_of_range_are_refused(device: Device, side: str, rows: list[int]) -> None:
    x, y = blobs(device, 30)
    fold = (rows, list(range(15))) if side == "training" else (list(range(15)), rows)
    search = GridSearch(model(), {"l2": [0.0, 0.1]}, cv=[fold])
    with pytest.raises(IndexError, match=r"cv: expected indices of 30 sample\(s\), got -?\d+ to \d+"):
        search.fit(x, y)


# Small numbers -------------------------------------------------------------------------------------------------


def test_features_with_tiny_variances_are_standardised(device: Device) -> None:
    """By a power of two smaller, they give the same bits; the squares of their deviations are 0 in float32."""
    x, y = blobs(device, 40)
    small = x * 2.0**-90
    found = []
    for features in (x, small):
        trainer = Trainer(NETWORK, batch_size=16)
        trainer.fit(features, y, steps=5)
        found.append(to_numpy(trainer.network(features)))
    assert_same(*found)
    assert not (np.square(to_numpy(small), dtype="float32") > 0.0).any()


def test_batch_norm_of_a_tiny_variance_is_the_same_everywhere(device: Device) -> None:
    x = draw(device, "x", (20, 3), "float32", std=2.0**-70)  # variances are subnormal, or 0
    one, zero = device.asarray([1.0] * 3, "float32"), device.empty((3,), "float32")
    host = to_numpy(x).astype("float64")
    expected = (host - host.mean(axis=0)) / math.sqrt(BatchNorm().eps)
    assert_close(BatchNorm().forward(x, one, zero, zero, one, train=True)[0], expected, 1e-5)


def test_adam_with_tiny_gradients_is_the_same_everywhere(device: Device) -> None:
    w, g = device.empty((3,), "float32"), device.asarray([1e-20, -1e-21, 1e-30], "float32")
    slots = {"m": device.empty((3,), "float32"), "v": device.empty((3,), "float32")}
    Adam().update(w, device.asarray(g, copy=True), slots, 1.0, 0)
    assert_close(w, to_numpy(g).astype("float64") / -1e-8, 1e-6)


def test_logarithms_of_tiny_probabilities_are_finite(device: Device) -> None:
    assert_close(log_softmax(device.asarray([[0.0, -95.0, -300.0]], "float32")), [[0.0, -95.0, -300.0]], 1e-7)


# What is given stays as it is, and what comes back is plain ------------------------------------------------------


def test_data_are_not_written_to(device: Device) -> None:
    x, y = blobs(device, 40)
    before = to_numpy(x).copy(), to_numpy(y).copy()
    for train in (lambda: Trainer(NETWORK).fit(x, y, epochs=2), lambda: model(batch_norm=True).fit(x, y),
                  lambda: Trainer(mlp(6, [5], 3), l2=[0.0, 0.1], optimizer=Adam()).fit(x, y, epochs=2)):
        train()
        assert_same((to_numpy(x), to_numpy(y)), before)


def test_measures_are_plain_numbers(device: Device) -> None:
    trainer, x, y = fitted(device)
    assert {type(value) for value in trainer.evaluate(x, y).values()} == {float}
    assert json.loads(json.dumps(trainer.history.rows)) == trainer.history.rows
    assert {type(value) for row in trainer.history.rows for value in row.values()} <= {int, float}
    assert type(model().fit(x, y).score(x, y)) is float
    many = fitted(device, l2=[0.0, 0.1])[0].evaluate(x, y)
    assert {type(value) for value in many.values()} == {np.ndarray}


def test_rates_of_numpy_leave_networks_float32(device: Device) -> None:
    plain, scalar = (fitted(device, schedule=kind(0.01), l2=kind(0.1), optimizer=Adam(kind(0.9)))[0]
                     for kind in (float, np.float64))
    kinds = {name: str(to_numpy(a).dtype) for name, a in scalar.arrays.items()}
    assert kinds == {name: "float64" if name in ("offset1", "scale1") else "float32" for name in kinds}
    assert_same(scalar.arrays, plain.arrays)


def test_integer_hyper_parameters_are_floats(device: Device) -> None:
    integers, floats = (fitted(device, optimizer=Adam([kind(0), kind(0)]), schedule=kind(1))[0]
                        for kind in (int, float))
    assert_same(integers.arrays, floats.arrays)


# What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.backends("strict", "torch", "cupy")
def test_labels_of_numpy_are_refused_or_moved(device: Device) -> None:
    x, y = blobs(device, 40)
    for data in ((x, to_numpy(y)), (to_numpy(x), y)):
        with pytest.raises(MixedDevicesError, match=r"x is on .*, y on .*; bring them together with .*asarray\(y\)"):
            Trainer(NETWORK).fit(*data, steps=1)
    trainer = Trainer(NETWORK, device=device)
    trainer.fit(to_numpy(x), to_numpy(y), steps=5)
    assert trainer.network.device == device
    assert model().fit(x, to_numpy(y)).network_.device == device
    assert_same(model().fit(x, to_numpy(y)).predict(x), model().fit(x, y).predict(x))
    assert_same(model().fit(x, to_numpy(y).tolist()).predict(x), model().fit(x, y).predict(x))


def test_labels_that_are_text_are_encoded_on_the_host(device: Device) -> None:
    x, y = blobs(device, 40)
    names = np.asarray(["ant", "bee", "cat"])
    assert_same(model().fit(x, names[to_numpy(y)]).predict(x), names[to_numpy(model().fit(x, y).predict(x))])


def test_what_is_not_finite_is_refused(device: Device) -> None:
    x, y = blobs(device, 40)
    bad = to_numpy(x).copy()
    bad[3, 2] = np.nan
    with pytest.raises(NotFiniteError, match="got nan in example 3, feature 2"):
        Trainer(NETWORK).fit(device.asarray(bad), y, steps=1)
    with pytest.raises(ValueError, match="y: expected finite numbers, got nan in example 3"):
        model().fit(x, device.asarray(bad[:, 2]))
    with pytest.raises(DivergenceError, match="learning rate 1e"):
        Trainer(mlp(6, [5], 3), schedule=1e30).fit(x, y, steps=20)


def test_r2_of_outputs_that_are_nan_is_nan(device: Device) -> None:
    y = device.asarray([[1.0, 2.0], [3.0, 5.0]])
    score = MeanSquaredError().score(device.asarray([math.nan, 0.0]), y)
    assert math.isnan(float(to_numpy(score["r2"])))
    left = MeanSquaredError().score(device.asarray([2.0, 0.0]), y)
    assert float(to_numpy(left["r2"])) == 0.5
    with pytest.warns(UndefinedMeasureWarning, match="the 4 targets are all alike"):
        alike = MeanSquaredError().score(device.asarray([0.0, 0.0]), device.asarray([[2.0, 2.0]] * 4))
    assert math.isnan(float(to_numpy(alike["r2"])))


# Devices --------------------------------------------------------------------------------------------------------


def test_arrays_come_and_go_and_devices_are_keys(device: Device) -> None:
    x = device.asarray([[1.0, 2.0, 3.0]], "float32")
    assert_same(device.asarray(Device().asarray(x)), x)
    assert {Device.of(x): "here"}[device] == "here"
    assert constant(x, (2, 3), 0.25) is constant(x, (2, 3), 0.25)
    assert_same(transposed(x), namespace(x).matrix_transpose(x))


@pytest.mark.backends("numpy", "torch", "cupy")
def test_a_network_that_is_unpickled_says_where_it_lies(device: Device) -> None:
    trainer, x, _ = fitted(device)
    copied = pickle.loads(pickle.dumps(trainer.network))  # noqa: S301
    assert isinstance(copied, Network)
    assert copied.device == device == Device.of(copied.arrays["W1"])
    assert_same(copied(x), trainer.network(x))


@pytest.mark.backends("cupy")
def test_arrays_lie_on_the_device_that_was_asked_for(device: Device) -> None:
    if device.xp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one GPU: CPUCUDA_DEVICES=2 has two emulated ones")
    second = Device("cuda:1")
    trainer, x, _ = fitted(second)
    for a in (x, second.empty((2,), "float32"), second.asarray(x, copy=True), constant(x, (1, 7), 0.125),
              *trainer.arrays.values()):
        assert Device.of(a) == second
    copied = pickle.loads(pickle.dumps(trainer.network))  # noqa: S301
    assert copied.device == device
    assert_same(copied(device.asarray(to_numpy(x))), trainer.network(x))
    with pytest.raises(ValueError, match="features are on cuda:1, the network on cuda:0; bring them together"):
        copied(x)


def test_a_run_that_is_repeated_has_the_same_bits(device: Device) -> None:
    (first, _, _), (again, _, _) = fitted(device), fitted(device)
    assert_same(again.arrays, first.arrays)
    assert again.history.rows == first.history.rows


@pytest.mark.backends("numpy", "cupy")
def test_the_namespace_clips_with_nan_as_numpy_does(device: Device) -> None:
    for low, high in ((math.nan, 1.5), (0.0, math.nan)):
        assert np.isnan(to_numpy(device.xp.clip(device.asarray([1.0, 2.0]), low, high))).all()


@pytest.mark.backends("cupy")
def test_memory_that_the_pool_keeps_is_free(device: Device) -> None:
    """CuPy keeps what arrays gave back, and CUDA counts it as taken."""
    device.xp.get_default_memory_pool().free_all_blocks()
    before, size = device.free_memory() or 0, 2**26
    held = device.empty((size // 4,), "float32")
    assert before - (device.free_memory() or 0) >= size
    del held
    assert device.free_memory() == before
