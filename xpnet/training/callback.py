"""The protocol of callbacks. Their methods are called at evaluation points, and where training begins and ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..backend import Array

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["Callback"]


class Callback:
    """The protocol; every method may be left as it is.

    Attributes
    ----------
    arrays : mapping of str to array
        What a checkpoint keeps of the callback beside ``state``; none by default.
    """

    arrays: Mapping[str, Array] = {}  # never written to: a callback that has some sets its own

    def on_begin(self, trainer: Trainer, steps: int) -> None:
        """Training begins, and goes on until update ``steps``.

        Parameters
        ----------
        trainer : Trainer
            The trainer that runs.
        steps : int
            The last update, counted from the run's first.
        """

    def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
        """Act on a new row of the history; return True to stop training.

        Parameters
        ----------
        trainer : Trainer
            The trainer that runs.
        row : dict
            What was measured, by column: floats, or arrays over models.

        Returns
        -------
        bool or None
            Whether to stop.
        """
        return None

    def on_end(self, trainer: Trainer) -> None:
        """Training ends, also by an error.

        Parameters
        ----------
        trainer : Trainer
            The trainer that runs.
        """

    def on_stop(self, trainer: Trainer) -> None:
        """Training was asked to stop, and ends after the update that it is at, before ``on_end``.

        Parameters
        ----------
        trainer : Trainer
            The trainer that runs.
        """

    def state(self) -> dict[str, Any]:
        """Return what the callback remembers between evaluations, in plain values (JSON), for a checkpoint.

        Returns
        -------
        dict
            A dictionary of plain values.
        """
        return {}

    def load_state(self, state: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> None:
        """Restore what ``state`` returned, and ``arrays`` held, when the checkpoint was made.

        Parameters
        ----------
        state : mapping
            What ``state`` returned.
        arrays : mapping of str to array, optional
            What ``arrays`` held.
        """
        if state or arrays:
            raise ValueError(f"{type(self).__name__} remembers nothing, but the checkpoint has {sorted(state)} for "
                             "it: give the run the callbacks that it had, in their order")
