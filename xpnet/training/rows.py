"""Rows of data as a network takes them: in its dtype, and standardised."""

from __future__ import annotations

from typing import Any

from ..backend import Array, Device, namespace, ops_of, represents_exactly
from ..datasets.admission import NotFiniteError
from ..nn.examples import blocks
from ..nn.layers import Standardize
from ..nn.scaling import working_scaling

__all__ = ["Rows", "gather", "moments"]

REPEATED = 4  # rows standardised in one go


def gather(x: Array, rows: slice, only: Array | None) -> Array:
    """Return a slice of the rows of ``x``, or of those whose indices are ``only``."""
    return x[rows, :] if only is None else ops_of(x).take(x, only[rows])


def moments(x: Array, device: Device, only: Array | None = None) -> tuple[Array, Array]:
    """Return each feature's mean and 1 / standard deviation (1 where it does not vary), in float64.

    They are those of the rows whose indices are ``only``, or of all.

    Raises
    ------
    NotFiniteError
        If a standard deviation is too large or too small for float64.
    """
    xp, n = device.xp, (x if only is None else only).shape[0]
    with device.ignore_overflow():  # what overflows is looked for
        mean, var = _mean_and_variance(x, xp, n, only)
        unit = xp.ones_like(mean)
        # The square of a deviation beyond 1e154 is infinite, and that of one below 1e-162 is 0.
        lost = ~xp.isfinite(var) | ((var < 1e-290) & (xp.abs(mean) < 1e-130))
        if xp.isdtype(x.dtype, "real floating") and bool(xp.any(lost)):
            largest = unit * 0.0
            for rows in blocks(n, 200):
                largest = xp.maximum(largest, xp.max(xp.abs(xp.astype(gather(x, rows, only), xp.float64)), axis=0))
            lost = lost & (largest > 0.0)
            if bool(xp.any(lost)):
                unit = xp.where(lost, largest, unit)
                mean, var = _mean_and_variance(x, xp, n, only, unit)
        # Rounding leaves a constant feature a deviation of about eps * mean: it counts as none.
        varies = var > (xp.finfo(xp.float64).eps * n * mean) ** 2
        inverse = xp.where(varies, 1.0 / xp.sqrt(xp.where(varies, var, 1.0)) / unit, 1.0)
        mean = mean * unit
    info = xp.finfo(xp.float64)
    good = (xp.abs(mean) <= info.max) & (inverse <= info.max) & (inverse >= info.smallest_normal)
    if not bool(xp.all(good)):
        first = int(xp.argmin(xp.astype(good, xp.int8)))
        raise NotFiniteError(f"features: feature {first} has mean {float(mean[first]):.3g} and standard deviation "
                             f"{1.0 / float(inverse[first]):.3g}, by which float64 cannot standardise it; rescale it")
    return mean, inverse


def _mean_and_variance(
    x: Array, xp: Any, n: int, only: Array | None, unit: Array | None = None
) -> tuple[Array, Array]:
    """Return each feature's mean and variance in ``unit``.

    In one pass and in float64, block by block, so that integers stay as they are and a file is read once: Chan, Golub
    and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1982.
    """
    mean = squares = 0.0
    for rows in blocks(n, 200):  # which stay in the processor's cache
        part = xp.astype(gather(x, rows, only), xp.float64)
        if unit is not None:
            part /= unit
        m = part.shape[0]
        total = ops_of(part).total
        centre = total(part) / m
        part -= centre
        part *= part
        off = centre - mean
        mean = mean + off * (m / rows.stop)
        squares = squares + total(part) + off**2 * (m * rows.start / rows.stop)
    return mean, squares / n


class Rows:
    """Rows of ``x`` as a network takes them; what is given is valid until the next call.

    It is written over what was given before: a fresh megabyte costs more in page faults than its arithmetic.

    Parameters
    ----------
    x : array of shape (n, features)
        The data, of any real dtype.
    size : int
        The most rows in one go.
    device : Device
        Where x is.
    dtype : str
        Dtype of the rows that are returned.
    scaling : tuple of array, optional
        Offset and scale per feature: rows are ``(x - offset) * scale``.
    """

    def __init__(
        self, x: Array, size: int, device: Device, dtype: str, scaling: tuple[Array, Array] | None = None
    ) -> None:
        self._buffer = device.empty((size, x.shape[1]), dtype)
        self._x, self._scaling = x, scaling and working_scaling(x, *scaling, self._buffer.dtype)
        self._beside: Array | None = None
        # Numbers of which the dtype would round away what is behind a large offset are standardised before.
        self._before = self._scaling is not None and not (
            represents_exactly(self._buffer, x) and self._scaling[0].dtype == self._buffer.dtype)
        self._views: dict[int, tuple[Array, ...]] = {}
        self._ops = ops_of(x)
        self._load = self._ops.gather(self._gather, x, self._scaling, self._buffer)

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def take(self, rows: Array, following: Array | None = None) -> Array:
        """Return rows by their indices; those of the next batch change nothing here."""
        return self._load(rows, self._of(rows.shape[0])[0])

    def slice(self, rows: slice) -> Array:
        """Return the rows of a slice."""
        return self._load(rows, self._of(len(range(self._x.shape[0])[rows]))[0])

    def _gather(self, rows: Any, room: Array) -> Array:
        """Load rows of x, by indices or a slice, into ``room``, converted and standardised: see ``Ops.gather``."""
        n = room.shape[0]
        if isinstance(rows, slice):
            x = self._x[rows, :]
        else:
            to = room
            if self._x.dtype != to.dtype:
                if self._beside is None:
                    self._beside = namespace(to).zeros_like(self._buffer, dtype=self._x.dtype)
                to = self._beside[:n, :]
            x = self._ops.take(self._x, rows, to)
        if self._scaling and self._before:
            x = Standardize().forward(x, *self._scaling)[0]
        if x is not room:
            self._ops.assign(room, x)
        if blocks := self._of(n)[1:]:
            many, offset, scale = blocks
            many -= offset
            many *= scale
        return room

    def _of(self, n: int) -> tuple[Array, ...]:
        """Return views for ``n`` rows: of the room, and to standardise, of several rows as one.

        Broadcasting a vector over few long rows takes NumPy two thirds of the time that it takes over many short ones.
        """
        if n not in self._views:
            room = self._buffer[:n, :]
            views = [room]
            if self._scaling and not self._before:
                xp, at_once = namespace(room), REPEATED if n % REPEATED == 0 else 1
                views += [xp.reshape(room, (n // at_once, -1), copy=False),
                          *(xp.tile(a, (at_once,)) for a in self._scaling)]
            self._views[n] = tuple(views)
        return self._views[n]
