"""Runs that are refused: another configuration, other data, another version, another writer, hostile checkpoints."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runners
from helpers import assert_same, blobs
from runners import RICH, fit, make, result, stopped

from xpnet import Adam, Callback, Constant, CyclicLR, EarlyStopping, JSONLines, Trainer, mlp
from xpnet.backend import Device
from xpnet.files import storage
from xpnet.files.locks import LockedError, RunLock
from xpnet.nn.formats.safetensors import CheckpointError
from xpnet.training import snapshot
from xpnet.training.checkpoints import Checkpoints, ResumeWarning
from xpnet.training.snapshot import ResumeError

# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "words"), [
    ({"l2": 0.1}, r"l2 was 0\.0, and is 0\.1 here"),
    ({"seed": 1}, "seed was 0, and is 1 here"),
    ({"order_seed": 1}, "order_seed was null, and is 1 here"),
    ({"batch_size": 17}, "batch_size was 16, and is 17 here"),
    ({"dtype": "float64"}, 'dtype was "float32", and is "float64" here'),
    ({"optimizer": Adam()}, r'optimizer\.type was "SGD", and is "Adam" here; optimizer\.momentum'),
    ({"schedule": CyclicLR(1e-3, 0.05, 8)}, r"schedule\.step_size was 7, and is 8 here"),
    ({"network": mlp(6, [8, 5], 3, batch_norm=True)}, r"network\.layers was \[.*\.\.\., and is \[.*\.\.\. here"),
    ({"network": mlp(6, [8, 6], 3, batch_norm=True, dropout=0.2, standardize=True)},
     r"network\.layers\[5\]\.out_width was 5, and is 6 here"),
    ({"callbacks": [EarlyStopping()]}, r'callbacks was \[\], and is \["EarlyStopping"\] here'),
    ({"seed": [0, 1]}, r"seed was 0, and is \[0, 1\] here"),
], ids=["l2", "seed", "order_seed", "batch_size", "dtype", "optimizer", "schedule", "layers", "width", "callbacks",
        "models"])
def test_another_configuration_is_refused_by_name(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    stopped(make(tmp_path), 17)
    other = make(tmp_path, **options)
    with pytest.raises(ResumeError, match=words) as caught:
        other.resume(tmp_path)
    assert isinstance(caught.value, ValueError)
    assert other.step == 0
    assert not other.arrays


def changed_data(device: Device, what: str) -> dict[str, Any]:
    """Return ``fit``'s arguments with one of the data different."""
    x, y = blobs(device, 120)
    given = {"x": x.copy(), "y": y.copy(), "vx": x[:40].copy(), "vy": y[:40].copy()}
    if what == "fewer examples":
        given |= {"x": x[:112], "y": y[:112]}
    elif what == "dtype":
        given["x"] = x.astype("float64")
    elif what == "no validation":
        return {"x": x, "y": y, "validation": None}
    else:
        given[what][3] = given[what][3] + 1 if what in ("x", "vx") else (given[what][3] + 1) % 3
    return {"x": given["x"], "y": given["y"], "validation": (given["vx"], given["vy"])}


@pytest.mark.parametrize(("what", "words"), [
    ("x", r"data\.train features\.sha256 was"), ("y", r"data\.train labels\.sha256 was"),
    ("vx", r"data\.validation features\.sha256"), ("vy", r"data\.validation labels\.sha256"),
    ("fewer examples", r"data\.train features\.shape\[0\] was 120, and is 112 here"),
    ("dtype", r'features\.dtype was "float32", and is "float64" here'),
    ("no validation", r"data\.validation features was \{.*\.\.\., and is null here"),
])
def test_other_data_are_refused_by_name(what: str, words: str, tmp_path: Path) -> None:
    stopped(make(tmp_path), 17)
    again = make(tmp_path)
    again.resume(tmp_path)
    with pytest.raises(ResumeError, match=words):
        again.fit(**changed_data(Device(), what), steps=40, evaluate_every=10, train_sample=112)
    with pytest.raises(ResumeError, match="data"):  # asked again, it is refused again
        again.fit(**changed_data(Device(), what), steps=40, evaluate_every=10)
    assert again.step == 17
    with RunLock(tmp_path):  # nobody holds it
        pass


