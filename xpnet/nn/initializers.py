"""Initial weights: He, Xavier and normal with a given standard deviation.

An initializer maps the shape of a weight matrix to a standard deviation; the layer multiplies it with draws
from N(0, 1). So networks that differ in ``sigma`` only start from the same draws, and ``sigma`` may be an
array over the model axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

from .per_model import PER_MODEL, check_range

__all__ = ["He", "Initializer", "Normal", "Xavier"]


class Initializer(Protocol):
    """What a layer asks of an initializer."""

    def std(self, fan_in: int, fan_out: int) -> Any:
        """Return the standard deviation: a float, or an array over the model axis.

        Parameters
        ----------
        fan_in : int
            Width of the input.
        fan_out : int
            Width of the output.

        Returns
        -------
        float or array
            The standard deviation.
        """
        ...


@dataclass(frozen=True)
class He:
    """N(0, 2 / fan_in), for layers followed by ReLU.

    He et al., "Delving deep into rectifiers", ICCV 2015, equation 10.
    """

    def std(self, fan_in: int, fan_out: int) -> float:
        """Return sqrt(2 / fan_in)."""
        return math.sqrt(2.0 / fan_in)


@dataclass(frozen=True)
class Xavier:
    """N(0, 2 / (fan_in + fan_out)), for layers without ReLU.

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    AISTATS 2010, equation 12.
    """

    def std(self, fan_in: int, fan_out: int) -> float:
        """Return sqrt(2 / (fan_in + fan_out))."""
        return math.sqrt(2.0 / (fan_in + fan_out))


@dataclass(frozen=True)
class Normal:
    """N(0, sigma^2) whatever the layer's shape.

    Parameters
    ----------
    sigma : float or sequence of float
        The standard deviation; a sequence gives one per model.
    """

    sigma: Any = field(metadata=PER_MODEL)

    def __post_init__(self) -> None:
        check_range("Normal", "sigma", self.sigma)

    def std(self, fan_in: int, fan_out: int) -> Any:
        """Return sigma."""
        return self.sigma
