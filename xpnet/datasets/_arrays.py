"""A user's own arrays, from an npz file: x and y, and what is set apart of them for validation and test."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xpnet.datasets import inputs
from xpnet.datasets._errors import DataNotFoundError
from xpnet.datasets._types import IMAGE_SHAPE, PIXELS, Dataset, Split
from xpnet.datasets.inputs import InputError
from xpnet.files import kinds
from xpnet.files.storage import DamagedError
from xpnet.random import stream

__all__ = ["is_meant", "load"]

_PARTS = ("train", "validation", "test")
_ENDS = ("", "_validation", "_test")  # of the arrays' names
_CLASSES = 1_000  # at most: more are most often no classes
_BYTES = 100  # of a class's name at most, as UTF-8
_HOW = 'expected an .npz file with arrays x and y: numpy.savez("mine.npz", x=x, y=y) writes one'


def is_meant(data: str | os.PathLike[str]) -> bool:
    """Return whether a user who named ``data`` means arrays of their own.

    Raises
    ------
    InputError
        If they do, and in a file of another kind.
    """
    path = Path(data)
    ending, place = path.suffix.lower(), path.expanduser()
    if not place.is_file():
        if ending in (".npy", ".csv", ".tsv", ".txt") and not place.is_dir():
            raise InputError(f"{path}: features and labels belong into one file; {_HOW}")
        return ending == ".npz"
    kind = kinds.kind_of(kinds.start_of(place))
    if kind in (kinds.NPY, kinds.TEXT) and ending != ".npz":
        raise InputError(f"{path}: features and labels belong into one file; {_HOW}; this is {kind.name}")
    # A web page or a damaged file in the place of an archive is CIFAR-10's to tell.
    if kind is kinds.NPZ or ending == ".npz":
        return True
    if kind in (kinds.GZIP, kinds.HTML, kinds.EMPTY) or kind.name.startswith(kinds.UNKNOWN):
        return False
    raise InputError(f"{path}: {_HOW}, or an archive of CIFAR-10; got {kinds.describe(place)}")


def load(path: Path) -> Dataset:
    """Read arrays of features and labels, and set apart what the file does not.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Dataset
        Named as the file, without its ending.

    Raises
    ------
    DataNotFoundError
        If there is no such file.
    InputError
        If it is damaged, or its arrays cannot be used; the message names the array, and what to do.
    """
    if not path.exists():
        raise DataNotFoundError(f"no file {path}: {_HOW}")
    try:
        content = inputs.content_of(path)
        splits, classes = _read(content)
        names = inputs.feature_names(content, splits["train"].x.shape[1])
        splits, drawn = _set_apart(splits)
    except (DamagedError, ValueError) as error:  # the codecs' own are of half characters
        raise InputError(f"{path}: {error}") from error
    images = all(split.x.dtype == np.uint8 and split.x.shape[1] == PIXELS for split in splits.values())
    return Dataset(path.stem, splits["train"], splits["validation"], splits["test"], classes, f"{path}{drawn}",
                   IMAGE_SHAPE if images else None, tuple(names) if names else None)


def _names(names: list[str]) -> list[str]:
    """Return the arrays to read, having seen that they are pairs."""
    pairs = [(f"x{end}", f"y{end}") for end in _ENDS]
    for pair in pairs:
        absent = [name for name in pair if name not in names]
        if absent and (len(absent) == 1 or pair == pairs[0]):
            raise InputError(f"no array {' and no '.join(absent)} among {', '.join(names)[:200] or 'none'}; "
                             f"{' and '.join(pair)} go together, as in numpy.savez(\"mine.npz\", x=x, y=y)")
    odd = [name for name in names if name[:2] in ("x_", "y_") and not any(name in pair for pair in pairs)]
    if odd:  # x_val would be left aside in silence
        raise InputError(f"an array {odd[0][:80]}: expected x, y, x_validation, y_validation, x_test and y_test")
    return [name for pair in pairs for name in pair if name in names]


def _read(content: bytes) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Return the splits that the file has, and the classes."""
    found: dict[str, NDArray[np.generic]] = {}
    for name, packed in inputs.members(content, _names):
        try:
            found[name] = _features(packed) if name.startswith("x") else _labels(packed)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
    parts = {part: (f"x{end}", f"y{end}") for part, end in zip(_PARTS, _ENDS, strict=True) if f"x{end}" in found}
    for x, y in parts.values():
        if len(found[x]) != len(found[y]):
            raise InputError(f"expected one label for each example, got shapes {found[x].shape} of {x} and "
                             f"{found[y].shape} of {y}")
        if found[x].shape[1] != found["x"].shape[1]:
            raise InputError(f"{x}: expected {found['x'].shape[1]:,} features, as many as x, got {found[x].shape[1]:,}")
    classes = _classes(found["y"])
    return ({part: Split(found[x], _numbers(y, found[y], classes)) for part, (x, y) in parts.items()},
            tuple(map(str, classes.tolist())))


