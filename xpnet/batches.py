"""Minibatches: which examples an update sees is a function of (order seed, update), nothing else.

They are prepared when they are asked for, in memory that is used again. A thread that prepares them ahead was slower:
it takes a core from the wide products, or the interpreter from the many small operations between them.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import random
from .backend import Array, Device, assign, holds, namespace, read_ahead
from .hyper import at_least_1
from .layers import Standardize, batch_total
from .losses import Loss, SoftmaxCrossEntropy

__all__ = ["Batches", "blocks", "fill", "moments", "repeated"]

REPEATED = 4  # rows standardised in one go
AHEAD = 4  # batches that a disk is told of before they are read


def blocks(n: int, size: int = 1000) -> list[slice]:
    """Cut ``n`` examples into slices of at most ``size`` (one empty slice where there are none)."""
    at_least_1("blocks", "the number of examples in one", size)
    return [slice(start, min(start + size, n)) for start in range(0, max(n, 1), size)]


def repeated(scaling: tuple[Array, Array] | None) -> tuple[Array, Array] | None:
    """Give offset and scale per feature as ``fill`` takes them: several times in a row."""
    return tuple(namespace(a).tile(a, (REPEATED,)) for a in scaling) if scaling else None


def fill(room: Array, x: Array, scaling: tuple[Array, Array] | None) -> Array:
    """Write ``x`` of any real dtype into ``room``, standardised: ``(x - offset) * scale``.

    Numbers of which ``room`` would round away what is behind a large offset are standardised before.
    Broadcasting a vector over few long rows takes NumPy two thirds of the time that it takes over many short ones.
    """
    if scaling and not holds(room, x):
        offset, scale = (a[: x.shape[-1]] for a in scaling)
        x, scaling = Standardize().forward(x, offset, scale)[0], None
    assign(room, x)
    if scaling:
        n, k = room.shape
        at_once = REPEATED if n % REPEATED == 0 else 1
        rows = namespace(room).reshape(room, (n // at_once, at_once * k), copy=False)
        rows -= scaling[0][: at_once * k]
        rows *= scaling[1][: at_once * k]
    return room


def moments(x: Array, device: Device, dtype: str) -> tuple[Array, Array]:
    """Give each feature's mean and 1 / standard deviation (1 where it does not vary), as ``dtype``.

    In one pass and in float64, block by block, so that integers stay as they are and a file is read once: Chan, Golub
    and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1982.
    """
    xp, n = device.xp, x.shape[0]
    mean = squares = 0.0
    for rows in blocks(n, 200):  # which stay in the processor's cache
        part = xp.astype(x[rows, :], xp.float64)
        m = part.shape[0]
        centre = batch_total(part) / m
        part -= centre
        part *= part
        off = centre - mean
        mean = mean + off * (m / rows.stop)
        squares = squares + batch_total(part) + off**2 * (m * rows.start / rows.stop)
    var = squares / n
    # Rounding leaves a constant feature a deviation of about eps * mean: it counts as none.
    varies = var > (xp.finfo(xp.float64).eps * n * mean) ** 2
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
        self._x, self._labels, self._seed, self._device = x, labels, seed, device
        self._scaling = repeated(scaling)
        self._encode = (loss or SoftmaxCrossEntropy()).encoder(outputs, device, dtype)
        # Every batch is written over the one before: a fresh megabyte costs more in page faults than its arithmetic.
        self._room = device.empty((self.size, x.shape[1]), dtype)
        self._epoch = -1
        self._read_ahead = read_ahead(x, device.free_memory())

    @property
    def sizes(self) -> list[int]:
        """Examples in each batch of an epoch."""
        return [min(self.size, self.n - i * self.size) for i in range(self.per_epoch)]

    def run(self, first: int, until: int) -> Iterator[tuple[Array, Array]]:
        """Give features (size, features) and targets (size, outputs) of updates first to until - 1.

        A batch is valid until the next is asked for: its memory is used again.
        """
        xp, size = self._device.xp, self.size
        for update in range(first - self.start, until - self.start):
            epoch, i = divmod(update, self.per_epoch)
            if epoch != self._epoch:
                self._order = self._device.asarray(random.permutation(self._seed, epoch, self.n))
                self._epoch = epoch
            rows = self._order[i * size : min((i + 1) * size, self.n)]
            if self._read_ahead:
                self._read_ahead(self._order[(i + AHEAD) * size : (i + AHEAD + 1) * size])
            x = fill(self._room[: rows.shape[0], :], xp.take(self._x, rows, axis=0), self._scaling)
            yield x, self._encode(xp.take(self._labels, rows, axis=0))
