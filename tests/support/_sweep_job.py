"""A sweep that takes a few seconds, to be killed: ``python _sweep_job.py DIRECTORY WORKERS [DASK ADDRESS]``."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import xpnet


def make(l2: float, seed: int, sigma: float) -> xpnet.Trainer:
    network = xpnet.mlp(40, [60, 30], 3, batch_norm=True, initializer=xpnet.Normal(sigma))
    return xpnet.Trainer(network, l2=l2, seed=seed, schedule=0.05, batch_size=50)


def run(directory: str, **options: Any) -> xpnet.Sweep:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(1000, 40)).astype(np.float32)
    y = (x[:, :3] + draw.normal(size=(1000, 3))).argmax(axis=1)
    space = {"l2": [1e-4, 1e-3, 1e-2], "seed": [0, 1], "sigma": [0.1, 0.01]}
    return xpnet.sweep(make, space, x[:800], y[:800], validation=(x[800:], y[800:]), steps=900, evaluate_every=300,
                       block_size=2, directory=directory, **options)


if __name__ == "__main__":
    executor = None
    if len(sys.argv) > 3:
        from distributed import Client

        executor = Client(sys.argv[3])
    run(sys.argv[1], workers=int(sys.argv[2]), executor=executor)
