"""Where the blocks of a sweep train: in this process, in processes of this machine, or by an executor."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..backend import Device, to_numpy
from ..training.callbacks import Callback
from . import blocks
from .blocks import Block, Data, Task

__all__ = ["WorkersError", "places", "train_on"]

_ATTEMPTS = 3  # how often in a row workers may die

Members = Sequence[int]
Train = Callable[[Sequence[Members], Callable[[Members], Task]], Iterator[Block]]


class WorkersError(BrokenProcessPool, ChildProcessError):
    """Worker processes did not start, or died again and again; the message says what to look at."""


class Shared:
    """Data in files, which processes of one machine map into memory: nothing travels, and nothing is doubled."""

    _opened: dict[str, Data] = {}  # noqa: RUF012

    def __init__(self, data: Data, folder: str) -> None:
        self.folder: str = folder
        self.validated: bool = data.validation is not None
        here = Device.of(data.x)
        self.device: str | None = None if here.is_host else here.name
        arrays = [to_numpy(array) for array in (data.x, data.y, *(data.validation or ()))]
        try:
            for i, array in enumerate(arrays):
                np.save(Path(folder) / f"{i}.npy", array, allow_pickle=False)
        except OSError as error:
            needed = sum(array.nbytes for array in arrays)
            told = (f"the workers' copy of the data cannot be written ({error.strerror or error}): it takes {needed:,} "
                    "bytes; set TMPDIR to a directory that has room")
            raise OSError(error.errno or errno.ENOSPC, told, folder) from error

    def open(self) -> Data:
        """Return the data, opened once per process; those of an earlier sweep are let go of."""
        if self.folder not in self._opened:
            try:
                x, y, *rest = [np.asarray(np.load(Path(self.folder) / f"{i}.npy", mmap_mode="r", allow_pickle=False))
                               for i in range(4 if self.validated else 2)]
            except FileNotFoundError as error:
                raise FileNotFoundError(f"this worker does not see {error.filename}: for workers on other machines "
                                        "give the Dask client itself, which sends the data to each") from None
            self._opened.clear()
            self._opened[self.folder] = Data(x, y, (rest[0], rest[1]) if rest else None)
        return self._opened[self.folder]


def places(executor: Any, workers: int) -> int:
    """Return how many blocks can train at a time: the requested number, or else the executor's own."""
    if executor is None or workers > 1:
        return workers
    if hasattr(executor, "get_executor"):  # a Dask client
        return max(1, int(sum(executor.nthreads().values())))
    return int(getattr(executor, "_max_workers", None) or workers)


@contextlib.contextmanager
def train_on(data: Data, *, executor: Any, workers: int, callbacks: Sequence[Callback]) -> Iterator[Train]:
    """Return the function that trains blocks: from lists of members, and what makes a task of members.

    It gives them as they come, in any order. A block for which memory is too small is split in two.
    """
    if executor is None and workers == 1:
        yield partial(_here, data, callbacks)
    else:
        with _Elsewhere(data, executor, workers) as elsewhere:
            yield elsewhere.train


def _here(
    data: Data, callbacks: Sequence[Callback], lists: Sequence[Members], task: Callable[[Members], Task]
) -> Iterator[Block]:
    """Train one block after the other in this process."""
    waiting = list(lists)
    while waiting:
        members = waiting.pop(0)
        try:
            block = blocks.run(task(members), data, callbacks=callbacks)
        except MemoryError:
            if len(members) == 1:
                raise
            waiting = _halves(members) + waiting
            continue
        yield block


