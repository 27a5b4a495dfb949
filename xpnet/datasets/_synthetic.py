"""The embedded data set: ten families of patterns, drawn from a seed with NumPy alone.

An image is a pattern (its class) at a random place, angle, size and contrast, mostly lighter and sometimes
darker than what lies behind it: a random colour that slopes across the image, and blurred clutter. An opaque
patch hides part of it, under noise. The background varies several times more than the pattern does. So a
class is a structure: no pixel, colour or brightness gives it away, a linear classifier learns little, and as
in natural images nearly all the variance lies in a few directions, which makes training badly conditioned.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from xpnet.datasets._types import IMAGE_SHAPE, PIXELS, Dataset, Split
from xpnet.random import stream

__all__ = ["synthetic"]

BLOCK = 500  # images drawn together; a multiple of 10, see _block
CLUTTER_CELLS = 9  # the clutter is a random grid of this many points a side, interpolated to 32 x 32

Field = NDArray[np.float32]


# Patterns: functions of the coordinates u (to the right) and v (down), about 12 units across an image, whose
# value is positive inside the pattern, negative outside it, and about 1 in size.


def _stripes(u: Field, v: Field) -> Field:
    return np.sin(u)


def _checkers(u: Field, v: Field) -> Field:
    fine = np.float32(0.8)
    product: Field = np.sin(fine * u) * np.sin(fine * v)
    return 2 * product


def _rings(u: Field, v: Field) -> Field:
    return np.cos(np.hypot(u, v))


def _disc(u: Field, v: Field) -> Field:
    return np.subtract(3, np.hypot(u, v))


def _frame(u: Field, v: Field) -> Field:
    return np.subtract(1, np.abs(np.maximum(np.abs(u), np.abs(v)) - np.float32(3.6)))


def _cross(u: Field, v: Field) -> Field:
    return np.subtract(1, np.minimum(np.abs(u), np.abs(v)))


def _spokes(u: Field, v: Field) -> Field:
    return np.sin(np.multiply(3, np.arctan2(u, v)))


# A class: its name, the angle (degrees) about which it is turned, its pattern.
FAMILIES: tuple[tuple[str, float, Callable[[Field, Field], Field]], ...] = (
    ("horizontal stripes", 90.0, _stripes),
    ("vertical stripes", 0.0, _stripes),
    ("diagonal stripes", 45.0, _stripes),
    ("checkers", 0.0, _checkers),
    ("rings", 0.0, _rings),
    ("disc", 0.0, _disc),
    ("frame", 0.0, _frame),
    ("upright cross", 0.0, _cross),
    ("slanted cross", 45.0, _cross),
    ("spokes", 0.0, _spokes),
)


def _block(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw BLOCK images and their labels; every ten labels in a row are the ten classes in a random order."""

    def uniform(low: float, high: float, channels: int = 1) -> Field:
        drawn = rng.random((BLOCK, channels, 1, 1), dtype=np.float32)
        return np.float32(low) + np.float32(high - low) * drawn

    def normal(channels: int = 1, side: int = 1) -> Field:
        return rng.standard_normal((BLOCK, channels, side, side), dtype=np.float32)

    def colour(side: int = 1) -> Field:  # brightness varies more than hue, as in photographs
        return normal(1, side) + np.float32(0.15) * normal(3, side)

    ten = np.arange(10)
    labels = rng.permuted(np.broadcast_to(ten, (BLOCK // 10, 10)), axis=1).ravel()
    right = np.arange(32, dtype=np.float32) - np.float32(15.5)  # pixels from the middle
    down = right[:, None]

    turned = np.array([family[1] for family in FAMILIES], np.float32)[labels, None, None, None]
    angle = np.radians(turned + uniform(-10, 10))
    x, y, size = right + uniform(-4.7, 4.7), down + uniform(-4.7, 4.7), uniform(1.6, 2.6)
    u = (x * np.cos(angle) + y * np.sin(angle)) / size
    v = (y * np.cos(angle) - x * np.sin(angle)) / size
    for k, (_, _, pattern) in enumerate(FAMILIES):
        mine = labels == k
        u[mine] = pattern(u[mine], v[mine])
    sign = np.where(rng.random((BLOCK, 1, 1, 1)) < 0.9, np.float32(1), np.float32(-1))
    image = np.tanh(2 * u) * (sign * uniform(1, 30) * (1 + uniform(-0.3, 0.3, channels=3)))

    image += 128 + 50 * colour()
    image += uniform(-50, 50) * (right / 16) + uniform(-50, 50) * (down / 16)
    points = np.linspace(-15.5, 15.5, CLUTTER_CELLS, dtype=np.float32)
    between = np.maximum(0, 1 - np.abs(down - points) / (points[1] - points[0]))  # linear interpolation
    image += uniform(2, 6) * (between @ colour(CLUTTER_CELLS) @ between.T)
    hidden = np.abs(right - uniform(-16, 16)) < uniform(4, 10)
    hidden = hidden & (np.abs(down - uniform(-16, 16)) < uniform(4, 10))
    image = np.where(hidden, uniform(90, 165, channels=3), image)
    image += uniform(1, 4) * rng.standard_normal((BLOCK, *IMAGE_SHAPE), dtype=np.float32)
    return np.clip(image, 0, 255).astype(np.uint8).reshape(BLOCK, PIXELS), labels


def _split(seed: int, name: str, size: int) -> Split:
    x, y = np.empty((size, PIXELS), np.uint8), np.empty(size, np.int64)
    for counter, start in enumerate(range(0, size, BLOCK)):
        images, labels = _block(stream(seed, f"synthetic/{name}", counter))
        part = slice(start, min(start + BLOCK, size))
        x[part], y[part] = images[: size - start], labels[: size - start]
    return Split(x, y)


def synthetic(*, train: int = 10_000, validation: int = 1_000, test: int = 2_000, seed: int = 0) -> Dataset:
    """Generate the embedded data set: the shape of CIFAR-10, ten balanced classes of patterns.

    Parameters
    ----------
    train, validation, test : int
        How many images each split holds. The first n images of a split are the same whatever its size, and
        its classes are balanced to within one image.
    seed : int
        Other seeds give other images of the same classes.

    Returns
    -------
    Dataset
        Images of uint8, shape (N, 3072), and int64 labels of shape (N,), named ``"synthetic"``.

    Raises
    ------
    ValueError
        If a size or the seed is negative.
    TypeError
        If a size or the seed is not an integer.

    Notes
    -----
    The random draws are the same on every machine. The sines of two machines may differ in the last bit,
    which can move a pixel by one grey level.
    """
    for name, size in (("train", train), ("validation", validation), ("test", test)):
        try:
            number = operator.index(size)
        except TypeError:
            found = " ".join(repr(size).split())[:200]
            raise TypeError(f"expected {name} as a number of images, got {found}") from None
        if number < 0:
            raise ValueError(f"expected {name} of 0 images or more, got {name}={size}")
    return Dataset(
        name="synthetic",
        train=_split(seed, "train", train),
        validation=_split(seed, "validation", validation),
        test=_split(seed, "test", test),
        classes=tuple(family[0] for family in FAMILIES),
        source=f"generated, seed {operator.index(seed)}",
    )
