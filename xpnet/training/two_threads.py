"""A batch of which each of two threads holds half of the features, with the first layer's share of an update.

For a matrix that is long and narrow, BLAS's own two threads gain little: what one core has written, images or weights,
the other reads. Here a thread keeps its half of both. It adds its half of the gradient to its half of the weights,
gathers its half of the next batch, and multiplies the two, all without the other. Between updates nothing is left over:
the weights are those of the update, and the product is that of the batch to come.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from ..backend import OPS, Array, Device, Ops, namespace
from ..backend.arrays import side_by_side
from ..backend.blas import Descent, one_thread, threads
from ..backend.libraries import batch_last
from .rows import Rows

__all__ = ["Halves", "halves_are_faster"]

LEAST = 2**23  # multiplications in a product that gain more than what it costs to wake a thread


def halved(x: Array) -> Array | None:
    """Return a view (2n, features / 2) of an array (n, features), each row as two, or None if there is no such view."""
    n, k = x.shape
    with contextlib.suppress(ValueError, AttributeError):  # NumPy 2.0 raises the latter
        return namespace(x).reshape(x, (2 * n, k // 2), copy=False)
    return None


def halves_are_faster(x: Array, weights: list[int], batch: int) -> bool:
    """Return whether ``Halves`` of ``x`` are faster, for weight matrices of these sizes, first to last.

    They are where BLAS has two threads, the first matrix has work for both, and the others have none to speak of:
    one thread is left for them. With more threads BLAS keeps them: there nothing was measured.
    """
    first, *others = weights
    much = batch * first >= LEAST and 8 * sum(others) <= first
    return much and threads() == 2 and halved(x) is not None


class BackgroundCall:
    """A thread that makes a call while its owner makes others: ``begin``, then ``wait``, and ``close`` at last."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._ends: SimpleQueue[BaseException | None] = SimpleQueue()
        self._busy = False
        # With its owner's context, where NumPy keeps what becomes of an overflow.
        self._thread = threading.Thread(target=contextvars.copy_context().run, args=(self._work,), daemon=True)
        self._thread.start()

    def _work(self) -> None:
        for call in iter(self._calls.get, None):
            try:
                call()
            except BaseException as error:
                self._ends.put(error)
            else:
                self._ends.put(None)

    def begin(self, call: Callable[[], Any]) -> None:
        """Have the thread make a call."""
        self.wait()
        self._calls.put(call)
        self._busy = True

    def wait(self) -> None:
        """Wait until the call is made, and raise what it raised."""
        if self._busy:
            error = self._ends.get()
            self._busy = False
            if error is not None:
                raise error

    def close(self) -> None:
        """End the thread after its call."""
        self._calls.put(None)
        self._thread.join()


class _Half:
    """What one thread does, with the features of one half.

    One half gathers before it changes its weights, the other after: threads whose long calls end together wait for the
    interpreter, and for the system to wake them.
    """

    def __init__(self, which: int, columns: slice, rooms: list[Rows]) -> None:
        self._which, self._columns, self._early = which, columns, len(rooms) > 1
        self._rooms = itertools.cycle(rooms)
        self.x: Array = None
        self.z: Array = None

    # A row is two of the array in halves.
    def take(self, rows: Array) -> None:
        self.x = next(self._rooms).take(2 * rows + self._which)

    def slice(self, rows: slice) -> None:
        self.x = next(self._rooms).slice(slice(2 * rows.start + self._which, 2 * rows.stop, 2))

    def multiply(self, w: Array, load: Callable[[_Half], None] | None = None) -> None:
        if load:
            load(self)
        self.z = self.x @ w[self._columns, :]

    def descend(self, descent: Descent, d: Array, following: Array | None) -> None:
        x = self.x
        if self._early and following is not None:
            self.take(following)
        descent.add_product(x, d, self._columns)
        if following is not None:
            if not self._early:
                self.take(following)
            self.multiply(descent.w)


class Halves:
    """Batches of shape (size, features), in place of an array where the first layer takes one.

    Parameters
    ----------
    x : array of shape (n, features)
        The data, on NumPy, row by row in memory; of an even number of features.
    size : int
        The most rows in a batch.
    device : Device
        The CPU.
    dtype : str
        Dtype of the batches.
    scaling : tuple of array, optional
        Offset and scale per feature.

    Attributes
    ----------
    shape : tuple of int
        Shape of the batch.
    ndim : int
        2.
    """

    ndim = 2

    def __init__(
        self, x: Array, size: int, device: Device, dtype: str, scaling: tuple[Array, Array] | None = None
    ) -> None:
        k = x.shape[1]
        self.shape: tuple[int, int] = (size, k)
        self._mine, self._other = (
            _Half(which, own, [
                Rows(halved(x), size, device, dtype, scaling and (scaling[0][own], scaling[1][own]))
                for _ in range(1 + which)
            ]) for which, own in enumerate((slice(0, k // 2), slice(k // 2, k)))
        )
        self._following: Array | None = None
        self._load: Callable[[_Half], None]
        self._ahead = self._multiplied = False  # whether the next batch is there, and this one's product

    def __enter__(self) -> Halves:
        self._ahead = False
        with contextlib.ExitStack() as around:
            around.enter_context(one_thread(others=True))
            self._aside = BackgroundCall()
            around.callback(self._aside.close)
            self._around = around.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._around.close()

    def take(self, rows: Array, following: Array | None = None) -> Halves:
        """Load these rows as the current batch, and those of the next batch, if any, in the background."""
        self.shape, self._following = (rows.shape[0], self.shape[1]), following
        self._multiplied, self._ahead = self._ahead, False
        self._load = lambda half: half.take(rows)
        return self

    def slice(self, rows: slice) -> Halves:
        """Load consecutive rows as the current batch."""
        self.shape, self._following = (rows.stop - rows.start, self.shape[1]), None
        self._multiplied = self._ahead = False
        self._load = lambda half: half.slice(rows)
        return self

    def __matmul__(self, w: Array) -> Array:
        """Return the product with a matrix (features, m), which no one changes but ``descend``."""
        if not self._multiplied:
            load = self._load
            self._both(lambda half: half.multiply(w, load))
        self._aside.wait()
        return batch_last(self._mine.z + self._other.z)

    def descend(self, descent: Descent, d: Array) -> Descent:
        """Have a matrix take its gradient, for the gradient d (size, m) of the product, and begin with the next."""
        following = self._following
        self._both(lambda half: half.descend(descent, d, following))
        self._ahead, self._multiplied = following is not None, False
        if following is None:
            self._aside.wait()
        return descent

    def _both(self, call: Callable[[_Half], None]) -> None:
        self._aside.begin(lambda: call(self._other))
        call(self._mine)


class _HalvesOps(Ops):
    """The first layer's products with batches in halves."""

    def multiply(self, x: Halves, w: Array) -> Array:
        return x @ w

    def gradient(self, x: Halves, d: Array, out: Any = None) -> Any:
        return x.descend(out, side_by_side(d))


OPS[Halves] = _HalvesOps()
