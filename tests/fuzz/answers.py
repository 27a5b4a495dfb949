"""What a random call may end in: numbers that an independent model confirms, or an error of the package."""

from __future__ import annotations

import collections
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))  # where this is run by itself

import reference
from odd_data import Features, OddData

import xpnet
from xpnet import Network

PACKAGE = str(Path(xpnet.__file__).parent)
FOREIGN = re.compile("has no attribute|NoneType|unsupported operand|not subscriptable|object is not|cannot unpack")
ARITHMETIC = re.compile("encountered in|Mean of empty|Degrees of freedom|casting|[Oo]verflow")
CALLS: collections.Counter[str] = collections.Counter()


class FoundError(AssertionError):
    """A call ended otherwise than it should."""


class Refused(Exception):
    """A call ended in an error of the package."""


@contextmanager
def without_foreign_warnings() -> Iterator[None]:
    """Raise an error if what is done inside warns of arithmetic."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if ARITHMETIC.search(str(warning.message)):
            raise FoundError(f"foreign warning: {warning.message} ({warning.filename}:{warning.lineno})")


def answer(call: Callable[[], Any]) -> Any:
    """Return what a call returns; raise ``Refused`` for an error of the package, and ``FoundError`` for another one."""
    CALLS["calls"] += 1
    with without_foreign_warnings():
        try:
            return call()
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1].filename
            text = str(error)
            if not where.startswith(PACKAGE) or FOREIGN.search(text) or "\n" in text or len(text) < 15:
                raise FoundError(f"foreign error {type(error).__name__} from {where}: {text[:300]}") from error
            raise Refused(text) from error


def confirm(got: Any, expected: Any, tolerance: Any, what: str) -> None:
    """Raise an error unless numbers are finite and as expected."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    if got.shape != expected.shape:
        raise FoundError(f"{what}: shape {got.shape}, expected {expected.shape}")
    if not np.isfinite(got).all():
        raise FoundError(f"{what}: not finite: {got}")
    if not (np.abs(got - expected) <= tolerance).all():
        raise FoundError(f"{what}: off by {np.abs(got - expected).max():.3g}, allowed {np.max(tolerance):.3g}")


class Answers(OddData):
    """A source of random calls, with a folder for files.

    Parameters
    ----------
    seed : int
        Seed of all that is drawn.
    folder : Path
        The folder.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__(seed)
        self.folder = folder

    def rounding(self, small: float) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function that changes numbers by a share of about ``small``."""
        return lambda values: values * (1 + small * self.rng.choice([-1.0, 1.0], size=values.shape))

    def expect(self, bad: str, call: Callable[[], Any]) -> Any:
        """Make a call that has to be refused if something is bad."""
        found = answer(call)
        if bad not in ("", "maybe"):
            raise FoundError(f"accepted although bad: {bad}")
        return found

    def modelled(self, network: Network, x: np.ndarray, *, rounded_input: bool = False) -> tuple[np.ndarray, Any]:
        """Return the outputs of the independent model, and by how much rounding may change them.

        Parameters
        ----------
        network : Network
            One network.
        x : ndarray
            Features in float64.
        rounded_input : bool
            Whether the features may be rounded to the network's dtype before their offset is subtracted.

        Returns
        -------
        ndarray, float
            The tolerance is infinite if the numbers are too large to compare.
        """
        arrays = {name: np.asarray(a, np.float64) for name, a in network.arrays.items()}
        layers = reference.describe(network.architecture)
        with np.errstate(all="ignore"):
            expected, _ = reference.forward(layers, arrays, x)
            # What one rounding of each array, and of the input, changes: the outputs' condition.
            small = float(np.finfo(network.arrays["W1"].dtype).eps)
            change = self.rounding(small)
            moved = [reference.forward(layers, arrays, change(x) if rounded_input else x, rounding=change)[0]
                     for _ in range(4)]
            spread = np.max([np.abs(m - expected).max(initial=0.0) for m in moved])
        size = np.abs(expected).max(initial=0.0)
        if not np.isfinite(expected).all() or size > 1e35 or not np.isfinite(spread):
            return expected, np.inf
        return expected, 64 * (spread + small * size) + 1e-30

    def outputs(self, network: Network, x: Features, what: str) -> None:
        """Call a network, and compare."""
        got = self.expect("maybe" if x.bad == "rows" else x.bad, lambda: network(x.given))
        expected, tolerance = self.modelled(network, x.values)
        if np.isfinite(tolerance):
            confirm(got, expected, tolerance, what)
