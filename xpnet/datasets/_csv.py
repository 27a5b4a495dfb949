"""Lines of numbers separated by commas, with or without a line of names above: which it is, is never guessed."""

from __future__ import annotations

import csv
import itertools
import re
import warnings
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["HEADERS", "CSVError", "parse"]

HEADERS = ("auto", "yes", "no")
_MISSING = {"", "na", "n/a", "#n/a", "null", "none", "nil", "-", "?", "."}
_TELL = "--header yes or --header no (header= in Python) tells"


class CSVError(ValueError):
    """The text is no table of numbers, or leaves open whether its first line is an example."""


def parse(
    text: str, header: str = "auto", known: Collection[str] | None = None
) -> tuple[NDArray[np.float64], list[str] | None]:
    """Return the numbers (n, features), and the names in the first line, or None if it is an example.

    With ``header="auto"`` the first line is

    * names, if they are the known ones in any order, or if every cell is text, missing values aside;
    * an example, if every cell is a number or a missing value, which then is an error, as in any other line;
    * an error, if it could be either: text beside numbers, or the numbers of columns (``0,1,2``).

    Empty lines are left out, but between the numbers of a single column they are an error.

    Parameters
    ----------
    text : str
        The file's content.
    header : {"auto", "yes", "no"}
        Whether the first line holds names.
    known : collection of str, optional
        The names that are expected.

    Raises
    ------
    CSVError
        If a line has another number of cells, or something else than numbers, or the first line could be either.
    """
    if header not in HEADERS:
        raise ValueError(f"header: expected {', '.join(HEADERS)}, got {header!r}")
    lines = [(i + 1, line) for i, line in enumerate(text.splitlines()) if line.strip()]
    if not lines:
        raise CSVError("it is empty")
    first = _cells(lines[0][1])
    empty = next((i for i, (number, _) in enumerate(lines, 1) if number != i), 0)
    if len(first) == 1 and empty:
        raise CSVError(f"line {empty} is empty, which in a single column may be a missing value: fill it in, or leave "
                       "the line out")
    rest = [line for _, line in lines[1:]]
    named = header == "yes" or (header == "auto" and _is_header(first, rest, known))
    body = lines[named:]
    if not body:
        raise CSVError(f"no line below the names {', '.join(first)[:200]}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = np.loadtxt([line for _, line in body], delimiter=",", comments=None, ndmin=2, dtype=np.float64,
                               quotechar='"')
    except (ValueError, UserWarning) as error:
        raise CSVError(_wrong(body, first, named) or str(error)[:200]) from error
    if named and table.shape[1] != len(first):
        raise CSVError(f"{len(first):,} names above lines of {table.shape[1]:,} numbers")
    return table, first if named else None


def _is_header(first: Sequence[str], rest: Sequence[str], known: Collection[str] | None) -> bool:
    if known and sorted(first) == sorted(known):
        return True
    numbers = [cell for cell in first if _is_number(cell)]
    words = [cell for cell in first if not _is_number(cell) and cell.lower() not in _MISSING]
    if words and numbers:
        raise CSVError(f"the first line has text ({words[0][:40]!r}) beside numbers ({numbers[0][:40]!r}), so that it "
                       f"may be names or a damaged example: {_TELL}")
    if rest and len(numbers) == len(first) and _numbers_columns(first, rest):
        raise CSVError(f"the first line, {','.join(first)[:60]}, may be the numbers of the columns or an example: "
                       f"{_TELL}")
    return bool(words)


def _numbers_columns(first: Sequence[str], rest: Sequence[str]) -> bool:
    """Return whether the first line could be column numbers: integers that rise, from 0 or 1 or above no others."""
    if not all(re.fullmatch("[0-9]+", cell) for cell in first):
        return False
    found = [int(cell) for cell in first]
    if any(b <= a for a, b in itertools.pairwise(found)):
        return False
    if len(found) == 1:
        return found == [0]
    counted = found[0] < 2 and found[-1] - found[0] == len(found) - 1
    return counted or not any(re.fullmatch("[-0-9, ]+", line) for line in rest)


def _wrong(body: Sequence[tuple[int, str]], first: Sequence[str], named: bool) -> str:
    """Name the first cell that is no number."""
    for number, line in body:
        cells = _cells(line)
        if len(cells) != len(first):
            return f"line {number} has {len(cells):,} cells, the first line {len(first):,}"
        for i, cell in enumerate(cells):
            if not _is_number(cell):
                name = f" ({first[i][:40]})" if named else ""
                return (f"line {number}, column {i + 1}{name}: expected a number, got "
                        f"{repr(cell[:40]) if cell else 'nothing'}")
    return ""


def _cells(line: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True, strict=True))]
    except (csv.Error, StopIteration) as error:
        raise CSVError(str(error)) from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
