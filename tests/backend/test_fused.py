"""Fused kernels against the layers', losses' and optimizers' own code on NumPy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_close, assert_same, blobs

import xpnet
from xpnet.backend import Device, to_numpy
from xpnet.nn.layers import BatchNorm, Dropout, LeakyReLU, Linear, ReLU, Tanh
from xpnet.nn.scaling import working_scaling
from xpnet.training.rows import Rows
from xpnet.training.step import Learner

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import gpu_host
import gpu_kernels

pytestmark = pytest.mark.backends("cupy")

PLAIN = xpnet.mlp(13, [9, 5], 4)
NORMED = xpnet.mlp(13, [9, 5], 4, batch_norm=True)
DROPPED = xpnet.mlp(13, [9, 33], 3, batch_norm=True, dropout=[0.3, 0.2])
#: Every layer, in an order that no network would have.
ODD = xpnet.Sequential(7, [
    BatchNorm(), Linear(5), Tanh(), BatchNorm(), LeakyReLU(0.1), Dropout(0.2), Linear(6), ReLU(), Dropout(0.4),
    Linear(3), Tanh()])
#: Network, optimizer, l2, the gradient's largest norm, models, examples.
CASES: dict[str, tuple[xpnet.Sequential, Any, Any, Any, int, int]] = {
    "descent": (NORMED, xpnet.SGD(), 0.0, None, 0, 10),
    "momentum, penalty": (PLAIN, xpnet.SGD(0.9), 0.01, None, 0, 37),
    "nesterov, clipped": (PLAIN, xpnet.SGD(0.9, nesterov=True), 0.01, 0.5, 0, 37),
    "any order, Adam": (ODD, xpnet.Adam(), 0.01, None, 0, 33),
    "models": (NORMED, xpnet.SGD([0.9, 0.5, 0.1]), [0.0, 0.1, 0.2], [0.1, 1.0, 5.0], 3, 10),
    "models, dropout, AdamW": (DROPPED, xpnet.AdamW(weight_decay=[0.1, 0.2]), 0.0, None, 2, 10),
    "models, any order": (ODD, xpnet.Adam(beta1=[0.9, 0.8]), 0.01, None, 2, 33),
    "models, no hidden layer": (xpnet.mlp(5, [], 40), xpnet.SGD(), 0.01, None, 3, 70),
}


def learner(device: Device, case: str, dtype: str) -> Learner:
    """Return a network with arrays away from their neutral initial values."""
    network, optimizer, l2, limit, models, _ = CASES[case]
    loss = xpnet.MeanSquaredError() if network is ODD else xpnet.SoftmaxCrossEntropy()
    made = Learner(network, optimizer, loss, l2, models=(models,) if models else (), clip_norm=limit, device=device,
                   seed=list(range(models)) if models else 0, dtype=dtype)
    rng = np.random.default_rng(3)
    for array in made.arrays.values():
        array[...] = array + device.asarray(rng.uniform(0.1, 0.3, array.shape), dtype)
    return made


def updates(made: Learner, device: Device, case: str, dtype: str, count: int = 3) -> dict[str, Any]:
    """Make updates of random batches, and return all that they leave."""
    network, _, _, _, models, n = CASES[case]
    rng, losses = np.random.default_rng(5), []
    for step in range(count):
        x = device.asarray(rng.normal(size=(n, network.in_features)), dtype)
        logits = rng.normal(size=(n, network.out_features))
        targets = device.asarray(np.exp(logits) / np.sum(np.exp(logits), axis=1, keepdims=True), dtype)
        lr: Any = device.asarray([[0.1], [0.02], [0.0]][:models], dtype) if models else 0.05
        apart = (models,) if step == 1 and models else ()  # draws of each model's own
        noise = {name: device.asarray(rng.uniform(size=(*apart, *shape)), dtype)
                 for name, shape in network.noise_shapes(n).items()}
        losses.append(to_numpy(made.update(x, targets, lr, noise, step)))
    return {"losses": np.asarray(losses), **{name: to_numpy(a) for name, a in made.state().items()}}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("case", CASES)
def test_an_update_is_that_of_the_layers_on_numpy(device: Device, case: str, dtype: str, tolerance: float) -> None:
    there, here = learner(device, case, dtype), learner(Device(), case, dtype)
    assert there.fused, there.why
    assert not here.fused
    got, expected = updates(there, device, case, dtype), updates(here, Device(), case, dtype)
    for name, value in expected.items():
        assert_close(got[name], value, tolerance, name)
    assert_same(updates(learner(device, case, dtype), device, case, dtype), got)


@pytest.mark.parametrize("case", ["any order, Adam", "descent"])
def test_gradients_are_those_of_the_loss(device: Device, case: str) -> None:
    """A rate of 0 leaves the parameters, and an update its gradients and the loss: central differences of that."""
    made, (network, *_, n) = learner(device, case, "float64"), CASES[case]
    rng = np.random.default_rng(2)
    x, targets = (rng.uniform(size=(n, k)) for k in (network.in_features, network.out_features))
    x, targets = device.asarray(x), device.asarray(targets / targets.sum(axis=1, keepdims=True))
    noise = {name: device.asarray(rng.uniform(size=shape)) for name, shape in network.noise_shapes(n).items()}

    def loss() -> float:
        return float(made.update(x, targets, 0.0, noise, 1))

    loss()
    gradients = {name: to_numpy(a) for name, a in made.gradients.views.items()}
    assert len(gradients) == len(network.parameters)
    for name, gradient in gradients.items():
        for entry in zip(*(rng.integers(0, size, 3) for size in gradient.shape), strict=True):
            array, h = made.arrays[name], 1e-5
            before, losses = float(array[entry]), []
            for sign in (1.0, -1.0):
                array[entry] = before + sign * h
                losses.append(loss())
            array[entry] = before
            assert abs((losses[0] - losses[1]) / (2.0 * h) - gradient[entry]) < 1e-8, (name, entry)
    assert max(np.abs(gradient).max() for gradient in gradients.values()) > 0.01


def test_what_is_not_finite_stays_in_its_model(device: Device) -> None:
    def states(where: Device, *values: float) -> dict[str, Any]:
        made = learner(where, "models", "float64")
        for model, value in enumerate(values):
            made.arrays["W2"][model, 1, 2] = value
        with where.ignore_overflow():
            return updates(made, where, "models", "float64", 1)

    calm, got = states(device), states(device, np.inf, np.nan)
    for name, value in states(Device(), np.inf, np.nan).items():
        np.testing.assert_array_equal(np.isfinite(got[name]), np.isfinite(value), name)
        last = (..., 2) if name == "losses" else 2
        assert_same(got[name][last], calm[name][last], name)
    assert not np.isfinite(got["losses"][0, :2]).any()
    assert np.isfinite(calm["losses"]).all()


def test_the_host_s_share_is_measured_with_each_way_s_launches(device: Device) -> None:
    pytest.importorskip("cpucuda")
    found = gpu_host.measured("H3+BN", 0, 1, (1, 1, 2))
    assert found["persistent"]["kernels"] == 0.5
    assert found["fused"]["kernels"] + found["fused"]["cublas"] <= 16
    assert found["plain"]["kernels"] > 60
    assert len(found["plain"]["us"]) == len(found["fused"]["us"]) == 1


def test_what_the_compiler_reports_is_read() -> None:
    log = """ptxas info    : Compiling entry function 'loss' for 'sm_90'
