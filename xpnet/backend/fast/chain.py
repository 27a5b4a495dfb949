"""Kernels of a run of layers: small products, bias, batch norm, ReLU and dropout, forward and backward in one call.

A run is a list of blocks. A block is a product with W, or none, then each of bias, batch norm, ReLU and dropout, or
not, in this order. A batch is (features, n) in C order, last in memory as ``product`` leaves it. Arrays are passed as
addresses and strides of their model axis in ``tables``: a call takes time for each array that it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from .jit import OPTIONS
from .pointers import at
from .products import gradient, multiply, multiply_back

__all__ = ["ARRAYS", "COLUMNS", "SIGNATURES"]

#: Columns of a table of blocks, and after them the address and the stride of each of ``ARRAYS``. ``y``, ``centred`` and
#: ``vectors`` are places in the memory of a pass, where blocks leave what the way back needs.
COLUMNS = ("width", "features", "relu", "dropout", "y", "centred", "vectors")
ARRAYS = ("W", "b", "gamma", "beta", "mean", "var")
_WIDTH, _FEATURES, _RELU, _DROPOUT, _Y, _CENTRED, _VECTORS = range(len(COLUMNS))
_W, _B, _GAMMA, _BETA, _MEAN, _VAR = range(len(COLUMNS), len(COLUMNS) + 2 * len(ARRAYS), 2)


@numba.njit(**OPTIONS)
def _vector(block: Any, array: int, model: int, n: int, like: Any) -> Any:
    """Return a model's part of an array, as a vector; nobody may read it if its address is 0."""
    return at(block[array], model * block[array + 1], (n,), like)


@numba.njit(**OPTIONS)
def _matrix(block: Any, array: int, model: int, like: Any) -> Any:
    return at(block[array], model * block[array + 1], (block[_WIDTH], block[_FEATURES]), like)


@numba.njit(**OPTIONS)
def _output(blocks: Any, j: int, own: Any, outputs: Any) -> Any:
    """Return the output of a block of one model."""
    if j == blocks.shape[0] - 1:
        return outputs
    features, n, place = blocks[j, _FEATURES], outputs.shape[1], blocks[j, _Y]
    return own[place : place + features * n].reshape((features, n))


@numba.njit(**OPTIONS)
def _normalize(x: Any, b: Any, gamma: Any, beta: Any, eps: Any, low: Any, centred: Any, y: Any, vectors: Any) -> None:
    """Write bias, batch norm and ReLU of ``x`` to ``y``, which may be x itself; ``low`` is the ReLU's 0, or -inf."""
    features, n = y.shape
    zero, share = y.dtype.type(0.0), y.dtype.type(1.0 / n)
    for k in range(features):
        row, out, deviations = x[k], y[k], centred[k]
        bias, total, squares = b[k] if b.size else zero, zero, zero
        for i in range(n):
            total += row[i] + bias
        mean = total * share
        for i in range(n):
            d = (row[i] + bias) - mean
            deviations[i] = d
            squares += d * d
        var = squares * share
        deviation = np.sqrt(var + eps)
        vectors[0, k], vectors[1, k], vectors[2, k] = mean, var, deviation
        scale, shift = gamma[k] / deviation, beta[k]
        for i in range(n):
            v = deviations[i] * scale + shift
            out[i] = low if v < low else v  # NaN stays


@numba.njit(**OPTIONS)
def _scale(x: Any, b: Any, gamma: Any, beta: Any, mean: Any, var: Any, eps: Any, low: Any, y: Any) -> None:
    """Write bias, batch norm with running statistics, if any, and ReLU of ``x`` to ``y``, which may be x itself."""
    features, n = y.shape
    zero, one = y.dtype.type(0.0), y.dtype.type(1.0)
    for k in range(features):
        row, out = x[k], y[k]
        bias, centre, scale, shift = b[k] if b.size else zero, zero, one, zero
        if gamma.size:
            centre, scale, shift = mean[k], gamma[k] / np.sqrt(var[k] + eps), beta[k]
        for i in range(n):
            v = ((row[i] + bias) - centre) * scale + shift
            out[i] = low if v < low else v


@numba.njit(**OPTIONS)
def _add(x: Any, b: Any, low: Any, y: Any) -> None:
    features, n = y.shape
    for k in range(features):
        row, out, bias = x[k], y[k], b[k] if b.size else y.dtype.type(0.0)
        for i in range(n):
            v = row[i] + bias
            out[i] = low if v < low else v


@numba.njit(**OPTIONS)
def _normalize_back(
    dy: Any, y: Any, centred: Any, vectors: Any, gamma: Any, relu: bool, kept: Any, dx: Any, dgamma: Any, dbeta: Any
) -> None:
    """Write the gradients with respect to the input, to ``dx``, and to gamma and beta."""
    features, n = y.shape
    zero, share = y.dtype.type(0.0), y.dtype.type(1.0 / n)
    for k in range(features):
        dout, d, out, deviations, deviation = dy[k], dx[k], y[k], centred[k], vectors[2, k]
        total, along = zero, zero
        if relu:
            for i in range(n):
                v = dout[i] * (kept if out[i] > zero else zero)
                d[i] = v
                total += v
                along += v * deviations[i]
        else:
            for i in range(n):
                v = dout[i]
                d[i] = v
                total += v
                along += v * deviations[i]
        along /= deviation
        if dgamma.size:
            dgamma[k] = along
        if dbeta.size:
            dbeta[k] = total
        scale, mean, slope = gamma[k] / deviation, total * share, along / deviation * share
        for i in range(n):
            d[i] = (d[i] - mean - deviations[i] * slope) * scale


