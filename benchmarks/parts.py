"""Where the time of xpnet's update goes: each of its parts, beside the matrix products alone.

    python benchmarks/parts.py

Makes the operations of ``Trainer.fit`` one by one with a clock between them, for one network and for 8 models at once,
in a process of its own each. Writes parts.json and parts.md in ``--out``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from _cpu_job import NETWORKS, Data, Job
from _cpu_numpy import Products
from _cpu_run import clean
from _cpu_tables import facts, machine, table
from _cpu_xpnet import Xpnet, xpnet
from _gpu_section import write_json
from environments import ROOT

from xpnet.backend import form
from xpnet.nn.examples import check_examples
from xpnet.training.loop import Loop
from xpnet.training.two_threads import Halves

#: Network, models at once, whether batches come in halves on two threads where that pays.
CASES = [(network, models, halves) for network in ("H3+BN", "H9+BN") for models in (1, 8) for halves in (True, False)]
TEXT = """# Where the time of an update goes

Made by `python benchmarks/parts.py`. {facts}

Medians over {steps} updates, in microseconds per update and model, and shares of their sum; random
images. "First layer" is the product of the {inputs} inputs with W1, and its gradient, which descent adds to W1 as
it is formed. "Two threads" is how xpnet trains where BLAS has two threads: each has half of the features, adds the
gradient to its half of W1, gathers its half of the next batch, and multiplies. Beside it stands the same work with
BLAS's own threads. The parts include a clock reading each; `Trainer.fit` is the whole, timed without them.

{rows}
"""


class Clock:
    """Collects the microseconds between calls, by name."""

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {}
        self.one: dict[str, float] = {}
        self.last = time.perf_counter()

    def tick(self, name: str) -> None:
        """Count what passed since the last call for ``name``."""
        now = time.perf_counter()
        self.one[name] = self.one.get(name, 0.0) + 1e6 * (now - self.last)
        self.last = time.perf_counter()

    def next(self) -> None:
        """End an update."""
        for name, spent in self.one.items():
            self.found.setdefault(name, []).append(spent)
        self.one = {}


def update(trainer: Any, x: Any, targets: Any, lr: Any, clock: Clock) -> None:
    """Do what ``Learner.update`` does, with a clock."""
    learner = trainer.learner
    pullbacks, batch, out = [], [], x
    stages, receivers = learner._wired._stages, iter(reversed(learner._into))
    halves = isinstance(x, Halves)
    product = "two threads: wait for the other, add" if halves else "first layer, product"
    gradient = "two threads: descent, next batch, product" if halves else "first layer, gradient and descent"
    for i, (layer, arrays, *_) in enumerate(stages):
        out, pullback, own = layer.forward(out, *arrays, train=True)
        pullbacks.append(pullback)
        batch += own
        clock.tick(f"{type(layer).__name__}, forward" if i else product)
    _, back = learner._objective.forward(out, targets)
    d = back()
    clock.tick("loss and its gradient")
    learner.set_descent(lr)
    for i in range(len(stages) - 1, -1, -1):
        d, own = pullbacks[i](d)
        d = form(d) if i else None
        for entry, to in zip(reversed(own), receivers, strict=False):
            if to is not None:
                form(entry, to)
        clock.tick(f"{type(stages[i][0]).__name__}, backward" if i else gradient)
    for running in learner.running.segments:
        running += learner._running_rate * (np.concatenate(batch, axis=-1) - running)  # as after the first update
    clock.tick("running statistics")
    learner.apply(lr, trainer.step)
    trainer.run_state.step += 1
    clock.tick("optimiser, all other arrays")


def case(network: str, models: int, halves: bool, steps: int, images: int) -> dict[str, Any]:
    """Measure one case in this process."""
    if not halves:
        xpnet.training.step.halves_are_faster = lambda *arguments: False
    hidden, batch_norm = NETWORKS[network]
    l2 = tuple(float(v) for v in np.geomspace(1e-5, 1e-1, models)) if models > 1 else 0.005
    draw = np.random.default_rng(0)
    data = Data.of(draw.integers(256, size=(images, 3072), dtype=np.uint8), draw.integers(10, size=images))
    job = Job(hidden, batch_norm, l2=l2, n=images)
    np.empty(2**25 - 2**16, np.uint8)  # freed at once: what reading CIFAR-10 does to glibc, see Data.load
    ours, whole, alone, clock = Xpnet(job, data), [], [], Clock()
    ours.run(50)
    trainer = ours.trainer
    x, y = check_examples(data.x, data.y, trainer.architecture, trainer.loss, trainer.device, dtype=trainer.dtype)
    for _ in range(5):
        for _ in range(2):
            made, seconds = ours.run(steps // 10)
            whole.append(1e6 * seconds / made)
        batches = trainer.batches(x, y)
        rates = Loop(trainer, batches)._placed_rates(0, 2)
        clock.last = time.perf_counter()
        for features, targets in batches.run(trainer.step, trainer.step + steps // 5):
            clock.tick("targets" if isinstance(features, Halves) else "gather, conversion, standardisation; targets")
            update(trainer, features, targets, rates[0], clock)
            clock.next()
            clock.last = time.perf_counter()
    products = Products(job, data)  # last: BLAS's threads do not sleep until some time after a product
    products.run(20)
    for _ in range(10):
        made, seconds = products.run(steps // 10)
        alone.append(1e6 * seconds / made)
    parts = {name: statistics.median(spent) / models for name, spent in clock.found.items()}
    return {"network": network, "models": models, "halves": halves, "parts": parts,
            "whole": statistics.median(whole) / models, "products": statistics.median(alone) / models}


def write(found: dict[str, Any], out: Path) -> None:
    """Write parts.json and parts.md."""
    write_json(out / "parts.json", found)
    cases = found["cases"]
    names = list(dict.fromkeys(name for each in cases for name in each["parts"]))
    rows = []
    for name in names:
        row = [name]
        for each in cases:
            spent = each["parts"].get(name)
            total = sum(each["parts"].values())
            row.append("" if spent is None else f"{spent:.0f} ({spent / total:.0%})")
        rows.append(row)
    rows.append(["**sum**", *[f"{sum(each['parts'].values()):.0f}" for each in cases]])
    rows.append(["`Trainer.fit`", *[f"{each['whole']:.0f}" for each in cases]])
    rows.append(["matrix products alone", *[f"{each['products']:.0f}" for each in cases]])
    head = ["µs per update and model", *[
        f"{each['network']}, {each['models']} at once{', two threads' if each['halves'] else ''}" for each in cases]]
    text = TEXT.format(facts=facts(found["machine"]), steps=found["steps"], inputs=3072, rows=table(head, rows))
    (out / "parts.md").write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--images", type=int, default=45_000)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.case:
        print(json.dumps(case(*json.loads(chosen.case), chosen.steps, chosen.images)))
        return
    found: dict[str, Any] = {"machine": machine(None, ()), "steps": chosen.steps, "cases": []}
    for one in CASES:
        done = subprocess.run([sys.executable, __file__, "--case", json.dumps(one), "--steps", str(chosen.steps),
                               "--images", str(chosen.images)], check=True, env=clean(), capture_output=True, text=True)
        found["cases"].append(json.loads(done.stdout.splitlines()[-1]))
        print(one, f"{found['cases'][-1]['whole']:.0f} µs per model", flush=True)
    write(found, chosen.out)
    print(f"wrote {chosen.out / 'parts.json'} and {chosen.out / 'parts.md'}")


if __name__ == "__main__":
    main()
