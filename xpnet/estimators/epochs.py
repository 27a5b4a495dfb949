"""Training epoch by epoch until each model has converged: what estimators and their grid search have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import random
from ..backend import Array, namespace, to_numpy
from ..nn.network import Network
from ..nn.per_model import pick
from ..training.callbacks import Progress
from ..training.evaluation import evaluate
from ..training.loop import Loop
from ..training.trainer import Trainer

__all__ = ["Epochs", "hold_out", "train"]

#: Features, labels, and the indices of the rows of the features that the labels belong to (None for all rows). Features
#: are never selected by copying: they may be a file that is larger than memory.
Data = tuple[Array, Array, Array | None]


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
        None for a model that diverged, or whose score never was finite.
    slots : list of dict of str to array
        The optimiser's arrays that belong to the networks.
    steps : list of int
        The number of updates that the networks took.
    causes : dict of int to str
        For those, what was not finite, when and at which rate.
    interrupted : KeyboardInterrupt or None
        What ended training early; networks are those of the last update, or of the best score.
    """

    losses: list[list[float]]
    scores: list[list[float]]
    converged: list[bool]
    networks: list[Network | None]
    slots: list[dict[str, Array]]
    steps: list[int]
    causes: dict[int, str] = field(default_factory=dict)
    interrupted: KeyboardInterrupt | None = None


def train(
    trainer: Trainer, data: Data, held_out: Data | None, *, epochs: int, tol: float, patience: int, begin: int = 0,
    continued: bool = False, label: str = "",
) -> Epochs:
    """Train a started run until no model improves any more, or for the requested number of epochs.

    A model stops when its loss, or its score on what is held out, did not improve by ``tol`` for more than
    ``patience`` epochs in a row. Its network is that of the stop, or of the best score.

    Parameters
    ----------
    trainer : Trainer
        A trainer of one model, or of many; it freezes models that diverge.
    data, held_out : Data
        Checked features and labels on the trainer's device.
    epochs : int
        The most epochs.
    tol, patience : float, int
        What counts as an improvement, and how many epochs without one are made.
    begin : int
        The number of the first epoch, which decides the order of the examples.
    continued : bool
        Whether the network as it is competes for the best score.
    label : str
        Shown before a progress bar; none is shown without it.
    """
    models = trainer.models[0] if trainer.models else 1
    out = Epochs([[] for _ in range(models)], [[] for _ in range(models)], [False] * models, [None] * models,
                 [{} for _ in range(models)], [0] * models)
    layers = [trainer.network.member(i).architecture for i in range(models)]
    best, wait = [-float("inf")] * models, [0] * models
    members, going = list(range(models)), set(range(models))
    score = list(trainer.loss.measures)[-1]  # of the estimators' losses, where more is better
    bar = Progress(label, show=bool(label))

    def scores() -> list[float]:
        x, y, only = held_out  # type: ignore[misc]
        return _per_model(evaluate(trainer.learner, x, y, trainer.models, only)[score])

    def keep(place: int, model: int) -> None:
        state = _copy(trainer, place)
        out.networks[model] = Network(layers[model], {name: state.pop(name) for name in trainer.arrays})
        out.slots[model], out.steps[model] = state, trainer.step

    def drop(place: int, model: int) -> None:  # with its best network before, too
        out.causes[model], out.networks[model] = trainer.causes[place], None
        going.discard(model)

    with trainer.network.device.activate(), trainer.network.device.ignore_overflow():
        batches = trainer.batches(*data)
        batches.start = trainer.step - begin * batches.per_epoch
        loop = Loop(trainer, batches)
        shares = to_numpy(batches.sizes) / sum(batches.sizes)
        x, y, only = data
        some = slice(0, batches.size)
        first = x if only is not None else x[some, :], y[some, ...], None if only is None else only[some]
        bar.on_begin(trainer, trainer.step + epochs * batches.per_epoch)
        try:
            if continued and held_out:
                best = scores()
                keep(0, 0)
            for epoch in range(epochs):
                loop.update_until(trainer.step + batches.per_epoch)
                if held_out or not (epoch == epochs - 1 or any(wait[model] >= patience for model in going)):
                    loop.check_parameters()
                else:  # it may be the last
                    loop.check_network(*first)
                losses = _per_model(shares @ to_numpy(trainer.history.batch_loss[-batches.per_epoch :]))
                found = scores() if held_out else []
                for place, model in enumerate(members):
                    if model not in going:
                        continue
                    if place in trainer.diverged:
                        drop(place, model)
                        continue
                    value = found[place] if held_out else -losses[place]
                    wait[model] = 0 if value >= best[model] + tol else wait[model] + 1
                    out.losses[model].append(losses[place])
                    out.scores[model] += found[place : place + 1]
                    out.converged[model] = wait[model] > patience
                    if out.converged[model] or epoch == epochs - 1:
                        going.discard(model)
                    if value > best[model] if held_out else model not in going:
                        keep(place, model)
                    best[model] = max(best[model], value)
                row = {"train_loss": losses[0]} | ({f"validation_{score}": found[0]} if found else {})
                bar.on_evaluation(trainer, row if models == 1 else {})
                if not going:
                    break
                if len(going) <= len(members) // 2:  # the others need not be trained on
                    places = [place for place, model in enumerate(members) if model in going]
                    trainer, members = _part(trainer, places), [members[place] for place in places]
                    loop = Loop(trainer, batches)
        except KeyboardInterrupt as interrupt:
            out.interrupted = interrupt
            loop.check_parameters()  # of updates since the last epoch ended
            for place, model in enumerate(members):
                if model in going and place in trainer.diverged:
                    drop(place, model)
                elif model in going and not out.networks[model]:
                    keep(place, model)
        finally:
            bar.on_end(trainer)
    for model in range(models):
        if not out.networks[model]:
            out.causes.setdefault(model, f"the {score} on what was held out was never finite")
    return out


