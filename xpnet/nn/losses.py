"""Losses: like a layer, each is a function and its pullback.

``forward(outputs, targets)`` takes outputs (..., n, k) and targets (n, k), and returns the mean over the
batch, of shape (...), with a pullback from a factor to the gradient with respect to the outputs. A loss also
knows what labels it takes, how they become targets, and how well outputs fit them: ``Loss`` says what training
asks. A new loss is decorated with ``@loss``, which has its gradient checked.

Beside its value a loss reports measures, such as the accuracy. It declares them in ``measures``, and what ranks, keeps
or shows networks by a measure asks there whether more of it is better. A loss that has a measure which some labels
leave undefined, such as r2 of targets that do not vary, says so in a method ``undefined(y)``, which maps the measure to
the reason: what ranks networks by it then refuses to begin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ..backend import Array, Device, constant, namespace, transposed
from .measures import ALWAYS, Measure, measures_of, undefined_measures, warn_undefined
from .softmax import class_sum, log_softmax, shifted_exp, softmax

if TYPE_CHECKING:
    from .sequential import Sequential

__all__ = ["LOSSES", "Loss", "MeanSquaredError", "Measure", "SoftmaxCrossEntropy", "l2_penalty", "log_softmax", "loss",
           "measures_of", "softmax", "undefined_measures"]

LOSSES: dict[str, type[Any]] = {}


class Loss(Protocol):
    """What training asks of a loss."""

    @property
    def measures(self) -> Mapping[str, Measure]:
        """What ``score`` reports beside the loss and the cost; by default the last measure ranks networks."""
        ...

    @property
    def classifies(self) -> bool:
        """Whether the softmax of the outputs is the probability of each class."""
        ...

    def forward(self, outputs: Array, targets: Array) -> tuple[Array, Callable[..., Array]]:
        """Return the loss (...) of outputs (..., n, k) and targets (n, k), and its pullback.

        Parameters
        ----------
        outputs : array of shape (..., n, k)
            The network's outputs.
        targets : array of shape (n, k)
            What the encoder makes of labels.

        Returns
        -------
        tuple
            The loss (...), and the function from its gradient (...) to that of the outputs (..., n, k).
        """
        ...

    def shapes(self, outputs: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes that the labels of one example may have, by how they are written for n of them.

        Parameters
        ----------
        outputs : int
            Width of the network's output.

        Returns
        -------
        dict of str to tuple of int
            ``{"(n,)": ()}``, say.
        """
        ...

    def check(self, y: Array, outputs: int, what: str = "") -> Array:
        """Return labels as the loss keeps them, having checked that it takes them.

        Parameters
        ----------
        y : array
            Labels.
        outputs : int
            Width of the network's output.
        what : str
            What an error calls them.

        Returns
        -------
        array
            On the same device.
        """
        ...

    def encoder(self, outputs: int, device: Device, dtype: str) -> Callable[[Array], Array]:
        """Return the function from labels to targets (n, outputs).

        Parameters
        ----------
        outputs : int
            Width of the network's output.
        device : Device
            Where labels and targets lie.
        dtype : str
            The targets' dtype.

        Returns
        -------
        function
            From labels (n, ...) to targets (n, outputs).
        """
        ...

    def tally(self, outputs: Array, y: Array) -> Array:
        """Return what adds up over blocks of examples to ``score`` them: (...), or (..., k).

        Parameters
        ----------
        outputs : array of shape (..., n, k)
            The network's outputs.
        y : array of shape (n, ...)
            The labels.

        Returns
        -------
        array
            To be added up.
        """
        ...

    def score(self, tally: Array, y: Array) -> dict[str, Array]:
        """Return measures beside the loss, of shape (...), by name: from the tally of all labels ``y``.

        Parameters
        ----------
        tally : array
            The sum over the blocks.
        y : array
            All labels.

        Returns
        -------
        dict of str to array
            ``accuracy``, say.
        """
        ...


def registered_measures() -> dict[str, Measure]:
    """Return the measures of all registered losses, for readers of files that hold nothing but the names."""
    return ALWAYS | {name: measure for cls in LOSSES.values() for name, measure in cls.measures.items()}