ptxas info    : Function properties for loss
ptxas         .     8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 45 registers, used 1 barriers, 2048 bytes smem
ptxas info    : Compile time = 1.0 ms
"""
    assert gpu_kernels.REPORT.findall(log) == [("loss", "4", "12", "45", ", used 1 barriers, 2048 bytes smem")]


@pytest.mark.parametrize(("case", "models", "most"), [("H3+BN", 8, 16), ("H9+BN", 0, 46)])
def test_launches_of_an_update(device: Device, case: str, models: int, most: int) -> None:
    cpucuda = pytest.importorskip("cpucuda")
    x, y = blobs(device, 100, 3072, 10)
    trainer = xpnet.Trainer(xpnet.mlp(3072, gpu_host.HIDDEN[case], 10, batch_norm=True, standardize=True), l2=0.01,
                            seed=list(range(models)) if models else 0, batch_size=10)
    trainer.fit(x, y, steps=2, train_sample=10)
    batches, lr = trainer.batches(x, y).run(10, 12), 0.1 if not models else device.asarray([[0.1]] * models, "float32")
    trainer.update(*next(batches), lr)  # launches are laid out
    before = cpucuda.counts()
    trainer.update(*next(batches), lr)
    after = cpucuda.counts()
    assert 10 < sum(after.values()) - sum(before.values()) <= most
    trainer.learner.fused = None
    trainer.update(device.empty((10, 3072), "float32"), device.empty((10, 10), "float32"), lr)
    assert cpucuda.counts()["kernels"] - after["kernels"] > 60  # without kernels of our own


def test_trajectories_are_those_of_numpy_and_members_those_of_solo_runs(device: Device) -> None:
    def trained(where: Device, rates: Any) -> xpnet.Trainer:
        x, y = blobs(where, 90, 12, 4, dtype="float64", spread=3.0)
        trainer = xpnet.Trainer(
            xpnet.mlp(12, [10, 8], 4, batch_norm=True, dropout=0.1, standardize=True), l2=1e-3, batch_size=20,
            schedule=xpnet.CyclicLR(rates, 0.1, 30), optimizer=xpnet.SGD(0.9), dtype="float64")
        trainer.fit(x, y, steps=200, evaluate_every=100)
        return trainer

    rates = np.asarray([1e-4, 1e-2])
    both, numpy = trained(device, rates), trained(Device(), rates)
    assert both.path == "fused"
    assert numpy.path == "plain"
    assert_close(both.history.batch_loss, numpy.history.batch_loss, 1e-9)
    for name in numpy.arrays.keys() - {"b1", "b2"}:  # batch norm cancels these
        assert_close(both.arrays[name], numpy.arrays[name], 1e-9, name)
    alone = trained(device, 1e-2)
    assert_close(np.asarray(both.history.batch_loss)[:, 1], alone.history.batch_loss, 1e-9)


def test_what_makes_the_updates_is_logged(
    device: Device, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(xpnet.SGD):
        """A rule of one's own."""

    caplog.set_level("DEBUG")
    x, y = blobs(device, 20)
    paths = []
    for optimizer, chosen in ((xpnet.SGD(), ""), (Mine(), ""), (xpnet.SGD(), "0")):
        monkeypatch.setenv("XPNET_FAST", chosen)
        trainer = xpnet.Trainer(xpnet.mlp(6, [5], 3), optimizer=optimizer)
        trainer.fit(x, y, steps=1)
        paths.append(trainer.path)
    assert paths == ["fused", "plain", "plain"]
    fused, mine, off = (record.getMessage() for record in caplog.records if record.name.startswith("xpnet"))
    assert " in fused launches, by no persistent kernel: " in fused
    assert " layer by layer (no fused kernel for Mine), by no persistent kernel: " in mine
    assert " layer by layer (XPNET_FAST is 0), by no persistent kernel: " in off