def _per_model(values: Any) -> list[float]:
    found: list[float] = to_numpy(values).reshape(-1).tolist()
    return found


def _copy(trainer: Trainer, place: int) -> dict[str, Array]:
    """Return a copy of one model's arrays, the optimiser's too."""
    own = trainer.architecture.has_model_axis
    return {name: namespace(a).asarray(a[place, ...] if own(name, a) else a, copy=True)
            for name, a in trainer.state().items()}


def _part(trainer: Trainer, places: Sequence[int]) -> Trainer:
    """Return a trainer of some of the models, which goes on from where they stand."""
    architecture = trainer.architecture
    part = Trainer(architecture.with_layers([pick(layer, places) for layer in architecture.layers]),
                   **{name: pick(value, places) for name, value in trainer.options.items()}, divergence="freeze")
    device = trainer.network.device
    rows = device.asarray(list(places))
    state = {name: device.xp.take(a, rows, axis=0) if architecture.has_model_axis(name, a) else a
             for name, a in trainer.state().items()}
    part.restore(state, trainer.step, device)
    return part


def hold_out(y: Array, fraction: float, seed: int, *, classes: bool) -> tuple[Any, Any]:
    """Split examples into those to train on and those to hold out, each class in proportion.

    Parameters
    ----------
    y : array
        Labels, (n,) or (n, outputs).
    fraction : float
        The share to hold out, above 0 and below 1.
    seed : int
        Seed of the choice.
    classes : bool
        Whether the labels are class indices.

    Returns
    -------
    tuple of array of int
        Indices of the examples on each side, in host memory.

    Raises
    ------
    ValueError
        If the fraction is no such share, holds out less than two examples or all, or a class has one example.
    """
    n = y.shape[0]
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
    held = to_numpy([int((i + 1) * fraction) > int(i * fraction) for i in range(n)])
    return order[~held], order[held]
