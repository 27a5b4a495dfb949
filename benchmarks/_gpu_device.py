"""Sections that only a GPU can fill: whether a step waits for the host, keeps memory, and survives its lack.

The one module here that calls CuPy itself, in ``Cuda``.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from _gpu_runs import architecture, clouds, digest
from _gpu_section import NETWORKS, Section

import xpnet
from xpnet import SGD, Trainer
from xpnet.backend import Array, Device

SPIN = r"""
extern "C" __global__ void spin(long long nanoseconds) {
    long long begin, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
    do {
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    } while (now - begin < nanoseconds);
}
"""
READS = ("get", "item", "tolist", "tobytes", "__array__", "__float__", "__int__", "__bool__", "__complex__", "__iter__")
WAITS = ("deviceSynchronize", "streamSynchronize", "eventSynchronize", "memcpy")


class Cuda:
    """What the sections ask of CuPy beyond arrays: events, memory, a busy kernel, and what can be watched."""

    def __init__(self, device: Device) -> None:
        self.device, self.cupy = device, importlib.import_module("cupy")

    def watched(self) -> list[tuple[Any, str]]:
        """Name the ways to the host: (owner, attribute)."""
        cuda = self.cupy.cuda
        owners = [(self.cupy.ndarray, name) for name in READS] + [(cuda.runtime, name) for name in WAITS]
        owners += [(kind, "synchronize") for kind in (cuda.Stream, cuda.ExternalStream, cuda.Event, cuda.Device)]
        return [*owners, (self.cupy, "asnumpy")]

    def spin(self, seconds: float) -> None:
        """Queue a kernel that runs for so long."""
        kernel = self.cupy.RawKernel(SPIN, "spin")
        kernel((1,), (1,), (np.int64(seconds * 1e9),))

    def mark(self) -> Any:
        """Record an event in the current stream; its ``done`` tells whether the device has come there."""
        event = self.cupy.cuda.Event()
        event.record()
        return event

    def elapsed(self, first: Any, last: Any) -> float:
        """Give the seconds between two events that are done."""
        return float(self.cupy.cuda.get_elapsed_time(first, last)) / 1e3

    def used_bytes(self) -> int:
        """Give the bytes of the pool that arrays hold now."""
        gc.collect()
        return int(self.cupy.get_default_memory_pool().used_bytes())

    def pool_bytes(self) -> int:
        """Give the bytes that the pool has from the device."""
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
        """Give the device's memory in bytes."""
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

    def update(self, w: Array, g: Array, slots: Any, lr: Any, l2: Any, step: int) -> None:
        """Change ``w``, then call."""
        super().update(w, g, slots, lr, l2, step)
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


def trainer_of(network: str, device: Device, **options: Any) -> Trainer:
    """Give a trainer of the report's settings on a device."""
    return Trainer(architecture(network), **{"l2": 0.005, "schedule": xpnet.CyclicLR(), "device": device} | options)


def more(trainer: Trainer, data: tuple[Array, Array], steps: int) -> None:
    """Train so many updates more, with evaluations at the end only."""
    trainer.fit(*data, steps=trainer.step + steps, evaluate_every=10**9, train_sample=100)


def host(section: Section, device: str) -> None:
    """See that an update neither reads an array of the device nor waits for it: by counts, and by time."""
    here = Device(device)
    cuda = Cuda(here)
    n = 20
    with here.activate():
        x, y = (here.asarray(a) for a in clouds(10_000, 3072))  # 100 updates in an epoch: no new order in between
        for network in NETWORKS:
            reads = reads_per_update(cuda, trainer_of(network, here), (x, y), n, section)
            section.check(f"{network}: reads and waits per update (found: {reads or 'none'})", sum(reads.values()), 0)
            for planted in (False, True):
                sleeper = Sleeper(cuda, n + 5, 4, 0.4, planted)
                trainer = trainer_of(network, here, optimizer=Watched(watch=sleeper))
                more(trainer, (x, y), n)
                more(trainer, (x, y), n)  # the second time all kernels and memory are there
                found = f"done: {sleeper.done}, 4 updates were queued in {sleeper.took * 1e3:.1f} ms"
                if planted:
                    section.expect(f"{network}: the busy kernel shows a planted read", sleeper.done is True, found)
                else:
                    section.expect(f"{network}: 4 updates are queued while a kernel of 0.4 s runs",
                                   sleeper.done is False, found)

        def read(step: int, w: Array) -> None:
            float(w.reshape(-1)[0])

        trainer = trainer_of("3 layers", here, optimizer=Watched(watch=read))
        planted = reads_per_update(cuda, trainer, (x, y), n, section)
        section.expect("the counts show a planted read", sum(planted.values()) >= 1, str(planted))
    section.result("headline", "updates are queued without waiting" if all(
        check["passed"] for check in section.record["checks"]) else "an update waits for the device")


