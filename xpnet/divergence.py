"""What is not finite, and where it began: read seldom while all is well, and searched for once when it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import random
from .backend import Array, namespace
from .batches import Batches, blocks

if TYPE_CHECKING:
    from .training import Trainer

__all__ = ["DivergenceError", "DivergenceWarning", "NotFiniteError", "check_finite", "first_affected", "flag"]

_ROWS = 10_000  # looked at in one go: each is one answer from the device


class DivergenceError(ArithmeticError):
    """The loss or a weight became infinite or NaN; the message names the update, the rate and the layer."""


class DivergenceWarning(RuntimeWarning):
    """Training diverged, and goes on from where it was last evaluated, with half the rate."""


class NotFiniteError(ValueError, ArithmeticError):
    """Data have NaN or infinity in them; the message names the first."""


def check_finite(x: Array, what: str) -> None:
    """See that numbers (n, features) are finite.

    Raises
    ------
    NotFiniteError
        If one is NaN or infinite.
    """
    xp = namespace(x)
    if not xp.isdtype(x.dtype, "real floating"):
        return
    for rows in blocks(x.shape[0], _ROWS):
        part = xp.reshape(x[rows, ...], (-1,))
        finite = xp.isfinite(part)
        if not bool(xp.all(finite)):
            first = int(xp.argmin(xp.astype(finite, xp.int8)))
            width = part.shape[0] // max(1, x[rows, ...].shape[0])
            place = f"example {rows.start + first // width}" + (f", feature {first % width}" if x.ndim > 1 else "")
            raise NotFiniteError(f"{what}: expected finite numbers, got {float(part[first])} in {place}; check the "
                                 f"{what.rpartition(' ')[2]} for NaN and infinity, and fill them in or leave them out")


def flag(trainer: Trainer) -> Array:
    """Give 0 for each model whose parameters and running statistics are finite, else NaN, of shape (*models)."""
    xp, total = trainer.network.device.xp, 0.0
    for name, a in trainer.arrays.items():
        own = len(trainer.architecture.shapes[name])
        total = total + xp.sum(a * 0.0, axis=tuple(range(a.ndim - own, a.ndim)))
    return total


def first_affected(trainer: Trainer, batches: Batches, until: int, model: int) -> str:
    """Repeat the updates since the last evaluation up to ``until``, and name what was not finite first.

    The trainer is left as it was when last evaluated.

    Returns
    -------
    str
        Such as ``"the outputs of layer 3, Linear(10), at update 17"``; empty where nothing was found.
    """
    device, layers = trainer.network.device, trainer.architecture.layers
    behind = len(layers) - len(trainer._trained.layers)  # layers in front of those that are trained
    kept, start = trainer._kept, trainer._kept_step
    trainer.restore(kept, start)
    found = ""
    with device.activate():
        for t, (x, targets) in zip(range(start, until + 1), batches.run(start, until + 1), strict=True):
            shapes = trainer._trained.noise_shapes(x.shape[0])
            noise = {name: device.asarray(random.uniform(trainer.seed, name, t, shape), trainer.dtype)
                     for name, shape in shapes.items()}
            found = _forward(trainer, x, noise, model, behind)
            if not found:
                trainer.update(x, targets, trainer._rates(t, t + 1)[0], noise)
                found = _backward(trainer, model)
            if found:
                found += f" at update {t}"
                break
    trainer.restore(kept, start)
    trainer._kept = kept
    return found


def _forward(trainer: Trainer, x: Array, noise: dict[str, Array], model: int, behind: int) -> str:
    """Name the first layer whose outputs are not finite."""
    network, drawn = trainer._trained, 0
    for i, layer in enumerate(network.layers):
        drawn += layer.noisy
        arrays = [trainer.arrays[name] for name in network._names[i]]
        x, _, _ = layer.forward(x, *arrays, train=True, noise=noise.get(f"noise{drawn}") if layer.noisy else None)
        if not _finite(x[model, ...] if x.ndim > 2 else x):
            return f"the outputs of layer {behind + i + 1}, {_named(layer, network._names[i])},"
    return ""


def _backward(trainer: Trainer, model: int) -> str:
    """Name the layer next to the output of which a gradient, or else a parameter or a statistic, is not finite."""
    network = trainer._trained
    for word, arrays in (("gradient", trainer._gradients.views), ("new value", trainer.arrays)):
        for i in range(len(network.layers) - 1, -1, -1):
            for name in network._names[i]:
                if name in arrays:
                    a, own = arrays[name], len(network.shapes[name])
                    if not _finite(a[model, ...] if a.ndim > own else a):
                        return f"the {word} of {name}, of {_named(network.layers[i], ())},"
    return ""


def _named(layer: Any, names: tuple[str, ...]) -> str:
    return type(layer).__name__ + (f" ({', '.join(names)})" if names else "")


def _finite(a: Array) -> bool:
    xp = namespace(a)
    return bool(xp.all(xp.isfinite(a)))
