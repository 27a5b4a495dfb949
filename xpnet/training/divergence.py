"""What is not finite, and where it began: read seldom while all is well, and searched for once when it is not."""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

from .. import random
from ..backend import Array, namespace, to_numpy
from ..nn.network import blocks
from .batches import Batches

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["DivergenceError", "DivergenceWarning", "NotFiniteError", "check_finite", "first_affected", "flag",
           "keep_state", "look_for"]

HALVINGS = 10  # of the rate in one run, at most
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


def look_for(trainer: Trainer, losses: Any, first: int, batches: Batches, what: str = "loss") -> bool:
    """Note each model's first non-finite loss among ``losses`` (updates, *models), and do as asked.

    True if the trainer went back to where it was last evaluated.
    """
    models = trainer.models[0] if trainer.models else 1
    for model in range(models):
        row = losses.reshape(-1, models)[:, model]
        finite = abs(row) < float("inf")  # false for NaN too
        if not finite.all() and model not in trainer.diverged:
            step = trainer.diverged[model] = first + int(finite.argmin())
            rate = to_numpy(trainer._rate(step))
            was = "were not finite" if what == "parameters" else f"was {row[finite.argmin()]}"
            trainer.causes[model] = (
                f"the {what} of {f'model {model}' if trainer.models else 'the network'} {was} at update "
                f"{step} (learning rate {rate[model] if rate.ndim else rate:.3g})"
            )
    if not trainer.diverged or trainer.divergence == "freeze":
        return False
    model, made = min(trainer.diverged, key=lambda model: trainer.diverged[model]), trainer.step
    cause = trainer.causes[model]
    if trainer._kept:
        where = first_affected(trainer, batches, trainer.diverged[model], model)  # and go back
        cause += f"; not finite first: {where}" if where else ""
    if trainer.divergence == "halve" and trainer._kept and len(trainer.halvings) < HALVINGS:
        del trainer.history.batch_loss[len(trainer.history.batch_loss) - (made - trainer.step) :]
        trainer.diverged, trainer.causes, trainer._unseen = {}, {}, 0
        trainer.halvings.append(cause)
        warnings.warn(f"{cause}; going back to update {trainer.step}, and on with half the rate", DivergenceWarning,
                      stacklevel=4)
        return True
    other = ("go on without that model, with divergence='freeze'" if trainer.models else
             f"look at the data: the rate was halved {len(trainer.halvings)} times" if trainer.halvings else
             "go on at half the rate, with divergence='halve'")
    raise DivergenceError(f"{cause}; lower the rate or the initial weights, or {other}; the network is as it was "
                          f"at update {trainer.step}")


def keep_state(trainer: Trainer) -> None:
    """Go back with models that diverged, and keep the state of the others, to go back to."""
    trainer._kept_step = trainer.step
    if not trainer._kept:
        trainer._kept = {name: namespace(a).asarray(a, copy=True) for name, a in trainer.state().items()}
    for name, array in trainer.state().items():
        kept = trainer._kept[name]
        if not trainer.models or not trainer.diverged or not trainer.architecture.has_model_axis(name, array):
            to, new = (array, kept) if trainer.diverged and not trainer.models else (kept, array)
            to[...] = new
            continue
        for model in range(trainer.models[0]):
            to, new = (array, kept) if model in trainer.diverged else (kept, array)
            to[model, ...] = new[model, ...]


def flag(trainer: Trainer) -> Array:
    """Give 0 for each model whose parameters and running statistics are finite, else NaN, of shape (*models)."""
    xp, total = trainer.network.device.xp, 0.0
    for name, a in trainer.arrays.items():
        own = trainer.architecture.has_model_axis(name, a)
        total = total + xp.sum(a * 0.0, axis=tuple(range(int(own), a.ndim)))
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
    behind = len(layers) - len(trainer.learner.trained.layers)  # layers in front of those that are trained
    kept, start = trainer._kept, trainer._kept_step
    trainer.restore(kept, start)
    found = ""
    with device.activate(), contextlib.closing(batches.run(start, until + 1)) as run:
        for t, (x, targets) in enumerate(run, start):
            shapes = trainer.learner.trained.noise_shapes(x.shape[0])
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
    network, drawn = trainer.learner.trained, 0
    for i, layer in enumerate(network.layers):
        drawn += layer.noisy
        arrays = [trainer.arrays[name] for name in network._names[i]]
        x, _, _ = layer.forward(x, *arrays, train=True, noise=noise.get(f"noise{drawn}") if layer.noisy else None)
        if not _finite(x[model, ...] if x.ndim > 2 else x):
            return f"the outputs of layer {behind + i + 1}, {_named(layer, network._names[i])},"
    return ""


def _backward(trainer: Trainer, model: int) -> str:
    """Name the layer next to the output of which a gradient, or else a parameter or a statistic, is not finite."""
    network = trainer.learner.trained
    for word, arrays in (("gradient", trainer.learner.gradients.views), ("new value", trainer.arrays)):
        for i in range(len(network.layers) - 1, -1, -1):
            for name in network._names[i]:
                if name in arrays:
                    a = arrays[name]
                    if not _finite(a[model, ...] if network.has_model_axis(name, a) else a):
                        return f"the {word} of {name}, of {_named(network.layers[i], ())},"
    return ""


def _named(layer: Any, names: tuple[str, ...]) -> str:
    return type(layer).__name__ + (f" ({', '.join(names)})" if names else "")


def _finite(a: Array) -> bool:
    xp = namespace(a)
    return bool(xp.all(xp.isfinite(a)))
