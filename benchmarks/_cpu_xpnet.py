"""xpnet in the comparison: ``Trainer.fit`` as a user calls it, timed between its first update and its last.

Everything that ``fit`` does between two updates is in the time. So is the evaluation of one image after the last
(about 0.1 ms per call); the check of the data before the first is not.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from _cpu_job import Data, Job
from _cpu_numpy import Pool

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the checkout, not what is installed

import xpnet
from xpnet import Callback, CyclicLR, Trainer


class Stopwatch(Callback):
    """Takes the time from the start of a call of ``fit`` to its evaluation at the end."""

    def on_begin(self, trainer: Trainer, steps: int) -> None:
        """Start."""
        self.began = time.perf_counter()

    def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> None:
        """Stop."""
        self.ended = time.perf_counter()


class Xpnet:
    """One trainer: of one network, or of a sweep whose model axis is the penalty's factor."""

    cost = False

    def __init__(self, job: Job, data: Data) -> None:
        self.job, self.data, self.watch = job, data, Stopwatch()
        network = xpnet.mlp(job.inputs, job.hidden, job.classes, batch_norm=job.batch_norm, standardize=True)
        l2 = list(job.l2) if isinstance(job.l2, tuple) else job.l2
        self.trainer = Trainer(
            network, l2=l2, seed=[job.seed] * len(l2) if isinstance(l2, list) else job.seed, order_seed=job.seed,
            schedule=CyclicLR(job.lowest, job.highest, job.half), batch_size=job.size, callbacks=[self.watch],
            divergence="freeze" if job.models else "raise",
        )
        self.made = 0

    def run(self, steps: int) -> tuple[int, float]:
        """Train for so many updates more."""
        self.made = steps
        self.trainer.fit(self.data.x, self.data.y, steps=self.trainer.step + steps, evaluate_every=10**9,
                         train_sample=1)
        return steps, self.watch.ended - self.watch.began

    def losses(self) -> np.ndarray:
        """Return the losses of the last run (steps, *models)."""
        return np.asarray(self.trainer.history.batch_loss[-self.made :])

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by name."""
        return {name: np.array(a) for name, a in self.trainer.network.arrays.items()}

    def evaluation(self) -> float:
        """Return the seconds that evaluating the training data takes."""
        began = time.perf_counter()
        self.trainer.evaluate(self.data.x, self.data.y)
        return time.perf_counter() - began

    def parts(self) -> dict[str, float]:
        """Return the microseconds of an update whose batch is there already."""
        rows = self.job.order(0)[0]
        x = (self.data.x[rows].astype(np.float32) - self.data.mean) * self.data.inverse
        targets = np.eye(self.job.classes, dtype=np.float32)[self.data.y[rows]]
        times = []
        for _ in range(200):
            began = time.perf_counter()
            self.trainer.update(x, targets, 1e-6)
            times.append(1e6 * (time.perf_counter() - began))
        return {"update alone": statistics.median(times)}


class Workers(Pool):
    """A sweep in two processes with one BLAS thread each, as ``xpnet.sweep(..., workers=2)`` trains it."""

    each = "_cpu_xpnet:Xpnet"
