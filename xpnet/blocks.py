"""Blocks of a sweep: members that train side by side, from one update to another.

A block is a pure function of its task and the data, so that it may be trained anywhere, again, and in any order.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .backend import Array, Device, to_numpy
from .blas import one_thread
from .callbacks import Callback
from .hyper import is_array
from .network import Sequential
from .training import Trainer

__all__ = ["Block", "Data", "Task", "opaque", "run"]


class Data(NamedTuple):
    """What every block trains on: features and labels, and perhaps others to evaluate on."""

    x: Array
    y: Array
    validation: tuple[Array, Array] | None = None


@dataclasses.dataclass(frozen=True)
class Task:
    """What to train: some members from one update to another, with everything that decides the result.

    Attributes
    ----------
    members : tuple of int
        The points' numbers, in the order of the model axis.
    architecture, options : Sequential, dict
        The trainer's arguments, with a value per member.
    until : int
        The update to stop at.
    fit : dict
        ``evaluate_every`` and ``train_sample``.
    start, state : int, dict of str to array
        The update to go on from, and the arrays there; none at update 0.
    """

    members: tuple[int, ...]
    architecture: Sequential
    options: Mapping[str, Any]
    until: int
    fit: Mapping[str, Any]
    start: int
    state: Mapping[str, Array]


class Block(NamedTuple):
    """What a task gave, on the host.

    Attributes
    ----------
    members : tuple of int
        As in the task.
    state : dict of str to array
        The arrays at the end, the members along the first axis.
    columns : dict of str to array
        The history, (rows,) or (rows, members).
    batch_loss : array
        Every update's loss, (updates, members).
    causes : dict of int to tuple
        By member that diverged: at which update, and why.
    """

    members: tuple[int, ...]
    state: dict[str, Array]
    columns: dict[str, Array]
    batch_loss: Array
    causes: dict[int, tuple[int, str]]


def run(task: Task, data: Data, *, single: bool = False, callbacks: Sequence[Callback] = ()) -> Block:
    """Train a block. ``single`` keeps BLAS to one thread, for several workers on one machine."""
    trainer = Trainer(task.architecture, **task.options, callbacks=callbacks, divergence="freeze")
    if task.start:
        trainer.restore(task.state, task.start, trainer.device or Device.of(data.x))
    with one_thread() if single else contextlib.nullcontext():
        history = trainer.fit(data.x, data.y, steps=task.until, validation=data.validation, **task.fit)
    causes = {task.members[m]: (step, trainer.causes[m].replace(f" of model {m}", ""))
              for m, step in trainer.diverged.items()}
    state = {name: to_numpy(a) for name, a in trainer.state().items()}
    losses = to_numpy(history.batch_loss).reshape(-1, len(task.members))
    return Block(task.members, state, history.columns, losses, causes)


def opaque(thing: Any) -> Iterator[Any]:
    """Give the functions and objects among things, and in dataclasses among them, that do not tell what they hold."""
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        for field in dataclasses.fields(thing):
            yield from opaque(getattr(thing, field.name))
    elif isinstance(thing, Mapping):
        yield from opaque(list(thing.values()))
    elif is_array(thing) and not hasattr(thing, "dtype"):
        for one in thing:
            yield from opaque(one)
    elif not (thing is None or isinstance(thing, str | int | float | Device) or hasattr(thing, "dtype")):
        yield thing
