"""A sweep's directory: what it is, in ``sweep.json``, and its blocks.

Those that are finished are one file each, whole or absent; those that are being trained keep checkpoints in ``runs``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..backend import to_numpy
from ..files.locks import LockedError, RunLock
from ..files.storage import DamagedError, read_file, read_json, replace_file
from ..nn.formats.safetensors import CheckpointError, pack, readable, unpack
from ..nn.per_model import describe
from ..training.snapshot import compared
from .blocks import Block

__all__ = ["DamagedBlockWarning", "Store", "locked"]

_FORMAT, _TOLD = "xpnet block 1", "sweep.json"


class DamagedBlockWarning(UserWarning):
    """A file of a finished block cannot be used; its networks are trained again."""


@contextlib.contextmanager
def locked(directory: Path | None) -> Iterator[None]:
    """Hold the right to write to a sweep's directory, which is made where it is missing.

    Raises
    ------
    LockedError
        If another process has it.
    OSError
        If the directory cannot be written to.
    """
    with contextlib.ExitStack() as held:
        if directory:
            if directory.exists() and not directory.is_dir():
                raise NotADirectoryError(f"sweep: expected a directory to write to, {directory} is a file")
            with _explained(directory):
                directory.mkdir(parents=True, exist_ok=True)
                held.enter_context(RunLock(directory))
        yield


class Store:
    """A sweep's directory.

    Parameters
    ----------
    directory : Path, optional
        Where it is kept; nowhere without one.
    told : dict
        All that decides the sweep's result.
    block_size : int
        How members are cut into blocks, unless the directory knows already.
    runs : bool
        Whether blocks keep checkpoints there while they are trained.

    Attributes
    ----------
    block_size : int
        How members are cut into blocks.

    Raises
    ------
    ValueError
        If the directory holds another sweep; the message names what differs.
    OSError
        If it cannot be written to.
    """

    def __init__(self, directory: Path | None, told: dict[str, Any], block_size: int, *, runs: bool = False) -> None:
        self.directory: Path | None = directory
        self.block_size: int = block_size
        self._runs, self._new = runs, False
        if not directory:
            return
        told = json.loads(json.dumps(told, default=_described))
        self.identity: str = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        path = directory / _TOLD
        if not path.exists():
            _write(path, json.dumps({**told, "block_size": block_size}, indent=1).encode())
            self._new = True
            return
        try:
            kept = read_json(read_file(path, readable() // 10), path.name)  # JSON in memory is much larger
            self.block_size = kept.pop("block_size")
            if type(self.block_size) is not int or self.block_size < 1:
                raise ValueError(f"its block_size is {str(self.block_size)[:40]}")
        except (DamagedError, KeyError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}): remove it; finished blocks will be found again") from error
        if different := compared(kept, told):
            raise ValueError(f"{directory} holds another sweep: {'; '.join(different)}. Choose another directory, or "
                             "remove this one")

    def let_go(self) -> None:
        """Leave a new directory to whatever sweep comes, if it holds nothing of this one."""
        if self.directory and self._new and not any(
                any(self.directory.glob(kept)) for kept in ("blocks/*.safetensors", "runs/*/checkpoints/step-*")):
            (self.directory / _TOLD).unlink(missing_ok=True)

    def load(self, until: int, check: Callable[[Block], None] | None = None) -> Iterator[Block]:
        """Return the blocks that end at update ``until``, one after the other; name what is damaged in a warning.

        ``check`` raises an error for a block that is not the sweep's.
        """
        for path in sorted(self.directory.glob(f"blocks/{until:09d}-*.safetensors")) if self.directory else ():
            try:
                block = self._read(path)
                if block and check:
                    check(block)
            except (DamagedError, CheckpointError, KeyError, ValueError, TypeError, AttributeError, OverflowError,
                    RecursionError) as error:
                warnings.warn(f"{path} is damaged ({error}): its networks are trained again", DamagedBlockWarning,
                              stacklevel=3)
                continue
            if block:
                yield block

    def _read(self, path: Path) -> Block | None:
        content = read_file(path, readable())
        size = int.from_bytes(content[:8], "little")
        told = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["block"])
        if told["format"] != _FORMAT or told["identity"] != self.identity:
            return None
        arrays = unpack(content)
        if told.pop("sha256") != _digest(told, arrays):
            raise DamagedError("its content is not what was written")
        state, columns = ({name: arrays[f"{kind}/{name}"] for name in told[kind]} for kind in ("state", "columns"))
        causes = {int(m): (int(step), str(why)) for m, (step, why) in told["causes"].items()}
        return Block(tuple(told["members"]), state, columns, arrays["batch_loss"], causes)

    def save(self, block: Block, until: int) -> None:
        """Write a block that ends at update ``until``.

        Raises
        ------
        OSError
            If it cannot be written; blocks that were written before are intact.
        """
        if not self.directory:
            return
        arrays = {"batch_loss": block.batch_loss, **{f"state/{k}": v for k, v in block.state.items()},
                  **{f"columns/{k}": v for k, v in block.columns.items()}}
        told = {"format": _FORMAT, "identity": self.identity, "members": block.members, "causes": block.causes,
                "state": list(block.state), "columns": list(block.columns)}
        told = json.loads(json.dumps(told))
        told["sha256"] = _digest(told, arrays)
        path = self.directory / "blocks" / f"{self._name(block.members, until)}.safetensors"
        _write(path, pack(arrays, {"block": json.dumps(told)}))
        if run := self.run_of(block.members, until):
            shutil.rmtree(run, ignore_errors=True)

    def run_of(self, members: Sequence[int], until: int) -> str | None:
        """Return the directory for checkpoints of a block, None where none are kept."""
        return str(self.directory / "runs" / self._name(members, until)) if self.directory and self._runs else None

    def tidy(self) -> None:
        """Remove checkpoints of blocks that are finished, or were cut otherwise before."""
        if self.directory and self._runs:
            shutil.rmtree(self.directory / "runs", ignore_errors=True)

    def _name(self, members: Sequence[int], until: int) -> str:
        return f"{until:09d}-{hashlib.sha256(f'{self.identity} {tuple(members)}'.encode()).hexdigest()[:16]}"


def _write(path: Path, content: bytes) -> None:
    """Write a file, and its directory where that is missing."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except LockedError:
        raise
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror or error}: blocks that were finished before are intact, and the "
                      "same command goes on from there", str(path)) from error


def _digest(told: Mapping[str, Any], arrays: Mapping[str, Any]) -> str:
    """Return a SHA-256 of what is told, and of all names, shapes, dtypes and bytes."""
    found = hashlib.sha256(json.dumps(told).encode())
    for name, array in sorted(arrays.items()):
        host = to_numpy(array)
        found.update(f"{name} {host.dtype} {host.shape}".encode())
        found.update(host.tobytes())
    return found.hexdigest()


def _described(value: Any) -> Any:
    """Return a value that JSON does not have in plain ones."""
    told = describe(value)
    return repr(value) if told is value else told
