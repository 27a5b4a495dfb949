"""What is done with data that are wrong, odd, or hard: one behaviour for each, stated here.

==============================================  ======================================================================
NaN or infinite features                        NotFiniteError (a ValueError) that names the first, from ``fit``,
                                                ``evaluate`` and predictions alike
features too large for the network's dtype      NotFiniteError; also where outputs overflow on the way
labels out of range, or of the wrong kind       ValueError, TypeError: from 0 to classes - 1, integers
mismatched lengths, empty data                  ValueError with both shapes
a class missing from training                   no error: it is never the likeliest where others were learnt
wrong widths, also at prediction                ValueError with the width that was expected
sparse matrices, lists, text, object arrays     TypeError: arrays of numbers are expected
non-contiguous and read-only arrays             as plain ones, bit for bit, and left as they are
float16                                         computed in the trainer's dtype, as float32 features of these values
features that do not vary                       scaled by 1, no division by zero
a batch size above the data size                all examples in each batch
a last short batch                              trained on; left out where batch norm would see one example
==============================================  ======================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import assert_same, blobs

from xpnet import Adam, Network, Trainer, mlp
from xpnet.backend import Device, to_numpy
from xpnet.training.divergence import NotFiniteError

RICH = mlp(6, [8, 5], 3, batch_norm=True, standardize=True)
PLAIN = mlp(6, [8, 5], 3)


def make(network: Any = RICH, **options: Any) -> Trainer:
    """Return a trainer of small batches."""
    return Trainer(network, **{"batch_size": 16, "schedule": 0.05, **options})


def trained(device: Device | None = None, network: Any = RICH, n: int = 60, **options: Any) -> Trainer:
    """Return a trainer after a few updates."""
    trainer = make(network, **options)
    trainer.fit(*blobs(device or Device(), n), steps=12)
    return trainer


class Sparse:
    """Looks like one of SciPy's sparse matrices."""

    def __init__(self, dense: Any) -> None:
        self.dense, self.shape, self.ndim, self.dtype = dense, dense.shape, dense.ndim, dense.dtype

    def toarray(self) -> Any:
        return self.dense


# Not finite -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [RICH, PLAIN], ids=["batch norm", "plain"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["training", "validation", "evaluate"])
def test_features_that_are_not_finite(device: Device, value: float, where: str, network: Any) -> None:
    x, y = blobs(device, 60)
    raw = to_numpy(x).copy()
    raw[41, 3] = value
    bad, trainer = device.asarray(raw), make(network)
    words = rf"features: expected finite numbers, got {value} in example 41, feature 3; check the features for NaN"
    if where == "evaluate":
        trainer.fit(x, y, steps=5)
    calls = {"training": lambda: trainer.fit(bad, y, steps=5), "evaluate": lambda: trainer.evaluate(bad, y),
             "validation": lambda: trainer.fit(x, y, steps=5, validation=(bad, y))}
    with pytest.raises(NotFiniteError, match=("validation " if where == "validation" else "^") + words) as caught:
        calls[where]()
    assert isinstance(caught.value, ValueError)
    assert trainer.step == (5 if where == "evaluate" else 0)
    assert where == "evaluate" or not trainer.arrays


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", ["__call__", "predict", "predict_proba"])
def test_features_that_are_not_finite_are_not_predicted(device: Device, method: str, value: float) -> None:
    x, _ = blobs(device, 60)
    raw = to_numpy(x).copy()
    raw[7, 2] = value
    with pytest.raises(NotFiniteError, match=f"features: expected finite numbers, got {value} in example 7, feature 2"):
        getattr(trained(device).network, method)(device.asarray(raw))


