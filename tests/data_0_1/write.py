"""What xpnet 0.1.0 left: this wrote the files beside it, for tests/test_moved.py. Run: python write.py DIRECTORY.

It was run before the modules moved into packages; run today, it writes the new names.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np

import xpnet


def make(seed: int = 0, l2: float = 0.01) -> xpnet.Trainer:
    """Return a small trainer; ``seed`` and ``l2`` are what the sweep varies."""
    network = xpnet.mlp(4, [5], 3, batch_norm=True, dropout=0.1, standardize=True)
    return xpnet.Trainer(network, optimizer=xpnet.Adam(), schedule=xpnet.CyclicLR(1e-3, 1e-2, 5), l2=l2, seed=seed,
                         batch_size=8)


def main() -> None:
    """Train for a few updates, and write everything that a run, a sweep and an estimator leave."""
    folder = Path(sys.argv[1])
    draw = np.random.default_rng(0)
    x = draw.normal(size=(40, 4)).astype(np.float32)
    y = x[:, :3].argmax(axis=1)
    trainer = make()
    trainer.callbacks = [xpnet.Checkpoints(folder / "run", keep=2)]
    trainer.fit(x, y, steps=10, validation=(x, y), evaluate_every=10)
    trainer.callbacks = []  # Checkpoints cannot be pickled
    network = trainer.network
    network.save(folder / "network.safetensors")
    network.to_npz(folder / "network.npz")
    found = xpnet.sweep(make, {"l2": [0.0, 0.1]}, x, y, validation=(x, y), steps=4, evaluate_every=2,
                        directory=folder / "sweep")
    for name in ("sweep.png", "curves.json", "table.csv", "table.json", "members.csv"):  # which name no class
        (folder / "sweep" / name).unlink()
    classifier = xpnet.MLPClassifier((5,), max_iter=2, random_state=0).fit(x, y)
    search = xpnet.GridSearch(xpnet.MLPClassifier((5,), max_iter=2, random_state=0), {"l2": [0.0, 0.1]}, cv=2)
    things = {
        "trainer": trainer, "network": network, "device": trainer.device, "history": trainer.history, "sweep": found,
        "classifier": classifier, "search": search.fit(x, y), "layers": network.architecture,
        "split": xpnet.datasets.Split(x[:2], y[:2]),
    }
    for name, thing in things.items():
        (folder / f"{name}.pickle").write_bytes(pickle.dumps(thing))
    np.savez(folder / "expected.npz", x=x, y=y, logits=network(x), rate=[row["lr"] for row in trainer.history.rows],
             classes=classifier.predict(x), best=found.network()(x))


if __name__ == "__main__":
    main()
