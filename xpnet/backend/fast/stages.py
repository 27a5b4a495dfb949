"""Stages: layers in a row that one call of a kernel computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..deferred import Stage, kind
from .pointers import address
from .tables import Block, Tables

__all__ = ["Chain", "fuse"]

_ORDER = ("Linear", "BatchNorm", "ReLU", "Dropout")  # within a block


def fuse(layers: Sequence[Any]) -> list[Any]:
    """Return layers with a ``Chain`` in place of those in a row that it computes.

    The first layer that has weights stays: it is the largest, and its matrix may take its gradient as it is formed.
    """
    found: list[Any] = []
    run: list[Any] = []
    waiting = True
    for layer in layers:
        name, before = kind(layer), kind(run[-1]) if run else ""
        if (waiting and layer.weights) or name not in _ORDER or (name == "Dropout" and before != "ReLU"):
            found += [*_chain(run), layer]
            run = []
        else:
            run.append(layer)
        waiting = waiting and not layer.weights
    return [*found, *_chain(run)]


def _chain(layers: list[Any]) -> list[Any]:
    return [Chain(layers)] if layers else []


class Chain(Stage):
    """Dense layers, batch norm, ReLU, and dropout after a ReLU, in any order and number."""

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__(layers)
        self._blocks, self._numbers = parse(layers)
        self._noisy = [i for i, block in enumerate(self._blocks) if "dropout" in block]
        self._least = max(layer.least_batch for layer in layers)
        self._tables: Tables | None = None

    def forward(self, x: Any, *arrays: Any, train: bool = False, noise: Sequence[Any] = ()) -> Any:
        """Do what ``Stage.forward`` does, for arrays of NumPy in float32 or float64 with at most one model axis."""
        tables = self._tables_for(x, arrays)
        if tables is None or (train and (x.shape[-2] < self._least or len(noise) != len(self._noisy))):
            return super().forward(x, *arrays, train=train, noise=noise)
        dtype, axes, models, n = tables.dtype, len(tables.models), (*tables.models, 1)[0], x.shape[-2]
        blocks, size, places = tables.layout(n)
        batch = np.ascontiguousarray(x.mT)
        batch = batch if x.ndim == 3 else batch[None]
        work, outputs = np.empty((models, size), dtype), np.empty((models, tables.sizes[-1][1], n), dtype)
        drawn = np.zeros((len(blocks), 2), np.int64)
        noises = [np.ascontiguousarray(u, dtype) for u in noise] if train else []  # the addresses are of these
        for i, u in zip(self._noisy, noises, strict=False):
            drawn[i] = address(u), 0 if u.ndim == 2 else u[0].size
        kernels, gemm = tables.kernels, tables.gemm
        kernels.forward(blocks, self._numbers, drawn, gemm, train, batch, work, outputs, 0, models)

        def pullback(dy: Any, into: Sequence[Any] | None = None) -> Any:
            if not train:
                return Stage.forward(self, x, *arrays)[1](dy)
            gradients, own = tables.receivers(into)
            d = np.ascontiguousarray(dy.mT)
            dx = np.empty((models, tables.width, n), dtype)
            spare = np.empty((models, 2, tables.width_at_most * n), dtype)
            kernels.backward(blocks, self._numbers, gemm, batch, work, outputs, d if axes else d[None], gradients, dx,
                             spare, 0, models)
            return (dx if axes else dx[0]).mT, own

        statistics = [work[:, place] if axes else work[0, place] for place in places] if train else []
        return (outputs if axes else outputs[0]).mT, pullback, tuple(statistics)

    def _tables_for(self, x: Any, arrays: tuple[Any, ...]) -> Tables | None:
        """Return the tables for a batch and arrays, or None if kernels do not take them."""
        if type(x) is not np.ndarray or x.dtype not in (np.float32, np.float64) or x.size == 0 or x.ndim > 3:
            return None
        first = "W" in self._blocks[0]
        models = x.shape[:-2] or (arrays[self._blocks[0]["W"]].shape[:-2] if first else ())
        tables, width = self._tables, x.shape[-1]
        if tables is None or not tables.same(arrays, models, width, x.dtype):
            tables = self._tables = Tables(self._blocks, arrays, models, width, x.dtype)
        return tables if tables.fits else None


def parse(layers: Sequence[Any]) -> tuple[list[Block], np.ndarray]:
    """Return the blocks of layers, and eps and the rate of each model for each block."""
    blocks: list[Block] = []
    numbers: list[list[Any]] = []
    owners: list[Block] = []
    before = len(_ORDER)
    for layer in layers:
        at = _ORDER.index(kind(layer))
        if at <= before:
            blocks.append({})
            numbers.append([0.0, 0.0])
        before = at
        owners.append(blocks[-1])
        if kind(layer) in ("ReLU", "Dropout"):
            blocks[-1][kind(layer).lower()] = 1
        numbers[-1] = [getattr(layer, "eps", numbers[-1][0]), getattr(layer, "rate", numbers[-1][1])]
    place = 0
    for names in ("parameters", "statistics"):  # a stage is given the parameters of all, then the statistics of all
        for layer, own in zip(layers, owners, strict=True):
            for name in getattr(layer, names):
                own[name] = place
                place += 1
    models = max(np.size(rate) for _, rate in numbers)
    return blocks, np.array([[eps, *np.broadcast_to(np.ravel(rate), models)] for eps, rate in numbers], float)
