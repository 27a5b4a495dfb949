"""Training: a network, what it is trained with, and the loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..backend import Array, Device, check_same_device
from ..datasets.admission import NotFiniteError, admit, check_finite
from ..nn.examples import check_examples
from ..nn.losses import Loss, SoftmaxCrossEntropy
from ..nn.per_model import describe, hosted, is_array, signature, stack
from ..nn.sequential import Sequential
from .batches import Batches
from .callback import Callback
from .checkpoints import confirm, resume
from .divergence import DivergenceError
from .evaluation import evaluate
from .history import History
from .loop import Loop, notifying
from .optimizers import SGD, Optimizer
from .options import check_callbacks, check_length, check_options, count_models
from .run import Run
from .schedules import Constant, Schedule

__all__ = ["DivergenceError", "Trainer"]

LONG = 10_000  # updates between two looks at their losses, at most


class Trainer(Run):
    """Train one network, or many at once: any hyper-parameter may be a sequence over the models.

    Parameters
    ----------
    architecture : Sequential
        The network's layers.
    optimizer : Optimizer
        SGD by default.
    schedule : Schedule or float
        The learning rate of each update; its bounds may have one value per model (NumPy arrays).
    loss : Loss
        The objective to minimise: softmax cross-entropy by default. It decides what labels are, and what ``evaluate``
        measures besides the loss.
    l2 : float or sequence of float
        The penalty's factor: the cost is ``loss + l2 * sum of squared weights``.
    clip_norm : float or sequence of float, optional
        Scale the cost's gradient so that its norm over all parameters is at most this.
    batch_size : int
        Examples per update; all of them if there are fewer.
    seed : int or sequence of int
        Seed of the initial weights and of dropout; a sequence has one for each model.
    order_seed : int, optional
        Seed of the order of the examples, which all models share; the (first) seed by default.
    dtype : {"float32", "float64"}
        Floating-point precision of the computation.
    device : str or Device, optional
        Where to train; by default where the data are.
    callbacks : sequence of Callback
        What else happens at evaluation points.
    divergence : {"raise", "freeze", "halve"}
        What to do about a loss or a weight that is not finite: raise a ``DivergenceError``; freeze the model as it
        was when last evaluated (its history continues as NaN, it is noted in ``diverged``, and the other models
        train on, not changed by one bit); or, for one network only, warn, go back to the last evaluation and continue
        with half the learning rate.
    """

    def __init__(
        self,
        architecture: Sequential,
        *,
        optimizer: Optimizer | None = None,
        schedule: Schedule | float = 0.01,
        loss: Loss | None = None,
        l2: Any = 0.0,
        clip_norm: Any = None,
        batch_size: int = 100,
        seed: int | Sequence[int] = 0,
        order_seed: int | None = None,
        dtype: str = "float32",
        device: str | Device | None = None,
        callbacks: Sequence[Callback] = (),
        divergence: str = "raise",
    ) -> None:
        super().__init__()
        rule: Any = SGD() if optimizer is None else optimizer
        measure: Any = SoftmaxCrossEntropy() if loss is None else loss
        self.options: dict[str, Any] = check_options(
            architecture, optimizer=rule, schedule=schedule, loss=measure, l2=l2, clip_norm=clip_norm,
            batch_size=batch_size, seed=seed, order_seed=order_seed, dtype=dtype, device=device, divergence=divergence)
        check_callbacks(callbacks)
        self.divergence: str = self.options.pop("divergence")
        self.architecture: Sequential = architecture
        self.optimizer: Optimizer = rule
        self.schedule: Schedule = hosted(schedule if callable(schedule) else Constant(schedule))
        self.loss: Loss = measure
        self.l2: float | Array = self.options["l2"]
        self.clip_norm: float | Array | None = self.options["clip_norm"]
        self.batch_size: int = self.options["batch_size"]
        self.seed: int | Sequence[int] = self.options["seed"]
        self.dtype: str = self.options["dtype"]
        first: Any = self.seed[0] if is_array(self.seed) else self.seed
        self.order_seed: int = first if order_seed is None else self.options["order_seed"]
        self.callbacks: tuple[Callback, ...] = tuple(callbacks)
        self.device: Device | None = Device(device) if isinstance(device, str) else device
        self._moves_data = self.device is not None
        self.models: tuple[int, ...] = count_models(
            architecture, rule, l2=self.l2, clip_norm=self.clip_norm, seed=self.seed,
            **{"learning rate": self.schedule(0)})
        if divergence == "halve" and self.models:
            raise ValueError("divergence='halve' is for one network; several have 'freeze'")
        self.data: dict[str, tuple[Array, Array]] = {}
        self.plan: dict[str, int] = {}

    def config(self) -> dict[str, Any]:
        """Describe the trainer in plain values (JSON), but for its callbacks.

        Returns
        -------
        dict
            What checkpoints compare.
        """
        device = self.device.name if self.device else None
        # A run without clipping is described as it was before there was any.
        options = {name: describe(value) for name, value in self.options.items()
                   if name != "clip_norm" or value is not None}
        return {"network": self.architecture.config(), **options, "device": device}

    def signature(self) -> dict[str, Any]:
        """Describe what trainers must have in common to be one trainer with a model axis: see ``stack``.

        Returns
        -------
        dict
            Equal where trainers can train side by side.
        """
        layers = [signature(layer) for layer in self.architecture.layers]
        fixed = {name: signature(self.options[name]) for name in ("optimizer", "schedule", "loss", "batch_size",
                                                                  "order_seed", "dtype")}
        return {"in_features": self.architecture.in_features, "layers": layers, "clips": self.clip_norm is not None,
                **fixed}

    @classmethod
    def stack(cls, trainers: Sequence[Trainer], **options: Any) -> Trainer:
        """Make one trainer with a model axis of several, each of one model, that differ in numbers only.

        Parameters
        ----------
        trainers : sequence of Trainer
            They have one ``signature()``, and have not begun.
        **options
            Constructor arguments to set for all of them.

        Raises
        ------
        ValueError
            If they differ in more than l2, clip_norm, seed, and the numbers of layers, optimiser and schedule.
        """
        first = trainers[0]
        if any(t.signature() != first.signature() for t in trainers) or any(t.models for t in trainers):
            raise ValueError("stack: expected trainers of one model each that differ in l2, seed, and the numbers of "
                             "their layers, optimiser and schedule only; train the others apart")
        rows = zip(*[t.architecture.layers for t in trainers], strict=True)
        architecture = first.architecture.with_layers([stack(row) for row in rows])
        common = {**first.options, "optimizer": stack([t.optimizer for t in trainers]),
                  "schedule": stack([t.options["schedule"] for t in trainers]),
                  "seed": [t.seed for t in trainers], "l2": [t.l2 for t in trainers],
                  "clip_norm": [t.clip_norm for t in trainers] if first.clip_norm is not None else None}
        return cls(architecture, **{**common, **options})

    def fit(
        self,
        x: Array,
        y: Array,
        *,
        steps: int | None = None,
        epochs: float | None = None,
        validation: tuple[Array, Array] | None = None,
        evaluate_every: int | None = None,
        train_sample: int | None = None,
    ) -> History:
        """Train until the run has made ``steps`` updates in all (so a run that stopped goes on).

        Parameters
        ----------
        x : array of shape (n, features)
            Features: uint8 or other integers, or floats. They stay as they are until a batch needs them.
        y : array of shape (n,) or (n, outputs)
            What the loss takes: class indices, 0 to classes - 1, for softmax cross-entropy.
        steps, epochs : int, float
            How long, in updates or in passes over the data; one of them.
        validation : tuple of arrays
            Features and labels to evaluate on as well.
        evaluate_every : int
            Updates between evaluations; an epoch by default. The first update's start and the end are
            always evaluated.
        train_sample : int
            Evaluate on the first so many training examples; all by default.

        Returns
        -------
        History
            The trainer's, with a row for each evaluation.

        Raises
        ------
        ValueError, TypeError
            If the data do not fit the network or each other.
        NotFiniteError
            If there is NaN or infinity among the features; it is a ValueError.
        DivergenceError
            If a loss or a weight is not finite (``divergence="raise"``, or too often with ``"halve"``). The trainer is
            then as it was when last evaluated.
        """
        steps, epochs, evaluate_every, train_sample = check_length(steps, epochs, evaluate_every, train_sample,
                                                                   validation)
        device = self.device or check_same_device(x=admit(x, "features"), y=admit(y, "labels", real=False))
        x, y = self._checked(x, y, device)
        held_out = self._checked(*validation, device, "validation ") if validation else None
        with device.activate(), device.ignore_overflow():
            self._place(device, x)
            if held_out and self.learner.scaling:  # which was not known when the data were checked
                check_finite(held_out[0], "validation features", dtype=getattr(device.xp, self.dtype),
                             scaling=self.learner.scaling)
            batches = self.batches(x, y)
            total = steps if steps is not None else round((epochs or 0) * batches.per_epoch)
            every, sample = evaluate_every or batches.per_epoch, min(train_sample or x.shape[0], x.shape[0])
            self.data = {"train": (x, y)} | ({"validation": held_out} if held_out else {})
            self.plan = {"steps": total, "evaluate_every": every, "train_sample": sample}
            loop = Loop(self, batches, {**self.data, "train": (x[:sample, :], y[:sample, ...])}, total)
            stop = self._ended_before(device)
            with notifying(self, total):
                stop = stop or (self._due(total, every) and loop.evaluate()) or self.stopping
                while self.step < total and not stop:
                    point = min(total, (self.step // every + 1) * every)
                    loop.update_until(min(point, (self.step // LONG + 1) * LONG))
                    stop = (self.step == point and loop.evaluate()) or self.stopping
        return self.history

    def _place(self, device: Device, x: Array) -> None:
        """Start the run, or move it to where the data are after it was resumed elsewhere."""
        if not self.arrays:
            self.start(device, x)
        elif self.network.device != device:
            before = replace(self.run_state)
            self.start(device)
            self.run_state.load(before, device)
        self.device = device

    def _ended_before(self, device: Device) -> bool:
        """Compare the arguments of ``fit`` with those of a resumed run; return whether a callback had ended it."""
        state = self.run_state
        state.stopped = state.origin is not None and confirm(state.origin, self.plan, self.data, device)
        state.origin = None
        return state.stopped

    def _due(self, total: int, every: int) -> bool:
        """Return whether the state that ``fit`` finds is to be evaluated, and was not."""
        measured = self.history.rows[-1]["step"] if self.history.rows else -1
        return measured < 0 or (measured < self.step and (self.step == total or self.step % every == 0))

    def resume(self, run: str | Path) -> None:
        """Resume a run from its newest intact checkpoint; ``fit`` then goes on as if it had never ended.

        The trainer must be made as the run's was, with its callbacks in their order, and ``fit`` given its data
        and options; ``steps`` may be more. On the same machine, with the same versions and threads, all that follows
        is bit for bit what it would have been.

        Parameters
        ----------
        run : path
            The directory that a ``Checkpoints`` callback wrote to.

        Raises
        ------
        FileNotFoundError
            If there is no checkpoint.
        CheckpointError
            If none is intact.
        ResumeError
            If the run is not this trainer's; the message names the differences.
        """
        resume(self, Path(run))

    def batches(self, x: Array, y: Array, only: Array | None = None) -> Batches:
        """Return the minibatches of checked data; the run must have been started.

        Parameters
        ----------
        x : array of shape (n, features)
            The features.
        y : array
            The labels, as the loss keeps them.
        only : array of int, optional
            The indices of the rows of x that the labels belong to; all by default.

        Returns
        -------
        Batches
            By update.
        """
        return Batches(
            x, y, self.architecture.out_features, size=self.batch_size, seed=self.order_seed,
            device=self.network.device, dtype=self.dtype, rows=self.learner.batches(x, self.batch_size),
            loss=self.loss, at_least=self.architecture.least_batch, only=only,
            load=self.learner.loader(x, y, only),
        )

    def evaluate(self, x: Array, y: Array) -> dict[str, Any]:
        """Return ``loss``, ``cost`` and the other measures of the loss (``accuracy``), as floats or arrays over models.

        Parameters
        ----------
        x : array of shape (n, features)
            The features.
        y : array of shape (n,) or (n, outputs)
            What the loss takes.

        Returns
        -------
        dict
            Values are floats; arrays (models,) with several models.

        Raises
        ------
        ValueError, TypeError
            If features and labels do not fit the network or each other.
        NotFiniteError
            If the loss of a single network is not finite; it is a ValueError.
        """
        x, y = self._checked(x, y, self.network.device)
        with self.network.device.ignore_overflow():
            found = evaluate(self.learner, x, y, self.models)
        if not self.models and not math.isfinite(found["loss"]):
            raise NotFiniteError(f"the loss is {found['loss']}: the network's outputs or the targets are too large for "
                                 f"{self.dtype}; rescale them, or train again at a lower rate")
        return found

    def _checked(self, x: Array, y: Array, device: Device, what: str = "") -> tuple[Array, Array]:
        scaling = self.learner.scaling if self.arrays and self.network.device == device else None
        return check_examples(x, y, self.architecture, self.loss, device, dtype=self.dtype, scaling=scaling,
                              move=self._moves_data, what=what)
