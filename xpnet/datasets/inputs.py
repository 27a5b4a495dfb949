"""Features from files that anyone may have made: .npy, .npz, CSV and PNG. Nothing is unpickled, and sizes are bounded.

Each reader takes a file's bytes and gives an array of shape (n, features); ``tables.read`` chooses one by the first
bytes.
"""

from __future__ import annotations

import io
import math
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..backend import Device
from ..files import kinds as files
from ..files.storage import read_file
from . import _csv

__all__ = ["NAMES", "Features", "InputError", "array", "as_npy", "checked", "content_of", "csv", "feature_names",
           "members", "npy", "npz", "png"]

_HEADER = 10_000  # bytes of an npy header at most, as NumPy has it
_PIXELS = 2**24  # of an image at most
NAMES = "feature_names"  # the entry of an npz file with the names of the features

Features = NDArray[np.generic]


class InputError(ValueError):
    """A file holds no features; the message says what is wrong with it."""


def content_of(path: Path, share: int = 4) -> bytes:
    """Return the content of a file that takes at most one part in ``share`` of the free memory.

    Raises
    ------
    DamagedError
        If it is larger, or no plain file.
    """
    free = Device().free_memory()
    return read_file(path.resolve(), free // share if free else 2**34)


def npy(content: bytes) -> Features:
    """Read the features in the content of an npy file.

    Parameters
    ----------
    content : bytes
        The file's content.

    Raises
    ------
    InputError
        If it is no array of numbers with one or two axes.
    """
    found = array(content)
    if not 1 <= found.ndim <= 2:
        raise InputError(f"expected shape (n, features), got {found.shape}: for images x.reshape(len(x), -1), in the "
                         "order of the pixels that the network was trained on")
    return checked(np.atleast_2d(found))


def array(content: bytes, kinds: str = "biuf", what: str = "real numbers") -> NDArray[np.generic]:
    """Read the array in the content of an npy file.

    Parameters
    ----------
    content : bytes
        The file's content.
    kinds : str
        NumPy's letters for the kinds of dtypes that are taken.
    what : str
        What they are, for the message.

    Raises
    ------
    InputError
        If it is damaged, or an array of another kind.
    """
    stream = io.BytesIO(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            version = np.lib.format.read_magic(stream)
            header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, by_column, dtype = header(stream, max_header_size=_HEADER)
    except Exception as error:  # tokenize, ast, struct: whatever a damaged header brings up
        raise InputError(_not("an npy file, which numpy.save writes", files.NPY, content, error)) from error
    if dtype.kind not in kinds:
        raise InputError(f"expected {what}, got dtype {dtype}{'; nothing is unpickled' if dtype.hasobject else ''}")
    left = len(content) - stream.tell()
    if any(n < 0 for n in shape) or not dtype.itemsize or math.prod(shape) * dtype.itemsize != left:
        raise InputError(f"is cut or damaged: {shape} of {dtype} are not the {left:,} bytes that it has")
    found = np.frombuffer(content, dtype, offset=stream.tell()).astype(dtype.newbyteorder("="))
    if dtype.kind == "U" and (found.view(np.uint32) > sys.maxunicode).any():
        raise InputError("is damaged: it has characters that there are not")
    return found.reshape(shape, order="F" if by_column else "C")


def npz(content: bytes, key: str | None = None) -> Features:
    """Read an array out of the content of an npz file.

    Parameters
    ----------
    content : bytes
        The file's content.
    key : str, optional
        The array's name; needed where there are several.

    Raises
    ------
    InputError
        If it is damaged, would take more than a quarter of the free memory, or has not one array of that name.
    """
    def one(names: list[str]) -> Sequence[str]:
        names = [name for name in names if name != NAMES]
        chosen = names[0] if key is None and len(names) == 1 else key
        if chosen is None or chosen not in names:
            raise InputError(f"{'expected one array' if key is None else f'no array {key!r}'} among "
                             f"{', '.join(names)[:200] or 'none'}: choose with --key NAME")
        return [chosen]

    return npy(next(members(content, one))[1])


def feature_names(content: bytes, features: int) -> list[str] | None:
    """Read the names of the features in the content of an npz file, or None if it has none.

    Raises
    ------
    InputError
        If they are not one string for each feature, or one comes twice.
    """
    for _, packed in members(content, lambda names: [name for name in names if name == NAMES]):
        try:
            names = array(packed, "U", "strings, such as numpy.asarray(names, dtype=str)")
            if names.shape != (features,) or len(set(names.tolist())) != features:
                raise InputError(f"expected {features:,} different names, one for each feature, got shape "
                                 f"{names.shape}")
        except InputError as error:
            raise InputError(f"{NAMES}: {error}") from error
        return [str(name) for name in names.tolist()]
    return None


def members(content: bytes, choose: Callable[[list[str]], Sequence[str]]) -> Iterator[tuple[str, bytes]]:
    """Unpack arrays in the content of an npz file.

    Parameters
    ----------
    content : bytes
        The file's content.
    choose : callable
        From the names that there are to those that are wanted.

    Yields
    ------
    str, bytes
        A name, and what an npy file of the array would hold.

    Raises
    ------
    InputError
        If the file is damaged, or an array would take more than a quarter of the free memory.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in choose([name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]):
                entry, free = archive.getinfo(f"{name}.npy"), Device().free_memory()
                if free and entry.file_size > free // 4:
                    raise InputError(f"{name} has {entry.file_size:,} bytes, more than a quarter of the free memory")
                yield name, archive.read(entry)
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib, struct: whatever a damaged file brings up
        raise InputError(_not("an npz file, which numpy.savez writes", files.NPZ, content, error)) from error


def csv(
    content: bytes, header: str = "auto", known: Collection[str] | None = None
) -> tuple[Features, list[str] | None]:
    """Read lines of numbers separated by commas, and the names above them, or None: see ``_csv.parse``.

    Parameters
    ----------
    content : bytes
        The file's content, UTF-8.
    header : {"auto", "yes", "no"}
        Whether the first line holds names.
    known : collection of str, optional
        The names that are expected.

    Raises
    ------
    InputError
        If a line has another number of columns, or something else than numbers, or the first line could be either.
    """
    try:
        table, names = _csv.parse(content.decode("utf-8-sig"), header, known)  # as spreadsheets write it
    except (_csv.CSVError, UnicodeDecodeError) as error:
        raise InputError(f"not lines of numbers separated by commas: {str(error)[:300]}") from error
    return checked(table), names


def png(content: bytes) -> Features:
    """Read an image as one row: all of red, of green and of blue, or grey, each row by row, from 0 to 255.

    Parameters
    ----------
    content : bytes
        The file's content.

    Raises
    ------
    InputError
        If it is no PNG image, has transparency, or more than 16 million pixels.
    """
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or len(content) < 33:
        raise InputError(_not("a PNG image", files.PNG, content, "it ends in its header"))
    width, height = struct.unpack(">II", content[16:24])
    if not 0 < width * height <= _PIXELS:
        raise InputError(f"expected an image of 1 to {_PIXELS:,} pixels, got {width} x {height}")
    from matplotlib.image import imread

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image = imread(io.BytesIO(content), format="png")
    except Exception as error:  # whatever a damaged file brings up
        raise InputError(f"a damaged PNG image ({error})") from error
    planes = np.atleast_3d(image).transpose(2, 0, 1)
    if len(planes) in (2, 4):
        if (planes[-1] < 1).any():
            raise InputError("has transparent pixels, which have no one colour: save it without transparency")
        planes = planes[:-1]
    return np.rint(planes * 255.0).astype(np.uint8).reshape(1, -1)


def _not(expected: str, kind: files.Kind, content: bytes, error: object) -> str:
    """Say what a file is instead, or what is wrong with it if it is of the kind."""
    start = content[: files.START]
    return f"not {expected} ({error if files.kind_of(start) is kind else f'but {files.describe(start)}'})"


def as_npy(parts: Sequence[Features]) -> bytes:
    """Return arrays of equally many columns, one below the other, as the content of an npy file."""
    stream = io.BytesIO()
    np.save(stream, np.concatenate(parts), allow_pickle=False)
    return stream.getvalue()


def checked(table: Features) -> Features:
    """Return features back, having seen that there are some and that they are finite.

    Raises
    ------
    InputError
        If not; the message names the first.
    """
    if not table.size:
        raise InputError(f"expected at least one example, got shape {table.shape}")
    if table.dtype.kind == "f" and not np.isfinite(table).all():
        row, column = np.argwhere(~np.isfinite(table))[0]
        raise InputError(f"row {row}, column {column} (from 0) is {table[row, column]}: expected finite numbers")
    return table
