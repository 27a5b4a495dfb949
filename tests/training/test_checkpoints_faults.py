"""Runs that are damaged, and writing that fails: the last good checkpoint is intact each time."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import CALLS, CODES, DAMAGES, FILES, REPLACING, damage, faulty
from helpers import assert_same
from runners import Break, fit, make, result, stopped

from xpnet import mlp
from xpnet.files import storage
from xpnet.files.locks import RunLock
from xpnet.nn.formats.safetensors import CheckpointError
from xpnet.training import snapshot
from xpnet.training.checkpoints import Checkpoints, CheckpointWriteError, ResumeWarning, steps_in

# Damage ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(how: str, name: str, tmp_path: Path) -> None:
    whole = fit(make())
    stopped(make(tmp_path), 27)
    damage(tmp_path / "checkpoints" / "step-00000027" / name, how)
    again = make(tmp_path)
    said = rf"step-00000027 is damaged: .*{name}.*: going on from step-00000020"
    with pytest.warns(ResumeWarning, match=said) as told:
        again.resume(tmp_path)
    assert [warning.filename for warning in told] == [__file__]
    assert again.step == 20
    assert_same(result(fit(again)), result(whole))
    assert (tmp_path / "checkpoints" / "step-00000027.damaged").is_dir()  # put aside, and not counted
    assert sorted(steps_in(tmp_path))[-2:] == [30, 40]


def test_where_every_checkpoint_is_damaged_all_are_named(tmp_path: Path) -> None:
    stopped(make(tmp_path), 27)
    for step in steps_in(tmp_path):
        damage(tmp_path / "checkpoints" / f"step-{step:08d}" / "state.json", "zeros")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is intact: .*step-00000027.*step-00000020"):
        make(tmp_path).resume(tmp_path)


def test_what_a_killed_process_left_is_tidied(tmp_path: Path) -> None:
    fit(make(tmp_path), 20)
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "step-00000020", folder / ".step-00000030.new77")
    (folder / "step-00000010").rename(folder / ".step-00000010.old77")  # killed between two renames
    again = make(tmp_path)
    again.resume(tmp_path)
    assert again.step == 20
    fit(again, 20)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000010", "step-00000020"]


def test_the_newest_is_not_lost_when_a_kill_came_while_it_was_replaced(tmp_path: Path) -> None:
    whole = fit(make())
    stopped(make(tmp_path), 17)
    folder = tmp_path / "checkpoints"
    (folder / "step-00000017").rename(folder / ".step-00000017.old77")  # the new one was to take its place
    again = make(tmp_path)
    again.resume(tmp_path)
    assert again.step == 17
    assert_same(result(fit(again)), result(whole))
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000030", "step-00000040"]


# Writing that fails ---------------------------------------------------------------------------------------------------

FIRST = [call for call in CALLS if call not in REPLACING]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[tuple[str, int], int], None]]:
    """Return a function that makes one call of the next checkpoint fail."""
    def start(call: tuple[str, int], code: int) -> None:
        monkeypatch.setattr(storage, "os", faulty(*call, code))

    yield start
    monkeypatch.undo()


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("call", FIRST, ids=str)
def test_a_fault_in_writing_ends_the_run_with_the_last_good_checkpoint_intact(
    call: tuple[str, int], code: str, tmp_path: Path, broken: Callable[[tuple[str, int], int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = fit(make())
    with pytest.raises(CheckpointWriteError, match="the last good checkpoint is step-00000010") as caught:
        fit(make(tmp_path, callbacks=[Break(20, lambda: broken(call, CODES[code]))]))
    assert caught.value.errno == CODES[code]
    assert isinstance(caught.value, OSError)
    assert "step-00000020" in str(caught.value)
    if code == "ENOSPC":
        assert "the disk is full: free some space" in str(caught.value)
    monkeypatch.undo()
    again = make(tmp_path)
    again.resume(tmp_path)
    assert again.step == 10
    assert_same(result(fit(again)), result(whole))
    assert not [path for path in (tmp_path / "checkpoints").iterdir() if path.name.startswith(".")]


def test_a_trainer_goes_on_after_a_fault_in_writing(
    tmp_path: Path, broken: Callable[[tuple[str, int], int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(tmp_path, callbacks=[Break(20, lambda: broken(("write", 2), errno.ENOSPC))])
    with pytest.raises(CheckpointWriteError):
        fit(trainer)
    monkeypatch.undo()
    assert_same(result(fit(trainer)), result(fit(make())))
    assert sorted(steps_in(tmp_path))[-1] == 40


def test_an_old_checkpoint_that_cannot_be_removed_is_named(tmp_path: Path) -> None:
    def add() -> None:
        (tmp_path / "checkpoints" / "step-00000010" / "notes").mkdir()

    with pytest.raises(CheckpointWriteError, match=r"cannot remove \(.*[Nn]ot empty\).* is step-00000030: .*-00000010"):
        fit(make(tmp_path, callbacks=[Break(20, add)]))
    assert snapshot.read(tmp_path / "checkpoints" / "step-00000030").step == 30


def test_a_directory_that_vanishes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(CheckpointWriteError, match="it has vanished: look whether the disk is still there; there is"):
        fit(make(run, callbacks=[Break(20, lambda: shutil.rmtree(run))]))


def test_a_directory_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(CheckpointWriteError, match=r"cannot begin \(Read-only file system\): it cannot be written to"):
        fit(make(tmp_path / "run"))


def test_signals_that_come_while_it_writes_do_no_harm(tmp_path: Path) -> None:
    """A storm of interrupted system calls: EINTR from the system itself, not from a stand-in."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("this system has no interval timers")
    caught: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: caught.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for i in range(40):
            storage.write_directory(tmp_path / "one", {"a": os.urandom(300_000)})
            assert len(storage.read_directory(tmp_path / "one", {"a": 10**6})["a"]) == 300_000, i
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(caught) > 20


def test_a_link_in_place_of_the_checkpoints_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError, match="is a link"):
        fit(make(tmp_path / "run"))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_an_error_in_training_is_not_hidden_and_lets_go_of_the_lock(tmp_path: Path) -> None:
    def fail() -> None:
        raise ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError, match="on purpose"):
        fit(make(tmp_path, callbacks=[Break(20, fail)]))
    assert sorted(steps_in(tmp_path)) == [0, 10]
    with RunLock(tmp_path):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("checkpoints")]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    def rate(step: int) -> float:
        return 1e30 if step == 25 else 0.01

    network = mlp(6, [8, 5], 3)
    with pytest.raises(ArithmeticError, match="as it was at update 20"):
        fit(make(tmp_path, network=network, schedule=rate))
    assert sorted(steps_in(tmp_path)) == [10, 20]
    again = make(tmp_path, network=network, schedule=rate, divergence="halve")  # how to go on is not what it is
    again.resume(tmp_path)
    assert again.step == 20
    assert np.isfinite(again.arrays["W1"]).all()


def test_checkpoints_that_a_halved_rate_undid_are_removed(tmp_path: Path) -> None:
    trainer = make(tmp_path)
    fit(trainer, 40)
    early = snapshot.read(tmp_path / "checkpoints" / "step-00000030")
    own = trainer.callbacks[-1]
    assert isinstance(own, Checkpoints)
    snapshot.restore(early, trainer)
    stopped(trainer, 35)
    assert sorted(steps_in(tmp_path)) == [30, 35]
