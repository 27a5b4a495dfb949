"""A network whose arrays are looked up once, for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..backend import Array, is_complex, namespace

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
    """

    def __init__(self, network: Sequential, arrays: Mapping[str, Array]) -> None:
        named = zip(network.layers, network._names, strict=True)
        self._rows = [(layer, [arrays[name] for name in names], layer.noisy) for layer, names in named]
        self._counts = [len(layer.parameters) for layer in network.layers]
        # The pass back may end at the first layer that has parameters.
        self._first = next((i for i, layer in enumerate(network.layers) if layer.parameters), 0)
        # The input may be standardised in another dtype than the network's.
        self._dtype = arrays[network.parameters[0]].dtype if network.scales_input and network.parameters else None

    def forward(
        self, x: Array, *, train: bool = False, noise: Mapping[str, Array] | None = None
    ) -> tuple[Array, Callable[..., tuple[Array | None, list[Sequence[Array]]]], list[Array]]:
        """Do what ``Sequential.forward`` does, with a pullback that takes and gives lists, layer by layer."""
        pullbacks: list[Any] = []
        statistics: list[Array] = []
        drawn = 0
        for layer, arrays, noisy in self._rows:
            u = None
            if noisy and noise:
                drawn += 1
                u = noise[f"noise{drawn}"]
            x, pull, batch = layer.forward(x, *arrays, train=train, noise=u)
            if layer.scales_input and self._dtype and not is_complex(x):
                x = namespace(x).astype(x, self._dtype, copy=False)
            pullbacks.append(pull)
            statistics += batch

        def pullback(
            dy: Array, into: Sequence[Sequence[Array]] | None = None, wrt_input: bool = True
        ) -> tuple[Array | None, list[Sequence[Array]]]:
            found: list[Sequence[Array]] = [()] * len(pullbacks)
            dx: Array | None = dy
            for i in range(len(pullbacks) - 1, -1 if wrt_input else self._first - 1, -1):
                to = into[i] if into else ()
                dx, own = pullbacks[i](dx, to, wrt_input or i > self._first)
                if len(own) != self._counts[i]:
                    raise ValueError(f"{type(self._rows[i][0]).__name__} (layer {i + 1}): expected its pullback to "
                                     f"return {self._counts[i]} gradients of parameters, got {len(own)}")
                found[i] = own
                for a, b in zip(to, own, strict=bool(to)):
                    if a is not None and a is not b:
                        a[...] = b
            return dx if wrt_input else None, found

        return x, pullback, statistics
