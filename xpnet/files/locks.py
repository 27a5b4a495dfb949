"""One writer per directory: a lock file with the owner's host, process and start.

The operating system holds the lock (``flock``, or ``locking`` on Windows) and drops it when the process ends,
however it ends. Where a file system has no such locks, the owner's process number decides.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import sys
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["LockedError", "RunLock", "StaleLockWarning"]

_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)

if sys.platform == "win32":
    import msvcrt

    def _ask(handle: int) -> None:
        os.lseek(handle, 2**30, os.SEEK_SET)  # what is locked cannot be read either: a byte behind the text
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _ask(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


class LockedError(OSError):
    """Another process writes to the directory; the message names its host and number."""


class StaleLockWarning(UserWarning):
    """A process that wrote to the directory ended without letting go of it; the lock was taken over."""


class RunLock:
    """The right to write to a directory; ``with`` holds it, and may be nested.

    Parameters
    ----------
    directory : path
        It must exist when the lock is taken. The file in it is called ``lock``, and stays.
    """

    def __init__(self, directory: str | Path) -> None:
        self.path: Path = Path(directory) / "lock"
        self._handle: int | None = None
        self._depth = 0

    def __enter__(self) -> RunLock:
        """Take the lock.

        Raises
        ------
        LockedError
            If another process has it.
        OSError
            If the directory is missing or cannot be written to.
        """
        if not self._depth:
            # A link would have the file it leads to overwritten.
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            try:
                self._take(handle)
            except BaseException:
                os.close(handle)
                raise
            self._handle = handle
        self._depth += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Let go."""
        self._depth -= 1
        if not self._depth and self._handle is not None:
            with contextlib.suppress(OSError):  # the directory may be gone, or the disk full
                os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None

    def _take(self, handle: int) -> None:
        here = {"host": platform.node(), "pid": os.getpid(), "started": started(os.getpid())}
        held = _lock(handle)
        owner = _owner(handle)
        who = (f"process {owner.get('pid')} on {owner.get('host')}" if owner else "a process that left no name")
        if held is False or (held is None and owner and owner.get("host") == here["host"] and _lives(owner)):
            raise LockedError(errno.EAGAIN, f"{who} writes to this run: wait for it, or end it", str(self.path))
        if owner and owner.get("host") != here["host"]:
            raise LockedError(errno.EAGAIN, f"{who} wrote to this run and did not let go: if it has ended, delete "
                              "this file", str(self.path))
        if owner:
            warnings.warn(f"{self.path}: {who} ended without letting go of this run; taken over", StaleLockWarning,
                          stacklevel=4)
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, json.dumps(here).encode())


def _lock(handle: int) -> bool | None:
    """Ask the system for the lock: True if it is ours, False if somebody has it, None if there are no locks here."""
    try:
        _ask(handle)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def _owner(handle: int) -> dict[str, Any]:
    """Read who took the lock last and did not let go; nothing, if the file is empty or holds something else."""
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        owner = json.loads(os.read(handle, 4096))
    except (ValueError, RecursionError):
        return {}
    return {name: str(owner.get(name))[:100] for name in ("host", "pid", "started")} if isinstance(owner, dict) else {}


def _lives(owner: dict[str, Any]) -> bool:
    """Return whether an owner on this host still runs: its number may belong to another process by now."""
    try:
        os.kill(int(owner["pid"]), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        pass
    return owner["started"] in (started(int(owner["pid"])), "")


def started(pid: int) -> str:
    """Return when a process started, in ticks since the machine did; nothing where that cannot be told."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
