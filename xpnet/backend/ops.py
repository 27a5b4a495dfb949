"""One class per backend: ``Ops`` computes by the array API standard, its subclasses what their library does better.

Layers, losses and training call ``ops_of(x)`` for the object of an array. ``Deferred`` is how a layer's pullback leaves
a product to whoever wants it, ``Stage`` how a backend computes several layers at once.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat
import numpy as np

from .arrays import Array, constant, namespace, transposed
from .blas import Descent
from .blas import found as blas_found

__all__ = ["OPS", "CupyOps", "Deferred", "NumpyOps", "Ops", "Stage", "batch_last", "form", "kind", "ops_of",
           "side_by_side"]

#: The object of each type of array, and of whatever stands for an array where a layer takes one.
OPS: dict[type, Ops] = {}


def ops_of(x: Array) -> Ops:
    """Return the operations of an array's backend.

    Parameters
    ----------
    x : array
        An array of any library.

    Returns
    -------
    Ops
        The same object for all arrays of a type.
    """
    try:
        return OPS[type(x)]
    except KeyError:
        numpy, cupy = isinstance(x, np.ndarray), array_api_compat.is_cupy_array(x)
        found = OPS[type(x)] = NumpyOps() if numpy else CupyOps() if cupy else Ops()
        return found


class Deferred:
    """An entry of what a pullback returns that is not computed yet: see ``form``.

    Whoever wants it forms it where it is needed, a weight's gradient in its buffer, say; what nobody wants, such as the
    first layer's gradient with respect to its input, is never formed.

    Parameters
    ----------
    function : function
        From the arguments, and ``out`` as one more argument if there is one, to the array.
    *arguments
        Its arguments. Nothing may change them before the entry is formed.
    """

    __slots__ = ("_arguments", "_function")

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._function, self._arguments = function, arguments

    def form(self, out: Any = None) -> Any:
        """Return the array, written to ``out`` if one is given: see ``form``."""
        return self._function(*self._arguments) if out is None else self._function(*self._arguments, out)


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
        return entry.form(out)
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
        The layers, first to last, of which at most one is noisy.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers: tuple[Any, ...] = tuple(layers)

    def forward(self, x: Array, *arrays: Array, train: bool = False, noise: Array | None = None) -> Any:
        """Do what ``Layer.forward`` does, for all layers.

        Parameters
        ----------
        x : array of shape (..., n, k)
            The input of the first layer.
        *arrays : array
            The parameters of all layers in their order, then the running statistics of all.
        train : bool
            Use the batch's statistics, and draw.
        noise : array of shape (n, features), optional
            Uniform draws for the noisy layer.

        Returns
        -------
        tuple
            The last layer's output; the pullback, from its gradient to the gradient with respect to x and a tuple of
            the parameters' gradients, of which all may be deferred; and a tuple of the batch's statistics.
        """
        count = sum(len(layer.parameters) for layer in self.layers)
        parameters, running = iter(arrays[:count]), iter(arrays[count:])
        pullbacks: list[Any] = []
        statistics: list[Array] = []
        for layer in self.layers:
            own = [*(next(parameters) for _ in layer.parameters), *(next(running) for _ in layer.statistics)]
            x, back, batch = layer.forward(x, *own, train=train, noise=noise if layer.noisy else None)
            pullbacks.append(back)
            statistics += batch

        def pullback(dy: Any) -> tuple[Any, tuple[Any, ...]]:
            gradients: list[Any] = []
            for back in reversed(pullbacks):
                dy, own = back(form(dy))
                gradients[:0] = own
            return dy, tuple(gradients)

        return x, pullback, tuple(statistics)


def kind(thing: Any) -> str:
    """Return the name of a layer's, a loss's or an optimizer's class, "" if it is not xpnet's own.

    A subclass may compute something else, so that a backend that fuses by what this returns leaves it alone.
    """
    cls = type(thing)
    return cls.__name__ if cls.__module__.startswith("xpnet.") else ""


class Ops:
    """The operations that a backend may do better than the standard says, each as the standard says it.

    A subclass overrides any of them, for all arrays or for some, and leaves the rest to ``super()``. It holds no state
    of a run. ``OPS`` has the object of each type of array: ``OPS[numpy.ndarray] = MyOps()`` replaces it. Results
    equal those of this class up to rounding, in float32 and float64, with any number of model axes; the tests in
    ``tests/backend/test_ops.py`` compare the two, and a new override takes a line there.

    - Products: ``multiply``, ``matmul``, ``gradient``, ``total``, and ``descent`` for a matrix that takes its gradient
      as it is formed.
    - Rows of data: ``take``, ``assign``, ``as_row_major``, ``read_ahead``.
    - Whole parts of an update, which training asks for once and then calls at every update: ``fuse`` for the layers,
      ``loss``, ``gather`` for the batches, ``updater`` for the parameters. Each is given the plain way, and returns it
      or something that does the same.

    Layers, losses and rules are told apart by ``kind``, since this package knows none of them.
    """

    def product(self, x: Array, w: Array) -> Array:
        """Return ``x @ w`` for a batch x (..., n, k); models that share x are one wide product.

        Parameters
        ----------
        x : array of shape (n, k) or (*models, n, k)
            The batch.
        w : array of shape (k, m) or (*models, k, m)
            The matrix.

        Returns
        -------
        array of shape (..., n, m)
            The product, in the order in memory that suits the backend.
        """
        if x.ndim == 2 and w.ndim > 2:
            return apart(self.multiply(x, side_by_side(w)), w.shape)
        return self.multiply(x, w)

    def multiply(self, x: Array, w: Array) -> Array:
        """Return ``x @ w`` of a batch and matrices that have the same model axes, or none."""
        return x @ w

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """Return ``a @ b``, written to ``out`` if it is given, perhaps a view with gaps.

        The standard has no ``out``; without one, the large gradients would be allocated anew at every step,
        and their pages cost more than their arithmetic.
        """
        if out is None:
            return a @ b
        out[...] = a @ b
        return out

    def gradient(self, x: Array, d: Array, out: Any = None) -> Any:
        """Return a dense layer's gradient with respect to its matrix, ``x.T @ d``, in ``out`` if it is given.

        Parameters
        ----------
        x : array of shape (n, k) or (*models, n, k)
            The layer's input.
        d : array of shape (n, m) or (*models, n, m)
            The gradient with respect to its output.
        out : array of shape (*models, k, m), or what ``descent`` returned, optional
            What receives it.

        Returns
        -------
        array of shape (*models, k, m)
            The gradient, or ``out``.
        """
        if x.ndim != 2 or d.ndim == 2:
            return self.matmul(transposed(x), d, out)
        wide = self.matmul(transposed(x), side_by_side(d), None if out is None else side_by_side(out))
        found = apart(wide, d.shape)
        if out is None:
            return found
        out[...] = found  # which is a view of ``out`` unless its models lie one behind the other
        return out

    def total(self, x: Array, out: Array | None = None) -> Array:
        """Return the sum over the batch, (..., n, k) to (..., k), written to ``out`` if it is given."""
        ones = constant(x, (1, x.shape[-2]), 1.0)
        if out is None:
            return (ones @ x)[..., 0, :]
        self.matmul(ones, x, out[..., None, :])
        return out

    def descent(self, flat: Array, rows: int) -> Any:
        """Return what updates a matrix by plain descent as its gradient is formed, or None if that gains nothing.

        Parameters
        ----------
        flat : array
            The matrix of the first layer, (size,), or (rows, *models, columns) for models side by side.
        rows : int
            Its number of rows.

        Returns
        -------
        Descent or None
            Something with ``keep`` and ``factor``, numbers or arrays (*models, 1) that training sets before every
            update, which ``gradient`` takes as ``out``: ``w = keep * w + factor * gradient``.
        """
        return None

    def take(self, x: Array, rows: Array, out: Array | None = None) -> Array:
        """Return rows of ``x``, by indices that are in range, in ``out`` of its dtype where the library can."""
        return namespace(x).take(x, rows, axis=0)

    def assign(self, out: Array, x: Array) -> None:
        """Write ``x`` of any real dtype into ``out``, without an array between them where the library can."""
        out[...] = namespace(x).astype(x, out.dtype)

    def as_row_major(self, x: Array, free: Callable[[], int | None]) -> Array:
        """Return ``x`` in row-major order if its order in memory is another and the copy fits into memory.

        Parameters
        ----------
        x : array
            Data.
        free : function
            Returns the free memory in bytes, or None if that is unknown.

        Returns
        -------
        array
            ``x`` itself or a copy.
        """
        return x

    def read_ahead(self, x: Array, free: int | None) -> Callable[[Array], None] | None:
        """Return what has the system read rows of ``x``, by their indices, before they are needed.

        Parameters
        ----------
        x : array
            Data.
        free : int or None
            The free memory in bytes.

        Returns
        -------
        function or None
            None unless x is a file mapped into memory that is not small beside it.
        """
        return None

    def fuse(self, layers: Sequence[Any]) -> Sequence[Any]:
        """Return the stages that compute a network's layers in training: layers, or a ``Stage`` for several in a row.

        Parameters
        ----------
        layers : sequence of Layer
            All layers in their order, with their hyper-parameters on the device.

        Returns
        -------
        sequence of Layer or Stage
            Every layer once, in the same order.
        """
        return layers

    def loss(self, loss: Any) -> Any:
        """Return what computes a loss and its gradient in an update: ``forward(outputs, targets)`` as ``Loss`` has it.

        Parameters
        ----------
        loss : Loss
            The objective.

        Returns
        -------
        Loss
            Something with its ``forward``.
        """
        return loss

    def gather(
        self, plain: Callable[[Any, Array], Array], x: Array, scaling: tuple[Array, Array] | None, size: int
    ) -> Callable[[Any, Array], Array]:
        """Return what loads rows of the data: converts them to the dtype of ``out``, and standardises them.

        Parameters
        ----------
        plain : function
            From rows (an array of indices that are in range, or a slice) and ``out`` (n, features) to ``out``, filled.
        x : array of shape (m, features)
            The data, of any real dtype.
        scaling : tuple of array, or None
            Offset and scale (features,): rows are ``(x - offset) * scale``, computed in the dtype of these two, which
            is that of ``out`` or float64.
        size : int
            The most rows at once.

        Returns
        -------
        function
            ``plain``, or one that does the same.
        """
        return plain

    def updater(
        self, plain: Callable[[Any, int], None], rule: Any, segments: Sequence[Any], clip_norm: Any, axes: int
    ) -> Callable[[Any, int], None]:
        """Return what changes all parameters, and the optimizer's arrays, by the gradients in their buffers.

        Parameters
        ----------
        plain : function
            From the learning rate, a number or an array (*models, 1), and the number of updates before to nothing.
        rule : Optimizer
            The optimizer, with its hyper-parameters on the device.
        segments : sequence of Segment
            The flat arrays: ``w``, ``g``, ``slots``, ``penalty`` and ``decay``. They stay the same throughout a run.
        clip_norm : float, array or None
            The largest norm of the gradient.
        axes : int
            Number of model axes.

        Returns
        -------
        function
            ``plain``, or one that does the same.
        """
        return plain


class NumpyOps(Ops):
    """NumPy's: batches lie last in memory, and BLAS writes to arrays that are there, or adds to them."""

    def multiply(self, x: Array, w: Array) -> Array:
        """Return ``x @ w`` with the batch last in memory.

        What broadcasts a row over the batch then is k long loops, not n short ones, and with a few features per layer
        that is most of its time. All that is computed from the result keeps its order.
        """
        if w.ndim == 2 and w.shape[1] <= 256 and w.shape[0] >= 1024:  # faster, with the copy
            return batch_last(x @ w)
        return (w.mT @ x.mT).mT

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """Return ``a @ b``, written to ``out`` if it is given."""
        return np.matmul(a, b, out=out)

    def gradient(self, x: Array, d: Array, out: Any = None) -> Any:
        """Return ``x.T @ d`` in ``out``, or have a ``Descent`` take it."""
        if isinstance(out, Descent):
            return out.add_product(x, side_by_side(d))
        return super().gradient(x, d, out)

    def descent(self, flat: Array, rows: int) -> Descent | None:
        """Return what has BLAS add the gradient to the matrix, if that is large."""
        return Descent(flat.reshape(rows, -1)) if flat.size >= 2**14 and blas_found() else None

    def take(self, x: Array, rows: Array, out: Array | None = None) -> Array:
        """Return rows of ``x``, in ``out`` if x is in one piece: else NumPy's ``take`` would copy all of it."""
        # Where indices might be wrong, it would copy what it takes.
        return x.take(rows, 0, out, "clip") if x.flags.c_contiguous else x[rows]

    def assign(self, out: Array, x: Array) -> None:
        """Write ``x`` into ``out``, which converts it."""
        out[...] = x

    def as_row_major(self, x: Array, free: Callable[[], int | None]) -> Array:
        """Return ``x`` in row-major order.

        pandas gives arrays in column-major order. Every row of theirs is read in as many places as there are features.
        """
        if x.ndim != 2 or not x.strides[1] > x.strides[0] > 0:
            return x
        room = free()
        return x if room is not None and 2 * x.nbytes > room else np.ascontiguousarray(x)

    def read_ahead(self, x: Array, free: int | None) -> Callable[[Array], None] | None:
        """Return what advises the system of rows.

        Every row would be waited for: the disk's delay, a hundred times per batch.
        """
        file = x
        while isinstance(file, np.ndarray):
            file = file.base
        if not (isinstance(file, mmap.mmap) and hasattr(file, "madvise") and x.flags.c_contiguous):
            return None
        if free is not None and 8.0 * x.nbytes < free:
            return None
        size, page = x.nbytes // max(1, x.shape[0]), mmap.PAGESIZE
        first = x.ctypes.data - np.frombuffer(file, np.uint8).ctypes.data

        def read(rows: Array) -> None:
            for row in rows.tolist():
                start = first + row * size
                down = start % page
                file.madvise(mmap.MADV_WILLNEED, start - down, size + down)

        return read


