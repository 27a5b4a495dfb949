"""Minibatches: which examples an update sees is a function of (order seed, update), nothing else.

They are prepared a few at a time, and on the host in a thread, while BLAS works on those before.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from . import random
from .backend import Array, Device, assign
from .losses import Loss, SoftmaxCrossEntropy

__all__ = ["Batches", "blocks", "fill", "moments"]

AHEAD = 4  # batches prepared at a time: the thread is woken less often


def blocks(n: int, size: int = 1000) -> list[slice]:
    """Cut ``n`` examples into slices of at most ``size`` (one empty slice where there are none)."""
    return [slice(start, min(start + size, n)) for start in range(0, max(n, 1), size)]


def fill(room: Array, x: Array, scaling: tuple[Array, Array] | None) -> Array:
    """Write ``x`` of any real dtype into ``room``, standardised: ``(x - offset) * scale``."""
    assign(room, x)
    if scaling:
        room -= scaling[0]
        room *= scaling[1]
    return room


def moments(x: Array, device: Device, dtype: str) -> tuple[Array, Array]:
    """Give each feature's mean and 1 / standard deviation (1 where it does not vary), as ``dtype``.

    In two passes and in float64, block by block: integers stay as they are in memory.
    """
    xp, n = device.xp, x.shape[0]
    mean = sum(xp.sum(xp.astype(x[rows, :], xp.float64), axis=0) for rows in blocks(n)) / n
    var = sum(xp.sum((xp.astype(x[rows, :], xp.float64) - mean) ** 2, axis=0) for rows in blocks(n)) / n
    # Rounding leaves a constant feature a variance of about eps * mean^2: it counts as none.
    varies = var > (xp.finfo(xp.float64).eps * n) * mean**2
    inverse = 1.0 / xp.sqrt(xp.where(varies, var, 1.0))
    kind = getattr(xp, dtype)
    return xp.astype(mean, kind), xp.astype(inverse, kind)


class Batches:
    """The minibatches of a data set, in an order drawn anew for every epoch.

    Parameters
    ----------
    x : array of shape (n, features)
        The features; they keep their dtype (uint8 images stay uint8) until a batch is taken.
    labels : array of shape (n,) or (n, outputs)
        Class indices as int64, or what else the loss takes.
    outputs : int
        Width of the targets: number of classes.
    size : int
        Examples per batch; the last batch of an epoch holds what is left.
    seed : int
        Of the order.
    device : Device
        Where x and the labels are.
    dtype : str
        Of the batches.
    scaling : tuple of arrays, optional
        Offset and scale per feature: batches are ``(x - offset) * scale``.
    loss : Loss, optional
        What makes targets of the labels: by default softmax cross-entropy, which makes one-hot rows.
    at_least : int
        A last batch smaller than this is left out (batch norm cannot train on one example; the next epoch
        draws another order).

    Attributes
    ----------
    per_epoch : int
        Batches in an epoch.
    start : int
        The update that takes the first batch of epoch 0; below 0 for a run that begins with a later epoch.
    """

    def __init__(
        self, x: Array, labels: Array, outputs: int, *, size: int, seed: int, device: Device, dtype: str,
        scaling: tuple[Array, Array] | None = None, loss: Loss | None = None, at_least: int = 1,
    ) -> None:
        self.n: int = int(x.shape[0])
        self.size: int = min(size, self.n)
        rest = self.n % self.size
        self.per_epoch: int = self.n // self.size + (rest >= at_least and rest > 0)
        self.start = 0
        self._x, self._labels, self._seed, self._device, self._scaling = x, labels, seed, device, scaling
        self._encode = (loss or SoftmaxCrossEntropy()).encoder(outputs, device, dtype)
        # Batches are written over those before the last: a fresh megabyte costs more in page faults than its
        # arithmetic.
        rows = min(AHEAD * self.size, self.n)
        self._rooms = [device.empty((rows, x.shape[1]), dtype) for _ in range(2)]
        self._epoch = -1

    @property
    def sizes(self) -> list[int]:
        """Examples in each batch of an epoch."""
        return [min(self.size, self.n - i * self.size) for i in range(self.per_epoch)]

    def run(self, first: int, until: int) -> Iterator[tuple[Array, Array]]:
        """Give features (size, features) and targets (size, outputs) of updates first to until - 1.

        A batch is valid until the next but ``AHEAD - 1`` is taken: its memory is used again.
        """
        first, until = first - self.start, until - self.start
        chunks: list[tuple[int, int, Array]] = []
        while first < until:
            stop = min(until, first + AHEAD, (first // self.per_epoch + 1) * self.per_epoch)
            chunks.append((first, stop, self._rooms[len(chunks) % 2]))
            first = stop
        if not self._device.is_host:
            for chunk in chunks:
                yield from self._prepare(*chunk)
            return
        with ThreadPoolExecutor(1) as thread:
            coming = thread.submit(self._prepare, *chunks[0])
            for following in [*chunks[1:], None]:
                ready = coming.result()
                if following:
                    coming = thread.submit(self._prepare, *following)
                yield from ready

    def _prepare(self, first: int, until: int, room: Array) -> list[tuple[Array, Array]]:
        """Gather, convert and scale the batches of some updates of one epoch, in ``room``."""
        xp, size = self._device.xp, self.size
        epoch, i = divmod(first, self.per_epoch)
        if epoch != self._epoch:
            self._order = self._device.asarray(random.permutation(self._seed, epoch, self.n))
            self._epoch = epoch
        rows = self._order[i * size : min((i + until - first) * size, self.n)]
        x = fill(room[: rows.shape[0], :], xp.take(self._x, rows, axis=0), self._scaling)
        targets = self._encode(xp.take(self._labels, rows, axis=0))
        return [(x[part, :], targets[part, :]) for part in blocks(rows.shape[0], size)]
