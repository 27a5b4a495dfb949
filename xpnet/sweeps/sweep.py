"""Sweeps: many networks trained in one run, with one more array axis, and what they tell.

Members that differ in numbers only (l2, seed, sigma, dropout, rates, momentum) train side by side on the same
minibatches; those that differ in architecture form groups, and each group is a run of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..backend import Array, check_same_device
from ..nn.per_model import shown
from ..training.callbacks import Callback
from ..training.history import check_defined
from ..training.trainer import Trainer
from .blocks import Block, Task, check
from .plan import asked_device, checked_data, count, describe_sweep, fitting, make_trainers, measures_of, rungs_of
from .results import Sweep
from .space import points as points_of
from .store import Store, locked
from .workers import Train, places, train_on

__all__ = ["sweep"]


def sweep(
    make: Callable[..., Trainer],
    space: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    x: Array,
    y: Array,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    validation: tuple[Array, Array] | None = None,
    evaluate_every: int | None = None,
    train_sample: int | None = None,
    draws: int = 8,
    draw_seed: int = 0,
    order_seed: int | None = None,
    score: str | None = None,
    halve_at: Sequence[int] = (),
    block_size: int | None = None,
    workers: int = 1,
    executor: Any = None,
    directory: str | Path | None = None,
    progress: bool | None = None,
) -> Sweep:
    """Train a network for every point of a space, many at once.

    Parameters
    ----------
    make : function
        From a point's values, by name, to a ``Trainer`` of one model, without callbacks. Trainers that differ in
        l2, seed and the numbers of layers, optimiser and schedule train side by side; others in groups.
    space : mapping, or iterable of mappings
        The points: see ``xpnet.sweeps.space.points``. For each name a value, a sequence of values, or a
        distribution (``Uniform``, ``LogUniform``); ``seed`` is one more name.
    x, y : arrays
        Features (n, features) and labels (n,) or (n, outputs), as for ``Trainer.fit``.
    steps, epochs, validation, evaluate_every, train_sample : int, float, tuple of arrays
        As for ``Trainer.fit``. Where batch sizes differ, the length is given in steps.
    draws, draw_seed : int
        How many points are drawn from the distributions, and from which stream.
    order_seed : int, optional
        Seed of the order of the examples, for all members; by default the first member's. A member equals the
        run of its own trainer with this order.
    score : str, optional
        The column of the history that ranks members: by default the accuracy (or r2) on the validation data,
        or on the training data without them. Losses and costs rank from below.
    halve_at : sequence of int
        Successive halving (Jamieson and Talwalkar, "Non-stochastic best arm identification and
        hyperparameter optimization", AISTATS 2016): at each of these updates the worse half of the members
        still running is dropped, and those that diverged.
    block_size : int, optional
        Members that train side by side; by default as many as half of the free memory holds, and not
        more than 32 on a CPU. Where memory does not suffice, a block is halved. A directory keeps the size
        that it began with, so that its blocks are found again; a smaller one divides those that are missing.
    workers : int
        Processes on this machine, each with its blocks and one thread of BLAS. With more than one, call
        this from a script's ``if __name__ == "__main__":``, since each process imports the script. They share
        a copy of the data as NumPy arrays in a temporary directory (``TMPDIR``), and train on a GPU where the
        data are on one. With ``executor``, how many blocks it trains at a time, if it does not tell.
    executor : Executor or Dask client, optional
        Where else to train: anything with the interface of ``concurrent.futures``, or a ``distributed.Client``.
    directory : path, optional
        Where to keep finished blocks, tables, curves and the best network, and without ``executor`` also
        checkpoints of the blocks that are being trained, at each evaluation. The same call again does only what is
        missing. One process at a time writes to it.
    progress : bool, optional
        Show a bar over members and updates; by default where the standard error output is a terminal.

    Returns
    -------
    Sweep
        The members, and what they reached.

    Raises
    ------
    ValueError, TypeError
        If a point makes no trainer, the trainers cannot be compared, or the directory holds another sweep.
    MemoryError
        If memory does not suffice for one member.
    WorkersError
        If worker processes do not start, or die again and again; it is a ``BrokenProcessPool``.
    OSError
        If the directory cannot be written to, or (LockedError) if another process writes to it.
    KeyboardInterrupt
        With what is kept in the directory, and how to go on.
    """
    chosen = points_of(space, draws=draws, draw_seed=draw_seed)
    trainers = make_trainers(make, chosen)
    if not (executor is None or hasattr(executor, "submit")):
        raise TypeError(f"sweep: expected an executor with the interface of concurrent.futures, got {executor!r}")
    workers, block_size = count("workers", workers) or 1, count("block_size", block_size)
    fit = {"evaluate_every": count("evaluate_every", evaluate_every),
           "train_sample": count("train_sample", train_sample)}
    order = count("order_seed", trainers[0].order_seed if order_seed is None else order_seed, low=0) or 0
    data = checked_data(x, y, validation, trainers[0])
    rungs = rungs_of(trainers, data.y.shape[0], steps, epochs, halve_at)
    measures = measures_of(trainers, chosen, validated=validation is not None)
    score = measures[-1] if score is None else score
    if score not in measures:
        raise ValueError(f"sweep: expected score as one of {', '.join(measures)}, got {shown(score)}")
    check_defined("sweep", score, trainers[0].loss,
                  {"train": (data.x, data.y)} | ({"validation": data.validation} if data.validation else {}))
    device = asked_device(trainers) or check_same_device(x=data.x, y=data.y)
    size = block_size or fitting(trainers, device, places(executor, workers))
    told = describe_sweep(chosen, trainers, data, rungs=rungs, order_seed=order, **fit) if directory else {}
    folder, going = Path(directory) if directory else None, list(range(len(chosen)))
    with locked(folder), _Bar(rungs, len(chosen), show=progress) as bar:
        store = Store(folder, told, size, runs=executor is None)
        at_most = block_size or store.block_size
        result = Sweep(chosen, trainers, measures, score, device, store.block_size)
        try:
            with train_on(data, executor=executor, workers=workers, callbacks=[bar]) as train:
                for start, until in zip([0, *rungs], rungs, strict=False):
                    bar.begin(going, start, until)
                    for block in _blocks(result, store, train, going, (start, until), at_most, order, fit):
                        bar.finish(result.add(block))
                    if until < rungs[-1]:
                        better = [m for m in result.ranked(going) if m not in result.diverged]
                        going = sorted(better[: max(1, len(going) // 2)])
                    if not going:
                        break
            if directory:
                result.save(directory)
            store.tidy()
        except KeyboardInterrupt:
            how = (f"what was done is in {directory}; the same command goes on from there" if directory else
                   "nothing was kept: give directory= (--out) to be able to go on")
            raise KeyboardInterrupt(f"{bar.done} of {len(going)} networks were done up to update {bar.until}; {how}"
                                    ) from None
        except Exception:
            store.let_go()
            raise
    return result


def _blocks(
    result: Sweep, store: Store, train: Train, going: Sequence[int], rung: tuple[int, int], size: int, order: int,
    fit: Mapping[str, Any],
) -> Iterator[Block]:
    """Return the blocks of all members going from one update to another: those in the store, and then those missing."""
    start, until = rung

    def task(members: Sequence[int]) -> Task:
        stacked, state = result.stack(members, order_seed=order)
        run = store.run_of(members, until)
        return Task(tuple(members), stacked.architecture, stacked.options, until, fit, start, state, run)

    done: set[int] = set()
    for block in store.load(until, lambda block: check(block, result._trainers, result.measures, until)):
        if done.isdisjoint(block.members) and set(block.members) <= set(going):
            done.update(block.members)
            yield block
    # Cut as when the sweep began, since rounding depends on the blocks; then as asked now.
    cut = [[m for m in members if m not in done] for members in result.side_by_side(going, store.block_size)]
    for block in train([part for members in cut for part in result.side_by_side(members, size)], task):
        store.save(block, until)
        yield block


class _Bar(Callback):
    """A bar over members and updates, with the time left; blocks trained elsewhere move it when they are done."""

    def __init__(self, rungs: Sequence[int], members: int, *, show: bool | None) -> None:
        self.rungs, self.members, self.show = list(rungs), members, show
        self.done = self.until = 0

    def __enter__(self) -> _Bar:
        from tqdm import tqdm

        hidden = not (sys.stderr.isatty() if self.show is None else self.show)
        self.bar = tqdm(total=self.members * self.rungs[-1], unit="update", unit_scale=True, desc="sweep",
                        disable=hidden)
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def begin(self, going: Sequence[int], start: int, until: int) -> None:
        """Begin a rung: so many members go on from one update to another."""
        self.done, self.until, self._start, self._moved = 0, until, start, 0
        self.bar.total = self.bar.n + len(going) * (self.rungs[-1] - start)

    def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
        """Move with a block that trains in this process."""
        self._move((trainer.step - self._start) * trainer.models[0])
        return None

    def finish(self, block: Block) -> None:
        """Count a block that is done."""
        self._move((self.until - self._start) * len(block.members))
        self.done += len(block.members)
        self._moved = 0
        self.bar.set_postfix({"networks": f"{self.done}/{self.members}"})

    def _move(self, to: int) -> None:
        self.bar.update(to - self._moved)
        self._moved = to
