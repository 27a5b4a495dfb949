"""What options of the command line are read with, and those that several commands have."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..nn.initializers import He, Normal, Xavier
from ..sweeps.space import Uniform, parse

__all__ = ["COUNT", "FROM_0", "RATE", "Number", "Values", "add_architecture", "add_configuration", "add_data",
           "initializer", "widths"]


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


@dataclass(frozen=True)
class Number:
    """Reads numbers from ``low`` on (or above it), and below ``below``."""

    kind: type
    low: float
    above: bool = False
    below: float = float("inf")

    def __call__(self, text: str) -> Any:
        """Read one."""
        low, below = self.low, self.below
        try:
            value = self.kind(text)
        except ValueError:
            value = None
        if value is None or not (value > low if self.above else value >= low) or not value < below:
            kind, bound = "an integer" if self.kind is int else "a number", "above" if self.above else "of at least"
            upper = "" if below == float("inf") else f" and below {below:g}"
            raise argparse.ArgumentTypeError(f"expected {kind} {bound} {low:g}{upper}, got {text!r}")
        return value


@dataclass(frozen=True)
class Values:
    """Reads what a sweep goes over: see ``space.parse``."""

    kind: type

    def __call__(self, text: str) -> Uniform | list[Any]:
        """Read values, or a distribution."""
        try:
            return parse(text, self.kind)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None


COUNT, FROM_0, RATE = Number(int, 1), Number(int, 0), Number(float, 0, above=True)


def add_architecture(parser: argparse.ArgumentParser) -> None:
    """Add the options that make a network."""
    parser.add_argument("--hidden", type=widths, default="50,50", help="widths of the hidden layers, like 50,50")
    parser.add_argument("--batch-norm", action=argparse.BooleanOptionalAction, default=False,
                        help="batch norm before each ReLU")
    parser.add_argument("--dropout", type=Number(float, 0, below=1), default=0.0, help="rate after each ReLU")
    parser.add_argument("--l2", type=Number(float, 0), default=0.0, help="cost = loss + l2 * sum of squared weights")
    parser.add_argument("--seed", type=FROM_0, default=0, help="of the initial weights, the order and the dropout")


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the data."""
    parser.add_argument("--data", help="synthetic; cifar10; a CIFAR-10 directory or archive; or an .npz file with "
                        "your own arrays x and y; by default CIFAR-10 where found, else synthetic")
    parser.add_argument("--images", type=COUNT, metavar="N",
                        help="train on the first N images, or examples; by default all, 10,000 of synthetic")


def add_configuration(parser: argparse.ArgumentParser) -> None:
    """Add the options that read options from a file, and print them."""
    parser.add_argument("--config", type=Path, metavar="FILE",
                        help="a TOML file of these options; those given here come before it")
    parser.add_argument("--dry-run", action="store_true",
                        help="print the options as --config reads them, and train nothing")
