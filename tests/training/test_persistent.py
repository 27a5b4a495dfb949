"""The kernel that makes many updates in one launch, against the plain updates on NumPy."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import subprocess
import sys
from typing import Any

import cpucuda
import numpy as np
import pytest
from helpers import assert_close, assert_same, blobs

import xpnet
from xpnet.backend import Device, survey, to_numpy
from xpnet.backend.cuda import persistent as gpu
from xpnet.backend.cuda.persistent import Limits
from xpnet.nn.layers import BatchNorm, Dropout, LeakyReLU, Linear, Tanh
from xpnet.training import loop, persistent
from xpnet.training.kernel_source import Program, write

pytestmark = pytest.mark.backends("cupy")

STEPS = 200
EVERYTHING = xpnet.mlp(7, [6, 5], 3, batch_norm=True, dropout=0.2, standardize=True)
#: The trainer's options; the number of blocks on the device, and the bytes of their shared memory.
CASES: dict[str, tuple[xpnet.Sequential, dict[str, Any], Limits]] = {
    "momentum, batch norm, dropout, penalty": (EVERYTHING, {
        "optimizer": xpnet.SGD(0.9), "l2": 1e-3, "schedule": xpnet.CyclicLR(1e-3, 0.05, 30)}, Limits(3, 10**5)),
    "plain, W1 in global memory": (xpnet.mlp(7, [6, 5], 3), {"l2": 1e-3, "schedule": 0.05}, Limits(2, 700)),
    "nesterov, features in parts": (xpnet.mlp(7, [6, 5], 3), {"optimizer": xpnet.SGD(0.9, nesterov=True)},
                                    Limits(2, 300)),
    "models, adam": (xpnet.mlp(7, [6, 5], 3, batch_norm=True, dropout=[0.1, 0.2, 0.3]), {
        "optimizer": xpnet.Adam([0.9, 0.8, 0.7]), "l2": [0.0, 1e-3, 1e-2], "seed": [0, 1, 2]}, Limits(7, 10**5)),
    "models, a block each": (xpnet.mlp(7, [6], 3, dropout=0.1, initializer=xpnet.Normal([0.5, 0.3])), {
        "optimizer": xpnet.AdamW(weight_decay=[0.1, 0.2]), "schedule": np.asarray([0.01, 0.02])}, Limits(1, 10**5)),
    "squared error": (xpnet.mlp(7, [6, 5], 3), {"loss": xpnet.MeanSquaredError(), "optimizer": xpnet.AdamW()},
                      Limits(3, 10**5)),
    "no hidden layer": (xpnet.Sequential(7, [Linear(3)]), {}, Limits(2, 10**5)),
    "any order, large teams": (xpnet.Sequential(7, [
        BatchNorm(), Dropout(0.1), Linear(5), Linear(4), Tanh(), BatchNorm(0.5), LeakyReLU(0.2), Linear(3),
        BatchNorm()]), {"optimizer": xpnet.SGD(0.5), "batch_size": 50}, Limits(6, 10**5)),
}


def data(device: Device, loss: Any, dtype: str) -> tuple[Any, Any]:
    """Return 120 examples of 7 features."""
    x, y = blobs(device, 120, 7, 3, dtype=dtype, spread=2.0)
    return (x, y) if loss is None else (x, device.asarray(np.sin(to_numpy(x)[:, :3]), dtype))


def emulated(device: Device) -> bool:
    """Return whether a device is no GPU."""
    return bool(device.xp.cuda.runtime.getDeviceProperties(0)["name"] == b"CPU emulation")


def kernel_of(trainer: xpnet.Trainer, x: Any, y: Any, limits: Limits, threads: int) -> persistent.Persistent:
    """Return the kernel of a trainer that was started."""
    return persistent.Persistent(
        trainer.learner, trainer.architecture, trainer.optimizer, trainer.loss, trainer.l2, trainer.clip_norm,
        trainer.seed, trainer.batches(x, y), limits=limits, threads=threads)


def trained(device: Device, case: str, dtype: str = "float64") -> tuple[xpnet.Trainer, np.ndarray]:
    """Return a trainer after 200 updates and their losses: on a GPU by the kernel, in two launches."""
    network, options, limits = CASES[case]
    x, y = data(device, options.get("loss"), dtype)
    trainer = xpnet.Trainer(network, dtype=dtype, device=device, **{"schedule": 0.02, "batch_size": 16, **options})
    if device.is_host:
        trainer.fit(x, y, steps=STEPS, evaluate_every=STEPS)
        return trainer, np.asarray(trainer.history.batch_loss)
    trainer.start(device, x)
    kernel = kernel_of(trainer, x, y, limits, 128 if trainer.batch_size > 32 else 64)
    rates = np.asarray([np.atleast_1d(trainer.schedule(t)) for t in range(STEPS)])
    parts = [kernel.run(first, last, rates[first:last]) for first, last in ((0, 70), (70, STEPS))]
    return trainer, np.concatenate([to_numpy(part) for part in parts])


@pytest.mark.parametrize("case", CASES)
def test_updates_are_those_of_numpy(device: Device, case: str) -> None:
    (got, losses), (expected, known) = trained(device, case), trained(Device(), case)
    assert_close(losses, known, 1e-9, "losses")
    for name, array in expected.state().items():
        assert_close(got.state()[name], array, 1e-9, name)


def test_updates_in_single_precision(device: Device) -> None:
    case = next(iter(CASES))
    assert_close(trained(device, case, "float32")[1], trained(Device(), case, "float32")[1], 1e-4)


def bits(remove: int = -1) -> str:
    """Return a hash of all that a few updates make, by a kernel that lacks one of the grid's barriers or none."""
    whole = persistent.write

    def damaged(*arguments: Any) -> Program:
        program = write(*arguments)
        pieces = re.split(r"^    barrier\(\);$", program.text, flags=re.MULTILINE)
        assert len(pieces) == 7  # one behind the products of the first layer, three forward, two backward
        program.text = "".join(piece + (i not in (remove, 6)) * "    barrier();" for i, piece in enumerate(pieces))
        return program

    persistent.write = damaged
    try:
        x, y = data(Device("cuda"), None, "float32")
        trainer = xpnet.Trainer(EVERYTHING, optimizer=xpnet.SGD(0.9), batch_size=50)
        trainer.start(Device.of(x), x)
        losses = kernel_of(trainer, x, y, Limits(4, 10**5), 128).run(0, 6, np.full((6, 1), 0.05))
        made = [losses, *trainer.state().values()]
    finally:
        persistent.write = whole
    return hashlib.sha256(b"".join(to_numpy(a).tobytes() for a in made)).hexdigest()