# Labels ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "error", "words"), [
    (lambda y: y + 1, ValueError, r"labels: expected 0 to 2 .*, got 1 to 3"),
    (lambda y: y - 1, ValueError, r"labels: expected 0 to 2 .*, got -1 to 1"),
    (lambda y: y.astype("float32"), TypeError, "labels: expected integers .*, got dtype float32; for whole numbers"),
    (lambda y: y > 0, TypeError, "labels: expected integers from 0, got dtype bool"),
    (lambda y: y.astype(object), TypeError, "labels: expected integers from 0, got dtype object"),
    (lambda y: np.asarray(["cat", "dog", "owl"])[y], TypeError, "labels: expected integers from 0, got dtype <U3"),
    (lambda y: np.eye(3)[y], ValueError, r"labels \(n,\) with n at least 1, got shapes \(60, 6\) and \(60, 3\)"),
    (lambda y: y[:-1], ValueError, r"got shapes \(60, 6\) and \(59,\)"),
    (lambda y: y.tolist(), TypeError, "expected an array, got list; wrap it in numpy.asarray"),
    (lambda y: None, TypeError, "expected an array, got NoneType"),
], ids=["too high", "too low", "floats", "bools", "objects", "text", "one-hot", "fewer", "a list", "none"])
def test_labels(change: Callable[[Any], Any], error: type[Exception], words: str) -> None:
    x, y = blobs(Device(), 60)
    for call in (lambda: make().fit(x, change(y), steps=1), lambda: trained().evaluate(x, change(y)),
                 lambda: make().fit(x, y, steps=1, validation=(x, change(y)))):
        with pytest.raises(error, match=words):
            call()


def test_a_class_that_is_missing_from_training(device: Device) -> None:
    x, y = blobs(device, 90, spread=0.5)
    raw = to_numpy(y)
    rows = device.asarray(np.flatnonzero(raw != 1))
    xp = device.xp
    trainer = make(mlp(6, [8], 3, batch_norm=True, standardize=True))
    history = trainer.fit(xp.take(x, rows, axis=0), xp.take(y, rows, axis=0), steps=60, validation=(x, y))
    assert history["train_accuracy"][-1] > 0.95
    assert 0.63 < history["validation_accuracy"][-1] <= 2 / 3
    assert 1 not in to_numpy(trainer.network.predict(x))
    assert np.isfinite(history["validation_loss"]).all()


# Features -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "error", "words"), [
    (lambda x: x[:, :5], ValueError, r"features: expected shape \(n, 6\), got \(60, 5\)"),
    (lambda x: np.hstack([x, x]), ValueError, r"features: expected shape \(n, 6\), got \(60, 12\)"),
    (lambda x: x[0], ValueError, r"features: expected shape \(n, 6\), got \(6,\)"),
    (lambda x: x.astype(object), TypeError, "features: expected real numbers, got dtype object"),
    (lambda x: x.astype(str), TypeError, "features: expected real numbers, got dtype <U"),
    (lambda x: x.astype("complex64"), TypeError, "features: expected real numbers, got dtype complex64"),
    (lambda x: x.astype("datetime64[s]"), TypeError, r"features: expected real numbers, got dtype datetime64\[s\]"),
    (Sparse, TypeError, "Sparse"),
    (lambda x: x.tolist(), TypeError, "got list; wrap it in numpy.asarray"),
], ids=["narrow", "wide", "one example", "objects", "text", "complex", "dates", "sparse", "a list"])
def test_features(change: Callable[[Any], Any], error: type[Exception], words: str) -> None:
    x, y = blobs(Device(), 60)
    network = trained().network
    for call in (lambda: make().fit(change(x), y, steps=1), lambda: trained().evaluate(change(x), y),
                 lambda: network.predict(change(x)), lambda: network.predict_proba(change(x))):
        with pytest.raises(error, match=words):
            call()


def test_nothing_to_train_on_and_nothing_to_predict(device: Device) -> None:
    x, y = blobs(device, 60)
    for given in ((x[:0, :], y[:0]), (x[:0, :], y), (x, y[:0])):
        with pytest.raises(ValueError, match="with n at least 1, got shapes"):
            make().fit(*given, steps=1)
    network = trained(device).network
    assert to_numpy(network.predict(x[:0, :])).shape == (0,)
    assert to_numpy(network.predict_proba(x[:0, :])).shape == (0, 3)


