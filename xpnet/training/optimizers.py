"""Optimizers: rules that change a flat array of parameters in place, given the gradient of the cost.

An update is a chain, see ``apply``: the penalty's gradient is added, the gradients are clipped, weights decay, and the
rule changes each segment (see ``parameters``), of which there are few whatever the network's depth. Hyper-parameters
are floats, or arrays that broadcast with a segment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..backend import Array, namespace
from ..nn.per_model import check_range, flag, per_model

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "cast"]


def cast(value: Any, w: Array) -> Any:
    """Return a hyper-parameter in the dtype of the array ``w`` that it multiplies.

    Hyper-parameters are float64: of a beta of 0.999 in float32, 1 - beta would keep four digits.

    Parameters
    ----------
    value : float or array
        The hyper-parameter, a number or an array with a value per model.
    w : array
        What it multiplies.

    Returns
    -------
    float or array
        The number itself, or the array in the dtype of w.
    """
    return value if isinstance(value, float | int) else namespace(w).astype(value, w.dtype, copy=False)


class Optimizer:
    """Base class of update rules; one of your own defines ``update``, and ``slots`` if it keeps arrays.

    Hyper-parameters with a value per model are arrays (models, 1) of float64 in ``update``: see ``cast``.

    Attributes
    ----------
    slots : tuple of str
        Names of the arrays that it keeps per parameter; they start at 0.
    weight_decay : float or array
        Weight matrices shrink by ``lr * weight_decay`` before each update.
    plain : bool
        Whether the update is ``w -= lr * g``, which can then be part of the product that forms ``g``.
    """

    slots: Any = ()
    weight_decay: Any = 0.0
    plain: Any = False

    def update(self, w: Array, g: Array, slots: Mapping[str, Array], lr: Any, step: int) -> None:
        """Change ``w`` and the slots in place.

        Parameters
        ----------
        w : array
            A segment of parameters.
        g : array
            The gradient of the cost, of the same shape. It may be overwritten.
        slots : mapping of str to array
            The optimizer's own arrays, of the same shape, by name.
        lr : float or array
            The learning rate, one per model if it is an array.
        step : int
            Updates made before, from 0.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class SGD(Optimizer):
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
        object.__setattr__(self, "nesterov", flag("SGD", "nesterov", self.nesterov))

    @property
    def slots(self) -> tuple[str, ...]:
        """The velocity, if there is momentum."""
        return () if isinstance(self.momentum, float | int) and self.momentum == 0 else ("velocity",)

    @property
    def plain(self) -> bool:
        """Whether there is no momentum."""
        return not self.slots

    def update(self, w: Array, g: Array, slots: Mapping[str, Array], lr: Any, step: int) -> None:
        """Change ``w`` and the velocity in place."""
        if slots:
            v = slots["velocity"]
            momentum = cast(self.momentum, w)
            v *= momentum
            v += g
            g = g + momentum * v if self.nesterov else v
        w -= lr * g


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1).

    The moments are those of the cost's gradient, the penalty's included; ``AdamW`` decouples the decay.

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

    def update(self, w: Array, g: Array, slots: Mapping[str, Array], lr: Any, step: int) -> None:
        """Change ``w`` and the moments in place."""
        m, v = slots["m"], slots["v"]
        m *= cast(self.beta1, w)
        m += cast(1.0 - self.beta1, w) * g
        v *= cast(self.beta2, w)
        g *= g
        v += cast(1.0 - self.beta2, w) * g
        rate = cast(lr / (1.0 - self.beta1 ** (step + 1)), w)
        w -= rate * m / (namespace(v).sqrt(v / cast(1.0 - self.beta2 ** (step + 1), w)) + cast(self.eps, w))


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled decay (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019).

    Parameters
    ----------
    beta1, beta2, eps : float or array
        As in ``Adam``.
    weight_decay : float or array
        Weight matrices shrink by ``lr * weight_decay`` before each update. Biases, gamma and beta do not. The gradient
        is that at the weights before the decay.
    """

    weight_decay: Any = per_model(1e-2)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("AdamW", "weight_decay", self.weight_decay)


class Segment(NamedTuple):
    """A flat array of parameters, with what an update of it needs."""

    w: Array
    g: Array  # the gradient of the loss
    slots: Mapping[str, Array]
    penalty: Any = None  # 2 * l2, the factor of w in the penalty's gradient
    decay: Any = None  # the optimizer's weight_decay


def apply(
    rule: Optimizer, segments: Sequence[Segment], lr: Any, step: int, clip_norm: Any = None, axes: int = 0
) -> None:
    """Change all parameters in place by the gradients of the loss.

    Parameters
    ----------
    rule : Optimizer
        The optimizer.
    segments : sequence of Segment
        All parameters.
    lr : float or array
        The learning rate.
    step : int
        Updates made before, from 0.
    clip_norm : float or array of shape (*models, 1), optional
        The largest norm of the cost's gradient.
    axes : int
        Number of model axes.
    """
    for w, g, _, penalty, _ in segments:
        if penalty is not None:
            g += penalty * w
    if clip_norm is not None:
        clip([segment.g for segment in segments], clip_norm, axes)
    for w, g, slots, _, decay in segments:
        if decay is not None:
            w *= 1.0 - lr * decay
        rule.update(w, g, slots, lr, step)


def clip(gradients: Sequence[Array], limit: Any, axes: int) -> None:
    """Scale gradients in place so that their norm over all parameters, per model, is at most ``limit``.

    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013, algorithm 1.

    Parameters
    ----------
    gradients : sequence of array
        Segments of shape (*models, size), or (in, *models, out).
    limit : float or array of shape (*models, 1)
        The largest norm.
    axes : int
        Number of model axes.
    """
    xp = namespace(gradients[0])
    total: Any = 0.0
    for g in gradients:
        wide = xp.astype(g, xp.float64, copy=False)  # squares of large float32 numbers would overflow
        total = total + xp.sum(wide * wide, axis=(-1,) if g.ndim == axes + 1 else (0, -1))
    norm = xp.sqrt(total)[..., None]
    # NaN and infinity stay, so that the step after this one finds them.
    scale = xp.where(norm > limit, limit / norm, xp.ones_like(norm))
    for g in gradients:
        g *= xp.astype(scale, g.dtype, copy=False)
