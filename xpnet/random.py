"""Counter-based random streams: every draw is a function of (seed, purpose, counter).

Nothing here has state, so a run can restart anywhere and every backend sees the same bits. The generator is
Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), keyed through NumPy's
``SeedSequence``; draws are made on the host.
"""

from __future__ import annotations

import operator
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = ["normal", "permutation", "stream", "uniform"]


def stream(seed: int, purpose: str, counter: int = 0) -> np.random.Generator:
    """Return the generator that belongs to ``(seed, purpose, counter)``.

    Parameters
    ----------
    seed : int
        The run's seed, at least 0.
    purpose : str
        What is drawn (``"W1"``, ``"order"``, ...). Streams of different purposes are independent.
    counter : int
        Which draw of that purpose (the epoch, the update, ...), at least 0.

    Returns
    -------
    numpy.random.Generator
        A fresh Philox generator; the same arguments give the same bits.

    Raises
    ------
    ValueError
        If the seed or the counter is negative.
    TypeError
        If the seed or the counter is not an integer.
    """
    seed, counter = operator.index(seed), operator.index(counter)
    if seed < 0 or counter < 0:
        raise ValueError(f"seed and counter must be at least 0, got seed={seed}, counter={counter}")
    # crc32 is stable across processes and versions, where Python's own hash of a string is not.
    key = np.random.SeedSequence(entropy=seed, spawn_key=(zlib.crc32(purpose.encode()), counter))
    return np.random.Generator(np.random.Philox(key))


def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """Return the order in which epoch ``epoch`` visits ``n`` examples, as int64 of shape (n,).

    Parameters
    ----------
    seed : int
        The seed.
    epoch : int
        The pass over the data, from 0.
    n : int
        How many examples.

    Returns
    -------
    numpy.ndarray
        Each of 0 to n - 1 once.
    """
    return stream(seed, "order", epoch).permutation(n)


def per_seed(seed: int | Sequence[int], draw: Callable[[int], np.ndarray]) -> np.ndarray:
    """Stack what ``draw`` gives for each seed along a first axis; a single seed adds no axis."""
    if isinstance(seed, Sequence | np.ndarray):
        unique = {s: draw(s) for s in dict.fromkeys(int(s) for s in seed)}
        return np.stack([unique[int(s)] for s in seed])
    return draw(seed)


def normal(seed: int | Sequence[int], purpose: str, shape: tuple[int, ...], std: Any = 1.0) -> np.ndarray:
    """Draw from N(0, std^2).

    Parameters
    ----------
    seed : int or sequence of int
        One seed, or one per model.
    purpose : str
        The array's name.
    shape : tuple of int
        The array's shape, the model axis left out.
    std : float or sequence of float
        One standard deviation, or one per model.

    Returns
    -------
    numpy.ndarray
        An array of dtype float64 and shape ``shape``, or (models, *shape) if seed or std has several.
    """
    draws = per_seed(seed, lambda s: stream(s, purpose).standard_normal(shape))
    scale = np.asarray(std, dtype=np.float64)
    scaled: np.ndarray = draws * (scale.reshape(-1, *[1] * len(shape)) if scale.ndim else scale)
    return scaled


def uniform(seed: int | Sequence[int], purpose: str, step: int, shape: tuple[int, ...]) -> np.ndarray:
    """Draw float32 uniforms in [0, 1) for update ``step``: (*shape), or (models, *shape) for several seeds.

    Parameters
    ----------
    seed : int or sequence of int
        One seed, or one for each model.
    purpose : str
        What it is for: the layer's name.
    step : int
        The update.
    shape : tuple of int
        The shape for one model.

    Returns
    -------
    numpy.ndarray
        An array of dtype float32.
    """
    return per_seed(seed, lambda s: stream(s, purpose, step).random(shape, dtype=np.float32))