class CupyOps(Ops):
    """CuPy's: products are written to arrays that are there."""

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """Return ``a @ b``, written to ``out`` if it is given."""
        if out is None:
            return a @ b
        namespace(out).matmul(a, b, out=out)  # CuPy 13 returns another array than ``out``
        return out

    def assign(self, out: Array, x: Array) -> None:
        """Write ``x`` into ``out``, which converts it."""
        out[...] = x


def batch_last(z: np.ndarray) -> np.ndarray:
    """Return a batch (n, k) with the batch last in memory, see ``NumpyOps.multiply``; a copy if need be."""
    return np.ascontiguousarray(z.T).T


def side_by_side(w: Array) -> Array:
    """Put the models' matrices side by side: (*models, n, k) to (n, models * k). A view where it can be."""
    if w.ndim == 2:
        return w
    xp = namespace(w)
    return xp.reshape(xp.moveaxis(w, -2, 0), (w.shape[-2], -1))


def apart(wide: Array, like: tuple[int, ...]) -> Array:
    """Undo ``side_by_side``: (n, models * k) to (*models, n, k) with models and k those of ``like``."""
    xp = namespace(wide)
    return xp.moveaxis(xp.reshape(wide, (wide.shape[0], *like[:-2], like[-1])), 0, -2)
