"""The parts of the training loop: updates up to a point, an evaluation there, and notifying the callbacks."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .. import random
from ..backend import Array, Device, to_numpy
from ..nn.per_model import is_array
from .batches import Batches
from .divergence import POLICIES, DivergencePolicy, Minibatch, finite_flags, first_non_finite
from .evaluation import evaluate, hide_models
from .persistent import LONGEST, CompileError, Persistent, UnsuitableError

if TYPE_CHECKING:
    from .callback import Callback
    from .trainer import Trainer

__all__ = ["Loop", "notifying"]

_LOG = logging.getLogger(__name__)
WORTHWHILE = 1000  # updates of a run, to compile a kernel for it


class Loop:
    """Make a run's updates, check their losses, and evaluate.

    Parameters
    ----------
    trainer : Trainer
        The run, which was started.
    batches : Batches
        The minibatches.
    data : mapping of str to tuple of array, optional
        Checked features and labels to evaluate on, by the prefix of their columns in the history.
    updates : int
        The updates of the whole run. If they are many, and the device is a GPU, a kernel written for the network makes
        them, which takes seconds to compile.
    """

    def __init__(
        self, trainer: Trainer, batches: Batches, data: Mapping[str, tuple[Array, Array]] | None = None,
        updates: int = 0,
    ) -> None:
        self._trainer, self._batches, self._data = trainer, batches, data or {}
        self._policy: DivergencePolicy = POLICIES[trainer.divergence](trainer.models, self.rate, self._locate)
        self._kernel = self._find_kernel(updates)
        trainer.persistent = self._kernel is not None

    def _find_kernel(self, updates: int) -> Persistent | None:
        """Return the kernel that makes many updates in one launch, if it pays and there is one; log it if not."""
        trainer, device = self._trainer, self._trainer.network.device
        try:
            if updates < WORTHWHILE and not device.is_host:
                raise UnsuitableError(f"it is compiled for runs of {WORTHWHILE} updates or more")
            kernel = Persistent(trainer.learner, trainer.architecture, trainer.optimizer, trainer.loss, trainer.l2,
                                trainer.clip_norm, trainer.seed, self._batches)
        except UnsuitableError as error:
            learner = trainer.learner
            way = "in fused launches" if learner.fused else f"layer by layer ({learner.why})"
            _LOG.debug("updates on %s %s, by no persistent kernel: %s", device.name, way, error)
        except CompileError as error:
            _LOG.warning("updates on %s one by one: the persistent kernel does not compile: %s", device.name, error)
        else:
            _LOG.debug("updates on %s by a persistent kernel, %d in a launch", device.name, LONGEST)
            return kernel
        return None

    def rate(self, step: int) -> Any:
        """Return the learning rate of an update."""
        rate, halvings = self._trainer.schedule(step), self._trainer.halvings
        return rate * 0.5 ** len(halvings) if halvings else rate

    def rates(self, first: int, until: int) -> Any:
        """Return the learning rates of updates first to until - 1, (updates, models or 1), in host memory."""
        trainer, rates = self._trainer, [self.rate(t) for t in range(first, until)]
        given = to_numpy([to_numpy(rate) if is_array(rate) else [float(rate)] for rate in rates])
        if trainer.models and self._policy.freezes:  # 0 if frozen
            return given * to_numpy([[float(model not in trainer.diverged) for model in range(trainer.models[0])]])
        return given

    def _placed_rates(self, first: int, until: int) -> list[Any]:
        """Return the learning rates as an update takes them: on the device if each model has its own."""
        trainer, rates = self._trainer, self.rates(first, until)
        if trainer.models and (self._policy.freezes or is_array(self.rate(first))):
            table = trainer.network.device.asarray(rates, trainer.dtype)[..., None]
            return [table[i, ...] for i in range(until - first)]
        return list(rates[:, 0].tolist())  # NumPy's scalars would make float64 of float32

    def minibatches(self, first: int, until: int) -> Generator[Minibatch, None, None]:
        """Generate what updates first to until - 1 take; close the generator if it is not used up."""
        trainer, device, rates = self._trainer, self._trainer.network.device, self._placed_rates(first, until)
        shapes = trainer.learner.network.noise_shapes(self._batches.size)
        with contextlib.closing(self._batches.run(first, until)) as run:
            for t, (x, targets) in enumerate(run, first):
                noise = {name: device.asarray(random.uniform(trainer.seed, name, t, (x.shape[0], k)), trainer.dtype)
                         for name, (_, k) in shapes.items()}
                yield x, targets, rates[t - first], noise

    def _updates(self, until: int) -> Generator[Array, None, None]:
        """Make updates until update ``until`` one by one, and yield the loss of each."""
        with contextlib.closing(self.minibatches(self._trainer.step, until)) as minibatches:
            for x, targets, rate, noise in minibatches:
                yield self._trainer.update(x, targets, rate, noise)

    def _launches(self, until: int) -> Generator[Array, None, None]:
        """Make updates until update ``until`` many at a time, and yield the losses of each launch."""
        state = self._trainer.run_state
        for first in range(state.step, until, LONGEST):
            last = min(first + LONGEST, until)
            losses = self._kernel.run(first, last, self.rates(first, last))  # type: ignore[union-attr]
            state.step = last
            yield losses

    def update_until(self, until: int) -> None:
        """Make updates until update ``until``, or until asked to stop, then check their losses.

        Whoever asks to stop is heard after the update that is being made, or the launch that makes many.

        Parameters
        ----------
        until : int
            Above the run's ``step``.
        """
        trainer, state, losses = self._trainer, self._trainer.run_state, []
        try:
            with contextlib.closing(self._launches(until) if self._kernel else self._updates(until)) as updates:
                for loss in updates:
                    losses.append(loss)
                    if trainer.stopping:
                        break
        finally:  # an interruption loses nothing that was measured
            host = to_numpy([])
            if losses:
                one_by_one = [] if self._kernel else [trainer.network.device.xp.stack(losses)]
                host = Device().xp.concat([to_numpy(part) for part in one_by_one or losses])
                host = self._without_frozen(host)
            state.history.batch_loss += list(host) if trainer.models else host.tolist()
            state.unchecked += len(host)
        if state.unchecked and (state.step == until or not self._policy.freezes):
            # A model is frozen at the same update whether or not the run was interrupted before.
            losses, state.unchecked = state.history.batch_loss[-state.unchecked :], 0
            self._policy.handle_non_finite(state, to_numpy(losses), state.step - len(losses))

    def evaluate(self) -> bool:
        """Add a row to the history and show it to the callbacks, unless the run goes back to an earlier state.

        Returns
        -------
        bool
            Whether a callback wants to stop, or no model is left.
        """
        trainer, state = self._trainer, self._trainer.run_state
        lr = self.rate(state.step)
        row: dict[str, Any] = {"step": state.step, "epoch": state.step / self._batches.per_epoch,
                               "lr": to_numpy(lr) if is_array(lr) else float(lr)}
        found = {name: evaluate(trainer.learner, x, y, trainer.models) for name, (x, y) in self._data.items()}
        for name, measures in found.items():
            if self._policy.handle_non_finite(state, to_numpy(measures["loss"]), state.step, f"{name} loss"):
                return False
        if self.check_parameters():
            return False
        for name, measures in found.items():
            row |= {f"{name}_{key}": self._without_frozen(value) for key, value in measures.items()}
        state.history.rows.append(row)
        self._policy.remember_finite(state, trainer.architecture)
        state.stopped = len(state.diverged) == (trainer.models or (1,))[0]
        for callback in trainer.callbacks:
            state.stopped = bool(callback.on_evaluation(trainer, row)) or state.stopped
        return state.stopped

    def check_network(self, x: Array, y: Array, only: Array | None = None) -> None:
        """Check that the parameters, and the loss of some examples, are finite after the last update.

        The losses of the updates say nothing of the network that the last of them left.

        Parameters
        ----------
        x, y : array
            Checked features and labels.
        only : array of int, optional
            The indices of the rows of x that the labels belong to.
        """
        trainer, state = self._trainer, self._trainer.run_state
        if not self.check_parameters():
            loss = trainer.learner.evaluate(x, y, only, measures=False)["loss"]
            self._policy.handle_non_finite(state, to_numpy(loss), state.step, "loss")

    def check_parameters(self) -> bool:
        """Check the parameters, since a weight of -inf may hide behind a ReLU; return whether the run went back."""
        trainer, state = self._trainer, self._trainer.run_state
        flags = to_numpy(finite_flags(trainer.state(), trainer.architecture))
        return self._policy.handle_non_finite(state, flags, state.step, "parameters")

    def _without_frozen(self, values: Any) -> Any:
        """Return measured values (..., *models) with NaN for models that are frozen."""
        return hide_models(values, self._trainer.diverged) if self._trainer.models else values

    def _locate(self, until: int, model: int) -> str:
        """Repeat the updates since the last finite state, to which the run goes back, and name what failed first."""
        state, trainer = self._trainer.run_state, self._trainer
        state.go_back()
        first = state.step
        with trainer.network.device.activate(), contextlib.closing(self.minibatches(first, until + 1)) as minibatches:
            found = first_non_finite(trainer.learner, minibatches, trainer.update, first, model)
        state.go_back()
        return found


@contextlib.contextmanager
def notifying(trainer: Trainer, steps: int) -> Iterator[None]:
    """Notify the callbacks when a training that lasts until update ``steps`` begins, is stopped, and ends.

    Parameters
    ----------
    trainer : Trainer
        The trainer whose callbacks they are.
    steps : int
        The last update.
    """
    begun: list[Callback] = []
    try:
        for callback in trainer.callbacks:
            callback.on_begin(trainer, steps)
            begun.append(callback)
        yield
        for callback in begun if trainer.stopping else ():
            callback.on_stop(trainer)
    finally:
        trainer.stopping = False
        with contextlib.ExitStack() as ends:  # each hears of the end, whatever another raises
            ends.callback(trainer.data.clear)
            for callback in reversed(begun):
                ends.callback(callback.on_end, trainer)
