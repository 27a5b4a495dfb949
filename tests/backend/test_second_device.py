"""Data on a GPU that is not the current one: every entrance computes there, and leaves the current device as it was."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import blobs

import xpnet
from xpnet.backend import Device, MixedDevicesError
from xpnet.nn import gradcheck
from xpnet.training.divergence import DivergenceWarning

pytestmark = pytest.mark.backends("cupy")


@pytest.fixture
def second(device: Device) -> Iterator[Device]:
    """Return the second GPU, while the first is the current device."""
    count = device.xp.cuda.runtime.getDeviceCount()
    if count < 2:
        pytest.skip(f"two GPUs are needed, and there is {count}; CPUCUDA_DEVICES=2 emulates two")
    with device.native:
        yield Device("cuda:1")
        assert device.xp.cuda.runtime.getDevice() == 0, "the current device was changed"


@pytest.fixture
def data(second: Device) -> tuple[Any, Any]:
    """Return features and labels on the second GPU."""
    return blobs(second)


def network(**options: Any) -> Any:
    return xpnet.mlp(6, [8], 3, batch_norm=True, standardize=True, **options)


def trainer(**options: Any) -> xpnet.Trainer:
    made: Any = {"schedule": 0.1, "batch_size": 20, "l2": 1e-3, **options}
    return xpnet.Trainer(network(dropout=0.1), **made)


def trained(data: Any, **options: Any) -> xpnet.Trainer:
    made = trainer(**options)
    made.fit(*data, epochs=1)
    return made


def resumed(data: Any, run: Path) -> Any:
    trained(data, callbacks=[xpnet.Checkpoints(run)])
    again = trainer(callbacks=[xpnet.Checkpoints(run)])
    again.resume(run)
    return again.fit(*data, epochs=2)


def updated(data: Any, _: Path) -> Any:
    made = trained(data)
    second = Device.of(data[0])
    x, targets = (second.asarray(a, "float32") for a in (np.ones((20, 6)), np.eye(3)[np.arange(20) % 3]))
    noise = {name: second.asarray(np.full(shape, 0.5), "float32")
             for name, shape in made.architecture.noise_shapes(20).items()}
    return made.update(x, targets, 0.1, noise)


def halved(data: Any, _: Path) -> Any:
    made = xpnet.Trainer(xpnet.mlp(6, [8], 3), schedule=1e30, batch_size=20, divergence="halve")
    with pytest.warns(DivergenceWarning), pytest.raises(xpnet.DivergenceError):
        made.fit(*data, epochs=3, evaluate_every=1)
    return made.network(data[0])


def estimator(data: Any, method: str, kind: Any = xpnet.MLPClassifier, **options: Any) -> Any:
    x, y = data
    y = y if kind is xpnet.MLPClassifier else x[:, 0]
    made = kind((8,), max_iter=3, random_state=0, n_iter_no_change=5, batch_norm=True, **options)
    if method == "partial_fit":
        made.partial_fit(x, y, *([xpnet.Device.of(x).asarray([0, 1, 2])] if kind is xpnet.MLPClassifier else []))
        method = "predict"
    else:
        made.fit(x, y)
    return getattr(made, method)(*((x, y) if method == "score" else (x,)))


def searched(data: Any, method: str, **options: Any) -> Any:
    x, y = data
    made = xpnet.GridSearch(xpnet.MLPClassifier((8,), max_iter=2, random_state=0, n_iter_no_change=5),
                            {"l2": [0.0, 0.1], "hidden_layer_sizes": [(4,), (8,)]}, cv=2, **options).fit(x, y)
    return getattr(made, method)(*((x, y) if method == "score" else (x,)))


def swept(data: Any, **options: Any) -> xpnet.Sweep:
    def make(l2: float) -> xpnet.Trainer:
        return trainer(l2=l2)

    return xpnet.sweep(make, {"l2": [0.0, 1e-3, 1e-2, 0.1]}, *data, epochs=4, validation=data, **options)


def ensemble(data: Any) -> xpnet.Ensemble:
    return xpnet.Ensemble([trained(data, seed=seed).network for seed in (0, 1)])


def checked(data: Any, _: Path) -> Any:
    rows = gradcheck.check_network(xpnet.mlp(4, [3], 2, batch_norm=True), device=Device.of(data[0]))
    assert all(gradcheck.passes(row) for row in rows)


def pickled(data: Any, _: Path) -> Any:
    made = pickle.loads(pickle.dumps(trained(data)))  # noqa: S301 - it was made here
    return copy.deepcopy(made).fit(*data, epochs=2)


#: What is done with (data, an empty directory), by name; what it returns lies on the second GPU where it is arrays.
ENTRANCES: dict[str, Callable[[Any, Path], Any]] = {
    "Trainer.fit": lambda data, _: trainer().fit(*data, epochs=2, validation=data),
    "Trainer.fit, several": lambda data, _: trainer(l2=[0.0, 0.1], seed=[1, 2]).fit(*data, epochs=2),
    "Trainer.fit, frozen": lambda data, _: xpnet.Trainer(
        xpnet.mlp(6, [8], 3), l2=[0.0, 1e30], divergence="freeze").fit(*data, epochs=2),
    "Trainer.fit, halve": halved,
    "Trainer.evaluate": lambda data, _: trained(data).evaluate(*data),
    "Trainer.start": lambda data, _: trainer().start(Device.of(data[0]), data[0]),
    "Trainer.update": updated,
    "Trainer.resume": resumed,
    "Trainer.restore": lambda data, _: trainer().restore(trained(data).state(), 6, Device.of(data[0])),
    "Trainer, pickled": pickled,
    "Network": lambda data, _: trained(data).network(data[0], block=50),
    "Network.predict": lambda data, _: trained(data).network.predict(data[0]),
    "Network.predict_proba": lambda data, _: trained(data).network.predict_proba(data[0]),
    "Network.member": lambda data, _: trained(data, seed=[1, 2]).network.member(1)(data[0]),
    "Network.fold": lambda data, _: trained(data).network.fold()(data[0]),
    "Network.to_torch": lambda data, _: trained(data).network.to_torch(),
    "Network.summary": lambda data, _: trained(data).network.summary(),
    "Network.save": lambda data, at: (trained(data).network.save(at / "n.safetensors"), xpnet.Network.load(
        at / "n.safetensors", Device.of(data[0])))[1](data[0]),
    "Network.to_npz": lambda data, at: (trained(data).network.to_npz(at / "n.npz"), xpnet.Network.from_npz(
        at / "n.npz", device=Device.of(data[0])))[1](data[0]),
    "Ensemble.predict": lambda data, _: ensemble(data).predict(data[0]),
    "Ensemble.predict_proba": lambda data, _: ensemble(data).predict_proba(data[0]),
    "Ensemble.evaluate": lambda data, _: ensemble(data).evaluate(*data),
    **{f"MLPClassifier.{method}": lambda data, _, method=method: estimator(data, method)
       for method in ("predict", "predict_proba", "predict_log_proba", "decision_function", "score", "partial_fit")},
    **{f"MLPRegressor.{method}": lambda data, _, method=method: estimator(data, method, xpnet.MLPRegressor)
       for method in ("predict", "score", "partial_fit")},
    "MLPClassifier, early stopping": lambda data, _: estimator(data, "predict", early_stopping=True),
    "MLPRegressor, early stopping": lambda data, _: estimator(
        data, "predict", xpnet.MLPRegressor, early_stopping=True),
    **{f"GridSearch.{method}": lambda data, _, method=method: searched(data, method)
       for method in ("predict", "predict_proba", "predict_log_proba", "decision_function", "score")},
    "GridSearch, early stopping": lambda data, _: xpnet.GridSearch(
        xpnet.MLPClassifier((8,), max_iter=3, early_stopping=True, validation_fraction=0.3), {"l2": [0.0, 0.1]}, cv=2,
    ).fit(*data).predict(data[0]),
    "sweep": lambda data, at: swept(data, directory=at / "sweep").evaluate(*data),
    "sweep, halved": lambda data, _: swept(data, halve_at=[6, 12]).ensemble().predict(data[0]),
    "Sweep.network": lambda data, _: swept(data).network()(data[0]),
    "find_lr": lambda data, _: xpnet.find_lr(network(), *data, steps=20).diverged,
    "BestWeights": lambda data, _: trained(data, callbacks=[xpnet.BestWeights("train_loss")]).network(data[0]),
    "gradcheck.check": lambda data, _: gradcheck.check(*gradcheck.CASES["BatchNorm"](Device.of(data[0]))),
    "gradcheck.numerical_gradient": lambda data, _: gradcheck.numerical_gradient(
        *gradcheck.CASES["Linear"](Device.of(data[0])), "W"),
    "gradcheck.check_network": checked,
    "gradcheck.parity": lambda data, _: gradcheck.parity(Device.of(data[0]), "float32"),
}


PARAMETERS = {"check_fitted", "get_params", "set_params", "unchanged_by_errors"}
#: Public methods that compute nothing on a device, or that others here call.
OTHERS = {
    "Trainer": {"config", "signature", "stack", "state", "stop", "batches"}, "Ensemble": set(),
    "Network": {"load", "from_npz", "from_torch", "to_onnx"}, "GridSearch": {"fit", *PARAMETERS},
    "MLPClassifier": {"fit", "from_network", *PARAMETERS}, "MLPRegressor": {"fit", "from_network", *PARAMETERS},
    "Sweep": {"add", "last", "reached", "rank", "ranked", "members", "table", "values", "stack", "side_by_side",
              "plot", "save", "evaluate", "ensemble"},
}


@pytest.mark.backends("numpy", "cupy")
@pytest.mark.parametrize("owner", OTHERS)
def test_every_public_method_is_an_entrance_or_named_as_none(owner: str) -> None:
    kind = getattr(xpnet, owner)
    methods = {name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))}
    tested = {name.partition(".")[2].partition(",")[0] for name in ENTRANCES if name.startswith(f"{owner}.")}
    assert methods - tested == OTHERS[owner]


@pytest.mark.filterwarnings("ignore:.*has not converged")
@pytest.mark.parametrize("name", ENTRANCES)
def test_every_entrance_computes_where_the_data_are(second: Device, data: Any, tmp_path: Path, name: str) -> None:
    found = ENTRANCES[name](data, tmp_path)
    if hasattr(found, "__dlpack__") and not isinstance(found, np.ndarray):
        assert Device.of(found) == second


def test_two_devices_do_not_mix(second: Device, data: Any, device: Device) -> None:
    x, y = data
    here = device.asarray(x)
    with pytest.raises(MixedDevicesError, match=r"x is on cuda:0, y on cuda:1; bring them together"):
        trainer().fit(here, y, epochs=1)
    made = trained(data)
    with pytest.raises(ValueError, match=r"features are on cuda:0, the network on cuda:1"):
        made.network(here)


def test_the_same_numbers_come_from_either_device(second: Device, data: Any, device: Device) -> None:
    there = trainer(dtype="float64").fit(*data, epochs=2)["train_loss"]
    here = trainer(dtype="float64").fit(*(device.asarray(a) for a in data), epochs=2)["train_loss"]
    np.testing.assert_array_equal(there, here)
