"""CuPy against NumPy in float64, and runs that are killed on one and resumed on the other."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_close, blobs
from kills import start

import xpnet
from xpnet.backend import Device, to_numpy
from xpnet.training.checkpoints import steps_in

pytestmark = pytest.mark.backends("cupy")

TRAIN = [sys.executable, "-m", "xpnet", "train", "--data", "synthetic", "--images", "300", "--hidden", "20,10",
         "--batch-norm", "--dropout", "0.1", "--batch-size", "50", "--evaluate-every", "5", "--dtype", "float64",
         "--json"]
#: Hidden layers before batch norm: it cancels their biases, which stay at rounding noise.
CANCELLED = {"b1", "b2"}


def printed(command: list[str]) -> dict[str, Any]:
    """Run a command, and return what it printed as JSON."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def rows(run: Path) -> list[dict[str, float]]:
    """Return a run's history."""
    return [json.loads(line) for line in (run / "history.jsonl").read_text("utf-8").splitlines()]


def assert_same_run(run: Path, other: Path) -> None:
    """Compare two runs' histories and networks, to rounding."""
    assert len(rows(run)) == len(rows(other))
    for row, expected in zip(rows(run), rows(other), strict=True):
        assert row.keys() == expected.keys()
        assert_close(np.asarray([*row.values()]), np.asarray([*expected.values()]), 1e-9, f"step {row['step']}")
    a, b = (xpnet.Network.load(folder / "network.safetensors").arrays for folder in (run, other))
    for name in b.keys() - CANCELLED:
        assert_close(a[name], b[name], 1e-9, name)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that was never disturbed, on the CPU."""
    run = tmp_path_factory.mktemp("runs") / "calm"
    printed([*TRAIN, "--steps", "40", "--out", str(run)])
    return run


def test_the_command_line_trains_as_on_the_cpu(calm: Path, tmp_path: Path) -> None:
    there = printed([*TRAIN, "--steps", "40", "--device", "cuda", "--out", str(tmp_path / "run")])
    here = json.loads((calm / "config.json").read_text("utf-8"))
    assert json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))["device"] == "cuda:0"
    assert here["device"] == "cpu"
    assert there["step"] == 40
    assert_same_run(tmp_path / "run", calm)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize(("begins", "ends"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_run_that_is_killed_resumes_on_the_other(calm: Path, tmp_path: Path, begins: str, ends: str) -> None:
    run = tmp_path / "run"
    process = start([*TRAIN, "--steps", "100000", "--device", begins, "--out", str(run)])
    deadline = time.monotonic() + 120
    while not any(steps_in(run)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    until = max(40, max(steps_in(run)) + 10) // 10 * 10
    resumed = printed([sys.executable, "-m", "xpnet", "train", "--resume", str(run), "--steps", str(until), "--device",
                       ends, "--json"])
    assert resumed["step"] == until
    if until > 40:  # the run had gone further before it was killed: compare with as long a one
        calm = tmp_path / "calm"
        printed([*TRAIN, "--steps", str(until), "--out", str(calm)])
    assert_same_run(run, calm)


def test_runs_that_differ_are_seen(calm: Path, tmp_path: Path) -> None:
    printed([*TRAIN, "--steps", "40", "--seed", "1", "--out", str(tmp_path / "run")])
    with pytest.raises(AssertionError, match="they differ by"):
        assert_same_run(tmp_path / "run", calm)


def make(l2: float, seed: int) -> xpnet.Trainer:
    network = xpnet.mlp(12, [10, 8], 4, batch_norm=True, dropout=0.1)
    return xpnet.Trainer(network, schedule=xpnet.CyclicLR(1e-4, 0.05, 50), l2=l2, seed=seed, batch_size=20,
                         optimizer=xpnet.SGD(0.9), dtype="float64")


def test_a_sweep_of_8_is_that_of_numpy(device: Device) -> None:
    def swept(where: Device) -> xpnet.Sweep:
        x, y = blobs(where, 200, 12, 4, dtype="float64", spread=3.0)
        return xpnet.sweep(make, {"l2": [0.0, 1e-3, 1e-2, 0.1], "seed": [0, 1]}, x, y, steps=200,
                           validation=(x[:50, :], y[:50]))

    there, here = swept(device), swept(Device())
    assert there.device == device
    for member in range(8):
        got, expected = there.network(member).arrays, here.network(member).arrays
        for name in expected.keys() - CANCELLED:
            assert_close(got[name], expected[name], 1e-9, f"member {member}, {name}")


@pytest.mark.filterwarnings("ignore:.*has not converged")
@pytest.mark.parametrize("kind", [xpnet.MLPClassifier, xpnet.MLPRegressor])
@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd"])
def test_estimators_predict_as_on_numpy(device: Device, kind: Any, solver: str) -> None:
    found = []
    for where in (device, Device()):
        x, y = blobs(where, 120, dtype="float64", spread=2.0)
        target = where.asarray(to_numpy(x)[:, 0] ** 2) if kind is xpnet.MLPRegressor else y
        model = kind((10,), solver=solver, learning_rate_init=0.01, max_iter=20, dropout=0.1, batch_norm=True,
                     random_state=0)
        model.fit(x, target)
        found.append(to_numpy(model.predict_proba(x) if kind is xpnet.MLPClassifier else model.predict(x)))
    assert_close(found[0], found[1], 1e-9)


def test_a_checkpoint_goes_to_the_other_device_and_back(device: Device, tmp_path: Path) -> None:
    x, y = blobs(device, 120, dtype="float64")
    trainer = xpnet.Trainer(xpnet.mlp(6, [8], 3, batch_norm=True, standardize=True), dtype="float64", batch_size=20)
    trainer.fit(x, y, epochs=3)
    trainer.network.save(tmp_path / "there.safetensors")
    here = xpnet.Network.load(tmp_path / "there.safetensors")
    assert here.device == Device()
    assert_close(here(to_numpy(x)), trainer.network(x), 1e-12)
    here.save(tmp_path / "here.safetensors")
    again = xpnet.Network.load(tmp_path / "here.safetensors", device)
    assert again.device == device
    np.testing.assert_array_equal(to_numpy(again(x)), to_numpy(trainer.network(x)))
