"""What every data set here is: three splits of examples, most often of uint8 images, and the names of their classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

IMAGE_SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32


class Split(NamedTuple):
    """Images, or other examples, and their labels.

    Parameters
    ----------
    x : ndarray of shape (N, features)
        For images uint8 pixels, 0 to 255, shape (N, 3072): 1024 red, 1024 green, 1024 blue, each row by row.
    y : ndarray of int64, shape (N,)
        Class numbers from 0.
    """

    x: NDArray[Any]
    y: NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """A data set in three splits.

    Parameters
    ----------
    name : str
        ``"CIFAR-10"``, ``"synthetic"``, or that of the file, without its ending.
    train, validation, test : Split
        The examples and labels; training and validation images may be views of one array.
    classes : tuple of str
        The class names, in label order.
    source : str
        The path that was read and what was drawn from it, or how the images were generated.
    image_shape : tuple of int or None
        Channels, rows, columns: ``image.reshape(image_shape)`` undoes the flattening. None: they are no images.
    feature_names : tuple of str or None
        What the features are called, if the file says so.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    source: str
    image_shape: tuple[int, int, int] | None = IMAGE_SHAPE
    feature_names: tuple[str, ...] | None = None

    @property
    def noun(self) -> str:
        """What its examples are called: ``"images"``, or ``"examples"`` where they are none."""
        return "images" if self.image_shape else "examples"