@numba.njit(**OPTIONS)
def _drop(noise: Any, rate: float, y: Any) -> None:
    features, n = y.shape
    below, kept, zero = y.dtype.type(rate), y.dtype.type(1.0) / y.dtype.type(1.0 - rate), y.dtype.type(0.0)
    for k in range(features):
        out = y[k]
        for i in range(n):
            out[i] *= kept if noise[i, k] >= below else zero


def forward(
    blocks: Any, numbers: Any, noises: Any, gemm: int, train: bool, x: Any, work: Any, outputs: Any, first: int,
    last: int,
) -> None:
    """Pass a batch ``x`` (models or 1, features, n) through the blocks, for models from first to before last.

    ``numbers`` has eps and the rate of each model for each block; ``noises`` the addresses and strides of the uniform
    draws (n, features); ``work`` (models, room) takes what the blocks compute, but for ``outputs``.
    """
    n, zero = x.shape[2], work.dtype.type(0.0)
    none = x[0, 0, :0]
    for m in range(first, last):
        own, source = work[m], x[m if x.shape[0] > 1 else 0]
        for j in range(blocks.shape[0]):
            block = blocks[j]
            features = block[_FEATURES]
            y = _output(blocks, j, own, outputs[m])
            if block[_W]:
                multiply(gemm, _matrix(block, _W, m, work), source, y, own[:n])
                source = y
            b = _vector(block, _B, m, features, work) if block[_B] else none
            low = zero if block[_RELU] else work.dtype.type(-np.inf)
            eps = work.dtype.type(numbers[j, 0])
            if not block[_GAMMA]:
                _add(source, b, low, y)
            else:
                gamma, beta = _vector(block, _GAMMA, m, features, work), _vector(block, _BETA, m, features, work)
                if train:
                    centred = own[block[_CENTRED] : block[_CENTRED] + features * n].reshape((features, n))
                    vectors = own[block[_VECTORS] : block[_VECTORS] + 3 * features].reshape((3, features))
                    _normalize(source, b, gamma, beta, eps, low, centred, y, vectors)
                else:
                    mean, var = _vector(block, _MEAN, m, features, work), _vector(block, _VAR, m, features, work)
                    _scale(source, b, gamma, beta, mean, var, eps, low, y)
            if train and block[_DROPOUT]:
                noise = at(noises[j, 0], m * noises[j, 1], (n, features), work)
                _drop(noise, numbers[j, 1 + m % (numbers.shape[1] - 1)], y)
            source = y


def backward(
    blocks: Any, numbers: Any, gemm: int, x: Any, work: Any, outputs: Any, dy: Any, gradients: Any, dx: Any,
    spare: Any, first: int, last: int,
) -> None:
    """Pass the gradient ``dy`` of the output back through the blocks, after a training pass.

    ``gradients`` has addresses and strides like those of ``blocks``, 0 for what nobody wants; ``dx`` takes the gradient
    with respect to x, and ``spare`` (models, 2, room) what is in between.
    """
    n, zero = x.shape[2], work.dtype.type(0.0)
    none = x[0, 0, :0]
    for m in range(first, last):
        own, d = work[m], dy[m]
        turn = 0
        for j in range(blocks.shape[0] - 1, -1, -1):
            block, to = blocks[j], gradients[j]
            features = block[_FEATURES]
            y = _output(blocks, j, own, outputs[m])
            kept = work.dtype.type(1.0)
            if block[_DROPOUT]:
                kept /= work.dtype.type(1.0 - numbers[j, 1 + m % (numbers.shape[1] - 1)])
            if block[_GAMMA] or block[_RELU]:
                out = dx[m]
                if j or block[_W]:
                    out = spare[m, turn, : features * n].reshape((features, n))
                    turn = 1 - turn
                if block[_GAMMA]:
                    centred = own[block[_CENTRED] : block[_CENTRED] + features * n].reshape((features, n))
                    vectors = own[block[_VECTORS] : block[_VECTORS] + 3 * features].reshape((3, features))
                    _normalize_back(
                        d, y, centred, vectors, _vector(block, _GAMMA, m, features, work), block[_RELU] != 0, kept, out,
                        _vector(to, _GAMMA, m, features, work) if to[_GAMMA] else none,
                        _vector(to, _BETA, m, features, work) if to[_BETA] else none)
                else:
                    for k in range(features):
                        given, a, row = y[k], d[k], out[k]
                        for i in range(n):
                            row[i] = a[i] * (kept if given[i] > zero else zero)
                d = out
            if to[_B]:
                db = _vector(to, _B, m, features, work)
                for k in range(features):
                    total, a = zero, d[k]
                    for i in range(n):
                        total += a[i]
                    db[k] = total
            if block[_W]:
                wide = block[_WIDTH]
                source = _output(blocks, j - 1, own, outputs[m]) if j else x[m if x.shape[0] > 1 else 0]
                if to[_W]:
                    gradient(gemm, source, d, _matrix(to, _W, m, work))
                out = dx[m]
                if j:
                    out = spare[m, turn, : wide * n].reshape((wide, n))
                    turn = 1 - turn
                multiply_back(gemm, _matrix(block, _W, m, work), d, out, own[:n])
                d = out


SIGNATURES: dict[Callable[..., Any], str] = {
    forward: "void(int64[:,::1], float64[:,::1], int64[:,::1], int64, boolean, T[:,:,::1], T[:,::1], T[:,:,::1], "
             "int64, int64)",
    backward: "void(int64[:,::1], float64[:,::1], int64, T[:,:,::1], T[:,::1], T[:,:,::1], T[:,:,::1], "
              "int64[:,::1], T[:,:,::1], T[:,:,::1], int64, int64)",
}
