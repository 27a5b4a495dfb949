"""Faults in the calls that write a checkpoint, and damage to its files: for tests and for docs/robustness.md."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: The calls of one ``write_directory`` over an existing directory: name, and the how-manieth of them.
CALLS = [("mkdir", 1), ("open", 1), ("write", 1), ("fsync", 1), ("open", 2), ("write", 2), ("fsync", 2), ("open", 3),
         ("fsync", 3), ("fsync", 4), ("rename", 1), ("rename", 2), ("fsync", 5)]
REPLACING = [("rename", 2), ("fsync", 5)]  # those of them that a new directory does without
CODES = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EINTR": errno.EINTR}
FILES = ("arrays.safetensors", "state.json", "manifest.json")


class Faulty:
    """Stands in for the module ``os``: tells of each call that changes a disk before it is made."""

    def __init__(self, before: Callable[[str, int], Any]) -> None:
        self.before = before
        self.counts: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in ("mkdir", "open", "write", "fsync", "rename", "replace"):
            return real

        def call(*arguments: Any, **options: Any) -> Any:
            self.counts[name] = self.counts.get(name, 0) + 1
            self.before(name, self.counts[name])
            return real(*arguments, **options)

        return call


def faulty(name: str, count: int, code: int) -> Faulty:
    """Return an ``os`` whose ``count``-th call of ``name`` fails with ``code``; those after it work again."""
    def before(called: str, number: int) -> None:
        if (called, number) == (name, count):
            raise OSError(code, os.strerror(code))

    return Faulty(before)


def damage(path: Path, how: str) -> None:
    """Damage a file as a crash or a failing disk does."""
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
        return
    path.write_bytes({
        "torn": content[: len(content) // 2], "zeros": bytes(len(content)), "empty": b"",
        "zeros at the end": content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
        "one bit": bytes([content[0] ^ 4]) + content[1:],
    }[how])


DAMAGES = ("missing", "torn", "zeros", "empty", "zeros at the end", "one bit")
