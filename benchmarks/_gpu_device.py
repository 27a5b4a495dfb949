"""Section: whether an update waits for the host. The one module here that calls CuPy itself, in ``Cuda``."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from _gpu_runs import architecture, examples
from _gpu_section import NETWORKS, Section

import xpnet
from xpnet import SGD, Trainer
from xpnet.backend import Array, Device

SPIN = r"""
extern "C" __global__ void spin(long long cycles) {
    long long begin = clock64();
    while (clock64() - begin < cycles) {}
}
"""
CLOCK_RATE = 13  # cudaDevAttrClockRate: the highest clock in kHz; at a lower one the kernel runs longer
READS = ("get", "item", "tolist", "tobytes", "__array__", "__float__", "__int__", "__bool__", "__complex__", "__iter__")
WAITS = ("deviceSynchronize", "streamSynchronize", "eventSynchronize", "memcpy")


class Cuda:
    """What the sections ask of CuPy beyond arrays: events, memory, a busy kernel, and what can be watched."""

    def __init__(self, device: Device) -> None:
        self.device, self.cupy = device, importlib.import_module("cupy")

    def ignore_overflow(self) -> list[tuple[Any, str]]:
        """Name the ways to the host: (owner, attribute)."""
        cuda = self.cupy.cuda
        owners = [(self.cupy.ndarray, name) for name in READS] + [(cuda.runtime, name) for name in WAITS]
        owners += [(kind, "synchronize") for kind in (cuda.Stream, cuda.ExternalStream, cuda.Event, cuda.Device)]
        return [*owners, (self.cupy, "asnumpy")]

    def spin(self, seconds: float) -> None:
        """Queue a kernel that runs for at least so long."""
        kilohertz = self.cupy.cuda.runtime.deviceGetAttribute(CLOCK_RATE, self.device.native.id)
        self.cupy.RawKernel(SPIN, "spin")((1,), (1,), (np.int64(seconds * 1e3 * kilohertz),))

    def mark(self) -> Any:
        """Record an event in the current stream; its ``done`` tells whether the device has come there."""
        event = self.cupy.cuda.Event()
        event.record()
        return event

    def elapsed(self, first: Any, last: Any) -> float:
        """Return the seconds between two events that are done."""
        return float(self.cupy.cuda.get_elapsed_time(first, last)) / 1e3

    def used_bytes(self) -> int:
        """Return the bytes of the pool that arrays hold now."""
        gc.collect()
        return int(self.cupy.get_default_memory_pool().used_bytes())

    def pool_bytes(self) -> int:
        """Return the bytes that the pool has from the device."""
        return int(self.cupy.get_default_memory_pool().total_bytes())

    @contextlib.contextmanager
    def starved(self) -> Iterator[None]:
        """Leave no free piece of memory of a mebibyte or more."""
        pool, ballast = self.cupy.get_default_memory_pool(), []
        pool.free_all_blocks()
        pool.set_limit(size=pool.total_bytes())
        try:
            for size in (2**26, 2**20):  # arrays that are gone leave room in blocks that still hold others
                with contextlib.suppress(MemoryError):
                    while True:
                        ballast.append(self.cupy.cuda.alloc(size))
            yield
        finally:
            ballast.clear()
            pool.set_limit(size=0)

    def total_bytes(self) -> int:
        """Return the device's memory in bytes."""
        return int(self.cupy.cuda.runtime.memGetInfo()[1])


@contextlib.contextmanager
def counted(places: list[tuple[Any, str]]) -> Iterator[tuple[Counter[str], list[str]]]:
    """Count the calls of attributes of classes and modules; name those that cannot be watched."""
    calls: Counter[str] = Counter()
    refused: list[str] = []
    undo: list[Callable[[], None]] = []

    def watch(owner: Any, name: str) -> None:
        label = f"{owner.__name__}.{name}"
        if not hasattr(owner, name):
            return
        inherited, original = name not in vars(owner), getattr(owner, name)

        @functools.wraps(original)
        def counting(*args: Any, **kwargs: Any) -> Any:
            calls[label] += 1
            return original(*args, **kwargs)

        try:
            setattr(owner, name, counting)
        except TypeError:  # a class compiled from C does not let itself be changed
            refused.append(label)
            return
        undo.append(lambda: delattr(owner, name) if inherited else setattr(owner, name, original))

    try:
        for owner, name in places:
            watch(owner, name)
        yield calls, refused
    finally:
        for step in reversed(undo):
            step()


@dataclass(frozen=True)
class Watched(SGD):
    """SGD that calls ``watch(update, parameters)`` after each of its updates."""

    watch: Any = None

    def update(self, w: Array, g: Array, slots: Any, lr: Any, step: int) -> None:
        """Change ``w``, then call."""
        super().update(w, g, slots, lr, step)
        self.watch(step, w)


