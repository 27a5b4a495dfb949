"""What every data set here is: three splits of uint8 images, and their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IMAGE_SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32


class Split(NamedTuple):
    """Images and their labels.

    Parameters
    ----------
    x : ndarray of uint8, shape (N, 3072)
        Pixels, 0 to 255: 1024 red, 1024 green, 1024 blue, each row by row.
    y : ndarray of int64, shape (N,)
        Class numbers, 0 to 9.
    """

    x: NDArray[np.uint8]
    y: NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """A data set in three splits.

    Parameters
    ----------
    name : str
        ``"CIFAR-10"`` or ``"synthetic"``.
    train, validation, test : Split
        The images and labels; training and validation images may be views of one array.
    classes : tuple of str
        The ten class names, in label order.
    source : str
        The path that was read, or how the images were generated.
    image_shape : tuple of int
        Channels, rows, columns: ``image.reshape(image_shape)`` undoes the flattening.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    source: str
    image_shape: tuple[int, int, int] = IMAGE_SHAPE
