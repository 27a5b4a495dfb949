"""Evaluation of a network between updates: the numbers of one row of the history."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..backend import Array, to_numpy
from .step import Learner

__all__ = ["evaluate", "hide_models"]


def evaluate(
    learner: Learner, x: Array, y: Array, models: tuple[int, ...], only: Array | None = None
) -> dict[str, Any]:
    """Return the loss, the cost and the loss's other measures of checked examples, in host memory.

    Parameters
    ----------
    learner : Learner
        The network.
    x, y : array
        Checked features and labels.
    models : tuple of int
        The model axis; () for one network.
    only : array of int, optional
        The indices of the rows of x that the labels belong to; all by default.

    Returns
    -------
    dict
        Values are floats; arrays (models,) with several models.
    """
    found = learner.evaluate(x, y, only)
    return {name: to_numpy(v) if models else float(to_numpy(v)) for name, v in found.items()}


def hide_models(values: Any, models: Collection[int]) -> Any:
    """Return measured values (..., *models) with NaN for some of the models."""
    if models:
        values = to_numpy(values).copy()
        values[..., list(models)] = float("nan")
    return values
