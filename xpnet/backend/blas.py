"""What the BLAS inside NumPy's wheels can do and NumPy does not offer: behind ``backend``, and optional.

A product added to a matrix in one pass, and fewer threads. Where that library cannot be found (other builds of
NumPy), ``found()`` is False, and the ordinary ``xp`` code runs, with the same results up to rounding.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Descent", "found", "gemm_address", "one_thread", "threads"]

_ROW_MAJOR, _NO, _YES = 101, 111, 112  # CblasRowMajor, CblasNoTrans, CblasTrans
_LOCK = threading.Lock()
_ASKED = {"for itself": 0, "for others": 0}  # how many ask for one thread now, and who has the others
_BEFORE = [0]  # how many threads there were before the first asked


@functools.cache
def _library() -> Any:
    """Find NumPy's own OpenBLAS (64-bit integers, names as SciPy's builds have them), and see that it computes."""
    folder = Path(np.__file__).parent
    for file in [*folder.with_name("numpy.libs").glob("*openblas64_*"), *(folder / ".dylibs").glob("*openblas64_*")]:
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(file))
            size, number = ctypes.c_int64, ctypes.c_void_p
            for letter, real in (("s", ctypes.c_float), ("d", ctypes.c_double)):
                product = getattr(library, f"scipy_cblas_{letter}gemm64_")
                product.argtypes = [*[ctypes.c_int] * 3, *[size] * 3, real, number, size, number, size, real, number,
                                    size]
                product.restype = None
            library.scipy_openblas_set_num_threads64_.argtypes = [ctypes.c_int]
            library.scipy_openblas_get_num_threads64_.restype = ctypes.c_int
            if _computes(library):
                return library
    return None


def _computes(library: Any) -> bool:
    """Compare a product with NumPy's, so that a library of another kind is left alone."""
    for dtype in ("float32", "float64"):
        a, b, w = (np.reshape(np.arange(n, dtype=float), shape).astype(dtype) for n, shape in (
            (6, (2, 3)), (8, (2, 4)), (12, (3, 4))))
        expected = 0.5 * w + a.T @ b
        taken = Descent(w, library)
        taken.keep = 0.5
        taken.add_product(a, b)
        if not np.array_equal(w, expected):
            return False
    return True


def _gemm(library: Any, dtype: Any) -> Any:
    """Return the product of matrices of float32 or float64."""
    return library.scipy_cblas_sgemm64_ if dtype == np.float32 else library.scipy_cblas_dgemm64_


@functools.cache
def gemm_address(dtype: Any) -> int:
    """Return where the product of matrices of a dtype is in memory, for other code to call; 0 if it was not found."""
    library = _library()
    return ctypes.cast(_gemm(library, dtype), ctypes.c_void_p).value or 0 if library else 0


def found() -> bool:
    """Return whether NumPy's BLAS can be reached."""
    return _library() is not None


class Descent:
    """A matrix that takes its gradient as it is formed: ``w = keep * w + factor * x.T @ d``, no array for it.

    Plain gradient descent on a layer's weights, its largest array, then touches half as much memory.

    Parameters
    ----------
    w : numpy.ndarray
        The matrix (in, out), or (in, models * out) of models side by side; float32 or float64, in C order.

    Attributes
    ----------
    keep, factor : float or numpy.ndarray
        What is kept of the matrix, and the gradient's factor: numbers, or arrays (models, 1).
    """

    def __init__(self, w: np.ndarray, library: Any = None) -> None:
        self.w: np.ndarray = w
        self.keep: Any = 1.0
        self.factor: Any = 1.0
        self._gemm = _gemm(library or _library(), w.dtype)
        self._address = w.ctypes.data

    def add_product(self, x: np.ndarray, d: np.ndarray, rows: slice = slice(None)) -> Descent:
        """Take the gradient ``x.T @ d`` of inputs x (n, in) and output gradients d (n, out).

        With ``rows`` only these rows of the matrix take theirs, and x has so many features.
        """
        w, keep, factor = self.w, self.keep, self.factor
        # A number costs no pass over the matrix.
        if isinstance(keep, np.ndarray):
            keep = keep.item() if keep.size == 1 else self._scaled(rows, keep)
        if isinstance(factor, np.ndarray):
            d, factor = (d, factor.item()) if factor.size == 1 else (d * self._columns(factor), 1.0)
        x = np.ascontiguousarray(x, dtype=w.dtype)
        if d.dtype != x.dtype or not (d.flags.c_contiguous or d.flags.f_contiguous):
            d = np.ascontiguousarray(d, dtype=x.dtype)
        (n, k), m = x.shape, w.shape[1]
        turn, wide = (_NO, m) if d.flags.c_contiguous else (_YES, n)
        self._gemm(_ROW_MAJOR, _YES, turn, k, m, n, factor, x.ctypes.data, k, d.ctypes.data, wide, keep,
                   self._address + (rows.start or 0) * w.strides[0], m)
        return self

    def _scaled(self, rows: slice, keep: np.ndarray) -> float:
        """Scale the matrix for all models, of which each keeps another part of it; what is left to keep is all."""
        self.w[rows] *= self._columns(keep)
        return 1.0

    def _columns(self, of_models: np.ndarray) -> np.ndarray:
        """Return a value per column, of values (models, 1)."""
        return np.repeat(of_models.ravel(), self.w.shape[1] // of_models.shape[0])


def threads() -> int:
    """Return how many threads BLAS has, or how many it lent to those who asked for one with ``others=True``."""
    library = _library()
    with _LOCK:
        if library is None or _ASKED["for itself"]:
            return 1
        return int(_BEFORE[0] if _ASKED["for others"] else library.scipy_openblas_get_num_threads64_())


@contextlib.contextmanager
def one_thread(*, others: bool = False) -> Iterator[bool]:
    """Have BLAS use one thread, for the whole process, until the last who asked for it is done.

    Parameters
    ----------
    others : bool
        Whether who asks computes in threads of its own meanwhile, as many as BLAS had.

    Yields
    ------
    bool
        Whether it could be done.
    """
    library = _library()
    if library is None:
        yield False
        return
    whom = "for others" if others else "for itself"
    with _LOCK:
        if not any(_ASKED.values()):
            _BEFORE[0] = library.scipy_openblas_get_num_threads64_()
            library.scipy_openblas_set_num_threads64_(1)
        _ASKED[whom] += 1
    try:
        yield True
    finally:
        with _LOCK:
            _ASKED[whom] -= 1
            if not any(_ASKED.values()):
                library.scipy_openblas_set_num_threads64_(_BEFORE[0])