def reads_per_update(
    cuda: Cuda, trainer: Trainer, data: tuple[Array, Array], n: int, section: Section
) -> dict[str, float]:
    """Count reads and waits in ``n`` updates and in ``2 n``: the difference belongs to the updates."""
    more(trainer, data, n)
    totals = []
    for steps in (n, 2 * n):
        with counted(cuda.watched()) as (calls, refused):
            more(trainer, data, steps)
        totals.append(Counter(calls))
    section.result("cannot be watched", refused)
    return {name: (count - totals[0][name]) / n for name, count in totals[1].items() if count != totals[0][name]}


def memory(section: Section, device: str) -> None:
    """See that 1000 updates leave as many bytes in use as there were before."""
    here = Device(device)
    cuda = Cuda(here)
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "3 layers": ("3 layers", {}), "9 layers": ("9 layers", {}),
        "3 layers, 8 models": ("3 layers", {"l2": [0.005] * 8, "seed": list(range(8))}),
    }
    steps = 1000 if section.budget >= 5.0 else 50
    if steps < 1000:
        section.shorten(f"{steps} updates instead of 1000")
    with here.activate():
        data = tuple(here.asarray(a) for a in clouds(2000, 3072))
        for name, (network, options) in kinds.items():
            trainer = trainer_of(network, here, **options)
            more(trainer, data, 100)
            before, pool = cuda.used_bytes(), cuda.pool_bytes()
            more(trainer, data, steps)
            after, grown = cuda.used_bytes(), cuda.pool_bytes() - pool
            section.result(name, {"before": before, "after": after, "pool": pool, "pool_grew": grown})
            section.check(f"{name}: bytes in use after {steps} updates less those before ({before})",
                          abs(after - before), 0)
            kept = here.asarray(np.zeros(1000), "float32")
            section.expect(f"{name}: an array that is kept is seen", cuda.used_bytes() > after)
            del kept, trainer
    section.result("headline", f"no byte more in use after {steps} updates")


UNITS = {"bytes": 1, "byte": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
         "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def sizes_in(message: str) -> list[float]:
    """Give the numbers of bytes that a message names."""
    found = re.findall(r"(\d[\d,]*(?:\.\d+)?)\s*(bytes?|[kmgt]i?b)\b", message, flags=re.IGNORECASE)
    return [float(number.replace(",", "")) * UNITS[unit.lower()] for number, unit in found]


def out_of_memory(section: Section, device: str) -> None:
    """Ask for more than there is: the error names what was asked and what is free, and no state is lost."""
    here = Device(device)
    cuda = Cuda(here)
    with here.activate():
        data = tuple(here.asarray(a) for a in clouds(2000, 3072))
        whole = trainer_of("3 layers", here, seed=3)
        more(whole, data, 40)
        trainer = trainer_of("3 layers", here, seed=3)
        more(trainer, data, 20)
        state = digest(trainer)

        total = cuda.total_bytes()
        models = 4 * total // (4 * 3072 * 50)
        big = trainer_of("3 layers", here, l2=[0.005] * models)
        explained(section, "a sweep of too many models", lambda: more(big, data, 1), here, 4.0 * models * 3072 * 50)
        section.expect("after it, the other trainer is as it was", digest(trainer) == state)

        with cuda.starved():
            explained(section, "a step without memory", lambda: more(trainer, data, 1), here, None)
        section.expect("the trainer that ran out of memory is as it was",
                       digest(trainer) == state and trainer.step == 20, f"at update {trainer.step}")
        more(trainer, data, 20)
        section.expect("and goes on as if nothing had been, bit for bit", digest(trainer) == digest(whole))
    section.result("headline", "errors that name both sizes; no state lost" if all(
        check["passed"] for check in section.record["checks"]) else "see the checks")


def explained(section: Section, what: str, ask: Callable[[], None], device: Device, size: float | None) -> None:
    """See that asking raises a MemoryError which names ``size`` and the free bytes, and what to lower."""
    free = float(device.free_memory() or 0)
    try:
        ask()
    except MemoryError as error:
        message = str(error)
    else:
        section.expect(f"{what}: raises MemoryError", False, "nothing was raised")
        return
    found = sizes_in(message)
    section.result(what, message)
    section.expect(f"{what}: raises MemoryError", True)
    section.expect(f"{what}: names two sizes in bytes", len(found) >= 2, message)
    if size is not None:  # without a limit set on the pool, both numbers are known
        section.expect(f"{what}: names what was asked", any(abs(f / size - 1.0) < 0.1 for f in found),
                       f"{size:.4g} bytes: {message}")
        section.expect(f"{what}: names what is free", any(abs(f / free - 1.0) < 0.2 for f in found),
                       f"{free:.4g} bytes: {message}")
    section.expect(f"{what}: says what to lower", re.search(r"\blower\b", message, re.IGNORECASE), message)
