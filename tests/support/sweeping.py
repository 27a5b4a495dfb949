"""Small sweeps that several tests make."""

from __future__ import annotations

from typing import Any

from helpers import blobs

from xpnet import CyclicLR, Normal, Trainer, mlp
from xpnet.backend import Device, to_numpy


def make(
    seed: int = 0, l2: float = 0.005, hidden: Any = (8, 5), sigma: float | None = None, rate: float = 0.05,
    dropout: float = 0.0, batch_norm: bool = True, optimizer: Any = None, dtype: str = "float64", batch_size: int = 25,
    order_seed: int | None = None,
) -> Trainer:
    network = mlp(6, hidden, 3, batch_norm=batch_norm, dropout=dropout, standardize=True,
                  initializer=None if sigma is None else Normal(sigma))
    return Trainer(network, optimizer=optimizer, schedule=CyclicLR(1e-5, rate, 40), l2=l2, seed=seed, dtype=dtype,
                   batch_size=batch_size, order_seed=order_seed)


def data(device: Device | None = None, dtype: str = "float64") -> dict[str, Any]:
    x, y = blobs(device or Device(), 120, spread=2.0, dtype=dtype)
    return {"x": x[:90, :], "y": y[:90], "validation": (x[90:, :], y[90:])}


def same(a: Any, b: Any, limit: float) -> None:
    """See that two runs measured the same, relative to the largest value."""
    a, b = to_numpy(a), to_numpy(b)
    assert abs(a - b).max() <= limit * max(abs(b).max(), 1e-300)
