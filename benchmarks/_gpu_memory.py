"""Sections: whether updates keep memory, and what happens if there is too little of it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from _gpu_device import Cuda, more, trainer_of
from _gpu_runs import digest, examples
from _gpu_section import NETWORKS, Section

from xpnet.backend import Device


def memory(section: Section, device: str) -> None:
    """See that 1000 updates leave as many bytes in use as there were before."""
    here = Device(device)
    cuda = Cuda(here)
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "3 layers": ("3 layers", {}), "9 layers": ("9 layers", {}),
        "3 layers, 8 models": ("3 layers", {"l2": [0.005] * 8, "seed": list(range(8))}),
    }
    steps = 20 if section.small else 1000
    if section.small:
        section.shorten(f"{steps} updates instead of 1000")
    with here.activate():
        data = tuple(here.asarray(a) for a in examples(section))
        for name, (network, options) in kinds.items():
            trainer = trainer_of(network, data[0].shape[1], here, **options)
            more(trainer, data, 10 if section.small else 100)
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
    """Return the numbers of bytes that a message names."""
    found = re.findall(r"(\d[\d,]*(?:\.\d+)?)\s*(bytes?|[kmgt]i?b)\b", message, flags=re.IGNORECASE)
    return [float(number.replace(",", "")) * UNITS[unit.lower()] for number, unit in found]


def out_of_memory(section: Section, device: str) -> None:
    """Ask for more than there is: the error names what was asked and what is free, and no state is lost."""
    here = Device(device)
    cuda = Cuda(here)
    with here.activate():
        data = tuple(here.asarray(a) for a in examples(section))
        inputs, steps = data[0].shape[1], 5 if section.small else 20
        whole = trainer_of("3 layers", inputs, here, seed=3)
        more(whole, data, 2 * steps)
        trainer = trainer_of("3 layers", inputs, here, seed=3)
        more(trainer, data, steps)
        state = digest(trainer)

        total = cuda.total_bytes()
        one = 3 * 4 * model_numbers(inputs, NETWORKS["3 layers"], 10)  # weights, gradients, last finite; float32
        models = 4 * total // one
        big = trainer_of("3 layers", inputs, here, l2=[0.005] * models)
        explained(section, "a sweep of too many models", lambda: more(big, data, 1), here, models * one)
        explained(section, "an array larger than the device", lambda: here.empty((2 * total,), "uint8"), here,
                  2 * total)
        section.expect("after these, the other trainer is as it was", digest(trainer) == state)

        with cuda.starved():
            explained(section, "a step without memory", lambda: more(trainer, data, 1), here, None)
        section.expect("the trainer that ran out of memory is as it was",
                       digest(trainer) == state and trainer.step == steps, f"at update {trainer.step}")
        more(trainer, data, steps)
        section.expect("and goes on as if nothing had been, bit for bit", digest(trainer) == digest(whole))
    section.result("headline", "errors that name both sizes; no state lost" if all(
        check["passed"] for check in section.record["checks"]) else "see the checks")


def model_numbers(inputs: int, hidden: tuple[int, ...], outputs: int) -> int:
    """Return how many numbers a batch-norm network has: W and b; gamma, beta and two running statistics."""
    widths = (inputs, *hidden, outputs)
    return sum((before + 1) * after for before, after in itertools.pairwise(widths)) + 4 * sum(hidden)


def explained(section: Section, what: str, ask: Callable[[], Any], device: Device, size: int | None) -> None:
    """See that asking raises a MemoryError which names ``size`` and the free bytes, and what to lower.

    Parameters
    ----------
    section : Section
        Where to record it.
    what : str
        What is asked for, in words.
    ask : function
        Asks for it.
    device : Device
        Where.
    size : int or None
        Bytes that are asked for, if they are known; and so are those that are free.
    """
    free = device.free_memory() or 0
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
    section.expect(f"{what}: names two sizes with their units", len(found) >= 2, message)
    for word, bytes_ in (("asked", size), ("free", free)) if size is not None else ():
        section.expect(f"{what}: names what is {word}", any(abs(f - bytes_) < 0.01 * bytes_ for f in found),
                       f"{bytes_:,} bytes: {message}")
    section.expect(f"{what}: says what to lower", re.search(r"\blower\b", message, re.IGNORECASE), message)
