"""Blocks of a sweep: members that train side by side, from one update to another.

A block is a pure function of its task and the data, so that it may be trained anywhere, again, and in any order. What
it leaves in its run's directory makes it faster, not another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..backend import Array, Device, to_numpy
from ..backend.blas import one_thread
from ..files.locks import StaleLockWarning
from ..nn.formats.safetensors import CheckpointError
from ..nn.per_model import is_array
from ..nn.scaling import compared_dtype
from ..nn.sequential import Sequential
from ..training.callbacks import Callback
from ..training.checkpoints import Checkpoints, ResumeError, ResumeWarning, steps_in
from ..training.trainer import Trainer

__all__ = ["Block", "Data", "Task", "check", "opaque", "run"]


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
    run : str, optional
        A directory on this machine for checkpoints on the way, to go on from.
    """

    members: tuple[int, ...]
    architecture: Sequential
    options: Mapping[str, Any]
    until: int
    fit: Mapping[str, Any]
    start: int
    state: Mapping[str, Array]
    run: str | None = None


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
    with contextlib.ExitStack() as around:
        if single:
            around.enter_context(one_thread())
        if task.run:
            around.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", StaleLockWarning)  # the sweep's own lock tells of it
        trainer = _begun(task, data, callbacks)
        history = trainer.fit(data.x, data.y, steps=task.until, validation=data.validation, **task.fit)
    causes = {task.members[m]: (step, trainer.causes[m].replace(f" of model {m}", ""))
              for m, step in trainer.diverged.items()}
    state = {name: to_numpy(a) for name, a in trainer.state().items()}
    losses = to_numpy(history.batch_loss).reshape(-1, len(task.members))
    return Block(task.members, state, history.columns, losses, causes)


def _begun(task: Task, data: Data, callbacks: Sequence[Callback]) -> Trainer:
    """Return a block's trainer as its checkpoints left it, or as it begins."""
    def made() -> Trainer:
        kept = [Checkpoints(task.run)] if task.run else []
        return Trainer(task.architecture, **task.options, callbacks=[*callbacks, *kept], divergence="freeze")

    trainer = made()
    if task.run and steps_in(Path(task.run)):
        try:
            trainer.resume(task.run)
            return trainer
        except (CheckpointError, ResumeError) as error:
            warnings.warn(f"{error}: these networks go on from update {task.start}", ResumeWarning, stacklevel=3)
            shutil.rmtree(task.run)
            trainer = made()
    if task.start:
        trainer.restore(task.state, task.start, trainer.device or Device.of(data.x))
    return trainer


def check(block: Block, trainers: Sequence[Trainer], measures: Sequence[str], until: int) -> None:
    """Check that a block that was read is one of these trainers', up to update ``until``.

    Raises
    ------
    ValueError, KeyError, TypeError
        If it is not.
    """
    many = len(block.members)
    if not many or len(set(block.members)) < many or any(type(m) is not int for m in block.members):
        raise ValueError(f"its members are {str(block.members)[:40]}")
    for trainer in [trainers[m] for m in block.members if m in range(len(trainers))] or trainers[:1]:
        of = trainer.architecture
        moments = {f"{slot}.{name}": of.shapes[name] for slot in trainer.optimizer.slots for name in of.parameters}
        wanted = {name: ((shape if name in of.inputs else (many, *shape)), trainer.dtype)
                  for name, shape in {**of.shapes, **moments}.items()}
        if {name: (a.shape, compared_dtype(name, a, of.inputs, trainer.dtype))
                for name, a in block.state.items()} != wanted:
            raise ValueError("its arrays are not the networks'")
    steps, losses = block.columns["step"], block.batch_loss
    shapes = {block.columns[name].shape for name in measures}
    if steps.dtype.kind != "i" or steps.shape[0] < 1 or not steps[-1] <= until or shapes != {(len(steps), many)} or any(
            column.shape not in ((len(steps),), (len(steps), many)) for column in block.columns.values()):
        raise ValueError("its history is not the networks'")
    if losses.ndim != 2 or losses.shape[1] != many or losses.dtype.kind != "f":
        raise ValueError("its losses are not the networks'")


def opaque(thing: Any) -> Iterator[Any]:
    """Return the functions and objects among things, and in dataclasses among them, that do not tell what they hold."""
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
