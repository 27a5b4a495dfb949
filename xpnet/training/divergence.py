"""Divergence: losses are read seldom while all are finite, and searched once for where it began when one is not."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..backend import Array, namespace, to_numpy
from ..datasets.admission import NotFiniteError
from ..nn.sequential import Sequential
from .state import RunState
from .step import Learner

__all__ = ["POLICIES", "DivergenceError", "DivergencePolicy", "DivergenceWarning", "Minibatch", "NotFiniteError",
           "finite_flags", "first_non_finite"]

#: Features, targets, learning rate, and the uniform draws by name.
Minibatch = tuple[Array, Array, Any, Mapping[str, Array]]

HALVINGS = 10  # of the rate in one run, at most


class DivergenceError(ValueError, ArithmeticError):
    """The loss or a weight became infinite or NaN; the message names the update, the rate and the layer."""


class DivergenceWarning(RuntimeWarning):
    """Training diverged, and goes on from where it was last evaluated, with half the rate."""


def finite_flags(arrays: Mapping[str, Array], network: Sequential) -> Any:
    """Return 0 for each model whose arrays are finite, else NaN, of shape (*models).

    Parameters
    ----------
    arrays : mapping of str to array
        A run's state: the optimizer's arrays too, since a moment that overflowed stops its parameter for good.
    network : Sequential
        Which arrays have a model axis.
    """
    total: Any = 0.0
    for name, a in arrays.items():
        total = total + namespace(a).sum(a * 0.0, axis=tuple(range(int(network.has_model_axis(name, a)), a.ndim)))
    return total


class DivergencePolicy:
    """What a run does when a loss, a parameter or a running statistic is not finite; the subclasses say what.

    Parameters
    ----------
    models : tuple of int
        The model axis; () for one network.
    rate : callable
        From an update to its learning rate.
    locate : callable
        Put the run back to its last finite state, and return what was not finite first, given the first update with a
        non-finite loss and the model.
    """

    freezes: bool = False  # whether the other models go on

    def __init__(
        self, models: tuple[int, ...], rate: Callable[[int], Any], locate: Callable[[int, int], str]
    ) -> None:
        self._models, self._rate, self._locate = models, rate, locate

    def handle_non_finite(self, run: RunState, values: Any, first: int, what: str = "loss") -> bool:
        """Note each model's first non-finite value among ``values``, and do what the policy says.

        Parameters
        ----------
        run : RunState
            The run.
        values : array of shape (updates, *models) or (*models)
            In host memory.
        first : int
            The update to which the first of them belongs.
        what : str
            What they are.

        Returns
        -------
        bool
            Whether the run went back to its last finite state.

        Raises
        ------
        DivergenceError
            If that is the policy.
        """
        count = self._models[0] if self._models else 1
        for model in range(count):
            row = values.reshape(-1, count)[:, model]
            finite = abs(row) < float("inf")  # false for NaN too
            if not finite.all() and model not in run.diverged:
                step = run.diverged[model] = first + int(finite.argmin())
                rate = to_numpy(self._rate(step))
                was = "were not finite" if what == "parameters" else f"was {row[finite.argmin()]}"
                run.causes[model] = (
                    f"the {what} of {f'model {model}' if self._models else 'the network'} {was} at update "
                    f"{step} (learning rate {rate[model] if rate.ndim else rate:.3g})"
                )
        return bool(run.diverged) and self._react(run)

    def _react(self, run: RunState) -> bool:
        raise NotImplementedError

    def remember_finite(self, run: RunState, network: Sequential) -> None:
        """Copy the state of the models that are finite, and put those that diverged back to their last finite state.

        Parameters
        ----------
        run : RunState
            A run that was evaluated.
        network : Sequential
            Which arrays have a model axis.
        """
        run.finite_step = run.step
        if not run.finite_arrays:
            run.finite_arrays = {name: namespace(a).asarray(a, copy=True) for name, a in run.arrays.items()}
        for name, array in run.arrays.items():
            finite = run.finite_arrays[name]
            if not self._models or not run.diverged or not network.has_model_axis(name, array):
                to, new = (array, finite) if run.diverged and not self._models else (finite, array)
                to[...] = new
                continue
            for model in range(self._models[0]):
                to, new = (array, finite) if model in run.diverged else (finite, array)
                to[model, ...] = new[model, ...]


class Freeze(DivergencePolicy):
    """Leave a model that diverged as it was when last evaluated; the others go on, not changed by one bit."""

    freezes = True

    def _react(self, run: RunState) -> bool:
        return False


class Raise(DivergencePolicy):
    """Go back to the last finite state, and raise a ``DivergenceError`` that names what was not finite first."""

    def _react(self, run: RunState) -> bool:
        raise self._error(run, self._go_back(run))

    def _go_back(self, run: RunState) -> str:
        """Return the cause of the earliest divergence, after going back if there is a state to go back to."""
        model = min(run.diverged, key=lambda model: run.diverged[model])
        where = self._locate(run.diverged[model], model) if run.finite_arrays else ""
        return run.causes[model] + (f"; not finite first: {where}" if where else "")

    def _error(self, run: RunState, cause: str) -> DivergenceError:
        other = ("go on without that model, with divergence='freeze'" if self._models else
                 f"look at the data: the rate was halved {len(run.halvings)} times" if run.halvings else
                 "go on at half the rate, with divergence='halve'")
        return DivergenceError(f"{cause}; lower the rate or the initial weights, or {other}; the network is as it was "
                               f"at update {run.step}")


class Halve(Raise):
    """Go back to the last finite state, and on from there with half the rate and a warning; raise if that fails."""

    def _react(self, run: RunState) -> bool:
        made, cause = run.step, self._go_back(run)
        if not run.finite_arrays or len(run.halvings) >= HALVINGS:
            raise self._error(run, cause)
        del run.history.batch_loss[len(run.history.batch_loss) - (made - run.step) :]
        run.diverged, run.causes, run.unchecked = {}, {}, 0
        run.halvings.append(cause)
        warnings.warn(f"{cause}; going back to update {run.step}, and on with half the rate", DivergenceWarning,
                      stacklevel=5)
        return True


POLICIES: dict[str, type[DivergencePolicy]] = {"raise": Raise, "freeze": Freeze, "halve": Halve}


def first_non_finite(
    learner: Learner, minibatches: Iterable[Minibatch], update: Callable[..., Any], first: int, model: int
) -> str:
    """Make updates until something of a model is not finite, and name it.

    Parameters
    ----------
    learner : Learner
        The network, in the state before the first update.
    minibatches : iterable of Minibatch
        What the updates take.
    update : callable
        It makes an update of a minibatch.
    first : int
        The number of the first update.
    model : int
        Which of several models.

    Returns
    -------
    str
        Such as ``"the outputs of layer 3, Linear(10), at update 17"``; empty if everything is finite.
    """
    for step, (x, targets, rate, noise) in enumerate(minibatches, first):
        found = _forward(learner, x, noise, model)
        if not found:
            update(x, targets, rate, noise)
            found = _backward(learner, model)
        if found:
            return f"{found} at update {step}"
    return ""


def _forward(learner: Learner, x: Array, noise: Mapping[str, Array], model: int) -> str:
    """Name the first layer whose outputs are not finite."""
    network, drawn = learner.trained, 0
    before = len(learner.network.layers) - len(network.layers)  # layers in front of those that are trained
    for i, layer in enumerate(network.layers):
        drawn += layer.noisy
        arrays = [learner.arrays[name] for name in network._names[i]]
        x, _, _ = layer.forward(x, *arrays, train=True, noise=noise.get(f"noise{drawn}") if layer.noisy else None)
        if not _finite(x[model, ...] if x.ndim > 2 else x):
            return f"the outputs of layer {before + i + 1}, {_named(layer, network._names[i])},"
    return ""


def _backward(learner: Learner, model: int) -> str:
    """Name the layer next to the output of which a gradient, or else a parameter or a statistic, is not finite."""
    network = learner.trained
    slots = {f"optimizer's {slot}": buffers.views for slot, buffers in learner.slots.items()}
    for word, arrays in {"gradient": learner.gradients.views, "new value": learner.arrays, **slots}.items():
        for i in range(len(network.layers) - 1, -1, -1):
            for name in network._names[i]:
                if name in arrays:
                    a = arrays[name]
                    if not _finite(a[model, ...] if network.has_model_axis(name, a) else a):
                        return f"the {word} of {name}, of {_named(network.layers[i], ())},"
    return ""


def _named(layer: Any, names: tuple[str, ...]) -> str:
    return type(layer).__name__ + (f" ({', '.join(names)})" if names else "")


def _finite(a: Array) -> bool:
    xp = namespace(a)
    return bool(xp.all(xp.isfinite(a)))
