"""Runs that go on where they ended: checkpoints in a run's directory, and taking the newest intact one up again.

A checkpoint is a directory ``checkpoints/step-00001234`` of the run's, with the arrays in safetensors, everything
else in JSON, and a manifest. With what a trainer was made of, it is all that a run is: random draws and the order of
the examples are functions of the seed and the update.
"""

from __future__ import annotations

import contextlib
import errno
import re
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backend import Device
from ..files.locks import LockedError, RunLock
from ..files.storage import remove_directory, write_directory
from ..nn.formats.safetensors import CheckpointError
from ..nn.per_model import integer, shown
from . import snapshot
from .callback import Callback
from .history import direction
from .snapshot import ResumeError
from .state import Origin

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["Checkpoints", "ResumeError", "ResumeWarning", "confirm", "resume"]

_NAME = re.compile(r"step-(\d{8,12})")
_LEFT = re.compile(r"\.(step-\d+)\.(new|old)\d+")  # by a process that was killed while it wrote
_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space", errno.EDQUOT: "the quota is used up: free some space",
    errno.EROFS: "it cannot be written to", errno.EACCES: "it cannot be written to: look at its permissions",
    errno.ENOENT: "it has vanished: look whether the disk is still there",
}


class ResumeWarning(UserWarning):
    """A run goes on with something else than before: an older checkpoint, or other versions."""


class CheckpointWriteError(OSError):
    """A checkpoint could not be written; the message says why, and what the last good one is."""


