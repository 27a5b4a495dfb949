"""Minibatches: which examples an update sees is a function of (order seed, update), nothing else."""

from __future__ import annotations

from . import random
from .backend import Array, Device

__all__ = ["Batches", "blocks"]


def blocks(n: int, size: int = 1000) -> list[slice]:
    """Cut ``n`` examples into slices of at most ``size`` (one empty slice where there are none)."""
    return [slice(start, min(start + size, n)) for start in range(0, max(n, 1), size)]


class Batches:
    """The minibatches of a data set, in an order drawn anew for every epoch.

    Parameters
    ----------
    x : array of shape (n, features)
        The features; they keep their dtype (uint8 images stay uint8) until a batch is taken.
    targets : array of shape (n,)
        Class indices.
    classes : int
        Number of classes.
    size : int
        Examples per batch; the last batch of an epoch holds what is left.
    seed : int
        Of the order.
    device : Device
        Where x and the targets are.
    dtype : str
        Of the one-hot targets.
    at_least : int
        A last batch smaller than this is left out (batch norm cannot train on one example; the next epoch
        draws another order).
    """

    def __init__(
        self, x: Array, targets: Array, classes: int, *, size: int, seed: int, device: Device, dtype: str,
        at_least: int = 1,
    ) -> None:
        self.n = int(x.shape[0])
        self.size = min(size, self.n)
        rest = self.n % self.size
        self.per_epoch = self.n // self.size + (rest >= at_least and rest > 0)
        self._x, self._targets, self._seed, self._device = x, targets, seed, device
        self._one_hot = device.xp.eye(classes, dtype=getattr(device.xp, dtype), device=device.native)
        self._epoch = -1

    def __getitem__(self, step: int) -> tuple[Array, Array]:
        """Give the features (size, features) and the one-hot targets (size, classes) of update ``step``."""
        xp = self._device.xp
        epoch, i = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._device.asarray(random.permutation(self._seed, epoch, self.n))
        rows = self._order[i * self.size : min((i + 1) * self.size, self.n)]
        return xp.take(self._x, rows, axis=0), xp.take(self._one_hot, xp.take(self._targets, rows, axis=0), axis=0)