def _features(packed: bytes) -> NDArray[np.generic]:
    x = inputs.array(packed)
    if x.ndim != 2:
        raise InputError(f"expected shape (n, features), got {x.shape}: x.reshape(len(x), -1)")
    return inputs.checked(x)


def _labels(packed: bytes) -> NDArray[np.generic]:
    y = inputs.array(packed, "iuU", "integers from 0, or strings, such as y.astype(int) or y.astype(str)")
    if y.ndim != 1:
        raise InputError(f"expected shape (n,), got {y.shape}: y.ravel() of one column, y.argmax(axis=1) of one "
                         "column for each class")
    return y


def _classes(y: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the classes: the strings, sorted, or the integers up to the highest."""
    found, words = np.unique(y), y.dtype.kind == "U"
    if not words and found[0] < 0:
        raise InputError(f"y: expected integers from 0, got {found[0]}; numpy.unique(y, return_inverse=True)[1] "
                         "numbers the classes from 0")
    count = len(found) if words else int(found[-1]) + 1
    if not 2 <= count <= _CLASSES:
        raise InputError(f"y: expected 2 to {_CLASSES:,} classes, got {count:,}")
    long = [name for name in found.tolist() if words and len(name.encode()) > _BYTES]
    if long:
        raise InputError(f"y: expected names of at most {_BYTES} bytes, got {long[0][:_BYTES]!r}...")
    return found if words else np.arange(count)


def _numbers(name: str, y: NDArray[np.generic], classes: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return each label's place among the classes."""
    words = classes.dtype.kind == "U"
    if (y.dtype.kind == "U") != words:
        raise InputError(f"{name}: expected {'strings' if words else 'integers'}, as in y, got dtype {y.dtype}")
    found = np.searchsorted(classes, y).clip(max=len(classes) - 1)
    strange = np.flatnonzero(classes[found] != y)
    if len(strange):
        raise InputError(f"{name}: expected the classes of y, got {str(y[strange[0]].item())[:_BYTES]!r} in example "
                         f"{strange[0]}")
    return found.astype(np.int64)


def _set_apart(splits: dict[str, Split]) -> tuple[dict[str, Split], str]:
    """Draw a tenth of the examples for each split that is missing, and say so; the rest keeps its order."""
    missing, (x, y) = [part for part in _PARTS if part not in splits], splits["train"]
    if not missing:
        return splits, ""
    tenth = max(1, len(y) // 10)
    if len(y) <= tenth * len(missing):
        raise InputError(f"x: expected at least {len(missing) + 1} examples, since one is set apart for each of "
                         f"{' and '.join(missing)}, got {len(y)}")
    drawn = np.split(stream(0, "own arrays").permutation(len(y)), range(tenth, tenth * len(missing) + 1, tenth))
    rows = {part: np.sort(own) for part, own in zip([*missing, "train"], drawn, strict=True)}
    of = " examples were drawn" if tenth > 1 else " example was drawn"
    told = " and ".join(f"{tenth:,}{'' if i else of} for {part}" for i, part in enumerate(missing))
    return {**splits, **{part: Split(x[own], y[own]) for part, own in rows.items()}}, f", of which {told}"
