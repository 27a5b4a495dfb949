"""The kernel that makes many updates in one launch, against the plain updates on NumPy."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from helpers import assert_close, blobs

import xpnet
from xpnet.backend import Device, to_numpy
from xpnet.backend.cuda.persistent import Limits
from xpnet.nn.layers import BatchNorm, Dropout, LeakyReLU, Linear, Tanh
from xpnet.training import persistent
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
    "models, a block each": (xpnet.mlp(7, [6], 3, dropout=0.1), {
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


def trained(device: Device, case: str, dtype: str = "float64") -> tuple[xpnet.Trainer, np.ndarray]:
    """Return a trainer after 200 updates and their losses: on a GPU by the kernel, in two launches."""
    network, options, limits = CASES[case]
    x, y = data(device, options.get("loss"), dtype)
    trainer = xpnet.Trainer(network, dtype=dtype, device=device, **{"schedule": 0.02, "batch_size": 16, **options})
    if device.is_host:
        trainer.fit(x, y, steps=STEPS, evaluate_every=STEPS)
        return trainer, np.asarray(trainer.history.batch_loss)
    trainer.start(device, x)
    kernel = persistent.Persistent(
        trainer.learner, network, trainer.optimizer, trainer.loss, trainer.l2, trainer.seed, x, y, trainer.batch_size,
        limits=limits, threads=128 if trainer.batch_size > 32 else 64)
    batches, rates = trainer.batches(x, y), np.asarray([trainer.schedule(t) for t in range(STEPS)])
    sizes = [batches.sizes[t % batches.per_epoch] for t in range(STEPS)]
    examples = np.zeros((STEPS, trainer.batch_size), "int32")
    for t, size in enumerate(sizes):
        examples[t, :size] = to_numpy(batches._rows(t))
    parts = [slice(0, 70), slice(70, STEPS)]
    return trainer, np.concatenate([to_numpy(kernel.run(part.start, rates[part], examples[part], sizes[part]))
                                    for part in parts])


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
        trainer = xpnet.Trainer(EVERYTHING, optimizer=xpnet.SGD(0.9), schedule=0.05)
        trainer.start(Device.of(x), x)
        kernel = persistent.Persistent(trainer.learner, EVERYTHING, trainer.optimizer, trainer.loss, 0.0, 0, x, y, 40,
                                       limits=Limits(4, 10**5), threads=128)
        losses = kernel.run(0, [0.05] * 6, np.arange(240).reshape(6, 40) % 120, [40] * 5 + [31])
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
    if "emulation" in device.xp.cuda.runtime.getDeviceProperties(0)["name"].decode():
        assert intact not in found[2:]  # a GPU may be lucky