@pytest.mark.parametrize(("options", "words"), [
    ({"evaluate_every": 5}, "evaluate_every was 10, and is 5 here"),
    ({"train_sample": 7}, "train_sample was 120, and is 7 here"),
], ids=["evaluate_every", "train_sample"])
def test_another_plan_is_refused_by_name(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    stopped(make(tmp_path), 17)
    again = make(tmp_path)
    again.resume(tmp_path)
    with pytest.raises(ResumeError, match=words):
        fit(again, **options)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16", "bool", "int64", ">f4"])
def test_the_fingerprint_is_of_every_byte_wherever_it_lies(dtype: str) -> None:
    a = (np.arange(20_001 * 7) % 11).reshape(20_001, 7).astype(dtype)
    expected = {"shape": [20_001, 7], "dtype": a.dtype.name, "sha256": hashlib.sha256(a.tobytes()).hexdigest()}
    for same in (a, np.asfortranarray(a), np.repeat(a, 2, axis=0)[::2], a[::-1].copy()[::-1]):
        found = snapshot.fingerprint({"train": (same, np.arange(3))})
        assert found["train features"] == expected
        assert found["train labels"]["shape"] == [3]
    b = a.copy()
    b[20_000, 6] = not b[20_000, 6]
    assert snapshot.fingerprint({"train": (b, np.arange(3))})["train features"]["sha256"] != expected["sha256"]


def test_another_version_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(make(tmp_path), 17)
    monkeypatch.setattr("xpnet.training.snapshot.__version__", "7.0")
    with pytest.raises(ResumeError, match=r"written by xpnet 0\.\d.*, this is xpnet 7\.0 .*: go on with the version"):
        make(tmp_path).resume(tmp_path)


def test_other_libraries_and_threads_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(make(tmp_path), 17)
    real = snapshot.environment
    monkeypatch.setattr(snapshot, "environment", lambda device: {**real(device), "threads": "64", "blas": "MKL"})
    again = make(tmp_path)
    again.resume(tmp_path)
    with pytest.warns(ResumeWarning, match='threads was "1", and is "64" here; blas was .*, and is "MKL" here') as told:
        fit(again)
    assert [warning.filename for warning in told] == [runners.__file__]  # the line that called ``Trainer.fit``


def test_a_used_directory_is_refused(tmp_path: Path) -> None:
    fit(make(tmp_path), 20)
    other = make(tmp_path)
    with pytest.raises(FileExistsError, match=r"holds a run at update 20: go on from there with Trainer\.resume"):
        fit(other)
    assert other.step == 0
    behind = make(tmp_path)
    behind.resume(tmp_path)
    ahead = make(tmp_path)
    ahead.resume(tmp_path)
    fit(ahead, 30)
    with pytest.raises(FileExistsError, match="holds a run at update 30"):
        fit(behind, 40)


def test_there_is_one_writer(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(LockedError, match=f"process {os.getpid()} on"):
        fit(make(tmp_path))
    held = make(tmp_path)
    own = held.callbacks[-1]
    assert isinstance(own, Checkpoints)
    with own.lock:
        fit(held)


def test_nothing_is_written_before_a_run_begins(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    own = trainer.callbacks[-1]
    assert isinstance(own, Checkpoints)
    with pytest.raises(RuntimeError, match="a run that trains"):
        own.write(trainer)


def test_checkpoints_come_last() -> None:
    with pytest.raises(ValueError, match="to be the last of the callbacks"):
        fit(Trainer(RICH, callbacks=[Checkpoints("nowhere"), EarlyStopping()]))
    assert not Path("nowhere").exists()


@pytest.mark.parametrize(("options", "words"), [
    ({"keep": 1}, "keep of at least 2"), ({"every": 0}, "every of at least 1"), ({"mode": "b"}, "mode 'min' or 'max'"),
], ids=["keep", "every", "mode"])
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Checkpoints("nowhere", **options)


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no column 'speed' in step, epoch"):
        fit(make(tmp_path, writing={"monitor": "speed", "mode": "max"}))


@pytest.mark.parametrize("content", ["nothing", "an empty directory", "no checkpoints", "a file"])
def test_there_is_nothing_to_go_on_from(content: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    if content == "a file":
        run.write_text("", "utf-8")
    elif content != "nothing":
        (run / "checkpoints" if content == "no checkpoints" else run).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*: expected a directory that Checkpoints wrote"):
        make().resume(run)


# Hostile checkpoints --------------------------------------------------------------------------------------------------


def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Change a checkpoint's JSON and arrays, and give it a manifest that fits."""
    from xpnet.nn.formats.safetensors import pack, unpack

    told = json.loads((path / "state.json").read_text("utf-8"))
    arrays = unpack((path / "arrays.safetensors").read_bytes())
    change(told, arrays)
    storage.write_directory(path, {"arrays.safetensors": pack(arrays), "state.json": json.dumps(told).encode()})


HOSTILE: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] = {
    "rows without end": lambda told, arrays: told.update(rows=10**12),
    "no rows": lambda told, arrays: told.update(rows=0),
    "columns that are not there": lambda told, arrays: told.update(columns=["x"]),
    "columns that are no names": lambda told, arrays: told.update(columns=[["step"]]),
    "another step": lambda told, arrays: told.update(step=10**9),
    "a step that is text": lambda told, arrays: told.update(step="17"),
    "a negative counter": lambda told, arrays: told.update(unseen=-1),
    "a large counter": lambda told, arrays: told.update(unseen=10**9),
    "no config": lambda told, arrays: told.pop("config"),
    "a plan that is a list": lambda told, arrays: told.update(plan=[]),
    "a plan of text": lambda told, arrays: told.update(plan=dict.fromkeys(told["plan"], "x")),
    "callbacks that are numbers": lambda told, arrays: told.update(callbacks=[1]),
    "diverged models that are text": lambda told, arrays: told.update(diverged=[["a", "b", "c"]]),
    "a missing array": lambda told, arrays: arrays.pop("state/W1"),
    "an array more": lambda told, arrays: arrays.update({"state/W9": np.zeros(3, "float32")}),
    "an array of another shape": lambda told, arrays: arrays.update({"state/W1": np.zeros((8, 6), "float32")}),
    "an array of another dtype": lambda told, arrays: arrays.update({"state/W1": np.zeros((6, 8), "float64")}),
    "rows out of place": lambda told, arrays: arrays.update({"there/lr": np.asarray([0, 99])}),
    "fewer places than rows": lambda told, arrays: arrays.update({"there/lr": np.asarray([0])}),
    "steps that are not whole": lambda told, arrays: arrays.update({"rows/step": np.asarray([0.0, 10.0])}),
    "losses that are one number": lambda told, arrays: arrays.update({"batch_loss": np.asarray(1.0)}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_checkpoint_that_holds_something_else_is_damaged(kind: str, tmp_path: Path) -> None:
    stopped(make(tmp_path), 17)
    rewritten(tmp_path / "checkpoints" / "step-00000017", HOSTILE[kind])
    for step in (0, 10):
        storage.remove_directory(tmp_path / "checkpoints" / f"step-{step:08d}")
    with pytest.raises(CheckpointError, match=r"step-00000017|update 17"):
        make(tmp_path).resume(tmp_path)


def test_rewriting_alone_does_no_damage(tmp_path: Path) -> None:
    stopped(make(tmp_path), 17)
    rewritten(tmp_path / "checkpoints" / "step-00000017", lambda told, arrays: None)
    again = make(tmp_path)
    again.resume(tmp_path)
    assert_same(result(fit(again)), result(fit(make())))


@pytest.mark.parametrize("state", [{}, {"best": 3}, {"best": [1]}, {"best": {"a": 1}}, {"best": ["x", "y"]},
                                   {"best": [1e400, 1]}], ids=str)
def test_a_wrong_state_of_a_callback_is_damage(state: dict[str, Any], tmp_path: Path) -> None:
    stopped(make(tmp_path), 17)
    rewritten(tmp_path / "checkpoints" / "step-00000017",
              lambda told, arrays: told["callbacks"][-1].update(state=state))
    with pytest.raises(CheckpointError, match="wrong state of Checkpoints"):
        make(tmp_path).resume(tmp_path)


def test_what_is_too_large_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(make(tmp_path), 17)
    monkeypatch.setattr(Device, "free_memory", lambda self: 3000)
    with pytest.raises(CheckpointError, match=r"arrays\.safetensors has [\d,]+ bytes, more than the 1,000 that are"):
        make(tmp_path).resume(tmp_path)


def test_state_that_json_cannot_hold_is_refused_when_it_is_written(tmp_path: Path) -> None:
    class Odd(Callback):
        def __init__(self, held: Any) -> None:
            self.held = held

        def state(self) -> dict[str, Any]:
            return {"held": self.held}

    for held, error in ((float("nan"), ValueError), (object(), TypeError)):
        with pytest.raises(error, match="JSON"):
            fit(make(tmp_path / str(type(held)), callbacks=[Odd(held)]))


def test_options_that_json_cannot_hold_are_refused_when_they_are_written(tmp_path: Path) -> None:
    class Odd:
        def std(self, fan_in: int, fan_out: int) -> float:
            return 0.1

    with pytest.raises(TypeError, match="fields are saved as JSON, which has no Odd"):
        fit(make(tmp_path, network=mlp(6, [8], 3, initializer=Odd())))


def test_the_trainer_lets_go_of_the_data(tmp_path: Path) -> None:
    trainer = fit(make(tmp_path))
    assert not trainer.data


def test_logs_are_not_part_of_the_state(tmp_path: Path) -> None:
    stopped(make(tmp_path / "run", callbacks=[JSONLines(tmp_path / "log")]), 17)
    again = make(tmp_path / "run")
    again.resume(tmp_path / "run")
    assert again.step == 17


def test_a_schedule_that_is_a_function_is_compared_by_name(tmp_path: Path) -> None:
    def one(step: int) -> float:
        return 0.01

    def other(step: int) -> float:
        return 0.01

    stopped(make(tmp_path, schedule=one), 17)
    with pytest.raises(ResumeError, match=r'schedule was "test_checkpoints_refused\.test_a_.*, and is "test_'):
        make(tmp_path, schedule=other).resume(tmp_path)
    make(tmp_path, schedule=one).resume(tmp_path)


def test_rates_of_a_sweep_are_compared_by_value(tmp_path: Path) -> None:
    stopped(make(tmp_path, schedule=Constant([0.1, 0.2])), 17)
    with pytest.raises(ResumeError, match=r"schedule\.eta\[1\] was 0\.2, and is 0\.3 here"):
        make(tmp_path, schedule=Constant([0.1, 0.3])).resume(tmp_path)