def _halves(members: Members) -> list[Members]:
    return [members[: len(members) // 2], members[len(members) // 2 :]]


def _there(task: Task, data: Data | Shared) -> Block:
    """Train a block in a worker, on the kind of device that the data were on."""
    if isinstance(data, Shared):
        device = task.options["device"] or data.device
        task, data = dataclasses.replace(task, options={**task.options, "device": device}), data.open()
    return blocks.run(task, data, single=True)


class _Elsewhere:
    """Trains blocks by an executor, or in processes of its own, which are made when the first block comes."""

    def __init__(self, data: Data, executor: Any, workers: int) -> None:
        self.data, self.executor, self.workers = data, executor, workers
        self._ends = contextlib.ExitStack()
        self._pool: Any = None
        self._given: Any = None

    def __enter__(self) -> _Elsewhere:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self._pool and self.executor is None:
            _end(self._pool) if kind else self._pool.shutdown()
        self._ends.close()

    def _start(self, first: Task) -> None:
        """Bring the data to where the workers find them, and see that workers start."""
        if hasattr(self.executor, "get_executor"):  # a Dask client, which sends the data to each worker once
            self._given = self.executor.scatter(self.data, broadcast=True, hash=False)
            self._pool = self.executor.get_executor()
        elif isinstance(self.executor, ThreadPoolExecutor):
            self._given, self._pool = self.data, self.executor
        else:
            self._folder = self._ends.enter_context(tempfile.TemporaryDirectory(prefix="xpnet-"))
            self._given = Shared(self.data, self._folder)
            self._pool = self.executor or self._processes()
        if self.executor is None:
            _see_that_it_starts(self._pool, first)

    def _processes(self) -> ProcessPoolExecutor:
        # Not forked: a fork would inherit the locks of BLAS's threads.
        return ProcessPoolExecutor(self.workers, get_context("spawn"), _begin_worker, (self._folder,))

    def train(self, lists: Sequence[Members], task: Callable[[Members], Task]) -> Iterator[Block]:
        """Return the blocks of lists of members as they come."""
        running: dict[Future[Block], Members] = {}
        waiting, died = list(lists), 0
        if waiting and not self._pool:
            self._start(task(waiting[0]))
        try:
            while waiting or running:
                try:
                    while waiting:
                        running[self._pool.submit(_there, task(waiting[0]), self._given)] = waiting[0]
                        del waiting[0]
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in sorted(finished, key=lambda one: one.exception() is not None):  # what is done first
                        try:
                            block = future.result()
                        except MemoryError:
                            if len(running[future]) == 1:
                                raise
                            waiting += _halves(running.pop(future))
                            continue
                        del running[future]
                        died = 0
                        yield block
                except BrokenProcessPool as error:
                    died += 1
                    if self.executor is not None or died == _ATTEMPTS:
                        raise WorkersError(
                            f"workers ended before their blocks were done, {died} time(s) in a row: what they said "
                            "stands above; where memory ran out, lower block_size or the number of workers"
                        ) from error
                    waiting += running.values()  # all broke with the pool
                    running.clear()
                    self._pool = self._processes()
        finally:
            if self.executor is not None:  # what has not begun is not wanted any more
                for future in running:
                    future.cancel()


def _see_that_it_starts(pool: ProcessPoolExecutor, task: Task) -> None:
    """Have one worker start and read what a task is made of, before others fail alike."""
    try:
        pool.submit(_read, task.architecture, task.options).result()
    except BrokenProcessPool as error:
        raise WorkersError(
            "a worker could not start; what it said stands above. Each worker imports the script that calls sweep: "
            "call it under if __name__ == '__main__':, from a file. What a notebook defines, a worker does not find: "
            "put it in a module, or use workers=1") from error
    except Exception as error:  # whatever pickling raises
        raise TypeError(f"what describes the networks cannot be sent to workers ({error}): define functions and "
                        "classes at the top of a module, or use workers=1") from error


def _read(*told: Any) -> None:
    """Do nothing with what a worker has read."""


def _begin_worker(folder: str) -> None:
    """Leave Ctrl-C to the parent; when that ends, also by SIGKILL, end this worker and remove the data."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def watch() -> None:
        if parent:
            parent.join()
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _end(pool: ProcessPoolExecutor) -> None:
    """End the workers in the middle of what they do: their blocks are not wanted any more."""
    processes = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
