"""Losses: like a layer, each is a function and its pullback.

``forward(outputs, targets)`` takes outputs (..., n, k) and targets (n, k), and returns the mean over the
batch, of shape (...), with a pullback from a factor to the gradient with respect to the outputs. A new loss
is decorated with ``@loss``, and needs an entry in ``gradcheck.CASES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .backend import Array, constant, namespace, real

__all__ = ["LOSSES", "SoftmaxCrossEntropy", "l2_penalty", "loss", "softmax"]

LOSSES: dict[str, type[Any]] = {}


def loss(cls: type[Any]) -> type[Any]:
    """Register a loss under its name, so that the gradient check asks for it."""
    LOSSES[cls.__name__] = cls
    return cls


def _shifted_exp(outputs: Array) -> tuple[Array, Array, Array]:
    """Give the outputs less their largest, the exponentials and their sum; nothing overflows."""
    xp = namespace(outputs)
    shifted = outputs - xp.max(real(outputs), axis=-1, keepdims=True)
    exp = xp.exp(shifted)
    return shifted, exp, exp @ constant(exp, (exp.shape[-1], 1), 1.0)  # a sum over the classes


def softmax(outputs: Array) -> Array:
    """Give the classes' probabilities (..., n, k) for the outputs (..., n, k)."""
    _, exp, total = _shifted_exp(outputs)
    return exp / total


@loss
@dataclass(frozen=True)
class SoftmaxCrossEntropy:
    """Mean cross-entropy of the softmax of the outputs, in nats.

    Targets are rows of probabilities that sum to 1 (one-hot for plain labels).
    """

    def forward(self, outputs: Array, targets: Array) -> tuple[Array, Callable[..., Array]]:
        """Give the loss (...) and its pullback."""
        xp = namespace(outputs)
        shifted, exp, total = _shifted_exp(outputs)
        n = outputs.shape[-2]
        right = xp.sum(shifted * targets, axis=(-2, -1))  # sum of the right classes' shifted outputs
        value = (xp.sum(xp.log(total), axis=(-2, -1)) - right) * (1.0 / n)

        def pullback(factor: Any = 1.0) -> Array:
            return (exp / total - targets) * (factor * (1.0 / n))

        return value, pullback


def l2_penalty(l2: Any, weights: list[Array]) -> Any:
    """Give ``l2 * sum of squared weights`` per model; the gradient for W is ``2 * l2 * W``.

    Parameters
    ----------
    l2 : float or array
        The factor, one per model where it is an array.
    weights : list of array
        Matrices (..., in, out).
    """
    return l2 * sum(namespace(w).sum(w * w, axis=(-2, -1)) for w in weights)
