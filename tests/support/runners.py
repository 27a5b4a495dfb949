"""Runs with checkpoints that several tests make, stop, and go on with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers import blobs

from xpnet import Callback, CyclicLR, Trainer, mlp
from xpnet.backend import Device, to_numpy
from xpnet.training.checkpoints import Checkpoints

RICH = mlp(6, [8, 5], 3, batch_norm=True, dropout=0.2, standardize=True)


def make(run: Path | None = None, **options: Any) -> Trainer:
    """Return a trainer that writes checkpoints to ``run``."""
    callbacks = [*options.pop("callbacks", []), *([Checkpoints(run, **options.pop("writing", {}))] if run else [])]
    return Trainer(options.pop("network", RICH), **{
        "batch_size": 16, "schedule": CyclicLR(1e-3, 0.05, 7), "callbacks": callbacks, **options})


def fit(trainer: Trainer, steps: int = 40, device: Device | None = None, **options: Any) -> Trainer:
    """Train on 120 examples, with an evaluation at every tenth update."""
    x, y = blobs(device or Device(), 120)
    trainer.fit(x, y, **{"steps": steps, "validation": (x[:40, :], y[:40]), "evaluate_every": 10, **options})
    return trainer


def stopped(trainer: Trainer, at: int, device: Device | None = None, **options: Any) -> Trainer:
    """Train, and stop after update ``at``, between two evaluations."""
    update = trainer.update

    def ignore_overflow(*arguments: Any) -> Any:
        if trainer.step + 1 == at:
            trainer.stop()
        return update(*arguments)

    trainer.update = ignore_overflow  # type: ignore[method-assign]
    fit(trainer, device=device, **options)
    assert trainer.step == at
    return trainer


def result(trainer: Trainer) -> dict[str, Any]:
    """Return what a run came to, on the host."""
    return {"rows": trainer.history.rows, "batch_loss": trainer.history.batch_loss,
            **{name: to_numpy(a) for name, a in trainer.state().items()}}


class Break(Callback):
    """Calls a function at an evaluation."""

    def __init__(self, at: int, function: Callable[[], Any]) -> None:
        self.at, self.function = at, function

    def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
        if trainer.step == self.at:
            trainer.callbacks[-1]._wait()  # type: ignore[attr-defined]
            self.function()
        return None
