"""NumPy's operations with kernels that Numba compiles, for those who installed the extra ``fast``.

Nothing here imports Numba before training asks for the first kernel: that takes a second.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arrays import Array
from ..deferred import kind
from ..libraries import OPS, NumpyOps
from ..ops import switched_off

__all__ = ["NumbaOps", "choose"]


def choose() -> None:
    """Have Numba's kernels compute, if it is installed and not switched off."""
    if not switched_off() and importlib.util.find_spec("numba") is not None:
        OPS[np.ndarray] = NumbaOps()


@functools.cache
def _works() -> bool:
    try:
        import numba
    except ImportError as error:  # it may not know this NumPy yet
        warnings.warn(f"Numba is installed but does not import ({error}), and training is slower without it: upgrade "
                      "it, or set XPNET_FAST=0", RuntimeWarning, stacklevel=2)
        return False
    return bool(numba.__version__)


class NumbaOps(NumpyOps):
    """Layers in a row, the softmax cross-entropy, batches and updates are a call each, which releases Python's lock."""

    @property
    def kernels(self) -> str:  # type: ignore[override]
        """What computes in place of NumPy."""
        import importlib.metadata  # which takes a while

        return f" with Numba {importlib.metadata.version('numba')}"

    def fuse(self, layers: Sequence[Any]) -> Sequence[Any]:
        """Return layers, with a stage for those in a row that kernels compute."""
        if not _works():
            return super().fuse(layers)
        from .stages import fuse

        return fuse(layers)

    def loss(self, loss: Any) -> Any:
        """Return a loss, or what computes it and its gradient at once."""
        if not (_works() and kind(loss) == "SoftmaxCrossEntropy"):
            return super().loss(loss)
        from .loss import CrossEntropy

        return CrossEntropy(loss)

    def gather(
        self, plain: Callable[[Any, Array], Array], x: Array, scaling: tuple[Array, Array] | None, buffer: Array
    ) -> Callable[[Any, Array], Array]:
        """Return what loads, converts and standardises rows in one pass."""
        if not _works():
            return super().gather(plain, x, scaling, buffer)
        from .rows import gatherer

        return gatherer(plain, x, scaling, buffer.dtype)

    def updater(
        self, plain: Callable[[Any, int], None], rule: Any, segments: Sequence[Any], clip_norm: Any, axes: int
    ) -> Callable[[Any, int], None]:
        """Return what updates each segment in one pass."""
        if not _works():
            return super().updater(plain, rule, segments, clip_norm, axes)
        from . import chain, loss
        from .jit import compiled
        from .update import updater

        # The first to be told the dtype: no update ever waits for a compiler.
        for signatures in (chain.SIGNATURES, loss.SIGNATURES):
            compiled(signatures, T=segments[0].w.dtype.name)
        return updater(plain, rule, segments, clip_norm, axes)
