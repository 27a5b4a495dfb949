"""Directories of files that are whole or absent: temporary name, flushed to the disk, renamed, with a manifest.

The manifest holds each file's size and SHA-256, and is written last. Reading compares them before anything is
parsed, and takes no more memory than it was allowed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["DamagedError", "read_directory", "read_file", "read_json", "remove_directory", "replace_file",
           "write_directory", "write_file", "write_text"]

MANIFEST = "manifest.json"
_FORMAT = "xpnet manifest 1"
_SMALL = 2**20  # bytes of a manifest at most
_CHUNK = 2**22


class DamagedError(ValueError):
    """A file is missing, cut, changed, or no file at all; the message names it."""


def write_file(path: Path, content: bytes) -> None:
    """Write a new file and flush it to the disk."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(handle, left[:_CHUNK]) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file that is whole or as it was before: under a temporary name, brought to the disk, and renamed.

    Raises
    ------
    FileNotFoundError
        If its directory is missing.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no directory {path.parent} to write {path.name} to")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_file(temporary, content)
        os.replace(temporary, path)
        _flush(path.parent)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def write_text(path: Path, text: str) -> None:
    """Write a text file, in UTF-8, that is whole or as it was before."""
    replace_file(path, text.encode("utf-8", "backslashreplace"))


def write_directory(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a directory of files with a manifest; one that is there is replaced, once the new one is on the disk.

    Raises
    ------
    OSError
        If it cannot be written; what was there before is intact then, or the new directory is.
    """
    temporary, old = (path.with_name(f".{path.name}.{word}{os.getpid()}") for word in ("new", "old"))
    told = {name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()}
    manifest = json.dumps({"format": _FORMAT, "files": told}, indent=1).encode()
    try:
        remove_directory(temporary)
        os.mkdir(temporary)
        for name, content in {**files, MANIFEST: manifest}.items():
            write_file(temporary / name, content)
        _flush(temporary)
        if os.path.lexists(path):
            remove_directory(old)
            os.rename(path, old)
        os.rename(temporary, path)
        _flush(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            remove_directory(temporary)
        if os.path.lexists(old) and not os.path.lexists(path):
            with contextlib.suppress(OSError):
                os.rename(old, path)
        raise
    remove_directory(old)


def remove_directory(path: Path) -> None:
    """Remove a directory of plain files, or a link; no directory below it, and nothing that a link leads to."""
    if path.is_symlink():
        path.unlink()
    if not path.is_dir():
        return
    for entry in list(path.iterdir()):
        if not entry.is_dir() or entry.is_symlink():
            entry.unlink()
    path.rmdir()


def _flush(directory: Path) -> None:
    """Bring a directory's entries to the disk, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_file(path: Path, limit: int) -> bytes:
    """Return the content of a plain file of at most ``limit`` bytes.

    Raises
    ------
    DamagedError
        If it is missing, longer, or not a plain file (a pipe would be waited for without end).
    """
    try:
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode):
            raise DamagedError(f"{path.name} is not a plain file")
        if found.st_size > limit:
            raise DamagedError(f"{path.name} has {found.st_size:,} bytes, more than the {limit:,} that are read")
        with open(path, "rb") as file:
            return file.read(found.st_size)
    except FileNotFoundError:
        raise DamagedError(f"{path.name} is missing") from None
    except OSError as error:
        raise DamagedError(f"{path.name} cannot be read ({error})") from error


def read_json(content: bytes, name: str) -> dict[str, Any]:
    """Return the object that JSON text holds.

    Raises
    ------
    DamagedError
        If it is no JSON, or something else than an object.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{name} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise DamagedError(f"{name} holds a {type(value).__name__}, expected an object")
    return value


def read_directory(path: Path, limits: Mapping[str, int]) -> dict[str, bytes]:
    """Return the contents of the files named in ``limits``, each of at most so many bytes, after comparing them.

    Raises
    ------
    DamagedError
        If a file is missing, or not what the manifest says, or the manifest does not name exactly these files.
    """
    manifest = read_json(read_file(path / MANIFEST, _SMALL), MANIFEST)
    told = manifest.get("files")
    if manifest.get("format") != _FORMAT or not isinstance(told, dict) or told.keys() != limits.keys():
        raise DamagedError(f"{MANIFEST} is not a list of {', '.join(limits)}, of the format {_FORMAT!r}")
    contents = {}
    for name, limit in limits.items():
        contents[name] = read_file(path / name, limit)
        found = {"bytes": len(contents[name]), "sha256": hashlib.sha256(contents[name]).hexdigest()}
        if told[name] != found:
            raise DamagedError(f"{name} is not what {MANIFEST} says ({found['bytes']:,} bytes)")
    return contents
