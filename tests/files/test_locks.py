"""One writer per directory: who is refused, who takes over, and what a hostile lock file cannot do."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from xpnet.files import locks
from xpnet.files.locks import LockedError, RunLock, StaleLockWarning

HOLD = """
import sys, time
from xpnet.files.locks import RunLock
with RunLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Return a process that holds the lock of ``tmp_path``."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_with_the_owners_host_and_number(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    with pytest.raises(LockedError, match=rf"process {holder.pid} on {locks.platform.node()} writes to") as got:
        RunLock(tmp_path).__enter__()
    assert isinstance(got.value, OSError)
    assert str(tmp_path / "lock") in str(got.value)


def test_the_lock_of_a_killed_process_is_taken_over_and_said_so(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    holder.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    holder.wait()
    with pytest.warns(StaleLockWarning, match=f"process {holder.pid} on .* ended without letting go.*taken over"), \
            RunLock(tmp_path):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with RunLock(tmp_path):  # let go of in order, it tells nobody
            pass


def test_the_lock_is_held_until_the_last_let_go(tmp_path: Path) -> None:
    lock, other = RunLock(tmp_path), RunLock(tmp_path)
    with lock:
        with lock:
            pass
        with pytest.raises(LockedError, match=f"process {os.getpid()} "):
            other.__enter__()
    with other:
        told = json.loads((tmp_path / "lock").read_text("utf-8"))
        assert told == {"host": locks.platform.node(), "pid": os.getpid(), "started": locks.started(os.getpid())}
    assert (tmp_path / "lock").read_text("utf-8") == ""


def test_the_lock_of_another_host_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(json.dumps({"host": "elsewhere", "pid": 7, "started": "3"}), "utf-8")
    with pytest.raises(LockedError, match=r"process 7 on elsewhere .* if it has ended, delete this file"):
        RunLock(tmp_path).__enter__()
    (tmp_path / "lock").unlink()
    with RunLock(tmp_path):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="there every file system has locks")
@pytest.mark.parametrize("owner", ["this process", "its number, started at another time", "a dead process", "nobody"])
def test_without_locks_of_the_system_the_owners_number_decides(
    owner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(handle: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(locks, "_ask", none)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    pid, started = os.getpid(), locks.started(os.getpid())
    told = {"this process": (pid, started), "its number, started at another time": (pid, "1"),
            "a dead process": (ended.pid, "")}.get(owner)
    if told:
        (tmp_path / "lock").write_text(json.dumps(
            {"host": locks.platform.node(), "pid": told[0], "started": told[1]}), "utf-8")
    if owner == "this process":
        with pytest.raises(LockedError, match=f"process {pid} on"):
            RunLock(tmp_path).__enter__()
    elif owner == "nobody":
        with RunLock(tmp_path):
            pass
    else:
        with pytest.warns(StaleLockWarning), RunLock(tmp_path):
            pass


def test_an_error_of_the_system_that_is_no_answer_comes_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(handle: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(locks, "_lock", broken)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    for _ in range(3):
        with pytest.raises(OSError, match="input/output"):
            RunLock(tmp_path).__enter__()
    assert not before or len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b"[" * 100_000, b'{"host": null}', b'{"pid": 1e400}', b"{}" * 3000,
], ids=range(10))
def test_a_lock_file_with_something_else_in_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(content)
    try:
        with RunLock(tmp_path):
            pass
    except LockedError as error:
        assert "delete this file" in str(error)  # noqa: PT017


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system follows links")
def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data", "utf-8")
    (tmp_path / "lock").symlink_to(precious)
    with pytest.raises(OSError, match="lock"):
        RunLock(tmp_path).__enter__()
    assert precious.read_text("utf-8") == "data"


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RunLock(tmp_path / "none").__enter__()
    lock = RunLock(tmp_path / "gone")
    (tmp_path / "gone").mkdir()
    with lock:
        (tmp_path / "gone" / "lock").unlink()
        (tmp_path / "gone").rmdir()


def test_when_a_process_started() -> None:
    assert locks.started(os.getpid()) == locks.started(os.getpid())
    assert locks.started(2**30) == ""
