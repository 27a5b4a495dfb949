"""Sections: whole runs. Trajectories against NumPy, the same run twice, and full runs against the CPU's spread."""

from __future__ import annotations

import functools
import hashlib
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
from _gpu_paths import check_way, made_by, ways
from _gpu_section import NETWORKS, Section

import xpnet
from xpnet import CyclicLR, Trainer, random
from xpnet.backend import Device, to_numpy
from xpnet.datasets import synthetic

REPORT = CyclicLR(1e-5, 1e-1, 2250)


def architecture(network: str, inputs: int = 3072, **options: Any) -> xpnet.Sequential:
    """Return one of the two batch-norm networks, with standardised inputs and 10 classes."""
    return xpnet.mlp(inputs, NETWORKS[network], 10, batch_norm=True, standardize=True, **options)


def clouds(n: int, features: int, spread: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 examples of ten clouds around random centres, and their labels."""
    generator = random.stream(1, "clouds")
    labels = np.arange(n) % 10
    centres = generator.normal(0.0, 2.0, (10, features))
    return (centres[labels] + generator.normal(0.0, spread, (n, features))).astype(np.float32), labels


def examples(section: Section, n: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Return ``n`` examples of 3072 features, or of 48 in a small section."""
    if section.small:
        section.shorten("48 features instead of 3072")
    return clouds(n, 48 if section.small else 3072)


def relative(got: np.ndarray, golden: np.ndarray) -> float:
    """Return the largest difference relative to the largest value; infinite for another shape or NaN."""
    got, golden = np.asarray(got), np.asarray(golden)
    if got.shape != golden.shape or not np.isfinite(got).all():
        return float("inf")
    return float(abs(got - golden).max() / (abs(golden).max() or 1.0))


# Trajectories -----------------------------------------------------------------------------------------------------


def trajectories(section: Section, device: str) -> None:
    """Train both networks 200 updates in each way: as NumPy in float64 to 1e-9, float32 losses to 1e-4."""
    cpu, here = Device(), Device(device)
    steps, seeds = (20, 4) if section.small else (200, 12)
    if section.small:
        section.shorten(f"{steps} updates and {seeds} seeds instead of 200 and 12")
    lines = []
    x, y = examples(section)
    for network in NETWORKS:
        for n in (1, steps):
            golden = _train(architecture(network, x.shape[1]), x, y, cpu, n, dtype="float64", seed=0)
            for way in ways(here):
                with made_by(way):
                    got = _train(architecture(network, x.shape[1]), x, y, here, n, dtype="float64", seed=0)
                check_way(section, f"{network}, float64, {n} updates", got, way)
                for what, error in compare_states(got, golden, len(NETWORKS[network])).items():
                    section.check(f"{network}, {way}, float64, {n} updates: {what}", error, 1e-9)
        lines.append(_single_precision(section, network, here, steps, seeds))
    section.result("headline", "; ".join(lines))


def _train(
    network: xpnet.Sequential, x: np.ndarray, y: np.ndarray, device: Device, steps: int, **options: Any
) -> Trainer:
    """Train on a device, from data that lie on the host."""
    trainer = Trainer(network, **{"l2": 0.005, "schedule": REPORT, "device": device, "order_seed": 4} | options)
    trainer.fit(x, y, steps=steps, evaluate_every=steps, train_sample=100)
    return trainer


def compare_states(got: Trainer, golden: Trainer, hidden: int) -> dict[str, float]:
    """Return the largest relative differences of the losses, the parameters and the running statistics."""
    off = {"losses": relative(got.history.batch_loss, golden.history.batch_loss), "parameters": 0.0,
           "running statistics": 0.0}
    # Batch norm cancels the biases before it, whose gradients so are rounding noise: these stay near 0.
    cancelled = {f"b{k + 1}" for k in range(hidden)}
    for name, array in golden.arrays.items():
        what = "parameters" if name in golden.architecture.parameters else "running statistics"
        a, g = to_numpy(got.arrays[name]), to_numpy(array)
        off[what] = max(off[what], float(abs(a).max()) if name in cancelled else relative(a, g))
    return off


def _single_precision(section: Section, network: str, device: Device, steps: int, seeds: int) -> str:
    """Compare float32 losses with NumPy's in float64, for the seeds whose runs rounding does not split.

    Where rounding moves the input of one ReLU across 0, the gradient jumps, and from there two runs are two
    runs. NumPy itself tells for which seeds this happens: it sums in several orders (the features permuted),
    and only seeds for which all of these give the float64 losses to 1e-4 are compared. The device rounds in
    one more way, so that one of them may still be split: the median counts.
    """
    x, y = clouds(600, 48)
    options: dict[str, Any] = {"seed": list(range(seeds)), "l2": [0.005] * seeds}
    golden = np.asarray(_train(architecture(network, 48), x, y, Device(), steps, dtype="float64", **options)
                        .history.batch_loss)

    def off(where: Device, order: np.ndarray) -> np.ndarray:
        trainer = Trainer(architecture(network, 48), schedule=REPORT, device=where, order_seed=4, dtype="float32",
                          **options)
        trainer.fit(x[:, order], y, steps=0)
        start = to_numpy(trainer.arrays["W1"])
        trainer.arrays["W1"][...] = where.asarray(np.take(start, order, axis=-2), "float32")
        trainer.fit(x[:, order], y, steps=steps, evaluate_every=steps, train_sample=100)
        return abs(np.asarray(trainer.history.batch_loss) / golden - 1.0).max(axis=0)

    orders = [np.arange(48), *(random.permutation(2, k, 48) for k in range(3))]
    on_cpu = np.max([off(Device(), order) for order in orders], axis=0)
    smooth = on_cpu < 1e-4
    if not section.expect(f"{network}, float32: NumPy finds seeds to compare", smooth.any(),
                          f"{smooth.sum()} of {seeds}"):
        return f"{network}: no seed to compare"
    medians = []
    for way in ways(device):
        with made_by(way):
            here = off(device, orders[0])
        medians.append(float(np.median(here[smooth])))
        section.result(f"{network}, {way}, float32 losses", {"compared": smooth, "device": here, "numpy": on_cpu})
        section.check(f"{network}, {way}, float32, {steps} updates: losses, median of {smooth.sum()} seeds",
                      medians[-1], 1e-4)
    return f"{network}: float32 losses to {max(medians):.1g}"


# Determinism ------------------------------------------------------------------------------------------------------


def digest(trainer: Trainer) -> str:
    """Return a checksum of everything that a run computed."""
    found = hashlib.sha256(np.asarray(trainer.history.batch_loss).tobytes())
    for name in sorted(trainer.arrays):
        found.update(name.encode() + np.ascontiguousarray(to_numpy(trainer.arrays[name])).tobytes())
    return found.hexdigest()


def determinism(section: Section, device: str) -> None:
    """Run several kinds of training twice each: every bit of losses and arrays is the same."""
    here = Device(device)
    steps = 5 if section.small else 100
    if section.small:
        section.shorten(f"{steps} updates instead of 100")
    x, y = examples(section)
    inputs = x.shape[1]
    runs: dict[str, tuple[xpnet.Sequential, dict[str, Any]]] = {
        "3 layers": (architecture("3 layers", inputs), {"seed": 1}),
        "9 layers": (architecture("9 layers", inputs), {"seed": 1}),
        "3 layers, 4 models": (architecture("3 layers", inputs), {"seed": [1, 2, 3, 4]}),
        "3 layers, dropout, Adam": (architecture("3 layers", inputs, dropout=0.2),
                                    {"seed": 1, "optimizer": xpnet.Adam(), "schedule": 1e-3}),
    }
    for name, (network, options) in runs.items():
        first, second = (digest(_train(network, x, y, here, steps, **options)) for _ in range(2))
        section.expect(f"{name}: {steps} updates twice, bit for bit", first == second)
        section.result(name, first)
    other = digest(_train(architecture("3 layers", inputs), x, y, here, steps, seed=2))
    section.expect("another seed gives other bits", other != section.record["results"]["3 layers"])
    section.result("headline", f"{len(runs)} kinds of run")


# Full runs --------------------------------------------------------------------------------------------------------

MEASURES = ("validation_accuracy", "validation_loss", "train_loss")
T_999 = 5.04  # two-sided 99.9% point of Student's t with 8 degrees of freedom: two groups of five


@functools.cache
def images(train: int, validation: int) -> Any:
    """Return generated images; drawing 50,000 takes seconds, which a process spends once."""
    return synthetic(train=train, validation=validation, test=0)


def full_runs(section: Section, device: str) -> None:
    """Train both networks 9000 updates: the device's five seeds, and one run alone, lie where the CPU's do.

    The CPU's runs are processes of their own, as many at once as it has cores for.
    """
    here = Device(device)
    sizes = (200, 100) if section.small else (45_000, 5_000)
    data = images(*sizes)
    section.result("data", {"source": data.source, "train": len(data.train.y), "validation": len(data.validation.y)})
    lines = []
    at_once = min(5, max(1, (os.cpu_count() or 1) // 2))
    with ProcessPoolExecutor(at_once, get_context("spawn")) as pool:
        for left, network in zip((2, 1), NETWORKS, strict=True):
            setups = {"device, 5 seeds": list(range(5)), "device, 1 seed": 0}
            steps = 8
            if not section.small:
                cost = max(sum(_seconds_per_step(network, data, here, seed) for seed in setups.values()),
                           -(-5 // at_once) * _seconds_per_step(network, data, Device(), 0))
                steps = int(min(9000, max(40, 0.8 * section.left() / left / cost))) // 4 * 4
            if steps < 9000:
                section.shorten(f"{network}: {steps} updates of {sizes[0]:,} images instead of 9000 of 45,000")
            began = time.perf_counter()
            waiting = [pool.submit(_cpu_run, network, sizes, seed, steps) for seed in range(5)]
            runs = {}
            for name, seed in setups.items():
                row = _full_run(network, data, here, seed, steps).history.rows[-1]
                runs[name] = {key: np.atleast_1d(row[key]) for key in MEASURES}
                runs[name]["seconds"] = section.timing(time.perf_counter() - began)
                began = time.perf_counter()
            rows = [run.result() for run in waiting]
            runs = {"cpu, 5 seeds": {key: np.array([row[key] for row in rows]) for key in MEASURES}, **runs}
            section.result(f"{network}, {steps} updates", runs)
            for key in MEASURES[:2]:
                judge_spread(section, f"{network}, {key}", *(run[key] for run in runs.values()))
            accuracy = [float(run["validation_accuracy"].mean()) for run in runs.values()]
            if steps == 9000:
                section.expect(f"{network}: it learned", min(accuracy) > 0.2, f"accuracies {accuracy}")
            lines.append(f"{network}: {accuracy[0]:.2%} on the CPU, {accuracy[1]:.2%} here")
    section.result("headline", "; ".join(lines))


def _cpu_run(network: str, sizes: tuple[int, int], seed: int, steps: int) -> dict[str, float]:
    """Return what one seed reaches with NumPy, in a process of its own."""
    data = images(*sizes)
    row = _full_run(network, data, Device(), seed, steps).history.rows[-1]
    return {key: float(row[key]) for key in MEASURES}


def judge_spread(section: Section, what: str, cpu: np.ndarray, device: np.ndarray, alone: np.ndarray) -> None:
    """Compare five seeds with five seeds, and a run alone with all ten: 99.9% limits of Student's t."""
    spread = ((np.var(cpu, ddof=1) + np.var(device, ddof=1)) / 2.0) ** 0.5
    five = f"spread of a seed {spread:.2g}"
    section.check(f"{what}: five seeds' mean here and on the CPU differ by ({five})",
                  abs(device.mean() - cpu.mean()), T_999 * spread * (2.0 / 5.0) ** 0.5)
    section.check(f"{what}: a run alone is off the mean of ten by ({five})",
                  abs(alone[0] - np.concatenate([cpu, device]).mean()), T_999 * spread * (1.0 + 1.0 / 10.0) ** 0.5)


def _full_run(network: str, data: Any, device: Device, seed: Any, steps: int) -> Trainer:
    """Train two cycles of the learning rate."""
    trainer = Trainer(architecture(network), l2=0.005, seed=seed, order_seed=0, device=device,
                      schedule=CyclicLR(1e-5, 1e-1, max(1, steps // 4)))
    trainer.fit(*data.train, steps=steps, evaluate_every=steps, validation=data.validation, train_sample=5_000)
    return trainer


def _seconds_per_step(network: str, data: Any, device: Device, seed: Any) -> float:
    """Measure what an update costs, roughly."""
    trainer = Trainer(architecture(network), l2=0.005, seed=seed, order_seed=0, device=device, schedule=REPORT)
    x, y = data.train.x[:2000], data.train.y[:2000]
    trainer.fit(x, y, steps=20, train_sample=100, evaluate_every=1000)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        trainer.fit(x, y, steps=trainer.step + 20, train_sample=100, evaluate_every=1000)
        times.append((time.perf_counter() - began) / 20)
    return statistics.median(times)
