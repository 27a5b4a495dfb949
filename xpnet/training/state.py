"""The state of a run: one value of named arrays and plain numbers, which is saved, restored and compared as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..backend import Array, Device, ops_of
from .history import History

__all__ = ["Origin", "RunState"]


@dataclass(frozen=True, eq=False)
class Origin:
    """The checkpoint from which a run was resumed, until ``fit`` has compared it with its own arguments.

    Attributes
    ----------
    directory : Path
        The run's directory.
    metadata : mapping
        The checkpoint's JSON: the plan, the fingerprint of the data, the environment.
    """

    directory: Path
    metadata: Mapping[str, Any]


@dataclass(eq=False)
class RunState:
    """Everything that changes as a run goes on.

    Attributes
    ----------
    step : int
        Number of updates made.
    arrays : dict of str to array
        Parameters, running statistics, the input's scaling and the optimiser's slots, as ``"velocity.W1"``. They are
        the live arrays, which an update changes in place; there are none before training starts.
    history : History
        What was measured.
    finite_step : int
        The update after which the state was last evaluated and found finite.
    finite_arrays : dict of str to array
        A copy of ``arrays`` as they were then; empty before the first evaluation.
    diverged : dict of int to int
        The first update with a non-finite value, by model (0 for a single one).
    causes : dict of int to str
        For each of them, what was not finite, when, and at which rate.
    halvings : list of str
        Why the learning rate was halved, each time.
    unchecked : int
        The number of minibatch losses at the end of the history that were not checked for NaN and infinity yet.
    stopped : bool
        Whether a callback ended the run.
    origin : Origin or None
        The checkpoint that ``fit`` has yet to compare with its arguments.
    """

    step: int = 0
    arrays: dict[str, Array] = field(default_factory=dict)
    history: History = field(default_factory=History)
    finite_step: int = 0
    finite_arrays: dict[str, Array] = field(default_factory=dict)
    diverged: dict[int, int] = field(default_factory=dict)
    causes: dict[int, str] = field(default_factory=dict)
    halvings: list[str] = field(default_factory=list)
    unchecked: int = 0
    stopped: bool = False
    origin: Origin | None = None

    @classmethod
    def from_0_1(cls, attributes: dict[str, Any]) -> RunState:
        """Return the state of a trainer that xpnet 0.1 pickled, and take it out of the trainer's attributes."""
        before = {"arrays": "_learned", "finite_step": "_kept_step", "finite_arrays": "_kept", "unchecked": "_unseen",
                  "origin": "_resumed"}
        names = {name: before.get(name, name) for name in cls.__dataclass_fields__}
        return cls(**{name: attributes.pop(old) for name, old in names.items() if old in attributes})

    def detached(self, device: Device) -> RunState:
        """Return this state with copies of the live arrays, which later updates do not change."""
        return replace(self, arrays={name: device.asarray(a, copy=True) for name, a in self.arrays.items()})

    def load(self, other: RunState, device: Device) -> None:
        """Take over another state, whose arrays may be of any library, and write its arrays into the live ones."""
        with device.activate():
            for name, array in self.arrays.items():
                ops_of(array).assign(array, device.asarray(other.arrays[name]))
        finite = {name: device.asarray(a, copy=True) for name, a in other.finite_arrays.items()}
        vars(self).update({**vars(other), "arrays": self.arrays, "finite_arrays": finite})

    def go_back(self) -> None:
        """Return to the last finite state; the history stays as it is."""
        for name, array in self.arrays.items():
            ops_of(array).assign(array, self.finite_arrays[name])
        self.step = self.finite_step
