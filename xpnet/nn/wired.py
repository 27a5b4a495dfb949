"""A network whose arrays are looked up once, for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..backend import Array, Deferred, Stage, form, is_complex, namespace

if TYPE_CHECKING:
    from .sequential import Sequential

__all__ = ["Wired"]


class Wired:
    """A ``Sequential`` whose arrays are looked up once, for those who call it again and again.

    Parameters
    ----------
    network : Sequential
        The layers.
    arrays : mapping of str to array
        Parameters and running statistics by name; they may change in place.
    stages : sequence of Layer or Stage, optional
        What computes the layers, as ``Ops.fuse`` returns it; by default the layers themselves.
    """

    def __init__(
        self, network: Sequential, arrays: Mapping[str, Array], stages: Sequence[Any] | None = None
    ) -> None:
        self._stages: list[tuple[Any, list[Array], int, bool]] = []
        self._counts: list[int] = []  # of each stage's parameters
        names = iter(network._names)
        for stage in network.layers if stages is None else stages:
            layers = stage.layers if isinstance(stage, Stage) else (stage,)
            parts = [(len(layer.parameters), next(names)) for layer in layers]
            parameters = [arrays[name] for count, own in parts for name in own[:count]]
            running = [arrays[name] for count, own in parts for name in own[count:]]
            several = isinstance(stage, Stage)
            self._stages.append((stage, parameters + running, sum(layer.noisy for layer in layers), several))
            self._counts.append(len(parameters))
        # The pass back may end at the first stage that has parameters.
        self._first = next(i for i, count in enumerate(self._counts) if count)
        # The input may be standardised in another dtype than the network's.
        self._dtype = arrays[network.parameters[0]].dtype if network.scales_input else None

    def forward(
        self, x: Array, *, train: bool = False, noise: Mapping[str, Array] | None = None
    ) -> tuple[Array, Callable[..., tuple[Array | None, list[Array]]], list[Array]]:
        """Do what ``Sequential.forward`` does, with a pullback that takes and gives lists of the parameters' gradients.

        What receives a gradient is an array, what ``Ops.descent`` returned, or None to skip it.
        """
        pullbacks: list[Any] = []
        statistics: list[Array] = []
        drawn = 0
        for stage, arrays, noisy, several in self._stages:
            u: Any = () if several else None
            if noisy and noise:
                draws = [noise[f"noise{i + 1}"] for i in range(drawn, drawn + noisy)]
                u, drawn = draws if several else draws[0], drawn + noisy
            x, pull, batch = stage.forward(x, *arrays, train=train, noise=u)
            if self._dtype is not None and not pullbacks and not is_complex(x):
                x = namespace(x).astype(x, self._dtype, copy=False)
            pullbacks.append(pull)
            statistics += batch

        def pullback(
            dy: Array, into: Sequence[Any] | None = None, wrt_input: bool = True
        ) -> tuple[Array | None, list[Array]]:
            end = sum(self._counts)
            found: list[Array] = [None] * end if into is None else list(into)
            dx = dy
            for i in range(len(pullbacks) - 1, -1 if wrt_input else self._first - 1, -1):
                count = self._counts[i]
                if self._stages[i][3]:
                    dx, own = pullbacks[i](dx, None if into is None else into[end - count : end])
                else:
                    dx, own = pullbacks[i](dx)
                if len(own) != count:
                    raise ValueError(f"{type(self._stages[i][0]).__name__} (layer {i + 1}): expected its pullback to "
                                     f"return {count} gradients of parameters, got {len(own)}")
                if type(dx) is Deferred and (wrt_input or i > self._first):
                    dx = form(dx)  # before the parameters change, if they take their gradients at once
                end -= count
                for at, gradient in enumerate(own, end):
                    if (into is None or into[at] is not None) and gradient is not found[at]:
                        found[at] = form(gradient, found[at])
            return dx if wrt_input else None, found

        return x, pullback, statistics
