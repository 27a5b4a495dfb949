"""What several tests share: comparisons, small data, and a ban on reading device arrays.

Each helper has a test in ``test_helpers.py`` that shows it can fail.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from xpnet import random
from xpnet.backend import Device, to_numpy


def difference(got: Any, expected: Any) -> float:
    """Return the largest difference relative to the largest expected value; infinite for other shapes or NaN."""
    got, expected = np.asarray(to_numpy(got)), np.asarray(to_numpy(expected))
    if got.shape != expected.shape or not (np.isfinite(got).all() and np.isfinite(expected).all()):
        return float("inf")
    if not expected.size:
        return 0.0
    scale = float(np.abs(expected).max())
    distance = float(np.abs(got.astype(complex) - expected).max())
    return distance / scale if scale else distance


def assert_close(got: Any, expected: Any, tolerance: float, what: str = "") -> None:
    """See that two arrays agree, relative to the largest expected value."""
    found = difference(got, expected)
    shapes = f"shapes {tuple(np.shape(to_numpy(got)))} and {tuple(np.shape(to_numpy(expected)))}"
    assert found <= tolerance, f"{what}: they differ by {found:.3g}, allowed are {tolerance:.3g} ({shapes})"


def assert_same(got: Any, expected: Any, what: str = "") -> None:
    """See that two trees (mappings, sequences, arrays, numbers) agree bit for bit."""
    if isinstance(expected, dict):
        assert got.keys() == expected.keys(), f"{what}: {sorted(got)} are not {sorted(expected)}"
        for name in expected:
            assert_same(got[name], expected[name], f"{what}[{name!r}]")
    elif isinstance(expected, list | tuple):
        assert len(got) == len(expected), f"{what}: length {len(got)} is not {len(expected)}"
        for i, (a, b) in enumerate(zip(got, expected, strict=True)):
            assert_same(a, b, f"{what}[{i}]")
    else:
        a, b = np.asarray(to_numpy(got)), np.asarray(to_numpy(expected))
        assert (a.dtype, a.shape) == (b.dtype, b.shape), f"{what}: {a.dtype} {a.shape} is not {b.dtype} {b.shape}"
        assert a.tobytes() == b.tobytes(), f"{what}: the bits differ, by {difference(a, b):.3g} at most"


def eps(dtype: str) -> float:
    """Return the machine precision of a dtype."""
    return float(np.finfo(dtype).eps)


def draw(device: Device, name: str, shape: tuple[int, ...], dtype: str = "float64", std: float = 1.0) -> Any:
    """Return numbers from N(0, std^2) on a device: the same on every backend."""
    return device.asarray(random.normal(0, name, shape, std), dtype)


def blobs(
    device: Device, n: int = 120, features: int = 6, classes: int = 3, *, dtype: str = "float32", spread: float = 1.0
) -> tuple[Any, Any]:
    """Return examples of ``classes`` clouds around random centres, and their labels."""
    generator = random.stream(1, "blobs")
    labels = np.arange(n) % classes
    centres = generator.normal(0.0, 2.0, (classes, features))
    x = centres[labels] + generator.normal(0.0, spread, (n, features))
    return device.asarray(x, dtype), device.asarray(labels, "int64")


class HostReadError(AssertionError):
    """An array of the device was read by the host."""


@contextlib.contextmanager
def no_host_reads(device: Device) -> Iterator[None]:
    """Forbid ``float(a)``, ``bool(a)``, ``int(a)``, ``a`` as an index and the like, on the strict backend."""
    kind = type(device.xp.zeros(1, device=device.native))
    assert kind.__module__.startswith("array_api_strict"), "only the strict backend can be watched"
    names = ("__float__", "__bool__", "__int__", "__index__", "__complex__", "__array__", "__buffer__", "__iter__")
    saved = {name: kind.__dict__[name] for name in names if name in kind.__dict__}

    def refuse(self: Any, *_args: Any, **_kwargs: Any) -> Any:
        raise HostReadError("the host read an array of the device inside a step")

    try:
        for name in saved:
            setattr(kind, name, refuse)
        yield
    finally:
        for name, method in saved.items():
            setattr(kind, name, method)
