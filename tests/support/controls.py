"""Runs that are stopped and gone on with, and each item of their state left out in turn: what a comparison must see.

For tests and for docs/robustness.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from helpers import assert_same, blobs

from xpnet import Adam, BestWeights, Constant, CyclicLR, EarlyStopping, Trainer, mlp
from xpnet.backend import Device, to_numpy
from xpnet.datasets.admission import NotFiniteError
from xpnet.nn.formats.safetensors import CheckpointError
from xpnet.training import snapshot
from xpnet.training.callbacks import Callback
from xpnet.training.checkpoints import Checkpoints
from xpnet.training.snapshot import Snapshot

RICH = mlp(6, [8, 5], 3, batch_norm=True, dropout=0.2, standardize=True)
PLAIN = mlp(6, [8, 5], 3)
_NOW: list[Trainer] = []


def spikes(step: int) -> float:
    """Return a rate that makes the run diverge at update 12, and, once halved, at update 18."""
    halved = len(_NOW[-1].halvings)
    return 1e30 if (step == 12 and not halved) or (step == 18 and halved < 2) else 0.01


class Scenario(NamedTuple):
    """A run: what makes its trainer, and after which update it is stopped."""

    options: Callable[[], dict[str, Any]]
    stop: int
    steps: int = 60
    network: Any = PLAIN


SCENARIOS = {
    "in the middle of an epoch": Scenario(lambda: {
        "optimizer": Adam(), "schedule": CyclicLR(1e-3, 0.1, 7),
        "callbacks": [EarlyStopping(mode="max", patience=5), BestWeights(mode="max", restore=False)],
    }, 23, network=RICH),
    "several models, one of which diverges": Scenario(lambda: {
        "schedule": Constant(np.asarray([0.01, 1e20, 0.02])), "divergence": "freeze"}, 7),
    "several models, one of which has diverged": Scenario(lambda: {
        "schedule": Constant(np.asarray([0.01, 1e20, 0.02])), "divergence": "freeze"}, 23),
    "a rate that was halved": Scenario(lambda: {"schedule": spikes, "divergence": "halve"}, 15),
    "ended by early stopping": Scenario(lambda: {
        "schedule": 0.5, "callbacks": [EarlyStopping(mode="max", patience=3)]}, 1000),
}


class StopAt(Callback):
    """Asks the trainer to stop after an update."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_begin(self, trainer: Trainer, steps: int) -> None:
        """Watch its updates; after the way back from a divergence only, where there is one."""
        update = trainer.update

        def ignore_overflow(*arguments: Any) -> Any:
            if trainer.step + 1 == self.at and (trainer.divergence != "halve" or trainer.halvings):
                trainer.stop()
            return update(*arguments)

        trainer.update = ignore_overflow  # type: ignore[method-assign]


def make(name: str, run: Path | None, stop: int | None = None) -> Trainer:
    """Return a scenario's trainer, with checkpoints in ``run``."""
    scenario = SCENARIOS[name]
    options = scenario.options()
    callbacks = [*options.pop("callbacks", []), *([StopAt(stop)] if stop else []),
                 *([Checkpoints(run, mode="max")] if run else [])]
    trainer = Trainer(scenario.network, batch_size=16, callbacks=callbacks, **options)
    _NOW[:] = [trainer]
    return trainer


def fit(trainer: Trainer, name: str) -> None:
    """Train as the scenario says, on 120 examples in 8 batches."""
    x, y = blobs(Device(), 120, spread=2.0)
    trainer.fit(x, y, steps=SCENARIOS[name].steps, validation=(x[:40], y[:40]), evaluate_every=10)


def outcome(trainer: Trainer) -> dict[str, Any]:
    """Return everything that a run is when it ends."""
    x, _ = blobs(Device(), 120, spread=2.0)
    try:
        predictions = to_numpy(trainer.network.predict_proba(x))
    except NotFiniteError:  # of a run that lacked an item of its state
        predictions = np.empty(0)
    return {
        "step": trainer.step, "rows": trainer.history.rows, "batch_loss": trainer.history.batch_loss,
        "diverged": _text(str(trainer.diverged)), "causes": _text(str(trainer.causes)),
        "halvings": _text(str(trainer.halvings)),
        "arrays": {name: to_numpy(a).copy() for name, a in trainer.state().items()}, "predictions": predictions,
        "callbacks": [_text(f"{type(c)} {c.state()}") for c in trainer.callbacks if c.state()],
        "callbacks' arrays": [{name: to_numpy(a) for name, a in c.arrays.items()} for c in trainer.callbacks
                              if c.arrays],
    }


