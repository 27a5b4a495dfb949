"""The tables that kernels of a run of layers read: see ``chain``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..blas import gemm_address
from . import chain
from .jit import compiled
from .pointers import address

__all__ = ["Tables"]

LARGE = 64 * 64  # numbers in a matrix above which a product without BLAS is slower than NumPy
Block = dict[str, int]  # where its arrays are among those that a stage is given; 1 for "relu" and "dropout"


class Tables:
    """Addresses and sizes for arrays that stay where they are; ``fits`` is False if kernels do not take them.

    Parameters
    ----------
    blocks : sequence of Block
        The blocks.
    arrays : tuple of array
        Parameters and running statistics. Addresses in the tables are theirs.
    models : tuple of int
        The model axis.
    width : int
        Features of the input.
    dtype : numpy.dtype
        The dtype of all arrays.
    """

    def __init__(
        self, blocks: Sequence[Block], arrays: tuple[Any, ...], models: tuple[int, ...], width: int, dtype: Any
    ) -> None:
        self.arrays: tuple[Any, ...] = arrays
        self.models: tuple[int, ...] = models
        self.width: int = width
        self.dtype: Any = dtype
        self._blocks, self._layouts = blocks, dict[int, tuple[np.ndarray, int, list[slice]]]()
        self._receivers: tuple[list[Any], np.ndarray] | None = None
        self.gemm: int = gemm_address(dtype)
        self._names = {place: name for own in blocks for name, place in own.items() if name in chain.ARRAYS}
        self._shapes: dict[int, tuple[int, ...]] = {}
        self.sizes: list[tuple[int, int]] = []  # each block's width and features
        for own in blocks:
            features = width
            if "W" in own:
                features = arrays[own["W"]].shape[-1]
                self._shapes[own["W"]] = width, features
            self._shapes |= {place: (features,) for name, place in own.items() if name in chain.ARRAYS[1:]}
            self.sizes.append((width, features))
            width = features
        self.fits: bool = all(map(self._takes, range(len(arrays)), arrays)) and (
            bool(self.gemm) or all(np.prod(shape) <= LARGE for shape in self._shapes.values()))
        if self.fits:
            self._table = self._addresses(arrays)
            self.kernels: Any = compiled(chain.SIGNATURES, T=dtype.name)
        self.width_at_most: int = max(max(pair) for pair in self.sizes)

    def _takes(self, place: int, array: Any) -> bool:
        shape = self._shapes[place]
        if type(array) is not np.ndarray or array.size == 0:
            return False
        inner = (array.itemsize,) if len(shape) == 1 else (array.itemsize * shape[1], array.itemsize)
        return (
            array.dtype == self.dtype and array.shape == (*self.models, *shape) and array.flags.aligned
            and array.strides[-len(shape) :] == inner
        )

    def _addresses(self, arrays: Sequence[Any]) -> np.ndarray:
        """Return a table with the addresses and strides of arrays, 0 for None."""
        table = np.zeros((len(self._blocks), len(chain.COLUMNS) + 2 * len(chain.ARRAYS)), np.int64)
        for row, own, sizes in zip(table, self._blocks, self.sizes, strict=True):
            row[:2] = sizes
            row[2], row[3] = own.get("relu", 0), own.get("dropout", 0)
            for name, place in own.items():
                array = arrays[place] if name in chain.ARRAYS and place < len(arrays) else None
                if array is not None:
                    at = len(chain.COLUMNS) + 2 * chain.ARRAYS.index(name)
                    row[at] = address(array)
                    row[at + 1] = array.strides[0] // array.itemsize if self.models else 0
        return table

    def same(self, arrays: tuple[Any, ...], models: tuple[int, ...], width: int, dtype: Any) -> bool:
        """Return whether the tables are for these."""
        return (
            models == self.models and width == self.width and dtype == self.dtype
            and all(a is b for a, b in zip(arrays, self.arrays, strict=True))
        )

    def layout(self, n: int) -> tuple[np.ndarray, int, list[slice]]:
        """Return the table for batches of ``n``, the numbers in a model's pass, and where its statistics are."""
        if n not in self._layouts:
            if len(self._layouts) > 8:
                self._layouts.clear()
            table, size, statistics = self._table.copy(), n, []
            for row, own, (_, features) in zip(table, self._blocks, self.sizes, strict=True):
                row[4], size = size, size + features * n
                if "gamma" in own:
                    row[5], row[6] = size, size + features * n
                    size += features * n + 3 * features
                    statistics += [slice(row[6], row[6] + features), slice(row[6] + features, row[6] + 2 * features)]
            self._layouts[n] = table, size, statistics
        return self._layouts[n]

    def receivers(self, into: Sequence[Any] | None) -> tuple[np.ndarray, list[Any]]:
        """Return the table of the arrays that receive gradients, and these.

        Parameters
        ----------
        into : sequence of array, optional
            An array for each parameter, or None if nobody wants its gradient. What kernels cannot write to is replaced.
        """
        last = self._receivers
        if into is not None and last is not None and all(a is b for a, b in zip(into, last[0], strict=True)):
            return last[1], last[0]
        count = sum(1 for name in self._names.values() if name not in ("mean", "var"))
        given = [None] * count if into is None else into
        arrays = [a if (a is None and into is not None) or self._takes(i, a)
                  else np.empty((*self.models, *self._shapes[i]), self.dtype) for i, a in enumerate(given)]
        found = arrays, self._addresses(arrays)
        if into is not None and all(a is b for a, b in zip(into, arrays, strict=True)):
            self._receivers = found
        return found[1], arrays
