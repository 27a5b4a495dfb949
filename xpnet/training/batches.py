"""Minibatches: which examples an update sees is a function of (order seed, update), nothing else.

They are prepared when they are asked for, in memory that is used again. A thread that prepares them ahead was slower:
it takes a core from the wide products, or the interpreter from the many small operations between them. ``Halves``
prepares them ahead where both cores are between wide products.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from .. import random
from ..backend import Array, Device, ops_of
from ..nn.losses import Loss, SoftmaxCrossEntropy
from .rows import Rows
from .two_threads import Halves

__all__ = ["Batches", "batches_per_epoch"]

AHEAD = 4  # batches that a disk is told of before they are read


def batches_per_epoch(n: int, size: int, at_least: int = 1) -> int:
    """Return the number of batches of ``size`` in ``n`` examples; a last one below ``at_least`` is left out.

    The only batch is kept, however small.
    """
    whole, rest = divmod(n, min(size, n))
    return whole + (rest >= max(at_least, 1))


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
        Seed of the order.
    device : Device
        Where x and the labels are.
    dtype : str
        Dtype of the batches.
    rows : Halves or Rows, optional
        What prepares batches of x, standardised perhaps; by default they are rows of it in ``dtype``.
    loss : Loss, optional
        What makes targets of the labels: by default softmax cross-entropy, which makes one-hot rows.
    at_least : int
        A last batch smaller than this is left out (batch norm cannot train on one example); the next epoch draws
        another order.
    only : array of int, optional
        The indices of the rows of x to train on, whose labels are given in this order; all rows by default.
    load : function, optional
        What makes features and targets of examples at once, by their indices: ``Learner.loader``.

    Attributes
    ----------
    per_epoch : int
        Batches in an epoch.
    start : int
        The update that takes the first batch of epoch 0; below 0 for a run that begins with a later epoch.
    data : tuple
        The features, the labels, and ``only``.
    """

    def __init__(
        self, x: Array, labels: Array, outputs: int, *, size: int, seed: int, device: Device, dtype: str,
        rows: Halves | Rows | None = None, loss: Loss | None = None, at_least: int = 1, only: Array | None = None,
        load: Callable[[Array], tuple[Array, Array]] | None = None,
    ) -> None:
        self.n: int = int((x if only is None else only).shape[0])
        self.size: int = min(size, self.n)
        self.per_epoch: int = batches_per_epoch(self.n, size, at_least)
        self.start = 0
        self.data: tuple[Array, Array, Array | None] = x, labels, only
        self._drawn: tuple[int, Any] = -1, None  # an epoch and its order, in host memory
        self._labels, self._seed, self._device, self._only = labels, seed, device, only
        self._encode = (loss or SoftmaxCrossEntropy()).encoder(outputs, device, dtype)
        self._batch: Halves | Rows = rows or Rows(x, self.size, device, dtype)
        self._epoch, self._load = -1, load
        self._read_ahead = ops_of(x).read_ahead(x, device.free_memory())

    @property
    def sizes(self) -> list[int]:
        """Examples in each batch of an epoch."""
        return [min(self.size, self.n - i * self.size) for i in range(self.per_epoch)]

    def run(self, first: int, until: int) -> Generator[tuple[Array, Array], None, None]:
        """Return features (size, features) and targets (size, outputs) of updates first to until - 1.

        A batch is valid until the next is asked for: its memory is used again. ``Halves`` stand for an array where a
        layer takes one, and then the generator must be closed where it is not used up.
        """
        with self._batch as batch:
            following = self._rows(first)
            for update in range(first, until):
                rows, following = following, self._rows(update + 1) if update + 1 < until else None
                if self._load:
                    yield self._load(rows)
                    continue
                labels = self._device.xp.take(self._labels, rows, axis=0)
                yield batch.take(self._of_x(rows), self._of_x(following)), self._encode(labels)

    def examples(self, first: int, until: int) -> tuple[Array, Array]:
        """Return which examples updates first to until - 1 take, in host memory.

        Parameters
        ----------
        first, until : int
            The updates.

        Returns
        -------
        examples : array of int, shape (updates, size)
            Their indices among the labels; the rows of smaller batches end with zeros.
        sizes : array of int, shape (updates,)
            The number of examples of each update.
        """
        host, sizes = Device(), self.sizes
        found = host.empty((until - first, self.size), "int64")
        update = first
        while update < until:  # epoch by epoch
            epoch, i = divmod(update - self.start, self.per_epoch)
            if self._drawn[0] != epoch:
                self._drawn = epoch, random.permutation(self._seed, epoch, self.n)
            count = min(self.per_epoch - i, until - update)
            order = self._drawn[1][i * self.size : (i + count) * self.size]
            flat = host.xp.reshape(found[update - first : update - first + count, :], (-1,), copy=False)
            flat[: order.shape[0]] = order
            update += count
        return found, host.asarray([sizes[(t - self.start) % self.per_epoch] for t in range(first, until)])

    def _of_x(self, examples: Array | None) -> Array | None:
        """Return the indices in x of examples, which are numbered as their labels are."""
        if self._only is None or examples is None:
            return examples
        return self._device.xp.take(self._only, examples, axis=0)

    def _rows(self, update: int) -> Array:
        """Return the examples of an update, by their indices."""
        epoch, i = divmod(update - self.start, self.per_epoch)
        if epoch != self._epoch:
            self._order = self._device.asarray(random.permutation(self._seed, epoch, self.n))
            self._epoch = epoch
        size = self.size
        if self._read_ahead:
            self._read_ahead(self._of_x(self._order[(i + AHEAD) * size : (i + AHEAD + 1) * size]))
        return self._order[i * size : min((i + 1) * size, self.n)]
