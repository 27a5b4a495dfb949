"""Callbacks: when they are called, that they can stop a run, and what the ready-made ones write."""

from __future__ import annotations

import csv
import io
import json
import math
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from helpers import assert_same, blobs

from xpnet import (
    Adam,
    Callback,
    Constant,
    DivergenceError,
    JSONLines,
    MeanSquaredError,
    Network,
    Normal,
    Progress,
    Trainer,
    mlp,
)
from xpnet.backend import Device, to_numpy
from xpnet.nn.measures import UndefinedMeasureWarning
from xpnet.training.callbacks import CSV, BestWeights, EarlyStopping, TensorBoard
from xpnet.training.lr_range import find_lr


class Log(Callback):
    """Note every call in a shared list, and stop the run at a step."""

    def __init__(self, name: str, calls: list[Any], stop_at: int = -1) -> None:
        self.name, self.calls, self.stop_at = name, calls, stop_at

    def on_begin(self, trainer: Trainer, steps: int) -> None:
        """Note the beginning."""
        self.calls.append((self.name, "begin", trainer.step, steps))

    def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
        """Note an evaluation."""
        assert row is trainer.history.rows[-1]
        assert row["step"] == trainer.step
        self.calls.append((self.name, "evaluation", trainer.step))
        return trainer.step == self.stop_at

    def on_stop(self, trainer: Trainer) -> None:
        """Note a stop."""
        self.calls.append((self.name, "stop", trainer.step))

    def on_end(self, trainer: Trainer) -> None:
        """Note the end."""
        self.calls.append((self.name, "end", trainer.step))


def fit(device: Device, callbacks: list[Callback], **options: Any) -> Trainer:
    """Train six updates with an evaluation after every second."""
    trainer = Trainer(mlp(6, [4], 3), batch_size=16, callbacks=callbacks, **options)
    trainer.fit(*blobs(device, 32), steps=6, evaluate_every=2)
    return trainer


def test_the_order_of_calls(device: Device) -> None:
    calls: list[Any] = []
    trainer = fit(device, [Log("a", calls), Log("b", calls)])
    expected: list[Any] = [("a", "begin", 0, 6), ("b", "begin", 0, 6)]
    for step in (0, 2, 4, 6):
        expected += [("a", "evaluation", step), ("b", "evaluation", step)]
    assert calls == [*expected, ("a", "end", 6), ("b", "end", 6)]
    calls.clear()
    trainer.fit(*blobs(device, 32), steps=8, evaluate_every=2)
    assert [call[1:] for call in calls if call[0] == "a"] == [("begin", 6, 8), ("evaluation", 8), ("end", 8)]


def test_a_callback_stops_the_run_and_all_others_are_still_asked(device: Device) -> None:
    calls: list[Any] = []
    trainer = fit(device, [Log("a", calls, stop_at=2), Log("b", calls)])
    assert trainer.step == 2
    assert calls[-3:] == [("b", "evaluation", 2), ("a", "end", 2), ("b", "end", 2)]
    calls.clear()
    assert fit(device, [Log("a", calls, stop_at=0)]).step == 0


class StopAsked(Callback):
    """Asks the trainer to stop at an evaluation, as a signal would."""

    def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
        """Ask at update 2."""
        if trainer.step == 2:
            trainer.stop()
        return None


