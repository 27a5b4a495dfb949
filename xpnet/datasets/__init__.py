"""Data sets: CIFAR-10 from disk, an embedded synthetic one that every machine has, and a user's own arrays."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from xpnet.datasets import _arrays
from xpnet.datasets._cifar10 import cifar10, located, search_places
from xpnet.datasets._download import download_cifar10
from xpnet.datasets._errors import CorruptDataError, DataNotFoundError, HTMLDataError, TruncatedDataError
from xpnet.datasets._synthetic import synthetic
from xpnet.datasets._types import Dataset, Split

__all__ = [
    "CorruptDataError", "DataNotFoundError", "Dataset", "HTMLDataError", "Split", "TruncatedDataError",
    "cifar10", "download_cifar10", "load", "search_places", "synthetic",
]


def _first(full: Dataset, name: str, size: int | None) -> Split:
    split: Split = getattr(full, name)
    if size is not None and not 0 <= size <= len(split.y):
        raise ValueError(f"expected {name} from 0 to {len(split.y):,} {full.noun} of {full.name}, got {size}")
    return Split(split.x[:size], split.y[:size])


def load(
    data: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Return the data set that a user named; ``Dataset.name`` says which it became.

    Parameters
    ----------
    data : str or path, optional
        ``"synthetic"``; ``"cifar10"``, from the places that :func:`search_places` lists; a directory or an
        archive of CIFAR-10; a path that ends in ``.npz``, of a file with arrays of one's own (see the notes);
        or None: CIFAR-10 where it is found, else the synthetic set.
    download : bool
        Whether to fetch CIFAR-10 where it is wanted (``data`` is not ``"synthetic"``) and not found.
    train, validation, test : int, optional
        How many examples of each split: the first ones (of CIFAR-10's validation split: the last training
        images). By default the whole of CIFAR-10 with 5,000 for validation, or :func:`synthetic`'s sizes,
        or the whole of one's own arrays.
    seed : int
        Seed of the synthetic images; CIFAR-10 has none.

    Returns
    -------
    Dataset
        Images of uint8, shape (N, 3072), or one's own features, and int64 labels of shape (N,).

    Raises
    ------
    DataNotFoundError
        If a file, or CIFAR-10, was named, by ``data`` or by the environment's XPNET_DATA, and is not there.
    TruncatedDataError, CorruptDataError, HTMLDataError
        If a file of CIFAR-10 is damaged; never passed over in favour of the synthetic set.
    ValueError
        If a size is negative or more than there is, or the arrays of an .npz file cannot be used.

    Notes
    -----
    An .npz file holds ``x``, real numbers of shape (n, features), and ``y``, the classes, of shape (n,): integers
    from 0, or strings; and, if wanted, ``x_validation`` and ``y_validation``, ``x_test`` and ``y_test``. For each pair
    that it has not, a tenth of x and y is set apart, drawn by :mod:`xpnet.random`, always the same, as
    ``Dataset.source`` says. The order of the others stays. ``feature_names``, an array of strings, is kept with the
    network. uint8 features of width 3072 are taken for images.
    """
    sizes = {"train": train, "validation": validation, "test": test}
    chosen = {name: size for name, size in sizes.items() if size is not None}
    if data is None and not download and not located():
        if os.environ.get("XPNET_DATA"):
            return cifar10(validation=0)  # named, and not there: that is an error
        data = "synthetic"
    if isinstance(data, str) and data == "synthetic":
        return synthetic(**chosen, seed=seed)
    held = {"validation": validation} if validation is not None else {}
    full = (_arrays.load(Path(data).expanduser()) if data is not None and _arrays.is_meant(data)
            else cifar10(None if data == "cifar10" else data, download=download, **held))
    return replace(full, train=_first(full, "train", train), validation=_first(full, "validation", validation),
                   test=_first(full, "test", test))
