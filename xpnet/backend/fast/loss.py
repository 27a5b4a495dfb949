"""The softmax cross-entropy and its gradient in one call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .jit import compiled

__all__ = ["CrossEntropy"]


def cross_entropy(outputs: Any, targets: Any, scratch: Any, d: Any, values: Any) -> None:
    """Write the losses of outputs (models, classes, n) to ``values``, and their gradient to ``d``.

    ``scratch`` (2, n) takes each example's largest output and the sum of the exponentials.
    """
    models, classes, n = outputs.shape
    real = outputs.dtype.type
    share = real(1.0 / n)
    largest, total = scratch[0], scratch[1]
    for m in range(models):
        loss = real(0.0)
        first = outputs[m, 0]
        for i in range(n):
            largest[i] = first[i]
            total[i] = real(0.0)
        for c in range(1, classes):
            row = outputs[m, c]
            for i in range(n):
                largest[i] = row[i] if row[i] > largest[i] else largest[i]
        for c in range(classes):
            row, exp, target = outputs[m, c], d[m, c], targets[c]
            for i in range(n):
                shifted = row[i] - largest[i]
                loss -= shifted * target[i]
                exp[i] = np.exp(shifted)
            for i in range(n):
                total[i] += exp[i]
        for i in range(n):
            loss += np.log(total[i])
        for c in range(classes):
            exp, target = d[m, c], targets[c]
            for i in range(n):
                exp[i] = (exp[i] / total[i] - target[i]) * share
        values[m] = loss * share


SIGNATURES: dict[Callable[..., Any], str] = {cross_entropy: "void(T[:,:,::1], T[:,::1], T[:,::1], T[:,:,::1], T[::1])"}


@functools.cache
def _kernel(dtype: Any) -> Callable[..., None]:
    kernel: Callable[..., None] = compiled(SIGNATURES, T=dtype.name).cross_entropy
    return kernel


class CrossEntropy:
    """``SoftmaxCrossEntropy`` by a kernel; what it does not take is left to the loss itself.

    Parameters
    ----------
    loss : SoftmaxCrossEntropy
        The loss.
    """

    def __init__(self, loss: Any) -> None:
        self._loss = loss

    def forward(self, outputs: Any, targets: Any) -> tuple[Any, Callable[..., Any]]:
        """Return the loss (...) and its pullback."""
        dtype = outputs.dtype
        if (type(outputs) is not np.ndarray or type(targets) is not np.ndarray or targets.dtype != dtype
                or dtype not in (np.float32, np.float64) or outputs.ndim > 3 or targets.shape != outputs.shape[-2:]
                or outputs.size == 0):
            found: tuple[Any, Callable[..., Any]] = self._loss.forward(outputs, targets)
            return found
        y, t = np.ascontiguousarray(outputs.mT), np.ascontiguousarray(targets.mT)
        y = y if y.ndim == 3 else y[None]
        d, values = np.empty_like(y), np.empty(y.shape[0], dtype)
        _kernel(dtype)(y, t, np.empty((2, y.shape[2]), dtype), d, values)
        gradient = (d if outputs.ndim == 3 else d[0]).mT

        def pullback(factor: Any = 1.0) -> Any:
            return gradient if isinstance(factor, float) and factor == 1.0 else gradient * factor

        return (values if outputs.ndim == 3 else values[0]), pullback
