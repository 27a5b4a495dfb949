"""CIFAR-10 from disk: where it is looked for, its two official layouts, and their archives.

Nothing is ever extracted: an archive is a stream of which six members, known by name and size, are read.
Images go block by block into arrays made beforehand, so that loading takes no more memory than the images do.
"""

from __future__ import annotations

import gzip
import itertools
import operator
import os
import tarfile
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from xpnet.datasets import _errors
from xpnet.datasets._download import download_cifar10
from xpnet.datasets._errors import CorruptDataError, DataNotFoundError, HTMLDataError, TruncatedDataError
from xpnet.datasets._layouts import LAYOUTS, Layout, user_cache
from xpnet.datasets._pickled import read_batch
from xpnet.datasets._types import PIXELS, Dataset, Split
from xpnet.files import kinds

__all__ = ["CLASSES", "cifar10", "located", "search_places"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ROWS = 10_000  # images in a batch
BLOCK = 250  # images of a binary batch that are read at once
MATLAB = "cifar-10-batches-mat"
_INSTEAD = "fetch the binary version, cifar-10-binary.tar.gz, with xpnet data --download"
SPARE = 2**20  # bytes of an archive that may lie before, between and after its batches
Part = tuple[NDArray[np.uint8], NDArray[np.int64]]


def _places(data_dir: str | os.PathLike[str] | None) -> dict[str, Path | None]:
    """Return the places to search, in order: what names each, and the path (None: it names none)."""
    if data_dir is not None:
        return {"data_dir": Path(data_dir).expanduser()}
    named = os.environ.get("XPNET_DATA")
    return {"XPNET_DATA": Path(named).expanduser() if named else None, "user cache": user_cache()}


def _find(place: Path | None) -> tuple[Layout | None, Path | None, str]:
    """Look at one place: the layout and the path of the data there (None: no data), and a word about them."""
    if place is None:
        return None, None, "not set"
    if place.is_file():
        first = _first_member(place)
        layout = next((v for v in LAYOUTS if first.startswith(f"{v.folder}/")), None)
        layout = layout or next((v for v in LAYOUTS if v.archive == place.name), LAYOUTS["python" in place.name])
        return layout, place, f"archive, {place.stat().st_size:,} bytes"
    if not place.is_dir():
        return None, None, "no such file or directory"
    for layout in LAYOUTS:
        for folder in (place / layout.folder, place):
            there = [name for name in layout.batches if (folder / name).is_file()]
            if there:
                return layout, folder, f"directory, {len(there)} of {len(layout.batches)} batches"
        archive = place / layout.archive
        if archive.is_file():
            return layout, archive, f"archive, {archive.stat().st_size:,} bytes"
    matlab = any((folder / "test_batch.mat").is_file() for folder in (place / MATLAB, place))
    return None, None, f"no CIFAR-10 in this directory{f', but its MATLAB version: {_INSTEAD}' if matlab else ''}"


def _first_member(path: Path) -> str:
    """Return the name of the first entry of a .tar.gz archive, or nothing if the file is none."""
    try:
        with gzip.open(path) as file:
            stream = _Metered(cast(IO[bytes], file), path)
            with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as tar:
                names = (member.name.removeprefix("./") for member in itertools.islice(tar, 3))
                return next((f"{name}/" for name in names if name not in ("", ".")), "")
    except (EOFError, OSError, tarfile.TarError, zlib.error, ValueError, OverflowError):
        return ""


def _problem(layout: Layout, path: Path) -> str:
    """Return why what was found by its name cannot be CIFAR-10, as far as sizes and first bytes tell, else nothing."""
    if path.is_file():
        kind, first = kinds.kind_of(kinds.start_of(path)), _first_member(path)
        if kind is not kinds.GZIP:
            return f"expected an archive like {layout.archive}, got {kinds.describe(path)}"
        if first.startswith(f"{MATLAB}/"):
            return f"the MATLAB version of CIFAR-10: {_INSTEAD}"
        if not first.startswith(f"{layout.folder}/"):
            return (f"expected an archive like {layout.archive}, got "
                    f"{f'one that begins with {first[:80]}' if first else 'a damaged one'}")
        return ""
    for name in layout.batches:
        batch = path / name
        if not batch.is_file():
            return f"{name} is missing"
        size, expected = batch.stat().st_size, ROWS * (1 + PIXELS)
        if layout.name == "binary" and size != expected:
            return f"{name} has {size:,} bytes, expected {expected:,}; it is {kinds.describe(batch)}"
        if layout.name == "pickled" and kinds.kind_of(kinds.start_of(batch)) is not kinds.PICKLE:
            return f"{name} is {kinds.describe(batch)}, expected a batch of CIFAR-10"
    return ""


def located() -> bool:
    """Return whether there is something in the places searched, damaged or not."""
    return any(_find(place)[1] is not None for place in _places(None).values())


def search_places(data_dir: str | os.PathLike[str] | None = None) -> list[dict[str, Any]]:
    """List where CIFAR-10 is looked for, and what is there; no data are read.

    Parameters
    ----------
    data_dir : path, optional
        Look only there, as :func:`cifar10` does.

    Returns
    -------
    list of dict
        In the order of the search: ``place`` (what names it), ``path`` (str), ``found`` (bool), ``layout``
        (``"binary directory"``, ``"pickled archive"``, ... or ``""``) and ``detail`` (a few words). Files are
        recognised by their first bytes and sizes; whether they are intact shows when they are read.
    """
    rows = []
    for place, path in _places(data_dir).items():
        layout, found, detail = _find(path)
        shown = str(found or path or "")
        kind = f"{layout.name} {detail.split(',')[0]}" if layout else ""
        problem = _problem(layout, found) if layout and found else ""
        row = {"place": place, "path": shown, "found": found is not None and not problem,
               "layout": "" if problem else kind, "detail": f"{detail}: {problem}" if problem else detail}
        rows.append(row)
    return rows


def _refuse_html(file: BufferedReader, path: Path, what: str = "") -> None:
    if kinds.kind_of(file.peek(kinds.START)[: kinds.START]) is kinds.HTML:
        raise HTMLDataError(path, what)


def _read_into(
    part: Part, file: BufferedReader, size: int, path: Path, layout: Layout, what: str = ""
) -> None:
    """Read one batch into the arrays ``part``."""
    _refuse_html(file, path, what)
    x, y = part
    kind = kinds.kind_of(file.peek(kinds.START)[: kinds.START])
    if layout.name == "pickled":
        if kind not in (kinds.PICKLE, kinds.TEXT, kinds.EMPTY) and not kind.name.startswith(kinds.UNKNOWN):
            raise CorruptDataError(path, f"{what} is {kind.name}, expected a batch of CIFAR-10: {kind.advice}".lstrip())
        x[...], y[...] = read_batch(file, size, path, len(y))
        return
    expected = len(y) * (1 + PIXELS)
    if size != expected and kind in (kinds.PNG, kinds.NPY, kinds.NPZ, kinds.GZIP, kinds.SAFETENSORS):
        raise CorruptDataError(path, f"{what} is {kind.name}, expected a batch of CIFAR-10: {kind.advice}".lstrip())
    if size < expected:
        raise TruncatedDataError(path, size, expected, what)
    if size > expected:
        raise CorruptDataError(path, f"{what} has {size:,} bytes, expected {expected:,}".lstrip())
    block = np.empty((min(BLOCK, len(y)), 1 + PIXELS), np.uint8)
    for start in range(0, len(y), len(block)):
        rows = block[: len(y) - start]
        got = file.readinto(rows.reshape(-1).data)
        if got < rows.size:  # the file shrank while it was read
            raise TruncatedDataError(path, start * (1 + PIXELS) + got, expected, what)
        at = int(rows[:, 0].argmax())
        if rows[at, 0] > 9:
            bad = f"{what} image {start + at} has the label {rows[at, 0]}, expected 0 to 9"
            raise CorruptDataError(path, bad.lstrip())
        y[start : start + len(rows)], x[start : start + len(rows)] = rows[:, 0], rows[:, 1:]


class _Metered:
    """A compressed stream that gives out no more than ``budget`` bytes, however much it would expand to."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.file, self.path, self.budget = file, path, SPARE

    def read(self, count: int) -> bytes:
        data = self.file.read(count)
        self.budget -= len(data)
        if self.budget < 0:
            raise CorruptDataError(self.path, "it holds much more than the six batches of CIFAR-10")
        return data


def _members(path: Path, layout: Layout) -> Iterator[tuple[str, BufferedReader, int]]:
    """Return the members that are batches, in the archive's order, and verify its checksum at the end."""
    wanted = {f"{layout.folder}/{name}": name for name in layout.batches}
    with gzip.open(path) as file:
        stream = _Metered(cast(IO[bytes], file), path)
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as tar:
            for count, member in enumerate(tar):
                name = wanted.pop(member.name.removeprefix("./"), None)
                if name is not None:
                    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                        raise CorruptDataError(path, f"member {member.name} is not a regular file")
                    # A pickled batch is a little longer than a binary one.
                    if member.size > ROWS * (1 + PIXELS) + SPARE:
                        much = f"member {member.name} has {member.size:,} bytes, too many"
                        raise CorruptDataError(path, much)
                    stream.budget = member.size + SPARE
                    yield name, cast(BufferedReader, tar.extractfile(member)), member.size
                if count >= 100:
                    raise CorruptDataError(path, "it has more than 100 members")
                stream.budget = SPARE
        while stream.read(2**16):  # to the end, where gzip compares its checksum
            pass
    if wanted:
        raise CorruptDataError(path, f"it has no member {min(wanted)}")


def _read_archive(path: Path, layout: Layout, parts: dict[str, Part]) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        _refuse_html(file, path)
        kind = kinds.kind_of(file.peek(kinds.START))
    if kind is not kinds.GZIP or _first_member(path).startswith(f"{MATLAB}/"):
        raise CorruptDataError(path, _problem(layout, path))
    try:
        for name, member, length in _members(path, layout):
            _read_into(parts[name], member, length, path, layout, f"member {name}")
    except EOFError as error:  # gzip's word for a stream without an end
        if size < layout.archive_size:
            raise TruncatedDataError(path, size, layout.archive_size) from error
        raise CorruptDataError(path, f"not an intact .tar.gz archive ({error})") from error
    except _errors.BadDataError:
        raise
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, ValueError, OverflowError) as error:
        raise CorruptDataError(path, f"not an intact .tar.gz archive ({error})") from error


