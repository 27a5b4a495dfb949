"""What a sweep is asked for, checked before anything is trained: trainers, data, length, measures, sizes of blocks."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._version import __version__
from ..backend import Array, Device
from ..datasets.admission import admit
from ..nn.per_model import integer, is_array, number
from ..training.batches import batches_per_epoch
from ..training.history import measured
from ..training.snapshot import fingerprint
from ..training.trainer import Trainer
from .blocks import Data, opaque
from .results import TOLD

__all__ = ["asked_device", "checked_data", "count", "describe_sweep", "fitting", "make_trainers", "measures_of",
           "rungs_of"]

_MOST = 32  # models side by side on a CPU: more gain nothing, and fall out of its cache

Point = Mapping[str, Any]


def make_trainers(make: Callable[..., Trainer], points: Sequence[Point]) -> list[Trainer]:
    """Make each point's trainer; no two points are the same."""
    trainers, seen = [_make(make, point) for point in points], set()
    for point in points:
        key = json.dumps(point, default=repr, sort_keys=True)
        if key in seen:
            raise ValueError(f"sweep: the point {point} is there twice, which tells nothing new: give each seed once")
        seen.add(key)
    return trainers


def _make(make: Callable[..., Trainer], point: Point) -> Trainer:
    """Make a point's trainer, and say which point where it fails."""
    try:
        trainer: Any = make(**point)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"sweep: no trainer at {dict(point)}: {error}") from error
    except Exception as error:
        error.add_note(f"while making the trainer at {dict(point)}")
        raise
    if not isinstance(trainer, Trainer) or trainer.models:
        raise TypeError(f"sweep: expected make({', '.join(point)}) to give a Trainer of one model, got {trainer!r}")
    if trainer.callbacks or trainer.divergence == "halve" or trainer.arrays:
        raise ValueError("sweep: expected trainers that have not begun, without callbacks= and without "
                         f"divergence='halve', which no sweep carries out; got another at {dict(point)}")
    trainer.options["schedule"] = trainer.schedule  # where it was a plain rate, which others could not join
    return trainer


def asked_device(trainers: Sequence[Trainer]) -> Device | None:
    """Return the device that the trainers ask for, None where they leave it to the data."""
    asked = {trainer.device for trainer in trainers}
    if len(asked) > 1:
        names = sorted("none" if device is None else device.name for device in asked)
        raise ValueError(f"sweep: expected trainers for one device, got {' and '.join(names)}")
    return asked.pop()


def checked_data(x: Array, y: Array, validation: Any, like: Trainer) -> Data:
    """Check that features and labels are arrays, and that there are some; ``Trainer.fit`` looks into the rest."""
    if not (validation is None or (isinstance(validation, Sequence) and len(validation) == 2)):
        raise TypeError("sweep: expected validation=(features, labels)")
    held_out = None
    if validation:
        held_out = admit(validation[0], "validation features"), admit(validation[1], "validation labels", real=False)
    data = Data(admit(x, "features"), admit(y, "labels", real=False), held_out)
    if not data.y.ndim or not data.y.shape[0]:
        raise ValueError(f"sweep: expected labels (n,) with n at least 1, got shape {tuple(data.y.shape)}")
    if hasattr(like.loss, "undefined"):  # which looks into labels before training does
        for labels, what in ((data.y, ""), *([(held_out[1], "validation ")] if held_out else [])):
            with Device.of(labels).activate():
                like.loss.check(labels, like.architecture.out_features, what)
    return data


def count(name: str, value: Any, low: int = 1) -> int | None:
    """Return a count as Python's integer, or None for none."""
    return None if value is None else integer("sweep", name, value, low)


def rungs_of(
    trainers: Sequence[Trainer], n: int, steps: int | None, epochs: float | None, halve_at: Sequence[int]
) -> list[int]:
    """Return the updates at which members are dropped, and the last one, for ``n`` examples."""
    if (steps is None) == (epochs is None):
        raise ValueError("sweep: expected either steps= or epochs=, got both or neither")
    if epochs is not None:
        epochs = number("sweep", "epochs", epochs)
        lengths = {_per_epoch(trainer, n) for trainer in trainers}
        if len(lengths) > 1:
            raise ValueError(f"sweep: an epoch has from {min(lengths)} to {max(lengths)} updates, since the batch "
                             "sizes differ: give steps= instead of epochs=")
        steps = round(epochs * lengths.pop())
    total = count("steps (updates in all)", steps) or 0
    given: Any = halve_at
    if not is_array(given) or any(not hasattr(at, "__index__") or not 0 < at < total for at in given):
        raise ValueError(f"sweep: expected halve_at as updates from 1 to {total - 1}, like [1000, 2000], got {given!r}")
    return [*sorted({operator.index(at) for at in given}), total]


def _per_epoch(trainer: Trainer, n: int) -> int:
    """Return the number of an epoch's updates."""
    return batches_per_epoch(n, trainer.batch_size, trainer.architecture.least_batch)


def measures_of(trainers: Sequence[Trainer], points: Sequence[Point], *, validated: bool) -> list[str]:
    """Return the history's columns that tell how good a member is; that which ranks them by default comes last."""
    kinds = {tuple(trainer.loss.measures.items()) for trainer in trainers}
    if len(kinds) > 1:
        names = sorted(tuple(name for name, _ in kind) for kind in kinds)
        raise ValueError(f"sweep: expected losses with the same measures, to compare networks by, got {names}")
    measures = list(measured(trainers[0].loss, validated=validated))
    taken = [name for name in points[0] if name in {*TOLD, *measures}]
    if taken:
        raise ValueError(f"sweep: {', '.join(taken)} is a column of the table: call the swept value something else")
    return measures


def fitting(trainers: Sequence[Trainer], device: Device, workers: int) -> int:
    """Return how many models fit side by side: in half of the free memory, and a fair share for each worker."""
    most = -(-len(trainers) // workers)
    if device.is_host:
        most = min(most, _MOST)
    free = device.free_memory()
    if free is None:
        return most
    need = 1
    for trainer in trainers:
        of = trainer.architecture
        parameters = sum(math.prod(shape) for shape in of.shapes.values())
        widths = sum(of.widths[1:]) + of.out_features
        # Weights, gradients, the last finite state, moments; and what layers keep of a batch, or of a block evaluated.
        numbers = parameters * (3 + len(trainer.optimizer.slots)) + widths * 8 * max(trainer.batch_size, 250)
        need = max(need, numbers * (8 if trainer.dtype == "float64" else 4))
    return max(1, min(most, free // (2 * need * workers)))


def describe_sweep(points: Sequence[Point], trainers: Sequence[Trainer], data: Data, **options: Any) -> dict[str, Any]:
    """Describe all that decides a sweep's result, but for the device.

    Raises
    ------
    ValueError
        If there is a lambda, a function made in another one, or an object that is no dataclass: another like it
        would look the same.
    """
    for trainer, point in zip(trainers, points, strict=True):
        for thing in opaque([*trainer.architecture.layers, *trainer.options.values(), *point.values()]):
            if "<" in getattr(thing, "__qualname__", "<") if callable(thing) else " at 0x" in repr(thing):
                raise ValueError(f"sweep: {thing!r} cannot be told from another like it on disk: name the function at "
                                 "the top of a module, make the object's class a dataclass, or leave out directory=")
    splits = {"train": (data.x, data.y)} | ({"validation": data.validation} if data.validation else {})
    return {"version": __version__, "data": fingerprint(splits), "points": points, **options,
            "trainers": [trainer.config() | {"order_seed": None, "device": None} for trainer in trainers]}
