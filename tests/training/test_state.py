"""The state of a run as one value: through a checkpoint's files, into other arrays, back, and out of old pickles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same, blobs

from xpnet import SGD, Adam, Constant, DivergenceError, Trainer, mlp
from xpnet.backend import Device, to_numpy
from xpnet.files.storage import write_directory
from xpnet.training import snapshot
from xpnet.training.state import RunState

NETWORK = mlp(6, [8, 5], 3, batch_norm=True, standardize=True)
OPTIONS: dict[str, dict[str, Any]] = {
    "one": {"optimizer": Adam()},
    "float64": {"optimizer": SGD(0.9), "dtype": "float64"},
    "several, one frozen": {"schedule": Constant(np.asarray([0.01, 1e20, 0.02])), "divergence": "freeze"},
}


def trained(name: str, device: Device, steps: int = 17) -> Trainer:
    """Return a trainer that was stopped between two evaluations."""
    trainer = Trainer(NETWORK, batch_size=16, **OPTIONS[name])
    update = trainer.update

    def ignore_overflow(*arguments: Any) -> Any:
        if trainer.step + 1 == steps:
            trainer.stop()
        return update(*arguments)

    trainer.update = ignore_overflow  # type: ignore[method-assign]
    trainer.fit(*blobs(device), steps=40, evaluate_every=10)
    del trainer.update
    return trainer


def values(state: RunState) -> dict[str, Any]:
    """Return the fields of a state as what ``assert_same`` compares."""
    texts = {name: np.frombuffer(str(getattr(state, name)).encode(), np.uint8) for name in (
        "step", "finite_step", "diverged", "causes", "halvings", "unchecked", "stopped", "origin")}
    arrays = {name: {key: to_numpy(a) for key, a in getattr(state, name).items()} for name in (
        "arrays", "finite_arrays")}
    return {**texts, **arrays, "rows": state.history.rows, "batch_loss": state.history.batch_loss}


def test_states_that_differ_are_told_apart() -> None:
    state = trained("one", Device()).run_state
    for name, other in (("step", 18), ("stopped", True), ("causes", {0: "?"}), ("arrays", state.finite_arrays)):
        changed = RunState(**{**vars(state), name: other})
        with pytest.raises(AssertionError):
            assert_same(values(changed), values(state))


@pytest.mark.parametrize("name", OPTIONS)
def test_a_state_survives_the_files_of_a_checkpoint(device: Device, tmp_path: Path, name: str) -> None:
    trainer = trained(name, device)
    state, path = trainer.run_state, tmp_path / "step-00000017"
    assert (state.step, state.finite_step, len(state.history)) == (17, 10, 2)
    assert state.unchecked == (7 if "several" in name else 0)
    write_directory(path, snapshot.files(snapshot.take(trainer), {}))
    found = snapshot.run_state(snapshot.read(path))
    assert_same(values(found), values(state))
    other = Trainer(NETWORK, batch_size=16, **OPTIONS[name])
    other.start(device)
    live = other.run_state.arrays
    other.run_state.load(found, device)
    assert_same(values(other.run_state), values(state))
    assert other.run_state.arrays is live
    assert all(Device.of(a) == device for a in other.run_state.finite_arrays.values())


def test_the_finite_arrays_are_saved_only_if_they_are_not_the_state(device: Device, tmp_path: Path) -> None:
    trainer = Trainer(NETWORK, batch_size=16)
    trainer.fit(*blobs(device), steps=20, evaluate_every=10)
    taken = snapshot.take(trainer)
    assert not [name for name in taken.arrays if name.startswith("kept/")]
    path = tmp_path / "step-00000020"
    write_directory(path, snapshot.files(taken, {}))
    assert_same(values(snapshot.run_state(snapshot.read(path))), values(trainer.run_state))


def test_going_back_writes_into_the_live_arrays(device: Device) -> None:
    trainer = trained("one", device)
    state = trainer.run_state
    assert_same(to_numpy(trainer.arrays["W1"]), to_numpy(state.arrays["W1"]))
    assert (to_numpy(state.arrays["W1"]) != to_numpy(state.finite_arrays["W1"])).any()
    state.go_back()
    assert trainer.step == 10
    for name, array in trainer.state().items():
        assert_same(to_numpy(array), to_numpy(state.finite_arrays[name]))


def test_a_detached_state_is_not_changed_by_updates(device: Device) -> None:
    trainer = trained("one", device)
    detached = trainer.run_state.detached(device)
    before = {name: to_numpy(a).copy() for name, a in detached.arrays.items()}
    trainer.fit(*blobs(device), steps=40, evaluate_every=10)
    assert_same({name: to_numpy(a) for name, a in detached.arrays.items()}, before)
    assert (before["W1"] != to_numpy(trainer.arrays["W1"])).any()


# Pickles of 0.1 -----------------------------------------------------------------------------------------------------


def as_in_0_1(trainer: Trainer) -> dict[str, Any]:
    """Return what 0.1 put into a pickle: the state's fields were attributes of the trainer."""
    held = trainer.__getstate__()
    state = held.pop("run_state")
    own = {name: getattr(state, name) for name in ("step", "history", "diverged", "causes", "halvings", "stopped")}
    kept = {"_kept": state.finite_arrays, "_kept_step": state.finite_step, "_unseen": state.unchecked}
    return {**held, **own, **kept, "_resumed": None} | ({"_learned": state.arrays} if state.arrays else {})


@pytest.mark.parametrize("name", OPTIONS)
def test_a_trainer_that_0_1_pickled_goes_on(name: str) -> None:
    trainer = trained(name, Device())
    old = Trainer.__new__(Trainer)
    old.__setstate__(as_in_0_1(trainer))
    assert vars(old).keys() == vars(trainer).keys()
    assert_same(values(old.run_state), values(trainer.run_state))
    for one in (old, trainer):
        one.fit(*blobs(Device()), steps=40, evaluate_every=10)
    assert_same(values(old.run_state), values(trainer.run_state))


def test_a_trainer_that_0_1_pickled_before_it_trained_begins() -> None:
    old = Trainer.__new__(Trainer)
    old.__setstate__(as_in_0_1(Trainer(NETWORK, schedule=1e30, batch_size=16)))
    assert not old.arrays
    assert old.device is None
    with pytest.raises(DivergenceError, match="not finite first"):
        old.fit(*blobs(Device()), steps=20, evaluate_every=10)
