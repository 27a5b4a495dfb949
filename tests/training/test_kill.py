"""Trainings that are killed: at random moments, and in every call of writing a checkpoint."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import faults
import pytest
from faults import CALLS
from helpers import assert_same
from kills import JOBS, command, outcome, start, storm
from runners import fit, make, result

from xpnet.training.checkpoints import ResumeWarning, steps_in
from xpnet.training.snapshot import read

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL"),
]

KILL_IN_A_CALL = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from faults import Faulty
from runners import Break, fit, make
from xpnet.files import storage
target = (sys.argv[3], int(sys.argv[4]))

def kill(name, count):
    if (name, count) == target:
        os.kill(os.getpid(), signal.SIGKILL)

def begin():
    storage.os = Faulty(kill)

fit(make(Path(sys.argv[2]), callbacks=[Break(20, begin)]))
"""


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_a_kill_in_any_call_of_a_write_loses_nothing(call: tuple[str, int], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILL_IN_A_CALL, str(Path(faults.__file__).parent), str(tmp_path), call[0], str(call[1])],
        capture_output=True, text=True, check=False)
    # Step 20 is new: its write has one rename, so that later calls fall into the next checkpoint's.
    assert done.returncode == -signal.SIGKILL, done.stderr
    newest = max(steps_in(tmp_path))
    assert newest in (10, 20)
    read(tmp_path / "checkpoints" / f"step-{newest:08d}")
    again = make(tmp_path)
    again.resume(tmp_path)
    with pytest.warns(UserWarning, match="ended without letting go of this run; taken over"):
        fit(again)
    assert_same(result(again), result(fit(make())))
    assert not [path for path in (tmp_path / "checkpoints").iterdir() if path.name.startswith(".")]


def test_a_training_killed_at_random_moments_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    found = storm("Adam, dropout", 1000, 4, tmp_path / "storm", seed=1, longest=0.4)  # the first kill comes in any case
    assert found.problems == []
    assert 1 <= found.kills <= 4


def test_the_storm_sees_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kills.outcome", lambda run: {"weights": run.name})
    assert storm("plain descent", 14, 0, tmp_path / "storm", seed=1).problems == ["weights differ"]
    monkeypatch.setitem(JOBS, "plain descent", ["--hidden", "x"])
    assert "widths" in storm("plain descent", 14, 0, tmp_path / "storm", seed=1).problems[0]


@pytest.fixture
def training(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Return a training that has written its first checkpoints."""
    process = start(command("Adam, dropout", 100_000, tmp_path / "run", resume=False))
    deadline = time.monotonic() + 60
    while not any(steps_in(tmp_path / "run")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_leaves_a_run_that_goes_on(
    training: subprocess.Popen[str], number: signal.Signals, code: int, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    training.send_signal(number)
    printed, said = training.communicate(timeout=60)
    assert (training.returncode, printed) == (code, "")
    at = max(steps_in(run))
    assert f"xpnet train: ended by {number.name} after update {at} of 100000; go on with: " in said
    assert said.endswith(f"xpnet train --resume {run}\n")
    assert said.count("\n") == 1
    again = subprocess.run([sys.executable, "-m", "xpnet", "train", "--resume", str(run), "--steps", str(at + 20),
                            "--json"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["step"] == at + 20


def test_a_second_training_in_the_directory_is_refused(training: subprocess.Popen[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    other = subprocess.run([sys.executable, "-m", "xpnet", "train", "--resume", str(run)], capture_output=True,
                           text=True, check=False)
    assert other.returncode == 2
    assert f"process {training.pid} on " in other.stderr
    assert other.stderr.count("\n") == 1
    training.kill()
    training.wait()
    again = subprocess.run([sys.executable, "-m", "xpnet", "train", "--resume", str(run), "--steps", "7"],
                           capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert f"process {training.pid} on " in again.stderr
    assert "taken over" in again.stderr


def test_a_damaged_checkpoint_is_said_to_be(tmp_path: Path) -> None:
    calm, run = tmp_path / "calm", tmp_path / "run"
    for folder in (calm, run):
        start(command("plain descent", 70, folder, resume=False)).communicate()
    (run / "checkpoints" / "step-00000070" / "arrays.safetensors").write_bytes(b"")
    again = subprocess.run(command("plain descent", 70, run, resume=True), capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert "step-00000070 is damaged: " in again.stderr
    assert "going on from step-00000063" in again.stderr
    assert outcome(run) == outcome(calm)
    assert ResumeWarning.__name__ not in again.stderr  # plain words, no place in the source
