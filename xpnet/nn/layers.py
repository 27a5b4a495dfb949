"""Layers: each is a function and its pullback. See ``Layer`` for what they have in common.

A new layer is a frozen dataclass with the members of ``Layer`` that differ, decorated with ``@layer``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..backend import (
    Array,
    Deferred,
    constant,
    is_complex,
    namespace,
    ops_of,
    real,
    represents_exactly,
    transposed,
)
from .initializers import He, Initializer
from .layer import LAYERS, Forward, Gradients, Layer, layer
from .per_model import as_python, check_range, integer, is_array, per_model, shown

__all__ = ["LAYERS", "BatchNorm", "Dropout", "Layer", "LeakyReLU", "Linear", "ReLU", "Standardize", "Tanh", "layer"]


def row(a: Array) -> Array:
    """Add the batch axis to a layer's vector: (*models, 1, k), or (k,), which broadcasts alike."""
    return a if a.ndim == 1 else a[..., None, :]


def own_shape(batch: Array, running: Array) -> Array:
    """Return a batch's statistic (..., 1, k) as (..., k), per model also where models share their input."""
    batch = batch[..., 0, :]
    return batch if batch.ndim >= running.ndim else namespace(batch).broadcast_to(batch, running.shape)


@layer(example={"out_width": 3})
@dataclass(frozen=True)
class Linear(Layer):
    """The dense layer ``x @ W + b``.

    Parameters
    ----------
    out_width : int
        Number of outputs.
    initializer : Initializer
        Standard deviation of the initial W; b starts at 0.
    """

    out_width: int
    initializer: Initializer = field(default_factory=He)
    parameters: ClassVar[tuple[str, ...]] = ("W", "b")
    weights: ClassVar[tuple[str, ...]] = ("W",)
    biases: ClassVar[tuple[str, ...]] = ("b",)

    def __post_init__(self) -> None:
        integer("Linear", "out_width", self.out_width)
        as_python(self)

    def shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of W (in, out) and b (out,)."""
        return {"W": (features, self.out_width), "b": (self.out_width,)}

    def initial(self, name: str) -> Any:
        """Return the initializer of W, 0 for b."""
        return self.initializer if name == "W" else 0.0

    def out_features(self, features: int) -> int:
        """Return the number of outputs."""
        return self.out_width

    def flops(self, features: int) -> int:
        """Return the operations of the product and of adding the bias."""
        return 2 * features * self.out_width

    def forward(self, x: Array, *arrays: Array, train: bool = False, noise: Array | None = None) -> Forward:
        """Return ``x @ W + b`` for x (..., n, in)."""
        (W, b), ops = arrays, ops_of(x)

        def pullback(dz: Array) -> Gradients:
            # Each is formed where it is wanted, in the gradient's buffer, say, or not at all.
            own = ops_of(dz)
            return Deferred(own.product, dz, transposed(W)), (Deferred(ops.gradient, x, dz), Deferred(own.total, dz))

        return ops.product(x, W) + row(b), pullback, ()


@layer
@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalisation: each feature to mean 0 and variance 1 over the batch, then ``gamma * x + beta``.

    Ioffe and Szegedy, "Batch normalization", ICML 2015, algorithms 1 and 2, with the biased variance in
    both; predictions use running statistics.

    Parameters
    ----------
    momentum : float
        The running statistics' share that stays at each update; the first batch sets them.
    eps : float
        Added to the variance.
    """

    momentum: float = 0.9
    eps: float = 1e-5
    parameters: ClassVar[tuple[str, ...]] = ("gamma", "beta")
    statistics: ClassVar[tuple[str, ...]] = ("mean", "var")
    positive: ClassVar[tuple[str, ...]] = ("var",)
    least_batch: ClassVar[int] = 2
    cancels_bias: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, value, below in (("momentum", self.momentum, 1.0), ("eps", self.eps, math.inf)):
            check_range("BatchNorm", name, value, below=below)
            if is_array(value):
                raise TypeError(f"BatchNorm: expected one {name} for all models, got {shown(value)}")

    def shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        """Return the shape (features,) of all four arrays."""
        return dict.fromkeys((*self.parameters, *self.statistics), (features,))

    def initial(self, name: str) -> Any:
        """Return 1 for gamma and var, 0 for beta and mean."""
        return 1.0 if name in ("gamma", "var") else 0.0

    def flops(self, features: int) -> int:
        """Return 3 for each feature: its mean, scale and beta."""
        return 3 * features

    def forward(self, x: Array, *arrays: Array, train: bool = False, noise: Array | None = None) -> Forward:
        """Normalise x (..., n, k) with the batch's statistics (train), else with the running ones."""
        gamma, beta, mean, var = arrays
        n = x.shape[-2]
        if train:
            if n < 2:
                raise ValueError(
                    "BatchNorm: expected at least 2 examples in a training batch, got 1: one example has no "
                    "variance, and the output would be beta whatever the input. Use a batch_size of at least 2, "
                    "or train=False to use the running statistics"
                )
            average = constant(x, (1, n), 1.0 / n)
            centre = average @ x
            centred = x - centre
            spread = average @ (centred * centred)
            statistics: tuple[Array, ...] = own_shape(centre, mean), own_shape(spread, var)
        else:
            centred, spread, statistics = x - row(mean), row(var), ()
        deviation = namespace(x).sqrt(spread + self.eps)
        scale = row(gamma) / deviation

        def pullback(dy: Array) -> Gradients:
            # With x_hat = centred / deviation:  dbeta = sum(dy),  dgamma = sum(dy x_hat),
            # dx = scale * (dy - mean(dy) - x_hat * mean(dy x_hat)).
            dbeta = ops_of(dy).total(dy)
            dgamma = constant(x, (1, n), 1.0) @ (dy * centred) / deviation
            if train:
                dy = dy - row(dbeta) * (1.0 / n)
                dy -= centred * (dgamma / deviation * (1.0 / n))
            return dy * scale, (dgamma[..., 0, :], dbeta)

        return centred * scale + row(beta), pullback, statistics


