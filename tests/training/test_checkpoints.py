"""Runs that go on: bit for bit the undisturbed one, what is kept on the way, and signals."""

from __future__ import annotations

import json
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import controls
import numpy as np
import pytest
from controls import CONTROLS, SCENARIOS
from faults import FILES
from helpers import assert_close, assert_same, blobs
from runners import fit, make, result, stopped

from xpnet import SGD, Adam, AdamW, BestWeights, Callback, CyclicLR, EarlyStopping, Normal, Trainer, mlp
from xpnet.backend import Device
from xpnet.training import snapshot
from xpnet.training.checkpoints import Checkpoints, ResumeWarning, steps_in
from xpnet.training.interrupts import stop_on_signals
from xpnet.training.loop import Loop

# Bit for bit ----------------------------------------------------------------------------------------------------------

OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "sgd": dict,
    "plain descent in one pass": lambda: {"network": mlp(6, [3000], 3), "schedule": 0.01},
    "nesterov": lambda: {"optimizer": SGD(0.9, True)},
    "adam": lambda: {"optimizer": Adam()},
    "adamw, float64": lambda: {"optimizer": AdamW(), "dtype": "float64"},
    "sweep": lambda: {"seed": [1, 2, 3], "l2": [0.0, 0.01, 0.1], "optimizer": SGD([0.0, 0.5, 0.9])},
    "sweep of everything": lambda: {
        "schedule": CyclicLR(np.asarray([1e-3, 1e-4]), np.asarray([0.05, 0.1]), 7),
        "network": mlp(6, [8, 5], 3, batch_norm=True, dropout=[0.1, 0.3], initializer=Normal([0.1, 0.5]))},
}


@pytest.mark.parametrize("at", [3, 10, 17, 39])
@pytest.mark.parametrize("options", OPTIONS)
def test_a_run_goes_on_bit_for_bit(device: Device, options: str, at: int, tmp_path: Path) -> None:
    given = OPTIONS[options]
    whole = fit(make(**given()), device=device)
    stopped(make(tmp_path / "run", **given()), at, device)
    assert max(steps_in(tmp_path / "run")) == at
    again = make(tmp_path / "run", **given())
    again.resume(tmp_path / "run")
    assert again.step == at
    assert_same(result(fit(again, device=device)), result(whole))
    assert_same(fit(again, device=device).history.rows, whole.history.rows)  # it is there already


def test_going_on_many_times(tmp_path: Path) -> None:
    whole = fit(make())
    for at in (1, 2, 11, 20, 29, 30, 31):
        part = make(tmp_path)
        if at > 1:
            part.resume(tmp_path)
        stopped(part, at)
    last = make(tmp_path)
    last.resume(tmp_path)
    assert_same(result(fit(last)), result(whole))


def test_more_steps_are_fine_and_fewer_do_nothing(tmp_path: Path) -> None:
    first = fit(make(tmp_path), 20)
    longer, shorter = make(tmp_path), make()
    shorter.resume(tmp_path)
    fit(shorter, 10)
    assert_same(result(shorter), result(first))
    longer.resume(tmp_path)
    assert_same(result(fit(longer, 40)), result(fit(make(), 40)))


@pytest.mark.backends("strict", "torch", "cupy")
def test_a_run_goes_on_on_another_device_to_rounding(device: Device, tmp_path: Path) -> None:
    for run, begins, ends in (("there", device, Device()), ("here", Device(), device)):
        options = {"optimizer": SGD(0.9), "dtype": "float64"}
        whole = fit(make(**options))
        stopped(make(tmp_path / run, **options), 17, begins)
        again = make(tmp_path / run, **options)
        again.resume(tmp_path / run)
        with pytest.warns(ResumeWarning, match="device was .* the same up to rounding, not bit for bit"):
            fit(again, device=ends)
        assert again.network.device == ends
        for name, a in again.state().items():
            if name.rpartition(".")[2] not in ("b1", "b2"):  # batch norm cancels them: rounding is all they are
                assert_close(a, whole.state()[name], 1e-9, name)
        assert_close(again.history.batch_loss, whole.history.batch_loss, 1e-9)


