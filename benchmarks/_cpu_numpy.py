"""NumPy's parts of the comparison: the matrix products alone, a plain hand-written step, and a pool of two processes.

The plain step in float64 is also the reference that everyone is checked against.
"""

from __future__ import annotations

import importlib
import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from _cpu_job import COMPARED, EPS, KEPT, Data, Job, memory


class Plain:
    """The step as one writes it by hand: no trick, and nothing wasted that a reader would notice.

    Parameters
    ----------
    job : Job
        What to train; of a sweep, one model after the other.
    data : Data
        The images.
    dtype : str
        float64 makes it the reference.
    """

    cost = False  # its losses leave the penalty out

    def __init__(self, job: Job, data: Data, dtype: str = "float32") -> None:
        self.job, self.data, self.dtype = job, data, np.dtype(dtype)
        self.mean, self.inverse = data.mean.astype(dtype), data.inverse.astype(dtype)
        self.members = [{name: a.astype(dtype) for name, a in job.start().items()} for _ in job.penalties]
        self.found: list[list[float]] = []
        self.done = 0

    def step(self, arrays: dict[str, Any], l2: float, rows: np.ndarray, t: int) -> float:
        """Make one update of one model in place, and give the loss of its batch."""
        job, last = self.job, len(self.job.hidden) + 1
        a, y, n, lr = self.data.x[rows].astype(self.dtype), self.data.y[rows], len(rows), job.rate(t)
        a -= self.mean
        a *= self.inverse
        inputs, normal, inverse = {}, {}, {}
        for k in range(1, last + 1):
            inputs[k] = a
            a = a @ arrays[f"W{k}"] + arrays[f"b{k}"]
            if k == last:
                break
            if job.batch_norm:
                mean, var = a.mean(axis=0), a.var(axis=0)
                for name, batch in ((f"mean{k}", mean), (f"var{k}", var)):
                    arrays[name] = KEPT * arrays[name] + (1.0 - KEPT) * batch if t else batch
                inverse[k] = 1.0 / np.sqrt(var + EPS)
                normal[k] = (a - mean) * inverse[k]
                a = arrays[f"gamma{k}"] * normal[k] + arrays[f"beta{k}"]
            a = np.maximum(a, 0.0)
        a = a - a.max(axis=1, keepdims=True)
        p = np.exp(a)
        total = p.sum(axis=1, keepdims=True)
        loss = (np.log(total[:, 0]) - a[np.arange(n), y]).mean()
        p /= total
        d = p
        d[np.arange(n), y] -= 1.0
        d /= n
        for k in range(last, 0, -1):
            if k < last:
                d = d * (inputs[k + 1] > 0)
                if job.batch_norm:
                    dgamma, dbeta = (d * normal[k]).sum(axis=0), d.sum(axis=0)
                    d = arrays[f"gamma{k}"] * inverse[k] * (d - dbeta / n - normal[k] * (dgamma / n))
                    arrays[f"gamma{k}"] -= lr * dgamma
                    arrays[f"beta{k}"] -= lr * dbeta
            dW, db = inputs[k].T @ d + (2.0 * l2) * arrays[f"W{k}"], d.sum(axis=0)
            if k > 1:
                d = d @ arrays[f"W{k}"].T
            arrays[f"W{k}"] -= lr * dW
            arrays[f"b{k}"] -= lr * db
        return float(loss)

    def run(self, steps: int) -> tuple[int, float]:
        """Make updates of every model; give how many, and the seconds they took."""
        began = time.perf_counter()
        self.found, first = [], self.done
        for arrays, l2 in zip(self.members, self.job.penalties, strict=True):
            losses, epoch = [], -1
            for t in range(first, first + steps):
                if epoch != t // self.job.per_epoch:
                    epoch = t // self.job.per_epoch
                    order = self.job.order(epoch)
                losses.append(self.step(arrays, l2, order[t % self.job.per_epoch], t))
            self.found.append(losses)
        self.done += steps
        return steps, time.perf_counter() - began

    def losses(self) -> np.ndarray:
        """Return the losses of the last run (steps, *models)."""
        found = np.array(self.found).T
        return found if self.job.models else found[:, 0]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by name."""
        if not self.job.models:
            return self.members[0]
        return {name: np.stack([member[name] for member in self.members]) for name in self.members[0]}


class Products:
    """The matrix products of an update and nothing else: the limit. In a sweep the first layer's are wide.

    They write to arrays that are there already; the gradient of the images is not among them.
    """

    def __init__(self, job: Job, data: Data) -> None:
        draw = np.random.default_rng(0)
        models, (inputs, first, *rest), n = job.models, job.widths, job.size
        wide = first * len(job.penalties)

        def normal(*shape: int) -> np.ndarray:
            return draw.standard_normal(shape, np.float32)

        self.forward = [(normal(n, inputs), normal(inputs, wide), normal(n, wide))]
        self.back = [(self.forward[0][0].T, normal(n, wide), normal(inputs, wide))]
        for rows, columns in zip([first, *rest][:-1], rest, strict=True):
            a, d, W = normal(*models, n, rows), normal(*models, n, columns), normal(*models, rows, columns)
            self.forward.append((a, W, normal(*models, n, columns)))
            self.back.append((a.swapaxes(-1, -2), d, normal(*models, rows, columns)))
            self.back.append((d, W.swapaxes(-1, -2), normal(*models, n, rows)))

    def run(self, steps: int) -> tuple[int, float]:
        """Make the products of so many updates."""
        began = time.perf_counter()
        for _ in range(steps):
            for a, b, out in self.forward:
                np.matmul(a, b, out=out)
            for a, b, out in reversed(self.back):
                np.matmul(a, b, out=out)
        return steps, time.perf_counter() - began


class Pool:
    """Two single-threaded processes with half of a sweep's models each; here, every model is the plain step."""

    cost = False
    each = "_cpu_numpy:Plain"  # what a process trains its share with

    def __init__(self, job: Job, data: Data) -> None:
        self.job = job
        shares = [job.penalties[i::2] for i in range(min(2, len(job.penalties)))]
        self.members = [list(range(i, len(job.penalties), 2)) for i in range(len(shares))]
        context = multiprocessing.get_context("spawn")
        self.ends: list[Connection] = []
        for share in shares:
            end, other = context.Pipe()
            process = context.Process(target=_serve, args=(other, self.each, vars(job) | {"l2": share}, data.place),
                                      daemon=True)
            process.start()
            self.ends.append(end)
        self._ask("ready")

    def _ask(self, what: Any) -> list[Any]:
        for end in self.ends:
            end.send(what)
        return [end.recv() for end in self.ends]

    def run(self, steps: int) -> tuple[int, float]:
        """Make updates of every model."""
        began = time.perf_counter()
        self._ask(steps)
        return steps, time.perf_counter() - began

    def _joined(self, parts: list[np.ndarray], axis: int) -> np.ndarray:
        back = np.argsort([m for share in self.members for m in share])
        return np.take(np.concatenate(parts, axis=axis), back, axis=axis)

    def losses(self) -> np.ndarray:
        """Return the losses of the last run (steps, models)."""
        return self._joined(self._ask("losses"), 1)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all arrays by name."""
        parts = self._ask("arrays")
        return {name: self._joined([part[name] for part in parts], 0) for name in parts[0]
                if name not in ("offset1", "scale1")}

    def memory(self) -> int:
        """Return the most bytes that the two processes held; the one that waits for them is not counted."""
        return sum(self._ask("memory"))


def _serve(end: Connection, each: str, job: dict[str, Any], place: str) -> None:
    """Train a share of the models in a process of its own."""
    module, name = each.split(":")
    share = getattr(importlib.import_module(module), name)(Job.of(job), Data.load(place))
    answers = {"ready": lambda: True, "losses": share.losses, "arrays": share.arrays, "memory": memory}
    while True:
        try:
            asked = end.recv()
        except EOFError:
            return
        end.send(answers[asked]() if asked in answers else share.run(asked))


def reference(job: Job, data: Data, steps: int = COMPARED) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Train one model in float64: its arrays after the first updates, the losses, and the costs (with the penalty)."""
    plain = Plain(job, data, "float64")
    losses, penalties = [], []
    for _ in range(steps):
        squares = sum(float((w**2).sum()) for name, w in plain.arrays().items() if name.startswith("W"))
        penalties.append(job.penalties[0] * squares)
        plain.run(1)
        losses.append(float(plain.losses()[0]))
    return plain.arrays(), np.array(losses), np.array(losses) + np.array(penalties)
