"""Odd features, labels and networks, drawn at random, each with what is known of it."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

import xpnet

DTYPES = ("float16", "float32", "float64", "longdouble", "int8", "uint8", "int16", "uint16", "int32", "int64", "uint64",
          "bool")


class Features(NamedTuple):
    """Features as they are given, their numbers in float64, and whether they have to be refused."""

    given: Any
    values: np.ndarray
    bad: str


class OddData:
    """A source of odd data.

    Parameters
    ----------
    seed : int
        Seed of all that is drawn.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def pick(self, *options: Any) -> Any:
        """Return one of the options."""
        return options[int(self.rng.integers(len(options)))]

    def features(self, n: int, k: int) -> Features:
        """Return n rows of k features of an odd kind."""
        scale = self.pick(1.0, 1.0, 1.0, 1e-3, 100.0, 1e6, 1e-20, 1e20)
        offset = self.pick(0.0, 0.0, 1.0, 1000.0)
        values = self.rng.normal(size=(n, k)) * scale + offset * scale
        dtype = self.pick("float32", "float64", *DTYPES)
        kind = np.dtype(dtype)
        if kind.kind in "iu":
            info = np.iinfo(kind)
            values = np.clip(np.rint(values / scale * 20 + (50 if kind.kind == "u" else 0)), info.min, info.max)
        elif kind == np.float16:
            values = values / scale
        x = values > 0 if kind.kind == "b" else values.astype(kind)
        values = x.astype(np.float64)
        bad = ""
        if x.dtype.kind == "f" and self.rng.random() < 0.05:
            bad = self.pick("nan", "inf", "-inf")
            x[self.rng.integers(n), self.rng.integers(k)] = float(bad)
        layout = self.pick(*["C"] * 12, "F", "F", "strided", "reversed", "read-only", "list", "masked", "matrix",
                           "object", "wide", "complex", "big-endian", "text", "date", "1-D", "empty")
        if layout == "F":
            return Features(np.asfortranarray(x), values, bad)
        if layout == "strided":
            wide = np.repeat(x, 2, axis=1)
            return Features(wide[:, ::2], values, bad)
        if layout == "reversed":
            return Features(np.ascontiguousarray(x[::-1])[::-1], values, bad)
        if layout == "read-only":
            x.flags.writeable = False
        if layout == "list":
            return Features(x.tolist(), values, bad or "maybe")
        if layout == "masked":
            mask = np.zeros(x.shape, bool)
            mask[0, 0] = self.rng.random() < 0.5
            return Features(np.ma.masked_array(x, mask), values, bad or ("masked" if mask.any() else "maybe"))
        if layout == "matrix":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return Features(np.matrix(x), values, bad or "maybe")
        if layout == "object":
            return Features(x.astype(object), values, bad or "maybe")
        if layout == "wide":
            return Features(np.hstack([x, x[:, :1]]), values, "width")
        if layout == "complex":
            return Features(x.astype(complex), values, "kind")
        if layout == "big-endian":
            return Features(x.astype(x.dtype.newbyteorder(">")), values, bad or "maybe")
        if layout == "text":
            return Features(x.astype(str), values, "kind")
        if layout == "date":
            return Features(np.zeros(x.shape, "datetime64[s]"), values, "kind")
        if layout == "1-D":
            return Features(x[:, 0], values, "shape")
        if layout == "empty":
            return Features(x[:0], values[:0], "rows")
        return Features(x, values, bad)

    def labels(self, n: int, classes: int) -> tuple[Any, np.ndarray, str]:
        """Return class indices of an odd kind, the indices themselves, and what is wrong with them."""
        y = self.rng.integers(classes, size=n)
        y[: min(n, classes)] = np.arange(min(n, classes))
        kind = self.pick(*["int64"] * 12, "uint8", "int32", "float64", "list", "bool", "negative", "large",
                         "short", "text", "nan", "column", "masked", "object")
        if kind in ("uint8", "int32", "int64"):
            return y.astype(kind), y, ""
        if kind == "float64":
            return y.astype(float), y, "maybe"
        if kind == "list":
            return y.tolist(), y, "maybe"
        if kind == "bool":
            return y.astype(bool), y.astype(bool).astype(int), "maybe"
        if kind == "negative":
            return y - 1, y, "range"
        if kind == "large":
            return y + classes, y, "range"
        if kind == "short":
            return y[:-1], y, "shape"
        if kind == "text":
            return np.asarray([f"c{i}" for i in y]), y, "maybe"
        if kind == "nan":
            return np.where(np.arange(n) == 0, np.nan, y), y, "nan"
        if kind == "column":
            return y[:, None], y, "maybe"
        if kind == "masked":
            return np.ma.masked_array(y, np.arange(n) == 0), y, "masked"
        return y.astype(object), y, "maybe"

    def architecture(self, k: int, outputs: int) -> xpnet.Sequential:
        """Return a small network."""
        layers: list[Any] = [xpnet.Standardize()] if self.rng.random() < 0.4 else []
        for _ in range(self.rng.integers(0, 3)):
            layers.append(xpnet.Linear(int(self.rng.integers(1, 6))))
            layers += [xpnet.BatchNorm()] if self.rng.random() < 0.4 else []
            layers.append(self.pick(xpnet.ReLU(), xpnet.Tanh(), xpnet.LeakyReLU(0.1)))
        return xpnet.Sequential(k, [*layers, xpnet.Linear(outputs)])
