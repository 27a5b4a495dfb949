"""What the examples share: their options, the data, one way to train, and where results go."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import xpnet
from xpnet import datasets

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
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def step_size(self) -> int:
        """n_s = 5 * images / n_batch updates: a cycle is 10 epochs."""
        return max(1, 5 * len(self.data.train.y) // BATCH)

    @property
    def on(self) -> str:
        """What every figure's title says of the data."""
        return f"{self.data.name}, {len(self.data.train.y):,} training images"


def train(
    job: Job, hidden: Sequence[int], *, batch_norm: bool, l2: Any = L2, cycles: int = 2, points: int = 1,
    initializer: Any = None, label: str = "training",
) -> xpnet.Trainer:
    """Train as the report does; ``l2`` or the initializer's sigma may be a list, one per network of a sweep."""
    network = xpnet.mlp(
        job.data.train.x.shape[1], hidden, len(job.data.classes), batch_norm=batch_norm,
        initializer=initializer, standardize=True,
    )
    trainer = xpnet.Trainer(
        network, schedule=xpnet.CyclicLR(ETA_MIN, ETA_MAX, step_size=job.step_size), l2=l2, batch_size=BATCH,
        seed=job.seed, device=job.device, callbacks=[xpnet.Progress(label)], divergence="record",
    )
    steps = cycles * 2 * job.step_size
    start = time.perf_counter()
    trainer.fit(
        *job.data.train, steps=steps, validation=job.data.validation, evaluate_every=max(1, steps // points),
        train_sample=len(job.data.validation.y),
    )
    job.timings[label] = round(time.perf_counter() - start, 2)
    return trainer


def options(description: str | None) -> argparse.ArgumentParser:
    """Give the options that all examples take."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--data", metavar="DIR", help="CIFAR-10: a directory or archive, or 'synthetic'; by default "
                        "CIFAR-10 where it is found, else the embedded synthetic images")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("report"), help="where files go (report)")
    parser.add_argument("--quick", action="store_true", help="10,000 training images and shorter cycles")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto (cpu)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the order of the images (0)")
    return parser


def make_job(arguments: argparse.Namespace) -> Job:
    """Load the data and say which; an unusable argument ends the program with one line and code 2."""
    sizes = {"train": 10_000, "validation": 1_000, "test": 2_000} if arguments.quick else {
        "train": 45_000, "validation": 5_000, "test": 10_000}
    start = time.perf_counter()
    try:
        device = xpnet.Device(arguments.device)
        if arguments.seed < 0:
            raise ValueError(f"--seed: expected 0 or more, got {arguments.seed}")
        # --quick without --data is the embedded set: it runs the same everywhere.
        source = arguments.data or ("synthetic" if arguments.quick else None)
        data = datasets.load(source, **sizes)
        arguments.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError, ImportError, xpnet.DeviceError) as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if arguments.quick and data.name != "synthetic":
        parts = {k: datasets.Split(*(a[:n] for a in getattr(data, k))) for k, n in sizes.items()}
        data = replace(data, **parts)
    shown = ", ".join(f"{len(getattr(data, k).y):,} {k}" for k in sizes)
    print(f"data: {data.name} ({shown}), {data.source}\ndevice: {device.name} {device.why}".rstrip())
    return Job(data, arguments.out, arguments.quick, device, arguments.seed,
               {"data": round(time.perf_counter() - start, 2)})


def describe(job: Job) -> dict[str, Any]:
    """Give the keys ``environment`` and ``data`` of the results."""
    environment = {
        "xpnet": xpnet.__version__, "python": platform.python_version(), "numpy": np.__version__,
        "platform": platform.platform(), "device": job.device.name, "seed": job.seed, "quick": job.quick,
        "seconds": job.timings,
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
    job = make_job(options(description).parse_args())
    results = run(job)
    write_json(job.out / f"{name}.json", {**describe(job), **results})
    print(f"wrote {job.out / name}.json")
