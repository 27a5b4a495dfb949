"""What can be wrong with a data set on disk: not there, cut short, damaged, or a web page in its place."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["CorruptDataError", "DataNotFoundError", "HTMLDataError", "TruncatedDataError", "advice"]

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"


def advice(directory: str | os.PathLike[str]) -> str:
    """Say what to do without a network; ``directory`` is where the archive would go."""
    return (
        f"Without a network here: fetch {URL} on another machine and put it in {os.fspath(directory)} (or "
        "anywhere, and name the place with XPNET_DATA, data_dir= or --data); or use the generated 'synthetic'"
    )


class DataNotFoundError(FileNotFoundError):
    """No data where they were looked for."""


class BadDataError(ValueError):
    """A file is there and is not what it should be.

    Attributes
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: str | os.PathLike[str], problem: str) -> None:
        self.path: Path = Path(path)
        super().__init__(f"{self.path}: {problem}. {advice(self.path.parent)}")


class TruncatedDataError(BadDataError):
    """A file ends too early, most often because a download or a copy was interrupted.

    Parameters
    ----------
    path : path
        The file; the error has its ``path``, ``have`` and ``expected``.
    have, expected : int
        Bytes there are, and bytes there should be.
    what : str
        What the file is, for the message.
    """

    def __init__(self, path: str | os.PathLike[str], have: int, expected: int, what: str = "") -> None:
        self.have: int = have
        self.expected: int = expected
        what = f"{what} " if what else ""
        super().__init__(path, f"truncated: {what}has {have:,} bytes, expected {expected:,}; copy it again")


class CorruptDataError(BadDataError):
    """A file holds something else than the data set, or damaged data.

    Parameters
    ----------
    path : path
        The file; the error has its ``path``.
    problem : str
        What is wrong.
    """


class HTMLDataError(BadDataError):
    """A web page, most often a server's error message, was saved under the name of the data.

    Parameters
    ----------
    path : path
        The file; the error has its ``path``.
    what : str
        What the file is, for the message.
    """

    def __init__(self, path: str | os.PathLike[str], what: str = "") -> None:
        what = f"{what} " if what else ""
        super().__init__(path, f"{what}holds a web page (HTML), not data; delete it and fetch it again")
