"""Training epoch by epoch until each model has converged: what estimators and their grid search have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import random
from ..backend import Array, Device, namespace, to_numpy
from ..nn.network import Network
from ..nn.per_model import pick
from ..nn.sequential import Sequential
from ..training.callbacks import Progress
from ..training.loop import Loop
from ..training.trainer import Trainer

__all__ = ["Epochs", "hold_out", "train"]

Data = tuple[Array, Array]


@dataclass
class Epochs:
    """What training gave for each model: lists over the models.

    Attributes
    ----------
    losses : list of list of float
        The mean minibatch loss of each epoch until the model stopped.
    scores : list of list of float
        The validation score after each epoch, empty where nothing was held out.
    converged : list of bool
        Whether the loss or the score had stopped getting better before the last epoch.
    networks : list of Network or None
        None for a model whose loss or parameters became infinite or NaN, or whose score never was finite.
    causes : dict of int to str
        For those, when and at which rate.
    """

    losses: list[list[float]]
    scores: list[list[float]]
    converged: list[bool]
    networks: list[Network | None]
    causes: dict[int, str]


def train(
    trainer: Trainer, data: Data, held_out: Data | None, *, epochs: int, tol: float, patience: int, begin: int = 0,
    label: str = "",
) -> Epochs:
    """Train a started run until no model gets better any more, or for so many epochs.

    A model stops when its loss, or its score on what is held out, did not improve by ``tol`` for more than
    ``patience`` epochs in a row. Its network is that of the stop, or of the best score.

    Parameters
    ----------
    trainer : Trainer
        Of one model, or of many.
    data, held_out : tuple of arrays
        Checked features and labels on the trainer's device.
    epochs : int
        At most so many.
    tol, patience : float, int
        What counts as an improvement, and how long to wait for one.
    begin : int
        The number of the first epoch, which decides the order of the examples.
    label : str
        Shown before a progress bar; none is shown without it.

    Raises
    ------
    DivergenceError
        If a loss is not finite, unless the trainer freezes such models.
    """
    models = trainer.models[0] if trainer.models else 1
    out = Epochs([[] for _ in range(models)], [[] for _ in range(models)], [False] * models, [None] * models, {})
    layers = [trainer.network.member(i).architecture for i in range(models)]
    best, wait, kept = [-float("inf")] * models, [0] * models, dict[int, dict[str, Array]]()
    members, going = list(range(models)), set(range(models))
    score = list(trainer.loss.measures)[-1]  # of the estimators' losses, where more is better
    device, bar = trainer.network.device, Progress(label, show=bool(label))
    with device.activate(), device.watched():
        batches = trainer.batches(*data)
        batches.start = trainer.step - begin * batches.per_epoch
        loop = Loop(trainer, batches)
        shares = to_numpy(batches.sizes) / sum(batches.sizes)
        bar.on_begin(trainer, trainer.step + epochs * batches.per_epoch)
        try:
            for epoch in range(epochs):
                loop.update_until(trainer.step + batches.per_epoch)
                losses = _per_model(shares @ to_numpy(trainer.history.batch_loss[-batches.per_epoch :]))
                if not held_out and (epoch == epochs - 1 or any(wait[model] >= patience for model in going)):
                    loop.check_network(data[0][: batches.size, :], data[1][: batches.size, ...])
                scores = _per_model(trainer.evaluate(*held_out)[score]) if held_out else []
                for place, model in enumerate(members):
                    if model not in going:
                        continue
                    if place in trainer.diverged:
                        out.causes[model] = trainer.causes[place]
                        going.discard(model)
                        kept.pop(model, None)
                        continue
                    value = scores[place] if held_out else -losses[place]
                    wait[model] = 0 if value >= best[model] + tol else wait[model] + 1
                    out.losses[model].append(losses[place])
                    out.scores[model] += scores[place : place + 1]
                    out.converged[model] = wait[model] > patience
                    if out.converged[model] or epoch == epochs - 1:
                        going.discard(model)
                    if value > best[model] if held_out else model not in going:
                        kept[model] = _copy(trainer, place)
                    best[model] = max(best[model], value)
                row = {"train_loss": losses[0]} | ({f"validation_{score}": scores[0]} if scores else {})
                bar.on_evaluation(trainer, row if models == 1 else {})
                if not going:
                    break
                if len(going) <= len(members) // 2:  # the others need not be trained on
                    places = [place for place, model in enumerate(members) if model in going]
                    trainer, members = _part(trainer, places), [members[place] for place in places]
                    loop = Loop(trainer, batches)
        finally:
            bar.on_end(trainer)
    for model, arrays in kept.items():
        out.networks[model] = Network(layers[model], arrays)
    for model in {*range(models)} - kept.keys() - out.causes.keys():
        out.causes[model] = f"the {score} on what was held out was never finite"
    return out


def _per_model(values: Any) -> list[float]:
    found: list[float] = to_numpy(values).reshape(-1).tolist()
    return found


def _copy(trainer: Trainer, place: int) -> dict[str, Array]:
    """Return a copy of one model's arrays."""
    own = trainer.architecture.has_model_axis
    return {name: namespace(a).asarray(a[place, ...] if own(name, a) else a, copy=True)
            for name, a in trainer.arrays.items()}


def _part(trainer: Trainer, places: Sequence[int]) -> Trainer:
    """Return a trainer of some of the models, which goes on from where they stand."""
    architecture = trainer.architecture
    part = Trainer(Sequential(architecture.in_features, [pick(layer, places) for layer in architecture.layers]),
                   **{name: pick(value, places) for name, value in trainer.options.items()}, divergence="freeze")
    device = trainer.network.device
    rows = device.asarray(list(places))
    state = {name: device.xp.take(a, rows, axis=0) if architecture.has_model_axis(name, a) else a
             for name, a in trainer.state().items()}
    part.restore(state, trainer.step, device)
    return part


def hold_out(x: Array, y: Array, fraction: float, seed: int, *, classes: bool) -> tuple[Data, Data]:
    """Split data into what is trained on and what is held out, each class in proportion.

    Parameters
    ----------
    x, y : array
        Features (n, features) and labels, (n,) or (n, outputs).
    fraction : float
        The share to hold out, above 0 and below 1.
    seed : int
        Of the choice.
    classes : bool
        Whether the labels are class indices.

    Raises
    ------
    ValueError
        If the fraction is no such share, holds out less than two examples or all, or a class has one example.
    """
    n = x.shape[0]
    if not 0.0 < fraction < 1.0 or not 2 <= int(n * fraction) < n:
        raise ValueError(f"validation_fraction: expected a share above 0 and below 1 that holds out 2 samples or more, "
                         f"and not all, got {fraction!r} of {n} sample(s): early_stopping=False holds nothing out")
    order = random.stream(seed, "held out").permutation(n)
    if classes:
        host = to_numpy(y)
        if min(Counter(host.tolist()).values()) < 2:
            raise ValueError("early_stopping needs at least 2 samples of each class, got a class with 1 sample: "
                             "early_stopping=False holds nothing out")
        order = order[host[order].argsort(kind="stable")]
    # In the order of the classes, every so many-th is held out.
    held = [int((i + 1) * fraction) > int(i * fraction) for i in range(n)]
    xp, device = namespace(x), Device.of(x)
    parts = [device.asarray(order[to_numpy(side)]) for side in ([not h for h in held], held)]
    with device.activate():
        train_on, validate_on = [(xp.take(x, rows, axis=0), xp.take(y, rows, axis=0)) for rows in parts]
    return train_on, validate_on