class Checkpoints(Callback):
    """Write checkpoints at evaluation points, and where training is asked to stop. It comes last among the callbacks.

    A thread writes while training goes on; an error in it comes up at the next checkpoint, or at the end.

    Parameters
    ----------
    run : path
        The run's directory, made where it is missing. One process at a time writes to it.
    every : int
        Write at every so many evaluations, and at the last.
    keep : int
        Keep so many of the newest, at least 2, and the best.
    monitor : str, optional
        The column that tells which is the best: the validation loss, or the training loss without validation data.
        With several models, its mean over them.
    mode : {"min", "max"}, optional
        Whether less or more is better; by default what the loss declares of the column.

    Attributes
    ----------
    lock : RunLock
        Held during ``fit``; hold it longer with ``with checkpoints.lock:``.
    best : tuple of int and float, or None
        The update of the best checkpoint, and its value.

    Raises
    ------
    LockedError
        When training begins, if another process writes to the run.
    FileExistsError
        When training begins, if the directory holds another run, or this one further on.
    CheckpointWriteError
        If a checkpoint cannot be written; those before are intact.
    """

    def __init__(
        self, run: str | Path, *, every: int = 1, keep: int = 2, monitor: str | None = None, mode: str | None = None
    ) -> None:
        if mode not in (None, "min", "max"):
            raise ValueError(f"Checkpoints: expected mode 'min' or 'max', got {shown(mode)}")
        column: Any = monitor
        if column is not None and (not isinstance(column, str) or not column):
            raise TypeError(f"Checkpoints: expected monitor as a column's name, got {shown(column)}")
        self.run: Path = Path(run)
        self.every: int = integer("Checkpoints", "every", every)
        self.keep: int = integer("Checkpoints", "keep", keep, low=2)
        self.monitor: str | None = monitor
        self.mode = mode
        self.lock: RunLock = RunLock(self.run)
        self.best: tuple[int, float] | None = None
        self.at: int | None = None  # the update of the newest checkpoint that is this run's
        self.damaged: list[str] = []  # newer ones, which are put aside
        self._pool: ThreadPoolExecutor | None = None
        self._writing: Future[Any] | None = None

    def on_begin(self, trainer: Trainer, steps: int) -> None:
        """Take the lock, look at what is there, and begin to fingerprint the data."""
        if trainer.callbacks[-1] is not self:
            raise ValueError("Checkpoints: expected to be the last of the callbacks, so that what the others remember "
                             "is saved after they saw a row; change their order")
        self._column = self.monitor or f"{'validation' if 'validation' in trainer.data else 'train'}_loss"
        mode = direction("Checkpoints", self._column, self.mode, trainer.loss, trainer.data or None)
        self._sign = 1 if mode == "max" else -1
        with self._explained("begin", self.run):
            self.run.mkdir(parents=True, exist_ok=True)
            self.lock.__enter__()
        try:
            with self._explained("begin", self.run):
                self._look()
        except BaseException:
            self.lock.__exit__(None, None, None)
            raise
        self._steps, self._pool = steps, ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._told = self._pool.submit(snapshot.fingerprint, dict(trainer.data))

    def _look(self) -> None:
        """Put aside what is damaged, remove what a killed process left, and see that what is there is this run."""
        folder = self.run / "checkpoints"
        if folder.is_symlink():
            raise FileExistsError(errno.EEXIST, "is a link, which may lead anywhere: make it a directory", str(folder))
        folder.mkdir(exist_ok=True)
        for path in list(folder.iterdir()):
            if path.name in self.damaged:
                remove_directory(path.with_name(f"{path.name}.damaged"))
                path.rename(path.with_name(f"{path.name}.damaged"))
            elif left := _LEFT.fullmatch(path.name):
                whole = path.with_name(left[1])
                if left[2] == "old" and not whole.exists():
                    path.rename(whole)
                else:
                    remove_directory(path)
        there = steps_in(self.run)
        self.damaged = []
        if there and (self.at is None or max(there) > self.at):
            raise FileExistsError(errno.EEXIST, f"holds a run at update {max(there)}: go on from there with Trainer."
                                  "resume, or choose another directory", str(self.run))

    def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
        """Write a checkpoint if it is time."""
        last = trainer.stopped or trainer.step >= self._steps
        if last or (len(trainer.history.rows) - 1) % self.every == 0:
            if self._column not in row:
                raise ValueError(f"Checkpoints: no column {self._column!r} in {', '.join(row)}: add it in a callback "
                                 "that comes before")
            value = snapshot.mean(row[self._column])
            if value is not None and (self.best is None or self._sign * (value - self.best[1]) > 0):
                self.best = trainer.step, value
            self.write(trainer)
        return None

    def on_stop(self, trainer: Trainer) -> None:
        """Write a checkpoint, unless there is one of this update."""
        self._wait()
        if self.at != trainer.step:
            self.write(trainer)

    def on_end(self, trainer: Trainer) -> None:
        """Wait until everything is written, and let go of the lock."""
        pool, self._pool = self._pool, None
        try:
            self._wait()
        finally:
            if pool:
                pool.shutdown()
                self.lock.__exit__(None, None, None)

    def write(self, trainer: Trainer) -> None:
        """Write a checkpoint of the trainer as it is now; only its arrays are copied before this returns.

        Parameters
        ----------
        trainer : Trainer
            The trainer that runs.
        """
        self._wait()
        if self._pool is None:
            raise RuntimeError("Checkpoints.write: expected a run that trains, got one that does not; "
                               "give the callback to a Trainer, and call fit")
        self._writing = self._pool.submit(self._write, snapshot.take(trainer), self._told, self.best)

    def _wait(self) -> None:
        """Wait for the checkpoint that is being written, and say what went wrong with it."""
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    def _write(self, taken: snapshot.Snapshot, told: Future[Any], best: tuple[int, float] | None) -> None:
        path = self.run / "checkpoints" / f"step-{taken.step:08d}"
        with self._explained("write", path):
            write_directory(path, snapshot.files(taken, told.result()))
        self.at = taken.step
        there = [step for step in sorted(steps_in(self.run), reverse=True) if step <= taken.step]
        kept = {*there[: self.keep], *([best[0]] if best else [])}
        for step in set(steps_in(self.run)) - kept:  # later ones too: a rate was halved, and they are undone
            path = path.with_name(f"step-{step:08d}")
            with self._explained("remove", path):
                remove_directory(path)

    @contextlib.contextmanager
    def _explained(self, doing: str, path: Path) -> Iterator[None]:
        try:
            yield
        except (LockedError, FileExistsError):
            raise
        except OSError as error:
            there = steps_in(self.run)
            left = f"the last good checkpoint is {path.with_name(f'step-{max(there):08d}').name}" if there else (
                "there is no checkpoint")
            why = _REMEDIES.get(error.errno or 0, "")
            raise CheckpointWriteError(
                error.errno, f"cannot {doing} ({error.strerror or error}){f': {why}' if why else ''}; {left}", str(path)
            ) from error

    def state(self) -> dict[str, Any]:
        """Return which checkpoint is the best."""
        return {"best": list(self.best) if self.best else None}

    def load_state(self, state: Mapping[str, Any], arrays: Mapping[str, Any] | None = None) -> None:
        """Restore what ``state`` returned."""
        best = state["best"]
        self.best = (int(best[0]), float(best[1])) if best else None