class Sleeper:
    """Keeps the device busy from one update on, and sees whether it still is some updates later.

    If it is, the updates in between were queued without waiting for the device.
    """

    def __init__(self, cuda: Cuda, start: int, steps: int, seconds: float, reads: bool) -> None:
        self.cuda, self.start, self.steps, self.seconds, self.reads = cuda, start, steps, seconds, reads
        self.event: Any = None
        self.done: bool | None = None
        self.took = 0.0

    def __call__(self, step: int, w: Array) -> None:
        """Start, look, or (to show that this would be noticed) read an array in between."""
        if self.event is None and step >= self.start:
            self.cuda.spin(self.seconds)
            self.event, self.began = self.cuda.mark(), time.perf_counter()
        elif self.event is not None and self.done is None:
            if self.reads:
                float(w.reshape(-1)[0])
            if step >= self.start + self.steps:
                self.done, self.took = bool(self.event.done), time.perf_counter() - self.began


def trainer_of(network: str, inputs: int, device: Device, **options: Any) -> Trainer:
    """Return a trainer of the report's settings on a device."""
    settings = {"l2": 0.005, "schedule": xpnet.CyclicLR(), "device": device}
    return Trainer(architecture(network, inputs), **settings | options)


def more(trainer: Trainer, data: tuple[Array, Array], steps: int) -> None:
    """Train so many updates more, with evaluations at the end only."""
    trainer.fit(*data, steps=trainer.step + steps, evaluate_every=10**9, train_sample=100)


def host(section: Section, device: str) -> None:
    """See that an update neither reads an array of the device nor waits for it: by counts, and by time.

    On the emulation every launch ends before it returns: whether an update waits cannot be seen there.
    """
    here = Device(device)
    cuda = Cuda(here)
    n, busy = (6, 0.01) if section.emulated else (20, 0.4)
    with here.activate():
        # All updates are of one epoch: no new order in between.
        x, y = (here.asarray(a) for a in examples(section, 500 * n))
        spin_lasts(section, cuda, busy)
        for network in NETWORKS:
            reads = reads_per_update(cuda, trainer_of(network, x.shape[1], here), (x, y), n, section)
            section.check(f"{network}: reads and waits per update (found: {reads or 'none'})", sum(reads.values()), 0)
            for planted in (False, True):
                sleeper = Sleeper(cuda, n + n // 4, 4, busy, planted)
                trainer = trainer_of(network, x.shape[1], here, optimizer=Watched(watch=sleeper))
                more(trainer, (x, y), n)
                more(trainer, (x, y), n)  # the second time all kernels and memory are there
                found = f"done: {sleeper.done}, 4 updates were queued in {sleeper.took * 1e3:.1f} ms"
                if section.emulated:
                    section.expect(f"{network}: the emulated kernel{', with a planted read,' * planted} ended at once",
                                   sleeper.done is True)
                elif planted:
                    section.expect(f"{network}: the busy kernel shows a planted read", sleeper.done is True, found)
                else:
                    section.expect(f"{network}: 4 updates are queued while a kernel of {busy} s runs",
                                   sleeper.done is False, found)
        if section.emulated:
            section.shorten("whether updates are queued without waiting cannot be seen on the emulation")

        def read(step: int, w: Array) -> None:
            float(w.reshape(-1)[0])

        trainer = trainer_of("3 layers", x.shape[1], here, optimizer=Watched(watch=read))
        planted = reads_per_update(cuda, trainer, (x, y), n, section)
        section.expect("the counts show a planted read", sum(planted.values()) >= 1, str(planted))
    good = "updates read nothing" if section.emulated else "updates are queued without waiting"
    section.result("headline", good if all(check["passed"] for check in section.record["checks"])
                   else "an update waits for the device")


def spin_lasts(section: Section, cuda: Cuda, seconds: float) -> None:
    """See that the busy kernel lasts as long as it should: its loop was not removed, its clock is the device's."""
    for _ in range(2):  # the first time it is compiled
        first = cuda.mark()
        cuda.spin(seconds)
        last = cuda.mark()
        last.synchronize()
    took = cuda.elapsed(first, last)
    section.expect("the busy kernel is busy for as long as it should", 0.9 * seconds < took,
                   "" if section.emulated else f"{took:.3f} s instead of {seconds} s")


def reads_per_update(
    cuda: Cuda, trainer: Trainer, data: tuple[Array, Array], n: int, section: Section
) -> dict[str, float]:
    """Count reads and waits in ``n`` updates and in ``2 n``: the difference belongs to the updates."""
    more(trainer, data, n)
    totals = []
    for steps in (n, 2 * n):
        with counted(cuda.ignore_overflow()) as (calls, refused):
            more(trainer, data, steps)
        totals.append(Counter(calls))
    section.result("cannot be watched", refused)
    return {name: (count - totals[0][name]) / n for name, count in totals[1].items() if count != totals[0][name]}
