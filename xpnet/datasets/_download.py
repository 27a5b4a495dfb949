"""The opt-in download of CIFAR-10's binary archive, checked whole before anything of it is read."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from xpnet.datasets import _errors
from xpnet.datasets._errors import CorruptDataError, HTMLDataError, TruncatedDataError
from xpnet.datasets._layouts import LAYOUTS, user_cache
from xpnet.files import kinds

__all__ = ["download_cifar10"]


@dataclass(frozen=True)
class _Remote:
    """A file on a server and what it must be."""

    url: str
    size: int
    md5: str
    sha256: str


_REMOTE = _Remote(
    url=_errors.URL,
    size=170_052_171,
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)


def _check(path: Path, remote: _Remote, shown: Path) -> None:
    """Compare a file with what it must be; errors call it ``shown``."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if kinds.kind_of(file.read(kinds.START)) is kinds.HTML:
            raise HTMLDataError(shown, f"what {remote.url} sent")
        if size < remote.size:
            raise TruncatedDataError(shown, size, remote.size)
        if size > remote.size:
            raise CorruptDataError(shown, f"{size:,} bytes, expected {remote.size:,}")
        file.seek(0)
        digests = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
        while chunk := file.read(2**20):
            for digest in digests.values():
                digest.update(chunk)
    for name, digest in digests.items():
        have, expected = digest.hexdigest(), getattr(remote, name)
        if have != expected:
            raise CorruptDataError(shown, f"its {name} is {have}, expected {expected}")


def download_cifar10(directory: str | os.PathLike[str] | None = None, *, progress: bool = True) -> Path:
    """Fetch the official binary archive (170 MB), unless a good copy is there already.

    Parameters
    ----------
    directory : path, optional
        Where it goes; the user's cache directory by default. Made where it is missing.
    progress : bool
        Whether to draw a progress bar on the standard error.

    Returns
    -------
    Path
        The archive, its size, SHA-256 and MD5 compared with the official ones. It is not unpacked:
        :func:`~xpnet.datasets.cifar10` reads it as it is.

    Raises
    ------
    ImportError
        If pooch is not installed: ``pip install 'xpnet[data]'``.
    ConnectionError
        If the server cannot be reached or refuses.
    TruncatedDataError, CorruptDataError, HTMLDataError
        If what came is not the archive. It has been removed then.
    """
    folder = Path(directory).expanduser() if directory is not None else user_cache()
    target = folder / LAYOUTS[0].archive
    if target.is_file():
        try:
            _check(target, _REMOTE, target)
            return target
        except ValueError:
            pass  # a bad copy is replaced, once a good one has come
    try:
        import pooch  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            f"downloading needs pooch: pip install 'xpnet[data]'. {_errors.advice(folder)}", name="pooch"
        ) from error

    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=folder)
    os.close(handle)
    part = Path(name)
    try:
        try:
            pooch.HTTPDownloader(progressbar=progress)(_REMOTE.url, str(part), None)
        except OSError as error:  # all that requests raises
            have = part.stat().st_size
            if have:
                raise TruncatedDataError(target, have, _REMOTE.size, "the download") from error
            raise ConnectionError(f"{_REMOTE.url}: {error}. {_errors.advice(folder)}") from error
        _check(part, _REMOTE, target)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target
