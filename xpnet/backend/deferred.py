"""What layers and backends pass each other: gradients not formed yet, and several layers as one."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from .arrays import Array

__all__ = ["Deferred", "Stage", "form", "kind"]


class Deferred(functools.partial[Any]):
    """An entry of what a pullback returns that is not computed yet: a call of a function, which ``form`` makes.

    Whoever wants it forms it where it is needed, a weight's gradient in its buffer, say; what nobody wants, such as the
    first layer's gradient with respect to its input, is never formed. It is made like ``functools.partial``, from a
    function and its arguments, which nothing may change before the entry is formed; an array to write to is one more
    argument.
    """


def form(entry: Any, out: Any = None) -> Any:
    """Return an entry of what a pullback returns as an array.

    Parameters
    ----------
    entry : array or Deferred
        A gradient.
    out : array or Descent, optional
        What receives it: an array to write it to, or what ``Ops.descent`` returned.

    Returns
    -------
    array
        ``out`` if it is given.
    """
    if isinstance(entry, Deferred):
        return entry() if out is None else entry(out)
    if out is None:
        return entry
    out[...] = entry
    return out


class Stage:
    """Layers in a row, which a backend computes as one; this class computes them one after the other.

    A backend's stage derives from it and overrides ``forward``. What it does not cover, predictions or complex numbers,
    say, it leaves to ``super().forward``.

    Parameters
    ----------
    layers : sequence of Layer
        The layers, first to last.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers: tuple[Any, ...] = tuple(layers)

    def forward(self, x: Array, *arrays: Array, train: bool = False, noise: Sequence[Array] = ()) -> Any:
        """Do what ``Layer.forward`` does, for all layers.

        Parameters
        ----------
        x : array of shape (..., n, k)
            The input of the first layer.
        *arrays : array
            The parameters of all layers in their order, then the running statistics of all.
        train : bool
            Use the batch's statistics, and draw.
        noise : sequence of array of shape (n, features)
            Uniform draws for each noisy layer.

        Returns
        -------
        tuple
            The last layer's output; the pullback; and a tuple of the batch's statistics. The pullback maps the output's
            gradient, and what receives those of the parameters (an array each, or None to skip it; None for all without
            receivers), to the gradient with respect to x and a sequence of the parameters' gradients. All may be
            deferred, and the pullback may write to the receivers and return them.
        """
        count = sum(len(layer.parameters) for layer in self.layers)
        parameters, running = iter(arrays[:count]), iter(arrays[count:])
        pullbacks: list[Any] = []
        statistics: list[Array] = []
        draws = iter(noise)
        for layer in self.layers:
            own = [*(next(parameters) for _ in layer.parameters), *(next(running) for _ in layer.statistics)]
            x, back, batch = layer.forward(x, *own, train=train, noise=next(draws, None) if layer.noisy else None)
            pullbacks.append(back)
            statistics += batch

        def pullback(dy: Any, into: Sequence[Any] | None = None) -> tuple[Any, Sequence[Any]]:
            gradients: list[Any] = []
            for back in reversed(pullbacks):
                dy, own = back(form(dy))
                gradients[:0] = own
            return dy, gradients

        return x, pullback, tuple(statistics)


def kind(thing: Any) -> str:
    """Return the name of a layer's, a loss's or an optimizer's class, "" if it is not xpnet's own.

    A subclass may compute something else, so that a backend that fuses by what this returns leaves it alone.
    """
    cls = type(thing)
    return cls.__name__ if cls.__module__.startswith("xpnet.") else ""