@layer
@dataclass(frozen=True)
class ReLU(Layer):
    """``max(x, 0)``; its derivative at 0 is taken as 0."""

    kinked: ClassVar[bool] = True

    def flops(self, features: int) -> int:
        """Return a comparison for each feature."""
        return features

    def forward(self, x: Array, *arrays: Array, train: bool = False, noise: Array | None = None) -> Forward:
        """Return ``max(x, 0)``, of the real part where x is complex."""
        xp = namespace(x)
        if is_complex(x):
            y = xp.where(xp.real(x) > 0, x, 0.0)
        else:
            y = xp.maximum(x, constant(x, x.shape, 0.0))

        def pullback(dy: Array) -> Gradients:
            return dy * xp.astype(real(y) > 0, dy.dtype), ()

        return y, pullback, ()


@layer(example={"slope": 0.2})
@dataclass(frozen=True)
class LeakyReLU(Layer):
    """``x`` where x is positive, else ``slope * x``; its derivative at 0 is taken as the slope.

    Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic models", ICML 2013, section 2.

    Parameters
    ----------
    slope : float or array
        The slope for negative x, of at least 0; a sequence gives one per model.
    """

    slope: Any = per_model(0.01)
    kinked: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range("LeakyReLU", "slope", self.slope)

    def flops(self, features: int) -> int:
        """Return a comparison and a product for each feature."""
        return 2 * features

    def forward(self, x: Array, *arrays: Array, train: bool = False, noise: Array | None = None) -> Forward:
        """Return ``x``, or ``slope * x`` where the real part of x is not positive."""
        positive = namespace(x).astype(real(x) > 0, x.dtype)
        factor = positive + (1.0 - positive) * self.slope

        def pullback(dy: Array) -> Gradients:
            return dy * factor, ()

        return x * factor, pullback, ()


@layer
@dataclass(frozen=True)
class Tanh(Layer):
    """``tanh(x)``, with the derivative ``1 - tanh(x)^2``."""

    def flops(self, features: int) -> int:
        """Return 1 for each feature."""
        return features

    def forward(self, x: Array, *arrays: Array, train: bool = False, noise: Array | None = None) -> Forward:
        """Return ``tanh(x)``."""
        y = namespace(x).tanh(x)

        def pullback(dy: Array) -> Gradients:
            return dy * (1.0 - y * y), ()

        return y, pullback, ()


@layer(example={"rate": 0.3})
@dataclass(frozen=True)
class Dropout(Layer):
    """Inverted dropout: zero each input with probability ``rate`` and divide the others by ``1 - rate``.

    Srivastava et al., "Dropout", JMLR 15, 2014, section 10 (scaling at training time). The uniform draws
    come in as ``noise``, so that the layer is a function.

    Parameters
    ----------
    rate : float or array
        The probability, in [0, 1); a sequence gives one per model, as an array (models, 1, 1) in ``forward``.
    """

    rate: Any = per_model(0.5)
    noisy: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range("Dropout", "rate", self.rate, below=1.0)

    def flops(self, features: int) -> int:
        """Return 0: predictions leave it out."""
        return 0

    def forward(self, x: Array, *arrays: Array, train: bool = False, noise: Array | None = None) -> Forward:
        """Drop inputs where ``noise`` (uniform in [0, 1), of x's shape or broadcasting to it) is below rate."""
        if not train:
            return x, lambda dy: (dy, ()), ()
        if noise is None:
            raise ValueError("Dropout: expected uniform draws (noise=) in training, got none")
        xp = namespace(x)
        mask = xp.astype(noise >= self.rate, x.dtype) / (1.0 - self.rate)

        def pullback(dy: Array) -> Gradients:
            return dy * mask, ()

        return x * mask, pullback, ()


@layer
@dataclass(frozen=True)
class Standardize(Layer):
    """``(x - offset) * scale`` per feature, from integers to the network's dtype.

    The training data's mean and 1 / standard deviation, set by ``Trainer.fit`` before the first update; a
    feature that does not vary gets scale 1. So a network takes raw pixels, and carries its own scaling. Both are kept
    in float64, and what they are applied to is rounded to the network's dtype afterwards.
    """

    statistics: ClassVar[tuple[str, ...]] = ("offset", "scale")
    scales_input: ClassVar[bool] = True

    def shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        """Return the shape (features,) of both arrays."""
        return dict.fromkeys(self.statistics, (features,))

    def initial(self, name: str) -> Any:
        """Return 0 for the offset, 1 for the scale."""
        return 0.0 if name == "offset" else 1.0

    def flops(self, features: int) -> int:
        """Return 2 for each feature: its offset and scale."""
        return 2 * features

    def forward(self, x: Array, *arrays: Array, train: bool = False, noise: Array | None = None) -> Forward:
        """Standardise x (..., n, k) of any real dtype, in the dtype of the offset or in float64 if x needs it."""
        offset, scale = map(row, arrays)
        xp = namespace(x)
        if not (is_complex(x) or x.dtype == offset.dtype):
            x = xp.astype(x, offset.dtype if represents_exactly(offset, x) else xp.float64)

        def pullback(dy: Array) -> Gradients:
            return dy * scale, ()

        return (x - offset) * scale, pullback, ()
