"""Compile functions with Numba, once per machine: machine code is kept in the user's cache directory.

``NUMBA_CACHE_DIR`` names another directory. Where none can be written to, each process compiles for itself.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
from numba import config
from numba.misc.appdirs import AppDirs

__all__ = ["OPTIONS", "compiled"]

#: Sums may be reordered, as vector instructions need it; NaN and infinity are computed as NumPy does.
OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc", "contract"}, "error_model": "numpy"}


@functools.cache
def _place() -> str:
    """Return where Numba keeps what it compiles of these sources.

    It does not see that a function in another file, which a kernel calls, has changed.
    """
    files = sorted(Path(__file__).parent.glob("*.py"))
    version = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    return os.path.join(config.CACHE_DIR or os.path.join(AppDirs("xpnet", False).user_cache_dir, "numba"), version)


@contextmanager
def _cache_directory() -> Iterator[None]:
    before = config.CACHE_DIR
    with suppress(OSError):
        os.makedirs(_place(), exist_ok=True)
        config.CACHE_DIR = _place()
    try:
        yield
    finally:
        config.CACHE_DIR = before


@functools.cache
def _compiled(function: Callable[..., Any], signature: str) -> Callable[..., Any]:
    """Compile a function for one signature, or load what was compiled before."""
    with _cache_directory():
        try:
            made: Callable[..., Any] = numba.njit(signature, cache=True, **OPTIONS)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            made = numba.njit(signature, **OPTIONS)(function)
    return made


@contextmanager
def _announced() -> Iterator[None]:
    """Say what takes so long, if it takes more than a second, once in a process."""

    def say() -> None:
        if not _SAID:
            _SAID.append(True)
            print("xpnet prepares its kernels for this machine; the first time that takes up to a minute",
                  file=sys.stderr, flush=True)

    timer = threading.Timer(1.0, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


_SAID: list[bool] = []
_MADE: dict[tuple[Any, ...], Any] = {}


def compiled(signatures: Mapping[Callable[..., Any], str], **types: str) -> Any:
    """Return functions compiled for types; if that takes more than a second, a line on the standard error says so.

    Parameters
    ----------
    signatures : mapping of function to str
        Signatures, in which names stand for types.
    **types : str
        Numba's types by these names, as in ``T="float32"``.

    Returns
    -------
    namespace
        The functions by name. They release the GIL.
    """
    key = (id(signatures), *types.values())
    if key not in _MADE:
        made = SimpleNamespace()
        with _announced():
            for function, signature in signatures.items():
                for name, what in types.items():
                    signature = signature.replace(name, what)
                setattr(made, function.__name__, _compiled(function, signature))
        _MADE[key] = made
    return _MADE[key]
