"""The job that is timed: what xpnet and its peers do alike, how time is taken, and xpnet's own measurement.

3072 inputs, 45,000 uint8 images on the device in an order drawn anew for each epoch, a batch of 100 gathered and
standardised in each update, float32, SGD with l2 0.005 and the cyclic rate. Every peer starts from xpnet's own
initial weights and sees its batches, and its first losses are compared with NumPy's in float64.
"""

from __future__ import annotations

import importlib
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from _gpu_device import Cuda
from _gpu_paths import check_way, made_by, ways
from _gpu_section import NETWORKS, AbsentError, Section

import xpnet
from xpnet import CyclicLR, Trainer, random
from xpnet.backend import Device

BATCH_NORM = xpnet.BatchNorm()  # its constants are the peers' too
MODELS = (1, 4, 16, 64, 256, 1024, 4096)
COMPARED = 20  # updates whose losses are compared


@dataclass(frozen=True)
class Job:
    """What to train."""

    hidden: tuple[int, ...]
    n: int = 45_000
    inputs: int = 3072
    classes: int = 10
    size: int = 100
    l2: float = 0.005
    schedule: CyclicLR = CyclicLR(1e-5, 1e-1, 2250)  # noqa: RUF009

    @property
    def per_epoch(self) -> int:
        """Updates per epoch."""
        return self.n // self.size

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Return random uint8 images (n, inputs) and int64 labels (n,)."""
        generator = np.random.default_rng(0)
        x = generator.integers(256, size=(self.n, self.inputs), dtype=np.uint8)
        return x, generator.integers(self.classes, size=self.n)

    def order(self, epoch: int) -> np.ndarray:
        """Return the examples of an epoch's batches, int64 of shape (per_epoch, size)."""
        return random.permutation(0, epoch, self.n)[: self.per_epoch * self.size].reshape(-1, self.size)

    def rates(self, first: int, n: int) -> np.ndarray:
        """Return the learning rates of some updates."""
        return np.array([self.schedule(t) for t in range(first, first + n)])

    def moments(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each feature's mean and 1 / standard deviation, in float32."""
        starts = range(0, len(x), 1000)
        mean = sum(x[start : start + 1000].sum(axis=0, dtype=np.float64) for start in starts) / len(x)
        var = sum(((x[start : start + 1000] - mean) ** 2).sum(axis=0) for start in starts) / len(x)
        return mean.astype(np.float32), (1.0 / np.sqrt(var)).astype(np.float32)

    def weights(self, seed: int | list[int] = 0) -> list[np.ndarray]:
        """Return xpnet's initial weight matrices (*models, in, out), in float32."""
        widths = (self.inputs, *self.hidden, self.classes)
        shapes = list(itertools.pairwise(widths))
        return [random.normal(seed, f"W{k + 1}", shape, (2.0 / shape[0]) ** 0.5).astype(np.float32)
                for k, shape in enumerate(shapes)]

    def trainer(self, device: Device, dtype: str = "float32", **options: Any) -> Trainer:
        """Return xpnet's trainer for it."""
        network = xpnet.mlp(self.inputs, self.hidden, self.classes, batch_norm=True, standardize=True)
        return Trainer(network, **{"l2": self.l2, "seed": 0, "schedule": self.schedule, "batch_size": self.size,
                                   "order_seed": 0, "device": device, "dtype": dtype} | options)

    def reference(self, data: tuple[np.ndarray, np.ndarray], **options: Any) -> np.ndarray:
        """Return the losses of the first updates on NumPy in float64, of shape (COMPARED, *models)."""
        trainer = self.trainer(Device(), "float64", **options)
        trainer.fit(*data, steps=COMPARED, evaluate_every=COMPARED, train_sample=100)
        return np.asarray(trainer.history.batch_loss)


def jobs(section: Section) -> dict[str, Job]:
    """Return the two networks' jobs, of fewer and smaller images in a small section."""
    n, inputs = (1_000, 48) if section.small else (45_000, 3072)
    if section.small:
        section.shorten(f"{n} images of {inputs} features instead of 45000 of 3072")
    return {name: Job(hidden, n, inputs) for name, hidden in NETWORKS.items()}


def same_job(section: Section, name: str, got: Any, golden: np.ndarray) -> None:
    """See that the first losses are those of the same job: float32's rounding grows from 1e-7, a mistake does not."""
    got = np.asarray(got, np.float64)
    off = float("inf") if got.shape != golden.shape else float(abs(got / golden - 1.0).max())
    section.check(f"{name}: the losses of the first {COMPARED} updates are those of NumPy in float64", off, 1e-3)


@dataclass(frozen=True)
class Clock:
    """How to take time on a device: events where it has them, and when all is done."""

    synchronize: Callable[[], None] = lambda: None
    mark: Callable[[], Any] | None = None
    elapsed: Callable[[Any, Any], float] | None = None

    def time(self, run: Callable[[int], int], steps: int) -> tuple[float | None, float, int]:
        """Return the device's seconds between events around ``run(steps)``, the host's, and the steps made."""
        self.synchronize()
        began = time.perf_counter()
        first = self.mark() if self.mark else None
        made = run(steps)
        last = self.mark() if self.mark else None
        self.synchronize()
        wall = time.perf_counter() - began
        return (self.elapsed(first, last) if self.elapsed else None), wall, made


def measure(
    section: Section, run: Callable[[int], int], clock: Clock, seconds: float, most: int = 9000
) -> dict[str, Any]:
    """Return microseconds per step: medians and ranges of five repeats that fill ``seconds``.

    On the emulation two steps are made once, and no time is given.

    Parameters
    ----------
    section : Section
        Where the times will be recorded.
    run : function
        Makes at least so many steps and gives how many it made; it has been called before.
    clock : Clock
        How to take time.
    seconds : float
        For all repeats together.
    most : int
        Steps per repeat, at most.
    """
    if section.emulated:
        repeats = [clock.time(run, 2)]
    else:
        _, wall, made = clock.time(run, 10)
        steps = int(min(most, max(10, seconds / 5.0 / (wall / made))))
        repeats = [clock.time(run, steps) for _ in range(5)]
    found: dict[str, Any] = {"steps_per_repeat": repeats[0][2]}
    for name, column in (("us_per_step_device", 0), ("us_per_step_wall", 1)):
        if repeats[0][column] is not None:
            times = [1e6 * repeat[column] / repeat[2] for repeat in repeats]  # type: ignore[operator]
            found[name] = section.timing(round(statistics.median(times), 2))
            found[f"{name}_range"] = section.timing([round(min(times), 2), round(max(times), 2)])
    return found


def microseconds(found: dict[str, Any]) -> float | None:
    """Return the time per step if it was taken: the device's if it has events, else the host's."""
    return found.get("us_per_step_device", found["us_per_step_wall"])  # type: ignore[no-any-return]


def per_step(name: str, found: dict[str, Any]) -> str:
    """Return a measurement in words."""
    us = microseconds(found)
    return f"{name}: not timed" if us is None else f"{name}: {us:.0f} us per step"


def add_model_steps(found: dict[str, Any], models: int) -> str:
    """Add the model-steps per second to a measurement, and return them in words."""
    us = microseconds(found)
    found["model_steps_per_second"] = None if us is None else round(1e6 * models / us, 1)
    return f"{models}: not timed" if us is None else f"{models}: {found['model_steps_per_second']:,.0f}"


def xpnet_clock(device: Device) -> Clock:
    """Return the clock of xpnet's device."""
    if device.name == "cpu":
        return Clock()
    cuda = Cuda(device)
    return Clock(device.synchronize, cuda.mark, cuda.elapsed)


def runner(trainer: Trainer, data: tuple[Any, Any]) -> Callable[[int], int]:
    """Return the function that trains some updates more; each call also evaluates 100 examples, once."""

    def run(steps: int) -> int:
        trainer.fit(*data, steps=trainer.step + steps, evaluate_every=10**9, train_sample=100)
        return steps

    return run


def step_time(section: Section, device: str) -> None:
    """Measure an update of xpnet, made in each way."""
    here = Device(device)
    lines, left = [], 2 * len(ways(here))
    with here.activate():
        for network, job in jobs(section).items():
            host = job.data()
            data = tuple(here.asarray(a) for a in host)
            golden = job.reference(host)
            for way in ways(here):
                name = f"{network}, {way}"
                with made_by(way):
                    trainer = job.trainer(here)
                    run = runner(trainer, data)
                    run(COMPARED)
                    check_way(section, name, trainer, way)
                    same_job(section, name, trainer.history.batch_loss, golden)
                    run(2 if section.small else 100)
                    found = measure(section, run, xpnet_clock(here), 0.6 * section.left() / left)
                left -= 1
                section.result(name, found)
                lines.append(per_step(name, found))
    section.result("headline", "; ".join(lines))


def imported(section: Section, name: str) -> Any:
    """Import a peer.

    Raises
    ------
    AbsentError
        If it is not installed, does not import, or cannot run because the device is CuPy's alone.
    """
    if section.emulated:
        raise AbsentError(f"{name} needs a GPU: the CPU emulation is CuPy's alone")
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise AbsentError(f"{name} does not import: {type(error).__name__}: {error}") from error


def sweep(models: int) -> dict[str, Any]:
    """Return the hyper-parameters of so many models: other penalties, 16 seeds in turn."""
    return {"l2": np.geomspace(1e-5, 1e-1, models).tolist(), "seed": [m % 16 for m in range(models)]}


def model_counts(section: Section) -> tuple[int, ...]:
    """Return the numbers of models to measure."""
    return MODELS[:2] if section.small else MODELS


def has_time(section: Section, models: int) -> bool:
    """Return whether time is left to measure so many models, and record it if not."""
    if section.small or models == MODELS[0] or section.left() > 3.0:
        return True
    section.shorten(f"{models} models and more were not measured, for lack of time")
    return False


def many_models(section: Section, device: str) -> None:
    """Measure updates of many models at once."""
    here = Device(device)
    job = jobs(section)["3 layers"]
    host = job.data()
    lines = []
    with here.activate():
        data = tuple(here.asarray(a) for a in host)
        counts = model_counts(section)
        for k, models in enumerate(counts):
            if not has_time(section, models):
                break
            golden = job.reference(host, **sweep(models)) if models <= 4 else None
            for way in ways(here)[1:]:
                trainer = job.trainer(here, **sweep(models), divergence="freeze")
                run = runner(trainer, data)
                with made_by(way):
                    run(COMPARED)
                    if trainer.path != way:  # the model axis may be too long for the persistent kernel
                        section.shorten(f"{models} models: not {way}, and not measured twice")
                        break
                    if golden is not None:
                        same_job(section, f"{models} models, {way}", trainer.history.batch_loss, golden)
                    seconds = min(2.0, 0.25 * section.left() / (len(counts) - k))
                    found = measure(section, run, xpnet_clock(here), seconds, 2000)
                lines.append(f"{way} {add_model_steps(found, models)}")
                section.result(f"{models} models, {way}", found)
                del trainer, run
    section.result("headline", f"model-steps per second: {', '.join(lines)}")
