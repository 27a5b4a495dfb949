"""Ctrl-C and SIGTERM while training: the update is finished and saved before the run ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["interrupted_by_sigterm", "stop_on_signals"]


@contextlib.contextmanager
def interrupted_by_sigterm() -> Iterator[list[int]]:
    """Have SIGTERM do what Ctrl-C does: raise KeyboardInterrupt, in the main thread.

    Yields
    ------
    list of int
        The signals that came.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    here = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, handle) if here else None
    try:
        yield received
    finally:
        if here:
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def stop_on_signals(trainer: Trainer) -> Iterator[list[int]]:
    """Have SIGINT and SIGTERM end ``trainer.fit`` after its current update, with a checkpoint.

    A second signal does what it did before. Python lets only the main thread handle signals: in another thread
    nothing is changed.

    Parameters
    ----------
    trainer : Trainer
        The trainer whose ``fit`` is to end.

    Yields
    ------
    list of int
        The signals that came; a process that was asked to end exits with 128 plus the first of them.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        trainer.stop()
        for one, handler in before.items():
            signal.signal(one, handler)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, handle)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
