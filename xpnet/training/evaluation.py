"""Evaluation of a network between updates: the numbers of one row of the history."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..backend import Array, Device, check_same_device, from_dlpack, to_numpy, together
from ..nn.losses import Loss
from ..nn.sequential import Sequential, check_features
from .divergence import check_finite
from .step import Learner

__all__ = ["check_examples", "evaluate", "hide_models"]


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
        Of floats; of arrays (models,) with several models.
    """
    found = learner.evaluate(x, y, only)
    return {name: to_numpy(v) if models else float(to_numpy(v)) for name, v in found.items()}


def hide_models(values: Any, models: Collection[int]) -> Any:
    """Return measured values (..., *models) with NaN for some of the models."""
    if models:
        values = to_numpy(values).copy()
        values[..., list(models)] = float("nan")
    return values


def check_examples(
    x: Array, y: Array, architecture: Sequential, loss: Loss, device: Device, *, move: bool, what: str = ""
) -> tuple[Array, Array]:
    """Return features and labels on the device after checking that they fit the network, the loss and each other.

    Parameters
    ----------
    x, y : array
        Features and labels of any library.
    architecture : Sequential
        The network's layers.
    loss : Loss
        It knows the shapes of labels.
    device : Device
        Where they must be.
    move : bool
        Whether to copy them there from elsewhere.
    what : str
        How errors name them, such as ``"validation "``.

    Raises
    ------
    ValueError, TypeError
        If they do not fit.
    NotFiniteError
        If there is NaN or infinity among the features.
    """
    with device.activate():
        x, y = from_dlpack(x), from_dlpack(y)
        if move:
            x, y = (a if Device.of(a) == device else device.asarray(a) for a in (x, y))
        x = together(check_features(x, architecture, device), device.free_memory)
        check_same_device(x=x, y=y)
        outputs = architecture.out_features
        fitting = loss.shapes(outputs)
        if x.ndim != 2 or tuple(y.shape[1:]) not in fitting.values() or y.shape[:1] != x.shape[:1] or not x.shape[0]:
            raise ValueError(
                f"{what}data: expected features (n, {architecture.in_features}) and {' or '.join(fitting)} with n "
                f"at least 1, got shapes {tuple(x.shape)} and {tuple(y.shape)}"
                + ("; use y[:, 0] for a column of labels, y.argmax(axis=-1) for one-hot rows" if y.ndim == 2 else "")
            )
        check_finite(x, f"{what}features")
        return x, loss.check(y, outputs, what)
