"""Standardised features are those of float64, whatever the network's dtype and whoever computes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import draw

from xpnet import (
    Checkpoints,
    Ensemble,
    GridSearch,
    MLPClassifier,
    MLPRegressor,
    Network,
    Sequential,
    Trainer,
    mlp,
    sweep,
)
from xpnet.backend import Device, to_numpy
from xpnet.cli import main
from xpnet.nn.scaling import compared_dtype, rounds_away, working_scaling
from xpnet.nn.summary import activation_statistics

N, FEATURES = 60, 4
#: Mean, standard deviation and dtype of the features.
DATA = {
    "milliseconds": (1.7e12, 1000.0, "float64"), "milliseconds as integers": (1.7e12, 1000.0, "int64"),
    "seconds": (1.7e9, 60.0, "float64"), "seconds in float32": (1.7e9, 600.0, "float32"),
    "kelvin": (290.0, 5.0, "float32"), "years": (2000, 6.0, "int16"), "near 0": (0.1, 1.0, "float32"),
    "huge": (3e60, 1e60, "float64"), "tiny": (3e-60, 1e-60, "float64"), "tiny in float32": (0.0, 1e-39, "float32"),
}


def features(name: str, n: int = N, label: str = "x") -> Any:
    mean, deviation, dtype = DATA[name]
    x = mean + deviation * np.asarray(draw(Device(), label, (n, FEATURES), "float64"))
    return (np.rint(x) if "int" in dtype else x).astype(dtype)


def standardised(x: Any, by: Any) -> Any:
    """Return x standardised in extended precision by the mean and deviation of other features."""
    wide, x = by.astype(np.longdouble), x.astype(np.longdouble)
    return np.asarray((x - wide.mean(axis=0)) / wide.std(axis=0), np.float64)


def trained(name: str, device: Device, dtype: str = "float32", **options: Any) -> Trainer:
    x = features(name)
    architecture = mlp(FEATURES, [8], 3, batch_norm=True, standardize=True)
    trainer = Trainer(architecture, batch_size=20, schedule=0.05, dtype=dtype, **options)
    trainer.fit(device.asarray(x), device.asarray(np.arange(N) % 3), steps=9)
    return trainer


def expected(network: Network, x: Any, by: Any) -> Any:
    """Return what the layers behind the standardisation make of features that are standardised in float64."""
    architecture, dtype = network.architecture, str(to_numpy(network.arrays["W1"]).dtype)
    behind = Network(Sequential(FEATURES, architecture.layers[1:]),
                     {name: a for name, a in network.arrays.items() if name not in architecture.inputs})
    return to_numpy(behind(network.device.asarray(standardised(x, by), dtype)))


def reloaded(trainer: Trainer, where: Path) -> Network:
    trainer.network.save(where / "n")
    return Network.load(where / "n", trainer.network.device)


def repacked(trainer: Trainer, where: Path) -> Network:
    trainer.network.to_npz(where / "n.npz")
    return Network.from_npz(where / "n.npz", device=trainer.network.device)


def restored(trainer: Trainer, where: Path) -> Network:
    other = Trainer(trainer.architecture, batch_size=20, schedule=0.05, dtype=trainer.dtype)
    other.restore({name: to_numpy(a) for name, a in trainer.state().items()}, trainer.step, trainer.network.device)
    return other.network


NETWORKS: dict[str, Callable[[Trainer, Path], Network]] = {
    "Trainer": lambda trainer, _: trainer.network, "load": reloaded, "npz": repacked, "restore": restored,
    "fold": lambda trainer, _: trainer.network.fold(), "member": lambda trainer, _: trainer.network.member(0),
}


@pytest.mark.parametrize("source", NETWORKS)
@pytest.mark.parametrize("name", DATA)
def test_networks_predict_as_with_float64(device: Device, name: str, source: str, tmp_path: Path) -> None:
    network = NETWORKS[source](trained(name, device), tmp_path)
    x = features(name, 30, "new")
    outputs = to_numpy(network(device.asarray(x)))
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, expected(network, x, features(name)), rtol=0, atol=1e-6 * abs(outputs).max())


@pytest.mark.parametrize("name", DATA)
def test_training_sees_what_predictions_see(device: Device, name: str) -> None:
    trainer, x, y = trained(name, device), features(name), np.arange(N) % 3
    found = trainer.evaluate(device.asarray(x), device.asarray(y))["loss"]
    outputs = expected(trainer.network, x, x).astype(np.float64)
    losses = np.log(np.exp(outputs - outputs.max(axis=1, keepdims=True)).sum(axis=1)) + outputs.max(axis=1)
    assert found == pytest.approx((losses - outputs[np.arange(N), y]).mean(), abs=2e-6)
    batch = to_numpy(trainer.learner.batches(device.asarray(x), N).slice(slice(0, N)))
    np.testing.assert_allclose(batch, standardised(x, x), rtol=0, atol=2e-6)
    first = activation_statistics(trainer.network, device.asarray(x))[0]
    assert first["mean_abs"] == pytest.approx(abs(standardised(x, x)).mean(), rel=1e-6)


@pytest.mark.parametrize("name", ["milliseconds", "huge"])
def test_accuracy_does_not_depend_on_the_dtype(device: Device, name: str) -> None:
    x = features(name, 300)
    z = standardised(x, x)
    y = device.asarray((z[:, 0] > 0).astype("int64"))
    for dtype in ("float32", "float64"):
        trainer = Trainer(mlp(FEATURES, [8], 2, standardize=True), batch_size=20, schedule=0.5, dtype=dtype)
        trainer.fit(device.asarray(x), y, epochs=20)
        assert trainer.evaluate(device.asarray(x), y)["accuracy"] > 0.95


def member(l2: float) -> Trainer:
    return Trainer(mlp(FEATURES, [8], 3, standardize=True), batch_size=20, schedule=0.05, l2=l2)


@pytest.mark.parametrize("name", ["milliseconds", "kelvin"])
def test_sweeps_ensembles_and_resumed_runs(name: str, tmp_path: Path) -> None:
    x, y = features(name), np.arange(N) % 3
    new = features(name, 30, "new")
    found = sweep(member, {"l2": [0.0, 0.1]}, x, y, steps=9, directory=tmp_path / "sweep", progress=False)
    members = [found.network(m) for m in range(2)]
    again = sweep(member, {"l2": [0.0, 0.1]}, x, y, steps=9, directory=tmp_path / "sweep", progress=False)
    assert np.array_equal(again.network(1)(new), members[1](new))  # from the blocks on disk
    for network in members:
        np.testing.assert_allclose(network(new), expected(network, new, x), rtol=0, atol=1e-6)
    mean = sum(np.exp(o) / np.exp(o).sum(axis=1, keepdims=True) for o in (expected(m, new, x) for m in members)) / 2
    np.testing.assert_allclose(Ensemble(members).predict_proba(new), mean, rtol=0, atol=1e-6)
    trainer = trained(name, Device(), callbacks=[Checkpoints(tmp_path / "run")])
    resumed = Trainer(trainer.architecture, batch_size=20, schedule=0.05, callbacks=[Checkpoints(tmp_path / "run")])
    resumed.resume(tmp_path / "run")
    assert np.array_equal(resumed.network(new), trainer.network(new))


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("name", ["kelvin", "seconds in float32", "years"])
def test_estimators_and_grid_search(name: str) -> None:
    x, new, y = features(name), features(name, 30, "new"), np.arange(N) % 2
    options = {"max_iter": 200, "tol": 0.1, "random_state": 0}
    model = MLPClassifier((8,), **options).fit(x, y)
    search = GridSearch(MLPClassifier((8,), **options), {"l2": [0.0, 0.1]}, cv=2).fit(x, y)
    for found in (model, search.best_estimator_):
        outputs = expected(found.network_, new, x)
        p = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found.predict_proba(new), p, rtol=0, atol=1e-6)
    outputs = MLPRegressor((8,), **options).fit(x, y.astype("float32"))
    np.testing.assert_allclose(outputs.predict(new), expected(outputs.network_, new, x)[:, 0], rtol=0, atol=1e-6)


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("name", ["milliseconds", "milliseconds as integers"])
def test_the_command_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, new = features(name), features(name, 30, "new")
    parts = {f"{k}_{part}": v for part in ("validation", "test") for k, v in (("x", x), ("y", np.arange(N) % 3))}
    np.savez(tmp_path / "mine.npz", x=x, y=np.arange(N) % 3, **parts)
    np.save(tmp_path / "new.npy", new)
    assert main(["train", "--data", str(tmp_path / "mine.npz"), "--hidden", "8", "--epochs", "2", "--out",
                 str(tmp_path / "run")]) == 0
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "new.npy"), "--raw", "--out",
                 str(tmp_path / "out.npy")]) == 0
    network = Network.load(tmp_path / "run" / "network.safetensors")
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected(network, new, x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["milliseconds", "kelvin", "near 0", "huge"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_onnx_subtracts_in_float64_where_it_must(name: str, dtype: str) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    network, x = trained(name, Device(), dtype).network, features(name, 30, "new")
    model = network.to_onnx()
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    wide = dtype == "float64" or name != "near 0"
    assert given.type == ("tensor(double)" if wide else "tensor(float)")
    outputs = session.run(None, {"x": x.astype("float64" if wide else "float32")})[0]
    assert outputs.dtype == dtype
    np.testing.assert_allclose(outputs, expected(network, x, features(name)), rtol=0, atol=1e-6)
    given = network.to_onnx(input_dtype="float64").graph.input[0].type.tensor_type.elem_type
    assert given == 11  # double


@pytest.mark.backends("numpy", "torch")  # it needs no device, and torch
@pytest.mark.parametrize("name", ["milliseconds", "kelvin", "near 0", "seconds"])
def test_torch_predicts_as_with_float64(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    network, x = trained(name, Device()).network, features(name, 30, "new")
    dtype = "float32" if name == "near 0" else "float64"
    other = torch.nn.Sequential(torch.nn.Linear(FEATURES, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(),
                                torch.nn.Linear(8, 3)).to(getattr(torch, dtype))
    other.load_state_dict({key: torch.from_numpy(a) for key, a in network.to_torch(dtype).items()})
    with torch.no_grad():
        outputs = other.eval()(torch.from_numpy(x.astype(dtype))).numpy()
    np.testing.assert_allclose(outputs, expected(network, x, features(name)), rtol=0, atol=2e-6)


@pytest.mark.parametrize(("name", "refused"), [("milliseconds", True), ("kelvin", True), ("near 0", False)])
def test_to_torch_refuses_to_round_the_mean_away(name: str, refused: bool) -> None:
    network = trained(name, Device()).network
    if refused:
        with pytest.raises(ValueError, match=r"feature [0-3] has the mean .* use to_torch\(dtype='float64'\) for a "
                                             r"module.double\(\)"):
            network.to_torch()
    else:
        assert network.to_torch()["0.weight"].dtype == np.float32
    state = network.to_torch("float64")
    assert {a.dtype.name for key, a in state.items() if "num" not in key} == {"float64"}
    with pytest.raises(ValueError, match="expected dtype 'float32' or 'float64', got 'float16'"):
        network.to_torch("float16")


def test_what_float64_rounds_away_too_is_refused() -> None:
    network = trained("milliseconds", Device(), "float64").network
    network.arrays["scale1"][2] = 1.0
    with pytest.raises(ValueError, match=r"feature 2 .*: subtract a constant near the mean from this feature before"):
        network.to_torch()


def test_bytes_and_well_centred_features_are_standardised_in_the_networks_dtype(xp: Any) -> None:
    wide = xp.asarray([255.1, 0.3], dtype=xp.float64), xp.asarray([300.0, 1.0], dtype=xp.float64)
    for dtype, expected_dtype in (("uint8", xp.float32), ("int8", xp.float32), ("bool", xp.float32),
                                  ("int16", xp.float64), ("float32", xp.float64), ("float64", xp.float64)):
        x = xp.zeros((1, 2), dtype=getattr(xp, dtype))
        assert all(a.dtype == expected_dtype for a in working_scaling(x, *wide, xp.float32)), dtype
    near = tuple(a[1:] for a in wide)
    x = xp.zeros((1, 1), dtype=xp.float32)
    assert all(a.dtype == xp.float32 for a in working_scaling(x, *near, xp.float32))


@pytest.mark.parametrize(("offset", "scale", "rounded"), [
    (0.0, 1.0, False), (290.0, 0.2, False), (290.1, 0.2, True), (0.0, 1e39, True), (0.0, 1e-46, True),
    (1e39, 1.0, True), (2.0**40, 1.0, False),
])
def test_offsets_that_float32_rounds_away(xp: Any, offset: float, scale: float, rounded: bool) -> None:
    assert rounds_away(xp.asarray([offset], dtype=xp.float64), xp.asarray([scale], dtype=xp.float64),
                       xp.float32) is rounded


def test_scaling_that_xpnet_0_1_saved_is_one_of_the_networks() -> None:
    for saved, dtype in (("float32", "float32"), ("float64", "float32"), ("float16", "float16")):
        assert compared_dtype("offset1", np.zeros(1, saved), ("offset1",), "float32") == dtype
    assert compared_dtype("W1", np.zeros(1, "float64"), ("offset1",), "float32") == "float64"
