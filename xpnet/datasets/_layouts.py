"""CIFAR-10's two official layouts, and the directory in which a user's data are kept."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LAYOUTS", "Layout", "user_cache"]


@dataclass(frozen=True)
class Layout:
    """One of the official layouts: its folder, batches (five to train, then one to test) and archive."""

    name: str
    folder: str
    batches: tuple[str, ...]
    archive: str
    archive_size: int


_PICKLED = (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")
_BINARY = tuple(f"{name}.bin" for name in _PICKLED)
LAYOUTS = (
    Layout("binary", "cifar-10-batches-bin", _BINARY, "cifar-10-binary.tar.gz", 170_052_171),
    Layout("pickled", "cifar-10-batches-py", _PICKLED, "cifar-10-python.tar.gz", 170_498_071),
)


def user_cache() -> Path:
    """Return the directory in which this user's data are kept; nothing is made."""
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "xpnet" / "Cache"
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(chosen):  # the XDG specification: a relative path is to be ignored
        return Path(chosen) / "xpnet"
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "xpnet"