@pytest.mark.slow
def test_the_bits_do_not_depend_on_the_order_of_threads_unless_a_barrier_lacks(device: Device) -> None:
    code = "import test_persistent as t; print(*[t.bits(i) for i in (-1, -1, *range(6))])"
    here = os.path.dirname(__file__)
    path = os.pathsep.join([here, os.path.join(here, "..", "support"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                          env={**os.environ, "CPUCUDA_SHUFFLE": "1", "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    found, intact = done.stdout.split(), bits()
    assert found[:2] == [intact, intact]
    if emulated(device):
        assert intact not in found[2:]  # a GPU may be lucky


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have runs of any length use the kernel; return the updates of each launch, as they are made."""
    made: list[int] = []
    plain = gpu.launch

    def counted(*arguments: Any) -> None:
        made.append(arguments[-2])
        plain(*arguments)

    monkeypatch.setattr(loop, "WORTHWHILE", 0)
    monkeypatch.setattr(gpu, "launch", counted)
    return made


def fitted(device: Device, *steps: int, **options: Any) -> xpnet.Trainer:
    """Return a trainer after calls of ``fit`` until these updates, evaluated at every 100th."""
    x, y = data(device, None, options.get("dtype", "float64"))
    network = options.pop("network", EVERYTHING)
    trainer = xpnet.Trainer(network, **{"schedule": 0.02, "batch_size": 16, "dtype": "float64", **options})
    for until in steps:
        trainer.fit(x, y, steps=until, evaluate_every=100)
    return trainer


def test_fit_launches_once_between_evaluations(device: Device, launches: list[int]) -> None:
    trainer, plain = fitted(device, 210), fitted(Device(), 210)
    assert trainer.path == "persistent" != plain.path
    assert launches == [100, 100, 10]
    assert_close(np.asarray(trainer.history.batch_loss), np.asarray(plain.history.batch_loss), 1e-9)
    for row, expected in zip(trainer.history.rows, plain.history.rows, strict=True):
        assert_close([*row.values()], [*expected.values()], 1e-9)
    interrupted = fitted(device, 40, 210)
    assert launches[3:] == [40, 60, 100, 10]
    assert_same(interrupted.state(), trainer.state())
    assert_same(interrupted.history.batch_loss, trainer.history.batch_loss)
    assert pickle.loads(pickle.dumps(trainer)).step == 210  # noqa: S301


def test_a_launch_is_all_that_an_interval_launches(device: Device, launches: list[int]) -> None:
    if not emulated(device):
        pytest.skip("the emulation counts launches")
    trainer = fitted(device, 1)
    x, y = data(device, None, "float64")
    loops = loop.Loop(trainer, trainer.batches(x, y), updates=1)
    before = cpucuda.counts()
    loops.update_until(101)
    found = cpucuda.counts()
    assert launches == [1, 100]
    assert {name: found[name] - before[name] for name in found} == {"kernels": 1, "cublas": 0}


def test_a_model_that_diverges_is_frozen_and_leaves_the_others_alone(device: Device, launches: list[int]) -> None:
    options = {"schedule": np.asarray([0.02, 1e200, 0.03]), "divergence": "freeze", "network": xpnet.mlp(7, [6], 3)}
    trainer, plain = fitted(device, 210, **options), fitted(Device(), 210, **options)
    assert launches
    assert trainer.diverged.keys() == plain.diverged.keys() == {1}
    for name, array in plain.state().items():
        assert_close(trainer.state()[name], array, 1e-9, name)


def test_divergence_is_raised_with_its_place(device: Device, launches: list[int]) -> None:
    with pytest.raises(xpnet.DivergenceError, match=r"at update \d+ .*not finite first: .* at update \d+"):
        fitted(device, 210, schedule=1e200, network=xpnet.mlp(7, [6], 3))
    assert launches == [100]


@pytest.mark.parametrize("loss", [xpnet.SoftmaxCrossEntropy(), xpnet.MeanSquaredError()])
def test_some_rows_of_bytes_with_labels_in_pieces(device: Device, launches: list[int], loss: Any) -> None:
    found = []
    for where in (device, Device()):
        x, y = data(where, None if loss.classifies else loss, "float64")
        x = where.asarray(to_numpy(x * 8.0).astype("int8"))
        only = where.asarray(np.arange(119, 20, -1))
        trainer = xpnet.Trainer(xpnet.mlp(7, [6], 3, standardize=True), batch_size=16, dtype="float64", loss=loss)
        trainer.start(where, x, only)
        labels = where.xp.repeat(y[only, ...], 2, axis=0)[::2, ...]
        assert not labels.flags.c_contiguous
        loop.Loop(trainer, trainer.batches(x, labels, only), updates=20).update_until(20)
        found.append(trainer)
    assert launches == [20]
    for name, array in found[1].state().items():
        assert_close(found[0].state()[name], array, 1e-9, name)


class Own(Tanh):
    """A layer without CUDA code."""


@pytest.mark.parametrize(("options", "why"), [
    ({"network": xpnet.mlp(7, [257], 3)}, "layer 1 has 257 outputs, more than 256"),
    ({"network": xpnet.Sequential(7, [Linear(4), Own(), Linear(3)])}, "layer 2, Own, has no CUDA code"),
    ({"network": xpnet.Sequential(3, [BatchNorm()])}, "there is no Linear layer"),
    ({"clip_norm": 1.0}, "gradients are clipped"),
    ({"network": xpnet.mlp(7, [256] * 3, 3), "batch_size": 120}, "multiplications in each pass"),
    ({"seed": 2**128, "order_seed": 0}, "more than 128 bits"),
])
def test_why_there_is_no_kernel(
    device: Device, launches: list[int], caplog: pytest.LogCaptureFixture, options: dict[str, Any], why: str
) -> None:
    caplog.set_level("DEBUG")
    network = options.get("network", EVERYTHING)
    x, y = data(device, None, "float64")
    trainer = xpnet.Trainer(network, dtype="float64", **{k: v for k, v in options.items() if k != "network"})
    trainer.fit(x[:, : network.in_features].copy(), y, steps=1)
    assert trainer.path != "persistent"
    assert not launches
    assert why in caplog.text
    if options.keys() == {"network"}:
        assert why in trainer.network.summary(device)


def test_who_is_told_of_the_kernel(device: Device, caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    assert "one launch for many updates" in fitted(device, 1).network.summary(device)
    assert "cpu is no GPU" in fitted(device, 1).network.summary("cpu")
    cpu, *gpus = survey()
    assert cpu["persistent"] == "no: cpu is no GPU"
    assert {row["persistent"] for row in gpus} == {"yes"}
    caplog.set_level("DEBUG")
    fitted(device, 2)
    assert "compiled for runs of 1000 updates or more" in caplog.text
    monkeypatch.setattr(loop, "WORTHWHILE", 0)
    monkeypatch.setattr(persistent, "write", lambda *_: Program("this is no C++"))
    caplog.clear()
    assert fitted(device, 2).path != "persistent"
    assert "the persistent kernel does not compile" in caplog.text