def test_a_run_goes_on_where_it_is_told_to(device: Device, tmp_path: Path) -> None:
    stopped(make(tmp_path), 17)
    again = make(tmp_path, device=device)
    again.resume(tmp_path)
    x, y = blobs(Device(), 120)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResumeWarning)
        again.fit(x, y, steps=20, validation=(x[:40], y[:40]), evaluate_every=10)
    assert again.network.device == device
    assert again.step == 20


def test_what_callbacks_remember_comes_back(tmp_path: Path) -> None:
    def callbacks() -> list[Callback]:
        return [EarlyStopping(patience=2), BestWeights(restore=False)]

    whole = fit(make(callbacks=callbacks(), schedule=0.8), 200)
    stopped(make(tmp_path, callbacks=callbacks(), schedule=0.8), 17, steps=200)
    again = make(tmp_path, callbacks=callbacks(), schedule=0.8)
    again.resume(tmp_path)
    fit(again, 200)
    assert_same(result(again), result(whole))
    for one, other in zip(again.callbacks, whole.callbacks, strict=False):
        assert one.state() == other.state()
        assert_same(dict(one.arrays), dict(other.arrays))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios_go_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    expected = controls.undisturbed(name, tmp_path / "undisturbed")
    controls.interrupted(name, tmp_path / "run")
    assert controls.compare(name, expected, tmp_path / "run") == ""


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("item", CONTROLS)
def test_every_item_of_the_state_is_needed(item: str, tmp_path: Path) -> None:
    name, drop = CONTROLS[item]
    expected = controls.undisturbed(name, tmp_path / "undisturbed")
    controls.interrupted(name, tmp_path / "run")
    assert controls.compare(name, expected, tmp_path / "run", drop) != ""


# What is kept ---------------------------------------------------------------------------------------------------------


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    losses = {0: 3.0, 10: 1.0, 20: 2.0, 30: 0.5, 40: 4.0, 50: 5.0, 60: 6.0, 70: 0.7}
    seen = []

    class Watch(Callback):
        def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
            seen.append(steps_in(tmp_path))
            row["made up"] = losses[trainer.step]
            return None

    trainer = make(tmp_path, callbacks=[Watch()], writing={"monitor": "made up", "mode": "min"})
    fit(trainer, 70)
    kept = trainer.callbacks[-1]
    assert isinstance(kept, Checkpoints)
    assert kept.best == (30, 0.5)
    assert sorted(steps_in(tmp_path)) == [30, 60, 70]
    assert all(len(there) <= 4 for there in seen)  # one of them may be in the making
    assert snapshot.read(tmp_path / "checkpoints" / "step-00000030").step == 30


@pytest.mark.parametrize(("monitor", "mode", "best"), [
    (None, None, 30), ("train_loss", "max", 0), ("validation_accuracy", None, None), ("train_accuracy", "min", 0),
], ids=str)
def test_the_best_follows_a_column(monitor: str | None, mode: str | None, best: int | None, tmp_path: Path) -> None:
    trainer = fit(make(tmp_path, writing={"monitor": monitor, "mode": mode}), 30)
    kept, column = trainer.callbacks[-1], trainer.history[monitor or "validation_loss"]
    assert isinstance(kept, Checkpoints)
    assert kept.best
    chosen = (np.argmax if mode == "max" or (monitor or "").startswith("validation_acc") else np.argmin)(column)
    assert kept.best == (trainer.history["step"][chosen], column[chosen])
    assert best in (None, kept.best[0])


def test_every_so_many_evaluations_and_the_last(tmp_path: Path) -> None:
    trainer = fit(make(tmp_path, writing={"every": 3, "keep": 9}), 80)
    assert sorted(steps_in(tmp_path)) == [0, 30, 60, 80]
    assert trainer.history["step"].tolist() == list(range(0, 90, 10))
    early = make(tmp_path / "early", callbacks=[EarlyStopping(mode="max", patience=1)], writing={"every": 3})
    assert fit(early, 80).step == 10
    assert sorted(steps_in(tmp_path / "early")) == [0, 10]


