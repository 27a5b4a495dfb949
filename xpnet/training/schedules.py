"""Learning-rate schedules: functions from the update's number (0, 1, ...) to the rate.

Bounds may be floats, or arrays over the model axis: only arithmetic that both understand is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..nn.per_model import PER_MODEL, as_python, check_range, integer, is_array, per_model

__all__ = ["Constant", "Cosine", "CyclicLR", "Schedule", "Step"]


class Schedule(Protocol):
    """Anything that maps an update's number to a learning rate."""

    def __call__(self, step: int) -> Any:
        """Return the rate of update ``step``."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same rate at every update.

    Parameters
    ----------
    eta : float or array
        The learning rate.
    """

    eta: Any = field(metadata=PER_MODEL)

    def __post_init__(self) -> None:
        check_range("Constant", "eta", self.eta)
        as_python(self)

    def __call__(self, step: int) -> Any:
        """Return the rate of update ``step``."""
        return self.eta


@dataclass(frozen=True)
class CyclicLR:
    """Triangular cyclical rate: up from eta_min to eta_max in ``step_size`` updates, and down again.

    Smith, "Cyclical learning rates for training neural networks", WACV 2017, section 3.2.

    Parameters
    ----------
    eta_min, eta_max : float or array
        The bounds of the rate.
    step_size : int
        Half a cycle, in updates (n_s); one cycle is ``2 * step_size`` updates and starts at eta_min.
    """

    eta_min: Any = per_model(1e-5)
    eta_max: Any = per_model(1e-1)
    step_size: int = 2250

    def __post_init__(self) -> None:
        for name in ("eta_min", "eta_max"):
            check_range("CyclicLR", name, getattr(self, name))
        integer("CyclicLR", "step_size", self.step_size)
        as_python(self)

    def __call__(self, step: int) -> Any:
        """Return the rate of update ``step``."""
        phase = (step % (2 * self.step_size)) / self.step_size
        rise = phase if phase <= 1.0 else 2.0 - phase
        return self.eta_min + rise * (self.eta_max - self.eta_min)


@dataclass(frozen=True)
class Step:
    """Multiply the rate by ``gamma`` every ``step_size`` updates, or at given updates.

    Parameters
    ----------
    eta : float or array
        The first rate.
    step_size : int or sequence of int
        Every how many updates, or at which updates, the rate drops.
    gamma : float or array
        The factor of each drop.
    """

    eta: Any = field(metadata=PER_MODEL)
    step_size: int | Sequence[int]
    gamma: Any = per_model(0.1)

    def __post_init__(self) -> None:
        for name in ("eta", "gamma"):
            check_range("Step", name, getattr(self, name))
        at: Any = self.step_size
        if is_array(at):
            object.__setattr__(self, "step_size", [integer("Step", "step_size", update, low=0) for update in at])
        else:
            integer("Step", "step_size", at)
        as_python(self)

    def __call__(self, step: int) -> Any:
        """Return the rate of update ``step``."""
        at: Any = self.step_size
        if is_array(at):
            drops = sum(bool(step >= update) for update in at)
        else:
            drops = step // at
        return self.eta * self.gamma**drops


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from eta_max to eta_min over ``steps`` updates, then eta_min.

    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, equation 5,
    without restarts.

    Parameters
    ----------
    eta_max : float or array
        The first rate.
    steps : int
        After how many updates eta_min is reached.
    eta_min : float or array
        The last rate.
    """

    eta_max: Any = field(metadata=PER_MODEL)
    steps: int
    eta_min: Any = per_model(0.0)

    def __post_init__(self) -> None:
        for name in ("eta_max", "eta_min"):
            check_range("Cosine", name, getattr(self, name))
        integer("Cosine", "steps", self.steps)
        as_python(self)

    def __call__(self, step: int) -> Any:
        """Return the rate of update ``step``."""
        part = 0.5 * (1.0 + math.cos(math.pi * min(step / self.steps, 1.0)))
        return self.eta_min + part * (self.eta_max - self.eta_min)
