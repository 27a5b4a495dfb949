"""The job on a CPU: what xpnet and its peers do alike, written with NumPy alone, and the check that they did it.

An update: gather 100 of 45,000 uint8 images of 3072 in an order drawn anew for every epoch, standardise them, and
make one step of SGD with an L2 penalty and a cyclical rate. Everyone starts from the same weights and sees the same
batches (both are xpnet's, drawn here without it, so that a peer's process holds nothing of xpnet).

Arrays are named as in xpnet: W1, b1, gamma1, beta1, mean1, var1, ...; in a sweep they have the models in front.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

EPS, KEPT = 1e-5, 0.9  # batch norm: added to the variance; the running statistics' share that stays
PER_FILE = 10_000  # images
COMPARED = 20  # updates that are checked before a peer is timed
#: Limits of the check; how far float32 and mistakes lie from them is in the tests of this file.
LOSS_LIMIT, ARRAY_LIMIT = 1e-3, 0.03
NETWORKS: dict[str, tuple[tuple[int, ...], bool]] = {
    "H3+BN": ((50, 50), True), "H9+BN": ((50, 30, 20, 20, 10, 10, 10, 10), True),
    "H3": ((50, 50), False), "H9": ((50, 30, 20, 20, 10, 10, 10, 10), False),
}


@dataclass(frozen=True)
class Job:
    """What to train.

    Parameters
    ----------
    hidden : tuple of int
        Widths of the hidden layers.
    batch_norm : bool
        Whether each hidden layer has batch norm.
    l2 : float, or tuple of float
        The penalty's factor; a tuple makes a sweep, with one model per value.
    lowest, highest, half : float, float, int
        The rate's bounds, and the updates from one to the other. The default's cycle is so short that the updates
        that are checked see all of it, and that a mistake in them shows.
    chunk : int
        Updates that peers which compile a loop put into one call.
    """

    hidden: tuple[int, ...]
    batch_norm: bool = True
    l2: float | tuple[float, ...] = 0.005
    lowest: float = 1e-5
    highest: float = 1e-3
    half: int = COMPARED // 2
    chunk: int = 450
    n: int = 45_000
    inputs: int = 3072
    classes: int = 10
    size: int = 100
    seed: int = 0

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Job:
        """Make a job of what JSON left of one."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()})

    @property
    def penalties(self) -> tuple[float, ...]:
        """The penalty's factor of each model."""
        return self.l2 if isinstance(self.l2, tuple) else (self.l2,)

    @property
    def models(self) -> tuple[int, ...]:
        """The shape of the model axis, () without one."""
        return (len(self.l2),) if isinstance(self.l2, tuple) else ()

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the input, the hidden layers and the output."""
        return (self.inputs, *self.hidden, self.classes)

    @property
    def per_epoch(self) -> int:
        """Updates per epoch."""
        return self.n // self.size

    def rate(self, t: int) -> float:
        """Return the learning rate of update ``t``: a triangle that starts at the lowest."""
        up = 1.0 - abs(t % (2 * self.half) / self.half - 1.0)
        return self.lowest + (self.highest - self.lowest) * up

    def rates(self, first: int, n: int) -> np.ndarray:
        """Return the learning rates of ``n`` updates, as float32."""
        return np.array([self.rate(t) for t in range(first, first + n)], np.float32)

    def order(self, epoch: int) -> np.ndarray:
        """Draw the examples of an epoch's batches, int64 of shape (per_epoch, size)."""
        return _stream(self.seed, "order", epoch).permutation(self.n)[: self.per_epoch * self.size].reshape(
            -1, self.size)

    def weights(self) -> list[np.ndarray]:
        """Draw the initial weight matrices (in, out), float32 and the same for every model: He's."""
        shapes = zip(self.widths[:-1], self.widths[1:], strict=True)
        return [(_stream(self.seed, f"W{k + 1}", 0).standard_normal(shape) * (2.0 / shape[0]) ** 0.5).astype(np.float32)
                for k, shape in enumerate(shapes)]

    def start(self) -> dict[str, np.ndarray]:
        """Return all trained arrays of one model as they begin."""
        arrays: dict[str, np.ndarray] = {}
        for k, w in enumerate(self.weights(), start=1):
            arrays |= {f"W{k}": w, f"b{k}": np.zeros(w.shape[1], np.float32)}
            if self.batch_norm and k <= len(self.hidden):
                arrays |= {f"gamma{k}": np.ones(w.shape[1], np.float32), f"beta{k}": np.zeros(w.shape[1], np.float32)}
        return arrays


def _stream(seed: int, purpose: str, counter: int) -> np.random.Generator:
    key = np.random.SeedSequence(entropy=seed, spawn_key=(zlib.crc32(purpose.encode()), counter))
    return np.random.Generator(np.random.Philox(key))