def _text(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def undisturbed(name: str, run: Path) -> dict[str, Any]:
    """Return the outcome of a scenario that nothing stops."""
    trainer = make(name, run)
    fit(trainer, name)
    return outcome(trainer)


def interrupted(name: str, run: Path) -> None:
    """Begin a scenario and stop it where it says."""
    fit(make(name, run, SCENARIOS[name].stop), name)


def resumed(name: str, run: Path, drop: Callable[[Snapshot], Snapshot] | None = None) -> dict[str, Any]:
    """Go on with an interrupted scenario, leaving an item of its state out, and give the outcome."""
    trainer, read = make(name, run), snapshot.read
    if drop:
        snapshot.read = lambda path: drop(read(path))
    try:
        trainer.resume(run)
    finally:
        snapshot.read = read
    fit(trainer, name)
    return outcome(trainer)


def compare(name: str, expected: dict[str, Any], run: Path, drop: Callable[[Snapshot], Snapshot] | None = None) -> str:
    """Go on with a run and compare it bit for bit: the first difference, or nothing."""
    try:
        assert_same(resumed(name, run, drop), expected)
    except AssertionError as error:
        return str(error).split(" at most")[0]
    except CheckpointError as error:
        return f"refused: {error}"
    return ""


# Items left out ---------------------------------------------------------------------------------------------------


def arrays(*prefixes: str) -> Callable[[Snapshot], Snapshot]:
    """Return a function that puts arrays back to what a run begins with."""
    def drop(found: Snapshot) -> Snapshot:
        fresh = make("in the middle of an epoch", None)
        x, y = blobs(Device(), 120, spread=2.0)
        fresh.fit(x, y, steps=0, validation=(x, y))
        changed = {}
        for name, a in fresh.state().items():
            if name.startswith(prefixes) and f"state/{name}" in found.arrays:
                changed[f"state/{name}"] = to_numpy(a).copy() if name[:5] not in ("offse", "scale") else (
                    np.full(a.shape, float(name.startswith("scale")), a.dtype))
        assert changed
        return found._replace(arrays={**found.arrays, **changed})

    return drop


def without(*prefixes: str) -> Callable[[Snapshot], Snapshot]:
    """Return a function that removes arrays."""
    def drop(found: Snapshot) -> Snapshot:
        kept = {name: a for name, a in found.arrays.items() if not name.startswith(prefixes)}
        assert len(kept) < len(found.arrays)
        return found._replace(arrays=kept)

    return drop


def told(**changes: Any) -> Callable[[Snapshot], Snapshot]:
    """Return a function that changes what is told in JSON."""
    def drop(found: Snapshot) -> Snapshot:
        assert any(found.told[name] != value for name, value in changes.items())
        return found._replace(told={**found.told, **changes})

    return drop


def forgetful(kind: str, keys: tuple[str, ...]) -> Callable[[Snapshot], Snapshot]:
    """Return a function that empties entries of a callback's state."""
    def drop(found: Snapshot) -> Snapshot:
        callbacks = [{**entry, "state": {k: [] if k in keys else v for k, v in entry["state"].items()}}
                     if entry["type"] == kind else entry for entry in found.told["callbacks"]]
        assert callbacks != found.told["callbacks"]
        return found._replace(told={**found.told, "callbacks": callbacks})

    return drop


_EPOCH, _DIVERGES, _DIVERGED, _HALVED, _STOPPED = SCENARIOS
#: From an item of the state to the scenario in which it matters, and what leaves it out.
CONTROLS: dict[str, tuple[str, Callable[[Snapshot], Snapshot]]] = {
    "weights": (_EPOCH, arrays("W")), "biases": (_EPOCH, arrays("b1", "b2", "b3")),
    "batch norm's gamma": (_EPOCH, arrays("gamma")), "batch norm's beta": (_EPOCH, arrays("beta")),
    "running means": (_EPOCH, arrays("mean")), "running variances": (_EPOCH, arrays("var")),
    "the input's offset": (_EPOCH, arrays("offset")), "the input's scale": (_EPOCH, arrays("scale")),
    "Adam's first moment": (_EPOCH, arrays("m.")), "Adam's second moment": (_EPOCH, arrays("v.")),
    "the count of updates (the schedule's and Adam's, the epoch, the batch, the random draws)": (
        _EPOCH, lambda found: found._replace(step=24)),
    "the history's rows": (_EPOCH, lambda found: found._replace(rows=found.rows[:-1])),
    "the losses of updates": (_EPOCH, lambda found: found._replace(batch_loss=[])),
    "early stopping's best value": (_EPOCH, forgetful("EarlyStopping", ("best",))),
    "early stopping's patience used up": (_EPOCH, forgetful("EarlyStopping", ("wait",))),
    "the best weights": (_EPOCH, without("callback/")),
    "the best weights' value": (_EPOCH, forgetful("BestWeights", ("best",))),
    "the best checkpoint": (_EPOCH, forgetful("Checkpoints", ("best",))),
    "losses not looked at yet": (_DIVERGES, told(unseen=0)),
    "the last finite state of several models": (_DIVERGES, without("kept/")),
    "which models are frozen": (_DIVERGED, told(diverged=[])),
    "how often the rate was halved": (_HALVED, told(halvings=[])),
    "the state to go back to": (_HALVED, without("kept/")),
    "the update to go back to": (_HALVED, told(kept_step=15)),
    "that a callback ended the run": (_STOPPED, told(stopped=False)),
}