def test_a_sweeps_best_is_by_the_mean_over_its_models(tmp_path: Path) -> None:
    trainer = fit(make(tmp_path, seed=[1, 2, 3]), 20)
    kept = trainer.callbacks[-1]
    assert isinstance(kept, Checkpoints)
    assert kept.best
    assert kept.best[1] == pytest.approx(trainer.history["validation_loss"].mean(axis=1).min())


def test_the_mean_leaves_out_what_is_not_finite() -> None:
    assert snapshot.mean(np.asarray([1.0, np.nan, 3.0])) == 2.0
    assert snapshot.mean(np.asarray([np.nan, np.inf])) is None
    assert snapshot.mean(0.25) == 0.25


def test_fit_goes_on_with_the_same_trainer(tmp_path: Path) -> None:
    trainer = fit(make(tmp_path), 10)
    fit(trainer, 30)
    assert sorted(steps_in(tmp_path)) == [20, 30]
    assert_same(result(trainer), result(fit(make(), 30)))


def test_a_checkpoint_is_safetensors_and_json(tmp_path: Path) -> None:
    stopped(make(tmp_path, optimizer=Adam()), 17)
    path = tmp_path / "checkpoints" / "step-00000017"
    assert sorted(p.name for p in path.iterdir()) == sorted(FILES)
    told = json.loads((path / "state.json").read_text("utf-8"))
    assert told["step"] == 17
    assert told["config"]["optimizer"]["type"] == "Adam"
    assert told["data"]["train features"]["shape"] == [120, 6]
    assert {"numpy", "blas", "threads", "python", "machine"} <= told["environment"].keys()
    from safetensors.numpy import load_file

    arrays = load_file(path / "arrays.safetensors")
    assert {"state/W1", "state/m.W1", "state/v.gamma1", "state/mean1", "kept/W1", "batch_loss"} <= arrays.keys()


# Signals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_training_after_its_update_with_a_checkpoint(number: int, tmp_path: Path) -> None:
    whole = fit(make())
    trainer = make(tmp_path)
    update = trainer.update

    def ignore_overflow(*arguments: Any) -> Any:
        if trainer.step == 14:
            signal.raise_signal(number)
        return update(*arguments)

    trainer.update = ignore_overflow  # type: ignore[method-assign]
    before = signal.getsignal(number)
    with stop_on_signals(trainer) as received:
        fit(trainer)
    assert received == [number]
    assert signal.getsignal(number) is before
    assert max(steps_in(tmp_path)) == trainer.step == 15
    again = make(tmp_path)
    again.resume(tmp_path)
    assert_same(result(fit(again)), result(whole))


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    update = trainer.update

    def ignore_overflow(*arguments: Any) -> Any:
        if trainer.step == 14:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return update(*arguments)

    trainer.update = ignore_overflow  # type: ignore[method-assign]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with stop_on_signals(trainer) as received, pytest.raises(KeyboardInterrupt):
            fit(trainer)
    finally:
        signal.signal(signal.SIGINT, before)
    assert received == [signal.SIGINT]
    assert max(steps_in(tmp_path)) == 10


def test_in_another_thread_signals_stay_as_they_are() -> None:
    seen: list[Any] = []

    def work() -> None:
        with stop_on_signals(make()) as received:
            seen.append((received, signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [([], before)]


def test_stopping_comes_after_an_evaluation_that_is_due(tmp_path: Path) -> None:
    trainer = stopped(make(tmp_path), 20)
    assert trainer.history["step"].tolist() == [0, 10, 20]
    assert max(steps_in(tmp_path)) == 20


def test_a_row_that_an_interruption_kept_from_being_measured_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make()
    evaluate = Loop.evaluate

    def interrupted(loop: Loop) -> bool:
        if trainer.step == 20:
            raise KeyboardInterrupt
        return evaluate(loop)

    monkeypatch.setattr(Loop, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(trainer)
    monkeypatch.setattr(Loop, "evaluate", evaluate)
    assert_same(result(fit(trainer)), result(fit(make())))


def test_evaluations_far_apart_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are read every so often, so that a run without evaluations does not gather them without end."""
    whole = fit(make(), evaluate_every=40)
    monkeypatch.setattr("xpnet.training.trainer.LONG", 7)
    assert_same(result(fit(make(), evaluate_every=40)), result(whole))
