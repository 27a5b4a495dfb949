"""What the examples share: their options, the data, one way to train, and where results go."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn

import numpy as np

import xpnet
from xpnet import datasets, plotting
from xpnet.intervals import interval

HIDDEN_3 = [50, 50]
HIDDEN_9 = [50, 30, 20, 20, 10, 10, 10, 10]
BATCH, ETA_MIN, ETA_MAX, L2 = 100, 1e-5, 1e-1, 0.005  # the report's default parameters


@dataclass
class Job:
    """One reproduction: its data, its size and where its files go."""

    data: datasets.Dataset
    out: Path
    quick: bool
    device: xpnet.Device
    seed: int
    seeds: int
    timings: dict[str, float] = field(default_factory=dict)
    drawing: Lock = field(default_factory=Lock)  # matplotlib draws one figure at a time

    @property
    def step_size(self) -> int:
        """n_s = 5 * images / n_batch updates: a cycle is 10 epochs."""
        return max(1, 5 * len(self.data.train.y) // BATCH)

    @property
    def on(self) -> str:
        """What every figure's title says of the data."""
        return f"{self.data.name}, {len(self.data.train.y):,} training images"

    def draw(self, name: str, plot: Callable[..., Any], *arguments: Any, title: str, **options: Any) -> None:
        """Write a figure whose title ends with the data's name."""
        with self.drawing:
            plotting.save(plot(*arguments, title=f"{title}\n{self.on}", **options), self.out / f"{name}.png")


@dataclass(frozen=True)
class Make:
    """From a point of a sweep to its trainer: the report's networks and default parameters."""

    job: Job
    hidden: Sequence[int]
    batch_norm: bool

    def __call__(self, seed: int, l2: float = L2, sigma: float | None = None) -> xpnet.Trainer:
        data = self.job.data
        network = xpnet.mlp(
            data.train.x.shape[1], self.hidden, len(data.classes), batch_norm=self.batch_norm,
            initializer=None if sigma is None else xpnet.Normal(sigma), standardize=True,
        )
        return xpnet.Trainer(
            network, schedule=xpnet.CyclicLR(ETA_MIN, ETA_MAX, step_size=self.job.step_size), l2=l2, batch_size=BATCH,
            seed=seed, device=self.job.device,
        )


@dataclass
class Runs:
    """A sweep over values and seeds, the seeds innermost."""

    job: Job
    sweep: xpnet.Sweep

    def measure(self, split: str) -> dict[str, np.ndarray]:
        """Return loss, cost and accuracy on a split, each of shape (values, seeds)."""
        found = self.sweep.evaluate(*getattr(self.job.data, split))
        return {name: np.reshape(v, (-1, self.job.seeds)) for name, v in found.items()}

    def column(self, name: str, value: int) -> np.ndarray:
        """Return a column of the histories of one value, of shape (rows, seeds)."""
        first = value * self.job.seeds
        return np.stack([h[name] for h in self.sweep.histories[first : first + self.job.seeds]], axis=-1)

    def curves(self, value: int = 0) -> dict[str, Any]:
        """Return the columns of the history of one value, as lists: the mean over the seeds."""
        columns = self.sweep.histories[0].columns
        return {"steps": columns["step"].tolist(), **{
            name: self.column(name, value).mean(axis=-1).tolist()
            for name in columns if name.startswith(("train_", "validation_"))}}

    def roughness(self, column: str, value: int = 0) -> np.ndarray:
        """Return each seed's mean absolute second difference of a column: 0 for a straight line."""
        return np.abs(np.diff(self.column(column, value), n=2, axis=0)).mean(axis=0)