def _read_directory(folder: Path, layout: Layout, parts: dict[str, Part]) -> None:
    for name, part in parts.items():
        path = folder / name
        if not path.is_file():
            raise DataNotFoundError(f"{path}: missing, the other batches are there. {_errors.advice(folder)}")
        with path.open("rb") as file:
            _read_into(part, file, path.stat().st_size, path, layout)


def cifar10(
    data_dir: str | os.PathLike[str] | None = None, *, validation: int = 5_000, download: bool = False
) -> Dataset:
    """Read CIFAR-10 from a directory or an archive in either official layout.

    Parameters
    ----------
    data_dir : path, optional
        A directory that is, or holds, ``cifar-10-batches-bin`` or ``cifar-10-batches-py``, or holds
        ``cifar-10-binary.tar.gz`` or ``cifar-10-python.tar.gz``; or such an archive. Binary is preferred.
        By default the directory or archive that the environment variable ``XPNET_DATA`` names, then the
        user's cache directory.
    validation : int
        How many of the 50,000 training images, the last ones, make the validation split.
    download : bool
        Whether to fetch the binary archive (170 MB, needs ``xpnet[data]``) where no data are found.

    Returns
    -------
    Dataset
        Images of uint8, shape (N, 3072), and int64 labels of shape (N,). Training and validation images are
        views of one array.

    Raises
    ------
    DataNotFoundError
        If there are no data in the places searched, or a batch is missing.
    TruncatedDataError, CorruptDataError, HTMLDataError
        If a file ends too early, holds something else, or is a web page.
    ValueError
        If ``validation`` is not between 0 and 50,000.
    """
    total = 5 * ROWS
    if not 0 <= operator.index(validation) <= total:
        raise ValueError(f"validation must be from 0 to {total:,} images, got {validation}")
    places = _places(data_dir)
    layout, path = next((found[:2] for found in map(_find, places.values()) if found[0]), (None, None))
    if download and path is None:
        layout, path = LAYOUTS[0], download_cifar10(places.get("data_dir"))
    if layout is None or path is None:
        looked = "; ".join(f"{name} {place or ''} ({_find(place)[2]})" for name, place in places.items())
        directory = next(place for place in reversed(places.values()) if place)
        raise DataNotFoundError(f"CIFAR-10 not found. Searched: {looked}. {_errors.advice(directory)}")

    train, test = ((np.empty((n, PIXELS), np.uint8), np.empty(n, np.int64)) for n in (total, ROWS))
    parts = {name: (train[0][k * ROWS : (k + 1) * ROWS], train[1][k * ROWS : (k + 1) * ROWS])
             for k, name in enumerate(layout.batches[:-1])} | {layout.batches[-1]: test}
    (_read_archive if path.is_file() else _read_directory)(path, layout, parts)
    kept = total - validation
    x, y = train
    return Dataset(
        name="CIFAR-10",
        train=Split(x[:kept], y[:kept]),
        validation=Split(x[kept:], y[kept:]),
        test=Split(*test),
        classes=CLASSES,
        source=str(path),
    )