def steps_in(run: Path) -> list[int]:
    """Return the updates of the checkpoints in a run's directory, whether intact or not."""
    return list(_paths(run))


def _paths(run: Path) -> dict[int, Path]:
    """Return the checkpoints by update, also one that was moved aside by a process killed before the new one came."""
    try:
        paths = {path.name: path for path in (run / "checkpoints").iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    aside = {left[1]: path for name, path in paths.items() if (left := _LEFT.fullmatch(name)) and left[2] == "old"}
    steps = {name: int(found[1]) for name in {**aside, **paths} if (found := _NAME.fullmatch(name))}
    return {step: {**aside, **paths}[name] for name, step in steps.items() if name == f"step-{step:08d}"}


def resume(trainer: Trainer, run: Path) -> None:
    """Do what ``Trainer.resume`` says."""
    there = sorted(_paths(run).items(), reverse=True)
    if not there:
        raise FileNotFoundError(f"no checkpoint in {run / 'checkpoints'}: expected a directory that Checkpoints wrote "
                                "to")
    damaged: dict[str, str] = {}
    for _, path in there:
        try:
            found = snapshot.read(path)
            break
        except CheckpointError as error:
            damaged[path.name] = str(error)
    else:
        raise CheckpointError(f"no checkpoint in {run} is intact: {'; '.join(damaged.values())}")
    for why in damaged.values():
        warnings.warn(f"{why}: going on from {path.name}", ResumeWarning, stacklevel=3)
    _refuse(run, snapshot.differences(found.told, trainer))
    snapshot.restore(found, trainer)
    own = trainer.callbacks[-1] if trainer.callbacks else None
    if isinstance(own, Checkpoints) and own.run.resolve() == run.resolve():
        own.at, own.damaged = found.step, list(damaged)
    trainer.run_state.origin = Origin(run, found.told)


def confirm(origin: Origin, plan: Mapping[str, int], data: Mapping[str, Any], device: Device) -> bool:
    """Compare a resumed run with what ``fit`` was given; it says whether a callback had ended the run.

    Parameters
    ----------
    origin : Origin
        The checkpoint.
    plan : mapping of str to int
        The trainer's.
    data : mapping of str to tuple of array
        The trainer's.
    device : Device
        Where the run goes on.

    Returns
    -------
    bool
        False if the run goes on to a later update than it was to make then.

    Raises
    ------
    ResumeError
        If the plan or the data are others.
    """
    told = {**origin.metadata["plan"], "data": origin.metadata["data"]}
    here: dict[str, Any] = {**plan, "data": snapshot.fingerprint(data)}
    longer = here["steps"] > told["steps"]
    here["steps"] = told["steps"]
    _refuse(origin.directory, snapshot.compared(told, here))
    others = snapshot.compared(origin.metadata["environment"], snapshot.environment(device))
    if others:
        warnings.warn(f"{origin.directory} goes on where {'; '.join(others)}: its numbers will be the same up to "
                      "rounding, not bit for bit", ResumeWarning, stacklevel=4)
    return bool(origin.metadata["stopped"]) and not longer


def _refuse(run: Path, differences: list[str]) -> None:
    if differences:
        raise ResumeError(f"{run} is another run than the one to go on with: {'; '.join(differences)}")
