"""Callbacks that follow a column of the history: stopping early, and keeping the best arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..backend import Array, to_numpy
from ..nn.per_model import integer, number, shown
from .callback import Callback
from .history import direction

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["BestWeights", "EarlyStopping"]


class _Monitor(Callback):
    """Follow a column: each model's best finite value so far, and how many evaluations ago it was."""

    def __init__(self, monitor: str, mode: str | None, min_delta: float = 0.0) -> None:
        if mode not in (None, "min", "max"):
            raise ValueError(f"{type(self).__name__}: expected mode 'min' or 'max' for {monitor!r}, got {shown(mode)}")
        self.monitor: str = monitor
        self.mode: str | None = mode  # without one, the trainer's loss knows
        self._given = mode
        self.min_delta: float = number(type(self).__name__, "min_delta", min_delta)
        self.best: list[float | None] = []
        self.wait: list[int] = []

    def on_begin(self, trainer: Trainer, steps: int) -> None:
        """Forget an earlier run, but not the beginning of this one."""
        mode = direction(type(self).__name__, self.monitor, self._given, trainer.loss, trainer.data or None)
        if not trainer.history.rows:
            self.best, self.wait = [], []
        elif self.mode not in (None, mode):
            raise ValueError(f"{type(self).__name__}: expected the state of mode={mode!r}, got {self.mode!r}: give the "
                             "run the callbacks that it had")
        self.mode = mode

    def look(self, row: Mapping[str, Any]) -> list[bool]:
        """Take a row into account, and return for each model whether it is better than before."""
        if self.monitor not in row:
            raise ValueError(f"{type(self).__name__}: no column {self.monitor!r} in {', '.join(row)}: add it in a "
                             "callback that comes before")
        values = to_numpy(row[self.monitor]).reshape(-1).tolist()
        sign = 1 if self.mode == "max" else -1
        self.best, self.wait = self.best or [None] * len(values), self.wait or [0] * len(values)
        better = [math.isfinite(v) and (best is None or sign * (v - best) > self.min_delta)
                  for v, best in zip(values, self.best, strict=True)]
        self.best = [v if new else best for v, best, new in zip(values, self.best, better, strict=True)]
        self.wait = [0 if new else wait + 1 for wait, new in zip(self.wait, better, strict=True)]
        return better

    def state(self) -> dict[str, Any]:
        """Return the best values (None before the first finite one) and how many evaluations each model waits."""
        return {"monitor": self.monitor, "mode": self.mode, "best": self.best, "wait": self.wait}

    def load_state(self, state: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> None:
        """Restore what ``state`` returned."""
        if state["monitor"] != self.monitor or self._given not in (None, state["mode"]):
            raise ValueError(f"{type(self).__name__}: expected the state of monitor={self.monitor!r}, "
                             f"mode={self._given!r}, got {state['monitor']!r}, {state['mode']!r}: give the run the "
                             "callbacks that it had")
        self.mode = state["mode"]
        self.best, self.wait = list(state["best"]), list(state["wait"])


class EarlyStopping(_Monitor):
    """Stop when a column has not improved for some evaluations; several models, when that holds for each of them.

    It restores nothing: ``BestWeights`` does.

    Parameters
    ----------
    monitor : str
        The column of the history.
    patience : int
        Stop at so many evaluations in a row without improvement.
    min_delta : float
        An improvement is better than the best so far by more than this.
    mode : {"min", "max"}, optional
        Whether less or more is better; by default what the loss declares of the column.
    """

    def __init__(
        self, monitor: str = "validation_loss", *, patience: int = 5, min_delta: float = 0.0, mode: str | None = None
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience: int = integer("EarlyStopping", "patience", patience)

    def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
        """Stop if nothing improved for too long."""
        self.look(row)
        return all(wait >= self.patience for wait in self.wait)


class BestWeights(_Monitor):
    """Keep a copy of the arrays as they were when a column was best: for each model its own, on the device.

    Parameters
    ----------
    monitor : str
        The column of the history.
    mode : {"min", "max"}, optional
        Whether less or more is better; by default what the loss declares of the column.
    restore : bool
        Put the best arrays into the trainer when training ends, also by an error. To go on from there is then not
        the run that would have gone on undisturbed; without it, ``restore(trainer)`` does so when asked.

    Attributes
    ----------
    arrays : dict of str to array
        The best parameters and running statistics, as ``Network(trainer.architecture, best.arrays)`` takes them.
        A model without any finite value has those of the last evaluation: none is its best.
    """

    def __init__(self, monitor: str = "validation_loss", *, mode: str | None = None, restore: bool = True) -> None:
        super().__init__(monitor, mode)
        self.restore_at_end = restore
        self.arrays: dict[str, Array] = {}

    def on_begin(self, trainer: Trainer, steps: int) -> None:
        """Forget an earlier run, but not the beginning of this one."""
        super().on_begin(trainer, steps)
        if not trainer.history.rows:
            self.arrays = {}

    def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
        """Copy the arrays of the models that are better than before."""
        better, device = self.look(row), trainer.network.device
        better = [new or best is None for new, best in zip(better, self.best, strict=True)]
        if not any(better):
            return None
        with device.activate():
            mask = device.asarray(better)
            for name, now in trainer.arrays.items():
                own = trainer.architecture.has_model_axis(name, now)
                if all(better) or not own or name not in self.arrays:
                    self.arrays[name] = device.asarray(now, copy=True)
                else:
                    here, before = mask[(..., *[None] * (now.ndim - 1))], device.asarray(self.arrays[name])
                    self.arrays[name] = device.xp.where(here, now, before)
        return None

    def on_end(self, trainer: Trainer) -> None:
        """Restore, if asked to."""
        if self.restore_at_end and self.arrays:
            self.restore(trainer)

    def restore(self, trainer: Trainer) -> None:
        """Write the best arrays into the trainer's; its optimiser, update count and history stay as they are.

        Parameters
        ----------
        trainer : Trainer
            The trainer that runs.

        Raises
        ------
        RuntimeError
            If there was no evaluation yet.
        """
        if not self.arrays:
            raise RuntimeError("BestWeights has seen no evaluation yet; call Trainer.fit with it first")
        for name, best in self.arrays.items():
            trainer.arrays[name][...] = trainer.network.device.asarray(best)

    def load_state(self, state: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> None:
        """Restore what ``state`` returned and ``arrays`` held."""
        if state["best"] and not arrays:
            raise ValueError("BestWeights: expected the best arrays with the best values, got none: "
                             "give load_state(state, arrays) what was in its .arrays")
        super().load_state(state)
        self.arrays = dict(arrays or {})