@dataclass(frozen=True)
class Data:
    """The training data in memory: uint8 (n, inputs), int64 labels, and each feature's mean and 1 / deviation."""

    x: np.ndarray
    y: np.ndarray
    mean: np.ndarray
    inverse: np.ndarray
    place: str = ""

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray) -> Data:
        """Find the moments, block by block and in float64; they are kept as float32."""
        starts = range(0, len(x), 1000)
        mean = sum(x[start : start + 1000].sum(axis=0, dtype=np.float64) for start in starts) / len(x)
        var = sum(((x[start : start + 1000] - mean) ** 2).sum(axis=0) for start in starts) / len(x)
        return cls(x, y, mean.astype(np.float32), (1.0 / np.sqrt(np.where(var > 0, var, 1.0))).astype(np.float32))

    def save(self, place: Path) -> None:
        """Write the arrays to a directory, the images in files of 10,000 like CIFAR-10's."""
        for name in ("y", "mean", "inverse"):
            np.save(place / f"{name}.npy", getattr(self, name))
        for i, start in enumerate(range(0, len(self.x), PER_FILE)):
            np.save(place / f"x{i}.npy", self.x[start : start + PER_FILE])

    @classmethod
    def load(cls, place: str | Path) -> Data:
        """Read what ``save`` wrote into memory, file by file.

        Freeing a block of CIFAR-10's 30 MB raises the size from which glibc asks the kernel for fresh pages, as it
        does in the process of anybody who reads CIFAR-10. Without it NumPy and PyTorch lose up to a millisecond per
        update on page faults.
        """
        y, mean, inverse = (np.load(Path(place) / f"{name}.npy") for name in ("y", "mean", "inverse"))
        x = np.empty((len(y), len(mean)), np.uint8)
        for i, start in enumerate(range(0, len(x), PER_FILE)):
            x[start : start + PER_FILE] = np.load(Path(place) / f"x{i}.npy")
        return cls(x, y, mean, inverse, str(place))


def memory() -> int:
    """Return the most bytes that this process has held."""
    try:
        status = Path("/proc/self/status").read_text("ascii")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        import resource

        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def accuracy(arrays: Mapping[str, np.ndarray], data: Data, x: np.ndarray, y: np.ndarray) -> float:
    """Return one network's accuracy with the running statistics, computed the same way for everyone."""
    layers = sum(name.startswith("W") for name in arrays)
    right = 0
    for start in range(0, len(x), 1000):
        a = (x[start : start + 1000].astype(np.float32) - data.mean) * data.inverse
        for k in range(1, layers + 1):
            a = a @ arrays[f"W{k}"] + arrays[f"b{k}"]
            if f"gamma{k}" in arrays and k < layers:
                a = (a - arrays[f"mean{k}"]) / np.sqrt(arrays[f"var{k}"] + EPS) * arrays[f"gamma{k}"]
                a += arrays[f"beta{k}"]
            a = np.maximum(a, 0.0) if k < layers else a
        right += int((a.argmax(axis=1) == y[start : start + 1000]).sum())
    return right / len(x)


def faults(
    got: Mapping[str, np.ndarray], losses: np.ndarray | None, golden: Mapping[str, np.ndarray],
    golden_losses: np.ndarray, start: Mapping[str, np.ndarray],
) -> tuple[list[str], dict[str, float]]:
    """Compare one model's first updates with the reference's: what is wrong, and how far the worst array and loss are.

    Parameters
    ----------
    got, golden, start : mapping of str to array
        The peer's trained arrays, the reference's, and those that both began with. An array is off by the norm of the
        difference over the norm of how far it had to move (or 1 % of how far all arrays moved together, where it
        hardly moves: biases before batch norm do not at all).
    losses, golden_losses : array
        The losses of the updates; a single one is compared with the mean, and None is not compared.
    """
    far = np.sqrt(sum(float(((golden[name] - start[name]) ** 2).sum()) for name in start))
    wrong, worst = [], {"array": 0.0, "loss": 0.0}
    for name, first in start.items():
        if name not in got or got[name].shape != first.shape:
            wrong.append(f"{name}: expected shape {first.shape}, got {got[name].shape if name in got else 'no array'}")
            continue
        moved = max(float(np.linalg.norm(golden[name] - first)), 0.01 * far)
        off = float(np.linalg.norm(np.asarray(got[name], np.float64) - golden[name])) / moved
        worst["array"] = max(worst["array"], off) if np.isfinite(off) else float("inf")
        if not off <= ARRAY_LIMIT:
            wrong.append(f"{name} is off by {off:.2g} of its way, allowed are {ARRAY_LIMIT:g}")
    if losses is not None:
        losses = np.asarray(losses, np.float64)
        expected = golden_losses.mean(keepdims=True) if losses.shape == (1,) else golden_losses
        worst["loss"] = float(abs(losses / expected - 1.0).max()) if losses.shape == expected.shape else float("inf")
        if not worst["loss"] <= LOSS_LIMIT:
            wrong.append(f"the losses are off by {worst['loss']:.2g}, allowed are {LOSS_LIMIT:g}")
    return wrong, worst