def options(job: Job, *, cycles: int = 2, points: int = 1) -> dict[str, Any]:
    """Return what all sweeps share: data, length, and how often they are evaluated."""
    steps = cycles * 2 * job.step_size
    return {"x": job.data.train.x, "y": job.data.train.y, "validation": job.data.validation, "steps": steps,
            "evaluate_every": max(1, steps // points), "train_sample": len(job.data.validation.y),
            "order_seed": job.seed}


def train(
    job: Job, hidden: Sequence[int], *, batch_norm: bool, cycles: int = 2, points: int = 1, label: str = "training",
    **values: Any,
) -> Runs:
    """Train as the report does, for all values of ``l2`` or ``sigma`` and from all seeds at once."""
    start = time.perf_counter()
    space = {**values, "seed": range(job.seed, job.seed + job.seeds)}
    found = xpnet.sweep(Make(job, hidden, batch_norm), space, **options(job, cycles=cycles, points=points))
    job.timings[label] = round(time.perf_counter() - start, 2)
    return Runs(job, found)


def by_seed(name: str, values: Any) -> dict[str, Any]:
    """Return a number's mean over the seeds, and with several seeds each one's and the mean's 95 % margin."""
    values = np.asarray(values, dtype=float).ravel()
    spread = {f"{name}_margin": interval(values).margin, f"{name}_by_seed": values.tolist()} if values.size > 1 else {}
    return {name: float(values.mean()), **spread}


class Options(argparse.ArgumentParser):
    """Answers a wrong argument with one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return the options that all examples take."""
    parser = Options(description=(description or "").splitlines()[0])
    parser.add_argument("--data", metavar="DIR", help="CIFAR-10: a directory or archive, or 'synthetic'; by default "
                        "CIFAR-10 where it is found, else the embedded synthetic images")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("report"), help="where files go (report)")
    parser.add_argument("--quick", action="store_true", help="8,000 training images, and so shorter cycles")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto (cpu)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the order of the images (0)")
    parser.add_argument("--seeds", type=int, metavar="K", help="train from K seeds at once (1)", default=1)
    return parser


def make_job(arguments: argparse.Namespace) -> Job:
    """Load the data and say which; an unusable argument ends the program with one line and code 2."""
    sizes = {"train": 8_000, "validation": 1_000, "test": 2_000} if arguments.quick else {
        "train": 45_000, "validation": 5_000, "test": 10_000}
    start = time.perf_counter()
    try:
        device = xpnet.Device(arguments.device)
        if arguments.seed < 0:
            raise ValueError(f"--seed: expected 0 or more, got {arguments.seed}")
        if arguments.seeds < 1:
            raise ValueError(f"--seeds: expected at least 1, got {arguments.seeds}")
        # --quick without --data is the embedded set: it runs the same everywhere.
        source = arguments.data or ("synthetic" if arguments.quick else None)
        data = datasets.load(source, **sizes)
        arguments.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError, ImportError, xpnet.DeviceError) as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    shown = ", ".join(f"{len(getattr(data, k).y):,} {k}" for k in sizes)
    print(f"data: {data.name} ({shown}), {data.source}\ndevice: {device.name} {device.why}".rstrip())
    return Job(data, arguments.out, arguments.quick, device, arguments.seed, arguments.seeds,
               {"data": round(time.perf_counter() - start, 2)})


def describe(job: Job) -> dict[str, Any]:
    """Return the keys ``environment`` and ``data`` of the results."""
    environment = {
        "xpnet": xpnet.__version__, "python": platform.python_version(), "numpy": np.__version__,
        "platform": platform.platform(), "cores": os.cpu_count(), "device": job.device.name, "seed": job.seed,
        "seeds": job.seeds, "quick": job.quick, "seconds": job.timings,
    }
    sizes = {name: len(getattr(job.data, name).y) for name in ("train", "validation", "test")}
    return {"environment": environment, "data": {"name": job.data.name, "source": job.data.source, **sizes}}


def write_json(path: Path, results: Any) -> None:
    """Write results; NaN becomes null, so that any JSON reader takes them."""
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        if hasattr(value, "tolist"):
            return plain(value.tolist())
        return None if isinstance(value, float) and not np.isfinite(value) else value

    path.write_text(json.dumps(plain(results), indent=1) + "\n", encoding="utf-8")


def main(name: str, description: str | None, run: Callable[[Job], dict[str, Any]]) -> None:
    """Run one example alone: its results go to ``OUT/NAME.json`` and its figures beside it."""
    job = make_job(arguments(description).parse_args())
    try:
        results = run(job)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except (ArithmeticError, MemoryError) as error:
        raise SystemExit(f"{name}: {error}") from None
    write_json(job.out / f"{name}.json", {**describe(job), **results})
    print(f"wrote {job.out / name}.json")
