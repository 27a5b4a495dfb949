"""A network in training: its state, and what changes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..backend import Array, Device, ops_of
from ..nn.losses import Loss
from ..nn.network import Network
from ..nn.sequential import Sequential
from .history import History
from .optimizers import Optimizer
from .state import RunState
from .step import Learner

__all__ = ["Run"]


class Run:
    """The part of a ``Trainer`` that has a state: making an update, stopping, copying and restoring.

    Attributes
    ----------
    run_state : RunState
        Everything that changes as the run goes on.
    stopping : bool
        Whether ``fit`` was asked to end.
    persistent : bool
        Whether a persistent kernel makes the updates of ``fit``: see ``path``.
    """

    architecture: Sequential
    optimizer: Optimizer
    loss: Loss
    l2: float | Array
    clip_norm: float | Array | None = None  # of a trainer that 0.1 pickled, too
    seed: int | Sequence[int]
    dtype: str
    models: tuple[int, ...]
    device: Device | None
    persistent: bool = False

    def __init__(self) -> None:
        self.run_state: RunState = RunState()
        self.stopping: bool = False
        self._learner: Learner | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: the state's arrays by name, without the buffers that they view."""
        held = {**self.__dict__, "_learner": None}
        return held | ({"run_state": self.run_state.detached(self.network.device)} if self._learner else {})

    def __setstate__(self, held: dict[str, Any]) -> None:
        state = held.pop("run_state", None) or RunState.from_0_1(held)
        self.__dict__.update(held)
        self.run_state = RunState()
        if state.arrays:
            self.start(self.device or Device())
        self.run_state.load(state, self.device or Device())

    @property
    def step(self) -> int:
        """Number of updates made."""
        return self.run_state.step

    @property
    def history(self) -> History:
        """What was measured."""
        return self.run_state.history

    @property
    def diverged(self) -> dict[int, int]:
        """The first update with a non-finite loss, by model (0 for a single one)."""
        return self.run_state.diverged

    @property
    def causes(self) -> dict[int, str]:
        """What was not finite, when, and at which rate, for each model that diverged."""
        return self.run_state.causes

    @property
    def halvings(self) -> list[str]:
        """Why the rate was halved, each time (``divergence="halve"``)."""
        return self.run_state.halvings

    @property
    def stopped(self) -> bool:
        """Whether a callback ended the run."""
        return self.run_state.stopped

    @property
    def arrays(self) -> dict[str, Array]:
        """Parameters, running statistics and the input's scaling by name; none before ``fit`` begins."""
        return self._learner.arrays if self._learner else {}

    @property
    def learner(self) -> Learner:
        """The network's arrays, and the update step."""
        if self._learner is None:
            raise RuntimeError("this trainer has no network yet: call fit(x, y) first")
        return self._learner

    @property
    def path(self) -> str:
        """How ``fit`` makes updates: ``"persistent"``, many in one launch, ``"fused"``, or ``"plain"``, layer by layer.

        The first two are for GPUs, the first one for long runs only; the logger ``xpnet.training.loop`` says at level
        DEBUG why a run's are not.
        """
        return "persistent" if self.persistent else self.learner.path

    @property
    def network(self) -> Network:
        """The network as it is now; its arrays change as training goes on."""
        return Network(self.architecture, self.learner.arrays)

    def start(self, device: Device, x: Array | None = None, only: Array | None = None) -> None:
        """Allocate everything on ``device``, write the initial values, and standardise by ``x``.

        Parameters
        ----------
        device : Device
            Where to train.
        x : array of shape (n, features), optional
            The training features, for a network that standardises.
        only : array of int, optional
            The indices of the rows to standardise by; all by default.
        """
        with device.activate():
            self._learner = Learner(self.architecture, self.optimizer, self.loss, self.l2, models=self.models,
                                    seed=self.seed, device=device, dtype=self.dtype, clip_norm=self.clip_norm, x=x,
                                    only=only)
        self.run_state.arrays, self.device = self._learner.state(), device

    def update(self, x: Array, targets: Array, lr: Any, noise: Mapping[str, Array] | None = None) -> Array:
        """Make one update, and return the minibatch's loss (*models) without waiting for it.

        Parameters
        ----------
        x : array of shape (n, features)
            A batch in the trainer's dtype, standardised if the network begins by doing so. ``fit`` gives ``Halves``,
            which stand for an array, where they are faster.
        targets : array of shape (n, outputs)
            What the loss makes of labels: one-hot rows for softmax cross-entropy.
        lr : float or array of shape (*models, 1)
            The learning rate.
        noise : mapping of str to array
            Uniform draws for dropout.

        Returns
        -------
        array of shape (*models)
            The batch's mean loss before the update, on the device.
        """
        state = self.run_state
        with self.device.activate():  # type: ignore[union-attr]
            value = self.learner.update(x, targets, lr, noise, state.step)
        state.step += 1
        return value

    def state(self) -> dict[str, Array]:
        """Return everything that changes as training goes on, by name: with ``step``, all that a run is.

        Parameters, running statistics, the input's scaling, and the optimiser's moments, as
        ``"velocity.W1"``. The arrays are the live ones: copy what must stay as it is.

        Returns
        -------
        dict of str to array
            On the trainer's device.
        """
        return self.learner.state()

    def restore(self, state: Mapping[str, Any], step: int, device: Device | None = None) -> None:
        """Go back, or on, to a state that ``state()`` returned, of arrays of any library.

        Parameters
        ----------
        state : mapping of str to array
            What ``state()`` returned.
        step : int
            The update at which it did.
        device : Device, optional
            Where to train; by default where the trainer was or names.
        """
        if not self.arrays:
            self.start(device or self.device or Device())
        here = self.network.device
        with here.activate():
            for name, array in self.state().items():
                ops_of(array).assign(array, here.asarray(state[name]))
        self.run_state.step, self.run_state.finite_arrays = step, {}

    def stop(self) -> None:
        """Ask ``fit`` to end after the update that it is at, from a signal handler, a callback or a thread."""
        self.stopping = True