def loss(cls: type[Any]) -> type[Any]:
    """Register a loss under its name, so that the gradient check asks for it.

    Returns
    -------
    type
        The class itself.
    """
    LOSSES[cls.__name__] = cls
    return cls


@loss
@dataclass(frozen=True)
class SoftmaxCrossEntropy:
    """Mean cross-entropy of the softmax of the outputs, in nats.

    Targets are rows of probabilities that sum to 1 (one-hot for plain labels); labels are class indices, 0 to
    classes - 1. Beside the loss stands ``accuracy``, the share of examples whose largest output is their class's.
    """

    measures: ClassVar[Mapping[str, Measure]] = {"accuracy": Measure(more_is_better=True, share=True)}
    classifies: ClassVar[bool] = True

    def forward(self, outputs: Array, targets: Array) -> tuple[Array, Callable[..., Array]]:
        """Return the loss (...) and its pullback."""
        xp = namespace(outputs)
        shifted, exp, total = shifted_exp(outputs)
        n = outputs.shape[-2]
        each = xp.log(total) - class_sum(shifted * targets)
        value = (constant(each, (1, n), 1.0 / n) @ each)[..., 0, 0]

        def pullback(factor: Any = 1.0) -> Array:
            return (exp / total - targets) * (factor * (1.0 / n))

        return value, pullback

    def shapes(self, outputs: int) -> dict[str, tuple[int, ...]]:
        """Return one number for each example."""
        return {"labels (n,)": ()}

    def check(self, y: Array, outputs: int, what: str = "") -> Array:
        """Return labels as int64, having checked that they are class indices."""
        xp = namespace(y)
        if not xp.isdtype(y.dtype, "integral"):
            raise TypeError(f"{what}labels: expected integers from 0, got dtype {y.dtype}; for whole numbers use "
                            "y.astype('int64'), for names numpy.unique(y, return_inverse=True)[1], and for regression "
                            "Trainer(..., loss=xpnet.MeanSquaredError())")
        low, high = int(xp.min(y)), int(xp.max(y))
        if low < 0 or high >= outputs:
            raise ValueError(f"{what}labels: expected 0 to {outputs - 1} (the network has {outputs} outputs), got "
                             f"{low} to {high}")
        return xp.astype(y, xp.int64, copy=False)

    def encoder(self, outputs: int, device: Device, dtype: str) -> Callable[[Array], Array]:
        """Return the function from class indices (n,) to one-hot rows (n, outputs)."""
        xp = device.xp
        one_hot = xp.eye(outputs, dtype=getattr(xp, dtype), device=device.native)
        return lambda y: transposed(xp.take(one_hot, y, axis=1))  # the batch last in memory, as the outputs have it

    def tally(self, outputs: Array, y: Array) -> Array:
        """Count the examples whose largest output is the one that y (n,) says."""
        xp = namespace(outputs)
        return xp.sum(xp.astype(xp.argmax(outputs, axis=-1) == y, outputs.dtype), axis=-1)

    def score(self, tally: Array, y: Array) -> dict[str, Array]:
        """Return ``accuracy``."""
        return {"accuracy": tally / y.shape[0]}