@pytest.mark.parametrize("change", [
    np.asfortranarray, lambda a: np.repeat(a, 3, axis=0)[::3], lambda a: a[::-1].copy()[::-1],
    lambda a: (a.setflags(write=False), a)[1], lambda a: np.concatenate([a, a], axis=-1)[..., : a.shape[-1]],
    lambda a: a.astype(a.dtype.newbyteorder()),
], ids=["Fortran", "every third", "backwards", "read-only", "half as wide", "other byte order"])
def test_arrays_that_lie_otherwise_in_memory_train_the_same(change: Callable[[Any], Any]) -> None:
    x, y = blobs(Device(), 60)
    odd, labels = change(x.copy()), y if change is np.asfortranarray else change(y.copy())[: len(y)]
    plain, trainer = make(optimizer=Adam()), make(optimizer=Adam())
    plain.fit(x, y, steps=12, validation=(x, y))
    trainer.fit(odd, labels, steps=12, validation=(odd, labels))
    assert_same(dict(trainer.arrays), dict(plain.arrays))
    assert_same(trainer.history.rows, plain.history.rows)
    assert (odd == x).all()
    if odd.dtype.isnative:  # networks are given what the trainer would have converted
        assert_same(trainer.network.predict_proba(odd), plain.network.predict_proba(x))


def test_half_precision_is_computed_in_the_trainers_dtype(tmp_path: Any) -> None:
    x, y = blobs(Device(), 60)
    half = x.astype("float16")
    trainer, plain = make(), make()
    trainer.fit(half, y, steps=12)
    plain.fit(half.astype("float32"), y, steps=12)
    assert trainer.arrays["W1"].dtype == np.float32
    assert_same(dict(trainer.arrays), dict(plain.arrays))
    assert trainer.network.predict_proba(half).dtype == np.float32
    large = half.copy()
    large[:, 0] = 65504.0  # the largest float16: a sum of them is infinite
    make().fit(large, y, steps=2)
    trainer.network.save(tmp_path / "network")
    assert_same(Network.load(tmp_path / "network").predict(half), trainer.network.predict(half))


@pytest.mark.parametrize("value", [0.0, 1e-30, 7.0, 1e6, -1e30])
@pytest.mark.parametrize("network", [
    RICH, mlp(6, [8], 3, batch_norm=True), mlp(6, [8], 3, standardize=True),
], ids=["both", "batch norm", "standardised"])
def test_features_that_do_not_vary(device: Device, network: Any, value: float) -> None:
    if abs(value) > 1e6 and not any(type(layer).__name__ == "Standardize" for layer in network.layers):
        pytest.skip("without a layer that standardises, the network computes with features as they are")
    x, y = blobs(device, 60)
    raw = to_numpy(x).copy()
    raw[:, 2] = raw[:, 5] = value
    trainer = make(network)
    with np.errstate(divide="raise", invalid="raise"):
        trainer.fit(device.asarray(raw), y, steps=12)
        network_found = trainer.network
        assert np.isfinite(to_numpy(network_found.predict_proba(device.asarray(raw)))).all()
    if "scale1" in trainer.arrays:
        assert to_numpy(trainer.arrays["scale1"])[[2, 5]].tolist() == [1.0, 1.0]


def test_examples_that_are_all_alike(device: Device) -> None:
    x = device.asarray(np.full((40, 6), 3.0, "float32"))
    y = device.asarray(np.arange(40) % 3, "int64")
    trainer = make()
    history = trainer.fit(x, y, steps=12)
    assert np.isfinite(history.batch_loss).all()
    assert np.isfinite(to_numpy(trainer.network.predict_proba(x))).all()


# Batches --------------------------------------------------------------------------------------------------------------


def test_a_batch_size_above_the_data_size_is_the_data_size(device: Device) -> None:
    x, y = blobs(device, 20)
    large, exact = make(batch_size=1000), make(batch_size=20)
    for trainer in (large, exact):
        trainer.fit(x, y, epochs=4)
    assert large.step == 4
    assert_same(dict(large.arrays), dict(exact.arrays))


@pytest.mark.parametrize(("n", "network", "per_epoch"), [
    (40, RICH, 3), (33, RICH, 2), (33, PLAIN, 3), (17, RICH, 1), (32, RICH, 2), (2, RICH, 1), (1, PLAIN, 1),
], ids=["8 left", "1 left, batch norm", "1 left", "1 left of 17", "none left", "2 examples", "1 example"])
def test_a_last_short_batch(device: Device, n: int, network: Any, per_epoch: int) -> None:
    trainer = make(network)
    history = trainer.fit(*blobs(device, n), epochs=3)
    assert trainer.step == 3 * per_epoch
    assert np.isfinite(history.batch_loss).all()
    assert history["epoch"].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_one_example_and_batch_norm(device: Device) -> None:
    with pytest.raises(ValueError, match="expected at least 2 examples in a training batch, got 1"):
        make().fit(*blobs(device, 1), steps=1)