def gathered(device: Device, x: Any, scaling: Any, rows: Sequence[int], labels: Any, only: Any = None) -> Any:
    """Return a batch in float32 and its targets as one launch makes them."""
    from xpnet.backend.cuda.rows import GatheredRows

    with device.activate():
        out, targets = device.empty((len(rows), x.shape[1]), "float32"), device.empty((len(rows), 4), "float32")
        one_hot = labels.ndim == 1
        GatheredRows(device.asarray(x), device.asarray(labels), 4, "float32", one_hot=one_hot, only=only,
                     scaling=scaling and tuple(map(device.asarray, scaling))).take(
            device.asarray(rows, "int64"), out, targets)
        return to_numpy(out), to_numpy(targets)


@pytest.mark.parametrize("offset", [3.0, 1e6])
@pytest.mark.parametrize("dtype", ["uint8", "bool", "int32", "float16", "float32", "float64"])
def test_rows_are_gathered_converted_and_standardised(device: Device, dtype: str, offset: float) -> None:
    rng, rows = np.random.default_rng(1), [5, 0, 7, 7]
    x = (rng.normal(size=(8, 1100)) * 40.0 + 50.0).astype(dtype)
    labels = rng.integers(0, 4, 8)
    scaling = working_scaling(x, np.full(1100, offset) + rng.normal(size=1100), rng.uniform(0.5, 2.0, 1100),
                              np.dtype("float32"))
    expected = Rows(x, 4, Device(), "float32", scaling).take(np.asarray(rows))
    got, targets = gathered(device, x, scaling, rows, labels)
    assert_close(got, expected, 2e-7)
    assert_same(targets, np.eye(4, dtype="float32")[labels[rows]])
    plain, targets = gathered(device, x, None, rows, rng.normal(size=(8, 4)).astype("float64"))
    assert_same(plain, x[rows].astype("float32"))
    assert targets.std() > 0.1


def test_rows_by_way_of_other_indices(device: Device) -> None:
    x, only = np.arange(12.0).reshape(6, 2), [4, 0, 3]
    got, targets = gathered(device, np.asfortranarray(x), None, [2, 0], np.asarray([1, 2, 3]), device.asarray(only))
    assert_same(got, x[[3, 4]].astype("float32"))
    assert_same(targets, np.eye(4, dtype="float32")[[3, 1]])
