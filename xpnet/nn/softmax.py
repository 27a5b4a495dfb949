"""Softmax and its logarithm, without overflow."""

from __future__ import annotations

from ..backend import Array, constant, namespace, real

__all__ = ["class_sum", "log_softmax", "shifted_exp", "softmax"]


def class_sum(x: Array) -> Array:
    """Sum over the classes, keeping the axis: (..., n, k) to (..., n, 1)."""
    return x @ constant(x, (x.shape[-1], 1), 1.0)


def shifted_exp(outputs: Array) -> tuple[Array, Array, Array]:
    """Return the outputs less their largest, the exponentials and their sum; nothing overflows."""
    xp = namespace(outputs)
    shifted = outputs - xp.max(real(outputs), axis=-1, keepdims=True)
    exp = xp.exp(shifted)
    return shifted, exp, class_sum(exp)


def softmax(outputs: Array) -> Array:
    """Return the classes' probabilities (..., n, k) for the outputs (..., n, k).

    Parameters
    ----------
    outputs : array of shape (..., n, k)
        The network's outputs.

    Returns
    -------
    array of shape (..., n, k)
        Each row sums to 1.
    """
    _, exp, total = shifted_exp(outputs)
    return exp / total


def log_softmax(outputs: Array) -> Array:
    """Return the logarithms of the classes' probabilities (..., n, k) for the outputs (..., n, k).

    Parameters
    ----------
    outputs : array of shape (..., n, k)
        The network's outputs.

    Returns
    -------
    array of shape (..., n, k)
        Finite also where a probability rounds to 0.
    """
    shifted, _, total = shifted_exp(outputs)
    return shifted - namespace(outputs).log(total)
