"""The ways in which xpnet makes updates on a GPU: each is proven and timed by itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from _gpu_section import Section

from xpnet import Trainer
from xpnet.backend import Device
from xpnet.training import loop

__all__ = ["WAYS", "check_way", "made_by", "ways"]


#: What ``Trainer.path`` may be.
WAYS = ("plain", "fused", "persistent")


def ways(device: Device) -> tuple[str, ...]:
    """Return what ``Trainer.path`` may be on a device."""
    return WAYS[:1] if device.is_host else WAYS


@contextlib.contextmanager
def made_by(way: str) -> Iterator[None]:
    """Have the updates of trainers that are made and run meanwhile be made in one way, where it applies."""
    worthwhile, fast = loop.WORTHWHILE, os.environ.get("XPNET_FAST")
    loop.WORTHWHILE = 0 if way == "persistent" else 2**62
    os.environ["XPNET_FAST"] = "0" if way == "plain" else "1"
    try:
        yield
    finally:
        loop.WORTHWHILE = worthwhile
        del os.environ["XPNET_FAST"]
        if fast is not None:
            os.environ["XPNET_FAST"] = fast


def check_way(section: Section, name: str, trainer: Trainer, way: str) -> None:
    """Check that a trainer's updates were made in a way."""
    section.check(f"{name}: updates are {way} (0), or {trainer.path} (1)", float(trainer.path != way), 0.0)
