"""``Ops``: what a backend may do better than the array API standard says, as the standard says it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .arrays import Array, apart, constant, namespace, side_by_side, transposed

__all__ = ["Ops", "switched_off"]


def switched_off() -> bool:
    """Return whether the environment variable ``XPNET_FAST`` is 0, so that only the plain code of ``Ops`` computes."""
    return os.environ.get("XPNET_FAST", "") == "0"


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

    - All of an update at once: ``whole_update``.

    Layers, losses and rules are told apart by ``kind``, since this package knows none of them.

    Attributes
    ----------
    kernels : str
        What computes in place of the library, as in ``" with Numba 0.61"``.
    """

    kernels: str = ""

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
        """Return ``x @ w`` of a batch and matrices that have the same model axes, or none.

        Parameters
        ----------
        x : array of shape (*models, n, k)
            The batch.
        w : array of shape (*models, k, m)
            The matrices.

        Returns
        -------
        array of shape (*models, n, m)
            The product.
        """
        return x @ w

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """Return ``a @ b``, written to ``out`` if it is given, perhaps a view with gaps.

        The standard has no ``out``; without one, the large gradients would be allocated anew at every step,
        and their pages cost more than their arithmetic.

        Parameters
        ----------
        a, b : array of shape (..., n, k), (..., k, m)
            The factors.
        out : array of shape (..., n, m), optional
            Where to.

        Returns
        -------
        array of shape (..., n, m)
            The product, or ``out``.
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
        # A view of ``out`` unless its models lie one behind the other; PyTorch refuses to assign that of one model.
        if math.prod(d.shape[:-2]) > 1:
            out[...] = found
        return out

    def total(self, x: Array, out: Array | None = None) -> Array:
        """Return the sum over the batch, written to ``out`` if it is given.

        Parameters
        ----------
        x : array of shape (..., n, k)
            What to add up.
        out : array of shape (..., k), optional
            Where to.

        Returns
        -------
        array of shape (..., k)
            The sum, or ``out``.
        """
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
        """Return rows of ``x``, in ``out`` where the library can.

        Parameters
        ----------
        x : array of shape (m, ...)
            The data.
        rows : array of int, shape (n,)
            Indices, which are in range.
        out : array of shape (n, ...), optional
            An array of the dtype of x.

        Returns
        -------
        array of shape (n, ...)
            The rows.
        """
        return namespace(x).take(x, rows, axis=0)

    def assign(self, out: Array, x: Array) -> None:
        """Write ``x`` into ``out``, without an array between them where the library can.

        Parameters
        ----------
        out : array
            Where to; its dtype stays.
        x : array
            An array of the same shape, of any real dtype.
        """
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
        self, plain: Callable[[Any, Array], Array], x: Array, scaling: tuple[Array, Array] | None, buffer: Array
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
        buffer : array of shape (n, features)
            The memory whose first rows are ``out``; it has room for the most rows at once.

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

    def whole_update(
        self, layers: Sequence[tuple[Any, Mapping[str, Array], Mapping[str, Array]]], loss: Any, rule: Any,
        segments: Sequence[Any], clip_norm: Any, models: tuple[int, ...],
    ) -> tuple[Any, str]:
        """Return what makes a whole update in one call, or None and the reason.

        It is called with a batch x (n, features), its targets, the learning rate, a sequence of uniform draws for the
        noisy layers, and the number of updates before; it changes the parameters, the optimizer's arrays and the
        running statistics, leaves the gradients in their arrays, and returns the loss (*models). ``loader(x, labels,
        scaling, only)`` is its function from indices to a batch and its targets.

        Parameters
        ----------
        layers : sequence of tuple
            Each layer behind the input's standardisation, with its arrays and the gradients of its parameters, by the
            layer's own names.
        loss : Loss
            The objective.
        rule : Optimizer
            The optimizer, with its hyper-parameters on the device.
        segments : sequence of Segment
            The flat arrays, as ``updater`` takes them.
        clip_norm : float, array or None
            The largest norm of the gradient.
        models : tuple of int
            The model axis.

        Returns
        -------
        tuple
            The function, or None and why there is none.
        """
        return None, "this backend has no fused kernels"
