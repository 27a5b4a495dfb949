"""What options of the command line are read with, and those that several commands have."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from .initializers import He, Normal, Xavier

__all__ = ["COUNT", "FROM_0", "RATE", "add_architecture", "initializer", "number", "widths"]


def widths(text: str) -> list[int]:
    """Read the widths of the hidden layers."""
    try:
        widths = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        widths = [0]
    if any(width < 1 for width in widths):
        raise argparse.ArgumentTypeError(f"expected widths of at least 1 separated by commas, like 50,50, got {text!r}")
    return widths


def initializer(text: str) -> Any:
    """Read an initializer."""
    if text in ("he", "xavier"):
        return {"he": He(), "xavier": Xavier()}[text]
    try:
        name, sigma = text.split(":")
        if name == "normal" and float(sigma) > 0:
            return Normal(float(sigma))
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected he, xavier or normal:SIGMA, like normal:1e-3, got {text!r}")


def number(kind: type, low: float, *, above: bool = False, below: float = float("inf")) -> Callable[[str], Any]:
    """Make a reader of numbers from ``low`` on (or above it), and below ``below``."""
    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not (value > low if above else value >= low) or not value < below:
            upper = "" if below == float("inf") else f" and below {below:g}"
            raise argparse.ArgumentTypeError(
                f"expected {'an integer' if kind is int else 'a number'} {'above' if above else 'of at least'} "
                f"{low:g}{upper}, got {text!r}"
            )
        return value

    return read


COUNT, FROM_0, RATE = number(int, 1), number(int, 0), number(float, 0, above=True)


def add_architecture(parser: argparse.ArgumentParser) -> None:
    """Add the options that make a network."""
    parser.add_argument("--hidden", type=widths, default="50,50", help="widths of the hidden layers, like 50,50")
    parser.add_argument("--batch-norm", action="store_true", help="batch norm before each ReLU")
    parser.add_argument("--dropout", type=number(float, 0, below=1), default=0.0, help="rate after each ReLU")
    parser.add_argument("--l2", type=number(float, 0), default=0.0, help="cost = loss + l2 * sum of squared weights")
    parser.add_argument("--seed", type=FROM_0, default=0)