@loss
@dataclass(frozen=True)
class MeanSquaredError:
    """Mean of the squared differences of outputs and targets, over examples and outputs: for regression.

    Labels are the targets themselves: real numbers (n, outputs), or (n,) where there is one output. Beside the
    loss stands ``r2``, the coefficient of determination ``1 - sum((y - output)^2) / sum((y - mean)^2)``, averaged
    over the outputs; for targets that do not vary it is NaN, with an ``UndefinedMeasureWarning``.
    """

    measures: ClassVar[Mapping[str, Measure]] = {"r2": Measure(more_is_better=True)}
    classifies: ClassVar[bool] = False

    def forward(self, outputs: Array, targets: Array) -> tuple[Array, Callable[..., Array]]:
        """Return the loss (...) and its pullback."""
        xp = namespace(outputs)
        off = outputs - targets
        share = 1.0 / (off.shape[-1] * off.shape[-2])

        def pullback(factor: Any = 1.0) -> Array:
            return off * (factor * (2.0 * share))

        return xp.sum(off * off, axis=(-2, -1)) * share, pullback

    def shapes(self, outputs: int) -> dict[str, tuple[int, ...]]:
        """Return a number for each output, or just a number where there is one."""
        return {f"targets (n, {outputs})": (outputs,)} | ({"targets (n,)": ()} if outputs == 1 else {})

    def check(self, y: Array, outputs: int, what: str = "") -> Array:
        """Check that targets are finite real numbers."""
        xp = namespace(y)
        if not xp.isdtype(y.dtype, ("bool", "integral", "real floating")):
            raise TypeError(f"{what}targets: expected real numbers, got dtype {y.dtype}; use y.astype('float32')")
        if xp.isdtype(y.dtype, "real floating") and not bool(xp.all(xp.isfinite(y))):
            raise ValueError(f"{what}targets: expected finite numbers, got NaN or infinite ones")
        return y

    def encoder(self, outputs: int, device: Device, dtype: str) -> Callable[[Array], Array]:
        """Return the function from targets of any real dtype, (n,) or (n, outputs), to (n, outputs)."""
        xp = device.xp
        return lambda y: xp.reshape(xp.astype(y, getattr(xp, dtype), copy=False), (y.shape[0], outputs))

    def tally(self, outputs: Array, y: Array) -> Array:
        """Return each output's sum of squared differences (..., k), in float64: float32 has no square of 1e20."""
        xp = namespace(outputs)
        wide, exact = (xp.astype(a, xp.float64, copy=False) for a in (outputs, y))
        off = wide - xp.reshape(exact, (y.shape[0], outputs.shape[-1]))
        return xp.sum(off * off, axis=-2)

    def undefined(self, y: Array) -> dict[str, str]:
        """Return why ``r2`` is not defined for targets y (n, ...); nothing if it is.

        Parameters
        ----------
        y : array
            All targets.

        Returns
        -------
        dict of str to str
            The reason by measure.
        """
        if y.shape[0] < 2:
            return {"r2": "one target has no variance"}
        xp, squares = namespace(y), self._squares(y)
        if bool(xp.any(squares == math.inf)):
            return {"r2": "the targets' squares are too large for float64"}
        if not bool(xp.any(squares <= 0.0)):  # NaN is for whoever checks the targets
            return {}
        return {"r2": f"the {y.shape[0]} targets are all alike" + (" in an output" if y.ndim > 1 else "")}

    def _squares(self, y: Array) -> Array:
        """Return the sum of the squared differences of targets (n, ...) and their mean: 0 if they do not vary."""
        xp = namespace(y)
        wide = xp.astype(y, xp.float64)
        with Device.of(y).ignore_overflow():
            total = xp.sum((wide - xp.mean(wide, axis=0)) ** 2, axis=0)
        # The mean of targets that are alike may be rounded, and theirs is a total then.
        return xp.where(xp.any(y != y[:1, ...], axis=0), total, 0.0)

    def score(self, tally: Array, y: Array) -> dict[str, Array]:
        """Return ``r2``."""
        warn_undefined(self, y)
        xp, total = namespace(y), self._squares(namespace(y).reshape(y, (y.shape[0], tally.shape[-1])))
        defined = (total > 0.0) & (total < math.inf)
        left = xp.where(defined, xp.astype(tally, xp.float64) / xp.where(defined, total, 1.0), xp.nan)
        return {"r2": xp.mean(1.0 - left, axis=-1)}


def l2_penalty(l2: Any, arrays: Mapping[str, Array], network: Sequential) -> Any:
    """Return ``l2 * sum of squared weights`` per model; the gradient for W is ``2 * l2 * W``.

    Parameters
    ----------
    l2 : float or array
        The factor, one per model if it is an array.
    arrays : mapping of str to array
        The network's arrays by name, with or without model axes in front.
    network : Sequential
        Names and shapes of the weights, which may have any number of axes.

    Returns
    -------
    float or array
        The penalty, one per model.
    """
    squares: Any = 0.0
    for name in network.weights:
        w = arrays[name]
        squares = squares + namespace(w).sum(w * w, axis=tuple(range(-len(network.shapes[name]), 0)))
    return l2 * squares
