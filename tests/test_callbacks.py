"""Callbacks: when they are called, that they can stop a run, and what the ready-made ones write."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import blobs

from xpnet import Callback, Constant, DivergenceError, JSONLines, Progress, Trainer, mlp
from xpnet.backend import Device


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
