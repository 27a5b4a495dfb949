"""Checks of what a trainer and its ``fit`` are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..backend import Device
from ..nn.per_model import check_range, integer, is_array, lengths, number, shown
from ..nn.sequential import Sequential
from .divergence import POLICIES
from .optimizers import Optimizer

__all__ = ["check_length", "check_options", "count_models"]


def check_options(architecture: Any, **options: Any) -> dict[str, Any]:
    """Return a trainer's arguments with Python's numbers in place of NumPy's, having checked them.

    Raises
    ------
    TypeError, ValueError
        If one is of another kind or out of its range.
    """
    optimizer, loss, divergence = options["optimizer"], options["loss"], options["divergence"]
    l2, seed, order_seed, dtype = options["l2"], options["seed"], options["order_seed"], options["dtype"]
    clip_norm = options["clip_norm"]
    if not isinstance(architecture, Sequential):
        raise TypeError(f"Trainer: expected a Sequential, like xpnet.mlp(...), got {shown(architecture)}")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"Trainer: expected an optimizer, like xpnet.SGD(), or one of a subclass of "
                        f"xpnet.training.optimizers.Optimizer, got {shown(optimizer)}")
    if isinstance(loss, type) or not (hasattr(loss, "encoder") and hasattr(loss, "measures")):
        raise TypeError(f"Trainer: expected a loss, like xpnet.SoftmaxCrossEntropy(), with its forward, encoder, "
                        f"measures and so on, got {shown(loss)}")
    device = options["device"]
    if not (device is None or isinstance(device, str | Device)):
        raise TypeError(f"Trainer: expected a device by its name, like 'cuda', or a Device, got {shown(device)}")
    batch_size = integer("Trainer", "batch_size", options["batch_size"])
    if batch_size < architecture.least_batch:
        kind = next(type(layer).__name__ for layer in architecture.layers if layer.least_batch > batch_size)
        raise ValueError(f"Trainer: expected a batch_size of at least {architecture.least_batch}, since {kind} "
                         f"cannot train on {batch_size} example{'s' * (batch_size > 1)}")
    limits = {} if clip_norm is None else {"clip_norm": clip_norm}
    for name, value in {"l2": l2, "seed": seed, **limits}.items():
        check_range("Trainer", name, value)
        if getattr(value, "ndim", 0) > 1:
            raise ValueError(f"Trainer: expected {name} as one number per model, got an array of {value.ndim} axes")
    if clip_norm is not None and min(clip_norm if is_array(clip_norm) else [clip_norm]) == 0:
        raise ValueError("Trainer: expected clip_norm above 0, got 0; None does not clip")
    try:
        seeds = [integer("Trainer", "seed", one, low=0) for one in (seed if is_array(seed) else [seed])]
    except TypeError:
        raise TypeError(f"Trainer: expected seed as an integer, or one for each model, got {shown(seed)}") from None
    if not isinstance(dtype, str) or dtype not in ("float32", "float64"):
        raise ValueError(f"dtype: expected 'float32' or 'float64', got {shown(dtype)}")
    if divergence not in POLICIES:
        raise ValueError(f"divergence: expected 'raise', 'freeze' or 'halve', got {divergence!r}")
    return {**options, "batch_size": batch_size, "seed": seeds if is_array(seed) else seeds[0],
            "l2": l2 if is_array(l2) else float(l2), "dtype": str(dtype),
            "clip_norm": clip_norm if clip_norm is None or is_array(clip_norm) else float(clip_norm),
            "order_seed": None if order_seed is None else integer("Trainer", "order_seed", order_seed, low=0)}


def check_callbacks(callbacks: Any) -> None:
    """Check that there is a list of callbacks.

    Raises
    ------
    TypeError
        If there is something else.
    """
    wrong = [callbacks] if not is_array(callbacks) else [
        one for one in callbacks if isinstance(one, type) or not hasattr(one, "on_begin")]
    if wrong:
        raise TypeError(f"Trainer: expected callbacks as a list, like [xpnet.EarlyStopping()], got {shown(wrong[0])}")


def count_models(architecture: Sequential, optimizer: Any, **others: Any) -> tuple[int, ...]:
    """Return the model axis that hyper-parameters describe: their common length, or () for one network.

    Raises
    ------
    ValueError
        If their lengths differ.
    """
    sizes = dict(lengths(optimizer)) | {name: len(v) for name, v in others.items() if is_array(v)}
    for size in architecture.models():
        sizes["network"] = size
    if len(set(sizes.values())) > 1:
        raise ValueError(f"expected hyper-parameters of one length (the number of models), got {sizes}")
    return tuple(set(sizes.values()))


def check_length(
    steps: Any, epochs: Any, evaluate_every: Any, train_sample: Any, validation: Any
) -> tuple[int | None, float | None, int | None, int | None]:
    """Return the first four arguments that ``fit`` is given beside the training data as Python's numbers, checked.

    Raises
    ------
    TypeError, ValueError
        If one is of another kind or out of its range.
    """
    if (steps is None) == (epochs is None):
        raise ValueError("fit: expected either steps= or epochs=, got both or neither")
    if not (validation is None or (isinstance(validation, Sequence) and len(validation) == 2)):
        raise TypeError("fit: expected validation=(features, labels)")
    return (None if steps is None else integer("fit", "steps", steps, low=0),
            None if epochs is None else number("fit", "epochs", epochs),
            None if evaluate_every is None else integer("fit", "evaluate_every", evaluate_every),
            None if train_sample is None else integer("fit", "train_sample", train_sample))