def test_callbacks_hear_of_a_stop_that_was_asked_for_before_the_end(device: Device) -> None:
    calls: list[Any] = []
    trainer = fit(device, [Callback(), Log("a", calls), StopAsked(), Log("b", calls)])
    assert trainer.step == 2
    assert not trainer.stopping
    assert not trainer.stopped
    assert calls[-4:] == [("a", "stop", 2), ("b", "stop", 2), ("a", "end", 2), ("b", "end", 2)]
    calls.clear()
    trainer.fit(*blobs(device, 32), steps=4, evaluate_every=2)
    assert not [call for call in calls if call[1] == "stop"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_end_comes_after_an_error_too() -> None:
    calls: list[Any] = []
    with pytest.raises(DivergenceError):
        fit(Device(), [Log("a", calls)], schedule=1e30)
    assert calls[-1][:2] == ("a", "end")


def test_the_protocol_does_nothing(device: Device) -> None:
    assert fit(device, [Callback()]).step == 6


def test_json_lines_hold_every_row(device: Device, tmp_path: Path) -> None:
    trainer = fit(device, [JSONLines(tmp_path / "log.jsonl")])
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == trainer.history.rows
    trainer.fit(*blobs(device, 32), steps=8, evaluate_every=2)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 5  # appended


def test_json_lines_of_a_sweep_hold_lists(device: Device, tmp_path: Path) -> None:
    trainer = fit(device, [JSONLines(str(tmp_path / "log.jsonl"))], l2=[0.0, 0.1], schedule=Constant([0.1, 0.2]))
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(rows) == len(trainer.history)
    for written, row in zip(rows, trainer.history, strict=True):
        assert written == {name: np.asarray(value).tolist() for name, value in row.items()}
        assert written["lr"] == [0.1, 0.2]
        assert len(written["train_loss"]) == 2


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_json_lines_stay_json_when_a_model_diverges(tmp_path: Path) -> None:
    trainer = fit(
        Device(), [JSONLines(tmp_path / "log.jsonl")], schedule=Constant([0.1, 1e30]), divergence="freeze"
    )
    assert trainer.diverged

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    rows = [json.loads(line, parse_constant=refuse) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["train_loss"][1] is None
    assert isinstance(rows[-1]["train_loss"][0], float)


def test_json_lines_are_flushed_as_they_come(tmp_path: Path) -> None:
    path, seen = tmp_path / "log.jsonl", []

    class Reader(Callback):
        def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
            seen.append(len(path.read_text().splitlines()))
            return None

    fit(Device(), [JSONLines(path), Reader()])
    assert seen == [1, 2, 3, 4]


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    calls: list[Any] = []
    with pytest.raises(FileNotFoundError, match="missing"):
        fit(Device(), [Log("a", calls), JSONLines(tmp_path / "missing" / "log.jsonl"), Progress(show=False)])
    assert [call[1] for call in calls] == ["begin", "end"]


def test_progress_shows_steps_and_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    fit(Device(), [Progress("this run", show=True)])
    shown = capsys.readouterr()
    assert "this run" in shown.err
    assert "6/6" in shown.err
    assert "train_loss=" in shown.err
    assert not shown.out


@pytest.mark.parametrize(("terminal", "shown"), [(False, False), (True, True)])
def test_progress_is_quiet_where_there_is_no_terminal(
    terminal: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("sys.stderr", stream)
    fit(Device(), [Progress()])
    assert bool(stream.getvalue()) is shown


def test_progress_of_a_sweep_and_of_a_run_that_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = fit(Device(), [Progress(show=True)], l2=[0.0, 0.1])
    capsys.readouterr()
    trainer.fit(*blobs(Device(), 32), steps=8)
    assert "8/8" in capsys.readouterr().err


# CSV ----------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[dict[str, Any]]:
    """Read a CSV file's lines as numbers by column."""
    with path.open(newline="") as file:
        return [{name: float(v) for name, v in line.items()} for line in csv.DictReader(file)]


def test_csv_holds_every_row_exactly_and_appends(device: Device, tmp_path: Path) -> None:
    trainer = fit(device, [CSV(tmp_path / "log.csv")])
    assert read(tmp_path / "log.csv") == trainer.history.rows
    trainer.fit(*blobs(device, 32), steps=8, evaluate_every=2)
    assert read(tmp_path / "log.csv") == trainer.history.rows
    assert len(trainer.history) == 5


def test_csv_of_a_sweep_has_a_line_for_each_model(device: Device, tmp_path: Path) -> None:
    trainer = fit(device, [CSV(str(tmp_path / "log.csv"))], l2=[0.0, 0.1], schedule=Constant([0.1, 0.2]))
    lines = read(tmp_path / "log.csv")
    assert next(iter(lines[0])) == "model"
    assert [line["model"] for line in lines] == [0, 1] * 4
    for m in range(2):
        expected = [{"model": m, **row} for row in trainer.history.member(m)]
        assert lines[m::2] == expected


def test_csv_writes_what_is_not_finite(tmp_path: Path) -> None:
    log = CSV(tmp_path / "log.csv")
    log.on_begin(None, 0)  # type: ignore[arg-type]
    log.on_evaluation(None, {"step": 0, "train_loss": math.nan, "lr": math.inf})  # type: ignore[arg-type]
    assert (tmp_path / "log.csv").read_text() == "step,train_loss,lr\n0,nan,inf\n"  # flushed as it comes
    log.on_end(None)  # type: ignore[arg-type]


def test_csv_refuses_rows_of_other_columns(device: Device, tmp_path: Path) -> None:
    x, y = blobs(device, 32)
    trainer = fit(device, [CSV(tmp_path / "log.csv")])
    with pytest.raises(ValueError, match=r"has the columns step, epoch, .*validation_accuracy: write it to another"):
        trainer.fit(x, y, steps=8, validation=(x, y))
    assert len(read(tmp_path / "log.csv")) == 4


# Early stopping and best weights -------------------------------------------------------------------------------


def see(callback: Any, *rows: Any, column: str = "validation_loss") -> list[bool | None]:
    """Show a callback a column's values one by one, and give its answers."""
    callback.on_begin(Trainer(mlp(6, [4], 3)), 9)
    return [callback.on_evaluation(None, {column: np.asarray(v) if isinstance(v, list) else v}) for v in rows]


def test_early_stopping_waits_and_starts_again_at_an_improvement() -> None:
    stop = EarlyStopping(patience=2)
    assert see(stop, 3.0, 2.0, 2.0, 1.5, 1.6, 1.5) == [False, False, False, False, False, True]
    assert stop.best == [1.5]
    assert stop.wait == [2]


def test_early_stopping_knows_which_way_is_better() -> None:
    up = EarlyStopping("validation_accuracy", patience=1)
    assert see(up, 0.1, 0.2, 0.2, column="validation_accuracy") == [False, False, True]
    other = EarlyStopping("score", patience=1, mode="max")
    assert see(other, 1.0, 2.0, 0.0, column="score") == [False, False, True]
    with pytest.raises(ValueError, match="got 'up'"):
        EarlyStopping(mode="up")


def test_early_stopping_counts_only_what_beats_min_delta() -> None:
    stop = EarlyStopping(patience=3, min_delta=0.5)
    assert see(stop, 3.0, 2.6, 2.5, 2.4, 2.4) == [False, False, False, False, False]  # 2.4 beats 3.0 by 0.6
    assert stop.best == [2.4]
    with pytest.raises(ValueError, match="min_delta of at least 0, got -1"):
        EarlyStopping(min_delta=-1)
    with pytest.raises(ValueError, match="patience of at least 1, got 0"):
        EarlyStopping(patience=0)


def test_a_value_that_is_not_finite_is_no_improvement() -> None:
    stop = EarlyStopping(patience=2)
    assert see(stop, math.nan, 2.0, -math.inf, math.nan) == [False, False, False, True]
    assert stop.best == [2.0]


def test_several_models_stop_when_each_has_waited() -> None:
    stop = EarlyStopping(patience=2)
    assert see(stop, [1.0, 1.0], [2.0, 0.5], [2.0, 0.6], [0.9, 0.7], [1.0, 0.8], [1.0, 0.8]) == [False] * 5 + [True]
    assert stop.best == [0.9, 0.5]


def test_early_stopping_stops_a_run(device: Device) -> None:
    x, y = blobs(device, 32)
    stop = EarlyStopping("train_loss", patience=2, min_delta=1e9)
    trainer = Trainer(mlp(6, [4], 3), batch_size=16, callbacks=[stop])
    trainer.fit(x, y, steps=100, evaluate_every=5)
    assert trainer.step == 10
    trainer.fit(x, y, steps=100, evaluate_every=5)  # no new run: it waits on
    assert trainer.step == 15
    assert stop.wait == [3]
    another = Trainer(mlp(6, [4], 3), batch_size=16, callbacks=[stop])
    another.fit(x, y, steps=5, evaluate_every=5)  # a new run: it begins again
    assert stop.wait == [1]


def test_a_column_that_is_not_there_is_an_error_that_names_the_known(device: Device) -> None:
    for callback in (EarlyStopping(), EarlyStopping(mode="min"), BestWeights()):
        with pytest.raises(ValueError, match=r"got 'validation_loss' without validation data: give fit validation=\(x"):
            fit(device, [callback])
    with pytest.raises(ValueError, match=r"EarlyStopping: no column 'speed' in step, .*: add it in a callback"):
        fit(device, [EarlyStopping("speed", mode="max")])


class Peek(Callback):
    """Note a copy of the arrays at every evaluation."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
        """Note them."""
        self.seen.append({name: np.array(to_numpy(a)) for name, a in trainer.arrays.items()})
        return None


@pytest.mark.parametrize("models", [0, 2])
def test_best_weights_are_those_of_the_best_row_of_each_model(device: Device, models: int) -> None:
    x, y = blobs(device, 48, spread=4.0)
    best, peek = BestWeights(), Peek()
    options: dict[str, Any] = {"seed": [3, 4], "l2": [0.0, 0.01]} if models else {}
    trainer = Trainer(mlp(6, [8], 3, batch_norm=True, standardize=True), batch_size=8, schedule=0.5,
                      callbacks=[best, peek], **options)
    history = trainer.fit(x[:24, :], y[:24], steps=40, validation=(x[24:, :], y[24:]), evaluate_every=2)
    losses = history["validation_loss"].reshape(len(history), -1)
    rows = losses.argmin(axis=0).tolist()
    assert any(row != len(history) - 1 for row in rows)  # else nothing is tested
    own = trainer.architecture.shapes
    for name, a in trainer.arrays.items():
        got = to_numpy(a)
        if models and got.ndim > len(own[name]):
            for m, row in enumerate(rows):
                assert_same(got[m], peek.seen[row][name][m], name)
        else:
            assert_same(got, peek.seen[rows[0]][name], name)
    found = trainer.evaluate(x[24:, :], y[24:])["loss"]
    assert np.allclose(found, losses.min(axis=0), rtol=1e-6)
    assert_same(Network(trainer.architecture, best.arrays).predict(x), trainer.network.predict(x))


def test_best_weights_are_restored_when_asked(device: Device) -> None:
    x, y = blobs(device, 48, spread=4.0)
    best, peek = BestWeights("train_accuracy", restore=False), Peek()
    with pytest.raises(RuntimeError, match="no evaluation yet"):
        best.restore(Trainer(mlp(6, [4], 3)))
    trainer = Trainer(mlp(6, [8], 3), batch_size=8, schedule=2.0, callbacks=[best, peek])
    history = trainer.fit(x, y, steps=20, evaluate_every=2)
    assert_same(dict(trainer.arrays), peek.seen[-1])
    row = int(history["train_accuracy"].argmax())
    assert row < len(history) - 1
    best.restore(trainer)
    assert_same(dict(trainer.arrays), peek.seen[row])
    assert trainer.step == 20
    views = trainer.arrays["W1"]
    trainer.fit(x, y, steps=22)
    assert trainer.arrays["W1"] is views  # still the trainer's own array


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_best_weights_are_restored_after_a_divergence() -> None:
    peek = Peek()
    trainer = Trainer(mlp(6, [4], 3), batch_size=16, schedule=1e30, callbacks=[BestWeights("train_loss"), peek])
    with pytest.raises(DivergenceError):
        trainer.fit(*blobs(Device(), 32), steps=6)
    assert_same(dict(trainer.arrays), peek.seen[0])


# State ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [
    lambda: EarlyStopping("train_loss", patience=4), lambda: BestWeights("train_loss", restore=False),
], ids=["EarlyStopping", "BestWeights"])
@pytest.mark.parametrize("options", [{}, {"l2": [0.0, 0.1]}], ids=["one", "models"])
def test_a_callback_goes_on_from_its_state_as_if_undisturbed(device: Device, make: Any, options: Any) -> None:
    x, y = blobs(device, 32)
    whole, first, second = make(), make(), make()
    Trainer(mlp(6, [4], 3), batch_size=16, schedule=0.9, callbacks=[whole], **options).fit(
        x, y, steps=12, evaluate_every=2)
    trainer = Trainer(mlp(6, [4], 3), batch_size=16, schedule=0.9, callbacks=[first], **options)
    trainer.fit(x, y, steps=6, evaluate_every=2)
    state = json.loads(json.dumps(first.state(), allow_nan=False))
    assert state == first.state()
    second.load_state(state, {name: np.array(to_numpy(a)) for name, a in first.arrays.items()})
    trainer.callbacks = (second,)
    trainer.fit(x, y, steps=12, evaluate_every=2)
    assert second.state() == whole.state()
    assert_same(second.arrays, whole.arrays)


def test_a_state_that_does_not_fit_is_refused() -> None:
    assert Callback().state() == {}
    Callback().load_state({})
    with pytest.raises(ValueError, match=r"Progress remembers nothing, but the checkpoint has \['best'\]"):
        Progress().load_state({"best": [1.0]})
    state = EarlyStopping("train_loss").state()
    assert state == {"monitor": "train_loss", "mode": None, "best": [], "wait": []}
    with pytest.raises(ValueError, match="expected the state of monitor='validation_loss'"):
        EarlyStopping().load_state(state)
    kept = BestWeights()
    with pytest.raises(ValueError, match="expected the best arrays with the best values"):
        kept.load_state({**kept.state(), "best": [1.0], "wait": [0]})


# TensorBoard ---------------------------------------------------------------------------------------------------


class Writer:
    """What TensorBoard asks of a writer."""

    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []
        self.flushed = 0

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Note a scalar."""
        self.scalars.append((tag, value, step))

    def flush(self) -> None:
        """Note that it was flushed."""
        self.flushed += 1


def test_tensorboard_gives_a_writer_every_number(device: Device) -> None:
    writer = Writer()
    trainer = fit(device, [TensorBoard(writer)])
    assert writer.scalars == [(name, v, row["step"]) for row in trainer.history for name, v in row.items()
                              if name != "step"]
    assert writer.flushed == 4


def test_tensorboard_of_a_sweep_names_the_models(device: Device) -> None:
    writer = Writer()
    history = fit(device, [TensorBoard(writer)], l2=[0.0, 0.1]).history
    costs = [(value, step) for tag, value, step in writer.scalars if tag == "train_cost/1"]
    assert costs == [(row["train_cost"], row["step"]) for row in history.member(1)]


def test_tensorboard_writes_event_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    from tensorboardX.proto.event_pb2 import Event

    history = fit(Device(), [TensorBoard(tmp_path / "run")]).history
    (path,) = (tmp_path / "run").iterdir()
    data, place, found = path.read_bytes(), 0, []
    while place < len(data):  # records: length, its checksum, the event, its checksum
        (length,) = struct.unpack_from("<Q", data, place)
        event = Event.FromString(data[place + 12 : place + 12 + length])
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        place += 16 + length
    losses = [(step, value) for tag, step, value in found if tag == "train_loss"]
    assert losses == [(row["step"], np.float32(row["train_loss"])) for row in history]


def test_tensorboard_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(ImportError, match="pip install tensorboardX"):
        fit(Device(), [TensorBoard(tmp_path)])


# The learning-rate finder ------------------------------------------------------------------------------------------


def test_the_range_test_rises_from_low_to_high(device: Device) -> None:
    x, y = blobs(device, 200, spread=2.0)
    found = find_lr(mlp(6, [16], 3), x, y, low=1e-4, high=1.0, steps=101, batch_size=20, seed=1)
    assert len(found.rates) == len(found.losses) == 101
    assert found.rates[0] == 1e-4
    assert found.rates[50] == pytest.approx(1e-2)
    assert found.rates[-1] == pytest.approx(1.0)
    assert found.losses == found.history.batch_loss
    assert 1e-4 <= found.eta_min < found.eta_max <= 1.0
    assert not found.diverged
    linear = find_lr(mlp(6, [16], 3), x, y, low=0.0, high=1.0, steps=101, scale="linear", batch_size=20)
    assert linear.rates[50] == pytest.approx(0.5)


def test_the_range_test_is_a_training_with_that_schedule(device: Device) -> None:
    x, y = blobs(device, 60)
    found = find_lr(mlp(6, [5], 3), x, y, low=0.1, high=0.2, steps=11, scale="linear", l2=0.1, batch_size=20,
                    validation=(x, y), optimizer=Adam(), points=11, train_sample=30)

    def rising(step: int) -> float:
        return 0.1 + 0.01 * step

    trainer = Trainer(mlp(6, [5], 3), schedule=rising, l2=0.1, batch_size=20, optimizer=Adam())
    trainer.fit(x, y, steps=11, validation=(x, y), evaluate_every=1, train_sample=30)
    assert np.allclose(found.losses, trainer.history.batch_loss, rtol=1e-5)
    assert list(found.history.columns) == list(trainer.history.columns)
    assert len(found.history) == 12


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("points", [1, 100])
def test_the_range_test_ends_when_the_loss_is_undone(points: int) -> None:
    x, y = blobs(Device(), 200, spread=2.0)
    found = find_lr(mlp(6, [], 3), x, y, low=1e30, high=1e38, steps=200, batch_size=20, points=points)
    assert found.diverged is (points == 1)  # seen at an evaluation point, or only when it is not finite any more
    assert len(found.rates) == len(found.losses) < 200
    assert np.isfinite(found.losses).all()
    assert found.plot().axes


class Unmeasured(MeanSquaredError):
    """Squared errors, beside which nothing is measured."""

    measures: ClassVar[Any] = {}

    def score(self, tally: Any, y: Any) -> dict[str, Any]:
        return {}

    def undefined(self, y: Any) -> dict[str, str]:
        return {}


@pytest.mark.parametrize("loss", [MeanSquaredError(), Unmeasured()], ids=["r2", "loss"])
@pytest.mark.parametrize("validated", [False, True])
def test_any_measure_suggests_a_range(device: Device, loss: Any, validated: bool) -> None:
    x, _ = blobs(device, 200)
    found = find_lr(mlp(6, [16], 6), x, x, low=1e-4, high=1.0, steps=100, batch_size=20, loss=loss,
                    validation=(x, x) if validated else None)
    name = ("validation_" if validated else "train_") + ("loss" if isinstance(loss, Unmeasured) else "r2")
    assert found.column == name
    column, rates = found.history[name], found.history["lr"]
    better = column > column[0] + 0.05 * abs(column[0]) if name.endswith("r2") else column < 0.95 * column[0]
    assert found.eta_min <= rates[better].min() * 10
    assert rates[0] <= found.eta_min < found.eta_max <= rates[-1]
    assert len(found.plot().axes) == 1 + name.endswith("r2")


def test_a_measure_that_is_not_defined_suggests_no_range() -> None:
    x, _ = blobs(Device(), 60)
    with pytest.warns(UndefinedMeasureWarning):
        found = find_lr(mlp(6, [4], 1), x, x[:, 0] * 0, steps=20, batch_size=20, loss=MeanSquaredError())
    with pytest.raises(ValueError, match="train_r2 is not defined, so there is nothing to suggest a range by"):
        _ = found.eta_min
    assert found.plot().axes


def test_a_network_that_does_not_learn_has_no_range(device: Device) -> None:
    x, y = blobs(device, 200)
    found = find_lr(mlp(6, [16, 16, 16], 3, initializer=Normal(1e-6)), x, y, high=1e-2, steps=50, batch_size=20)
    with pytest.raises(ValueError, match=r"did not rise by 5 points between the rates 1e-05 and 0.01"):
        _ = found.eta_max
    assert found.plot(title="dead").axes


@pytest.mark.parametrize(("options", "message"), [
    ({"low": 0.0}, "expected 0 < low < high"),
    ({"low": 2.0}, "expected 0 < low < high"),
    ({"low": math.nan}, "expected low of at least 0, got nan"),
    ({"scale": "cubic"}, "'exponential' or 'linear', got 'cubic'"),
    ({"steps": 9}, "at least 10 steps, got 9"),
    ({"points": 0}, "points of at least 1, got 0"),
    ({"l2": [0.0, 0.1]}, "expected one network, got 2 models"),
])
def test_range_tests_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_lr(mlp(6, [4], 3), *blobs(Device(), 32), **options)


@pytest.mark.parametrize("own", [{"schedule": 0.1}, {"divergence": "halve"}, {"callbacks": []}])
def test_what_the_range_test_decides_is_not_given(own: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"it has a {next(iter(own))} of its own"):
        find_lr(mlp(6, [4], 3), *blobs(Device(), 32), **own)
