"""Optimisers: rules that change a flat array of parameters in place, given its gradient.

``update(w, g, slots, lr, l2, step)`` is called once per segment (see ``parameters``), whatever the network's
depth. It may overwrite ``g``, the gradient of the loss without the penalty; ``l2`` is the penalty's factor,
or None for parameters that have none. Hyper-parameters are floats, or arrays that broadcast with ``w``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..backend import Array, namespace
from ..nn.per_model import check_range, per_model

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]


def _penalised(l2: Any) -> bool:
    return not (l2 is None or (isinstance(l2, float | int) and l2 == 0))


class Optimizer(Protocol):
    """What training asks of an optimiser."""

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the arrays it keeps per parameter; they start at 0."""
        ...

    def update(self, w: Array, g: Array, slots: Mapping[str, Array], lr: Any, l2: Any, step: int) -> None:
        """Change ``w`` and the slots in place.

        Parameters
        ----------
        w : array
            A parameter, or several side by side.
        g : array
            Its gradient, of the same shape.
        slots : mapping of str to array
            The optimiser's own arrays, of the same shape, by name.
        lr : float or array
            The learning rate, one per model where it is an array.
        l2 : float or array
            The factor of the penalty on w.
        step : int
            Updates made before, from 0.
        """
        ...


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent, with momentum and Nesterov's variant.

    ``v = momentum * v + g``, then ``w -= lr * v``, or with Nesterov ``w -= lr * (g + momentum * v)``
    (Sutskever et al., "On the importance of initialization and momentum in deep learning", ICML 2013, in
    the form that PyTorch gives it).

    Parameters
    ----------
    momentum : float or array
        The share of the velocity that stays at each update.
    nesterov : bool
        Look ahead along the velocity.
    """

    momentum: Any = per_model(0.0)
    nesterov: bool = False

    def __post_init__(self) -> None:
        check_range("SGD", "momentum", self.momentum, below=1.0)

    @property
    def slots(self) -> tuple[str, ...]:
        """The velocity, where there is momentum."""
        return () if isinstance(self.momentum, float | int) and self.momentum == 0 else ("velocity",)

    def linear(self, lr: Any, l2: Any) -> tuple[Any, Any]:
        """Return keep and factor of the update without momentum, ``w = keep * w + factor * g``.

        Parameters
        ----------
        lr : float or array
            The learning rate.
        l2 : float or array
            The factor of the penalty.

        Returns
        -------
        tuple
            Both factors, of the shapes of lr and l2.
        """
        return (1.0 - 2.0 * lr * l2 if _penalised(l2) else 1.0), -lr  # the penalty's gradient is 2 * l2 * w

    def update(self, w: Array, g: Array, slots: Mapping[str, Array], lr: Any, l2: Any, step: int) -> None:
        """Change ``w`` and the velocity in place."""
        if not slots:
            if _penalised(l2):
                w *= 1.0 - 2.0 * lr * l2  # the penalty's gradient is 2 * l2 * w
            g *= lr
            w -= g
            return
        v = slots["velocity"]
        if _penalised(l2):
            g += (2.0 * l2) * w
        v *= self.momentum
        v += g
        w -= lr * (g + self.momentum * v) if self.nesterov else lr * v


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1).

    The penalty's gradient is part of the gradient whose moments are taken; ``AdamW`` decouples the decay.

    Parameters
    ----------
    beta1, beta2 : float or array
        The shares of the first and the second moment that stay at each update.
    eps : float or array
        Added to the square root of the second moment.
    """

    beta1: Any = per_model(0.9)
    beta2: Any = per_model(0.999)
    eps: Any = per_model(1e-8)

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            check_range(type(self).__name__, name, getattr(self, name), below=1.0)
        check_range(type(self).__name__, "eps", self.eps)

    @property
    def slots(self) -> tuple[str, ...]:
        """The first and the second moment."""
        return ("m", "v")

    def update(self, w: Array, g: Array, slots: Mapping[str, Array], lr: Any, l2: Any, step: int) -> None:
        """Change ``w`` and the moments in place."""
        m, v = slots["m"], slots["v"]
        if _penalised(l2):
            g += (2.0 * l2) * w
        m *= self.beta1
        m += (1.0 - self.beta1) * g
        v *= self.beta2
        g *= g
        v += (1.0 - self.beta2) * g
        rate = lr / (1.0 - self.beta1 ** (step + 1))
        w -= rate * m / (namespace(v).sqrt(v / (1.0 - self.beta2 ** (step + 1))) + self.eps)


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled decay (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019).

    Parameters
    ----------
    beta1, beta2, eps : float or array
        As in ``Adam``.
    weight_decay : float or array
        Weight matrices shrink by ``lr * weight_decay`` at each update. Biases, gamma and beta do not.
    """

    weight_decay: Any = per_model(1e-2)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("AdamW", "weight_decay", self.weight_decay)

    def update(self, w: Array, g: Array, slots: Mapping[str, Array], lr: Any, l2: Any, step: int) -> None:
        """Change ``w`` and the moments in place."""
        if l2 is not None:
            w *= 1.0 - lr * self.weight_decay
        super().update(w, g, slots, lr, l2, step)
