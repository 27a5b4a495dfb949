"""Networks of all kinds of layers, which every format must carry."""

from __future__ import annotations

from typing import Any

from helpers import blobs

from xpnet import Network, Sequential, Trainer
from xpnet import mlp as make
from xpnet.backend import Device
from xpnet.nn.layers import BatchNorm, Layer, LeakyReLU, Linear, ReLU, Tanh

ARCHITECTURES: dict[str, Sequential] = {
    "linear": Sequential(6, [Linear(3)]),
    "plain": make(6, [5, 4], 3),
    "batch norm": make(6, [5, 4], 3, batch_norm=True),
    "everything": make(6, [5, 4], 3, batch_norm=True, dropout=0.3, standardize=True),
    "other activations": Sequential(6, [Linear(5), Tanh(), Linear(4), LeakyReLU(0.2), Linear(3)]),
    "batch norm first and last": Sequential(6, [BatchNorm(eps=1e-3), Linear(4), ReLU(), BatchNorm(0.5), Linear(3),
                                                BatchNorm()]),
}


class Square(Layer):
    """A layer that nobody else knows."""

    def forward(self, x: Any, *arrays: Any, train: bool = False, noise: Any = None) -> Any:
        """Return x squared."""
        return x * x, None, ()


def trained(architecture: Sequential, device: Device | None = None, dtype: str = "float32", **options: Any) -> Network:
    """Train a little, so that no array is at its initial value."""
    trainer = Trainer(architecture, batch_size=16, schedule=0.05, dtype=dtype, **options)
    trainer.fit(*blobs(device or Device(), 48), steps=9)
    return trainer.network
