"""Features from a file, which is recognised by its first bytes, and their names, compared with a network's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..files import kinds
from ..files.storage import DamagedError
from . import inputs
from .inputs import Features, InputError

__all__ = ["Table", "read", "read_table"]


class Table(NamedTuple):
    """Features of a file, and what is known of their names.

    Parameters
    ----------
    x : ndarray of shape (n, features)
        The features.
    names : list of str or None
        Their names, in the order of the columns.
    note : str
        What was made of the first line of a CSV file; empty for other files.
    """

    x: Features
    names: list[str] | None
    note: str


def read(path: str | Path, key: str | None = None) -> Features:
    """Read the features in a file: see ``read_table``.

    Parameters
    ----------
    path : path
        The file.
    key : str, optional
        The array of an npz file.

    Returns
    -------
    ndarray of shape (n, features)
        Booleans, integers and floating-point numbers as they were; CSV as float64, an image as uint8.
    """
    return read_table(path, key).x


def read_table(
    path: str | Path, key: str | None = None, header: str = "auto", known: Sequence[str] | None = None
) -> Table:
    """Read the features in a file, which is recognised by its first bytes, with their names.

    Parameters
    ----------
    path : path
        A file of at most a quarter of the free memory, of text a 64th. An npy file holds an array (n, features), or
        (features,) for one example; an npz file one such, or several of which ``key`` names one, and perhaps their
        ``feature_names``; text a line of numbers for each example, separated by commas, with or without a line of
        names above; a PNG image becomes one row: red, green and blue, each row by row, 0 to 255, or grey.
    key : str, optional
        The array of an npz file.
    header : {"auto", "yes", "no"}
        Whether the first line of text holds names; by default it must be clear.
    known : sequence of str, optional
        The names of the features that a network was trained on. A file with names must have these, in any order;
        its columns are put in theirs.

    Returns
    -------
    Table
        The features; with ``known`` in that order.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    InputError
        If it is too large, damaged, holds something else, a number that is not finite, or features of other names.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: expected features as .npy, .npz, .csv or .png")
    kind = kinds.kind_of(kinds.start_of(path))
    names, note = None, ""
    try:
        # A number in a line takes up to 40 times its text.
        content = inputs.content_of(path, 64 if kind is kinds.TEXT else 4)
        if kind is kinds.TEXT:
            x, names = inputs.csv(content, header, known)
            note = f"the first line names the columns: {', '.join(names)[:200]}" if names else "no line of names"
        elif kind in (kinds.NPY, kinds.NPZ, kinds.PNG):
            x = (inputs.npz(content, key) if kind is kinds.NPZ else
                 inputs.npy(content) if kind is kinds.NPY else inputs.png(content))
            names = inputs.feature_names(content, x.shape[1]) if kind is kinds.NPZ else None
        else:
            raise InputError(f"expected features as an npy file, an npz archive, lines of numbers separated by commas "
                             f"or a PNG image, got {kinds.describe(content)}")
        if names and known:
            order = _order(names, known)
            x, note = x[:, order], note and note + ("" if names == list(known) else f"; taken as {', '.join(known)}")
            names = list(known)
        elif note:
            note += ("; the network keeps no names to compare them with" if names else
                     f"; columns are taken as {', '.join(known)}" if known else "")
        return Table(x, names, note[:400])
    except (DamagedError, InputError) as error:
        raise InputError(f"{path}: {error}") from error


def _order(names: Sequence[str], known: Sequence[str]) -> list[int]:
    """Return the place of each known name among others, which must be the same."""
    if sorted(names) != sorted(known):
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        wrong = [f"{what} {', '.join(map(repr, found))[:200]}" for what, found in (
            ("lacks", [name for name in known if name not in names]),
            ("has also", [name for name in names if name not in known]), ("has twice", twice)) if found]
        raise InputError(f"expected the features {', '.join(known)[:200]}, by which the network was trained; the file "
                         f"{'; '.join(wrong)}")
    return [names.index(name) for name in known]
