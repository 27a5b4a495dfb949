"""Training: the step that changes a network, and the loop around it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import random
from ..backend import Array, Device, check_same_device, from_dlpack, to_numpy, together
from ..nn.losses import Loss, SoftmaxCrossEntropy
from ..nn.network import Network
from ..nn.per_model import at_least_1, check_range, describe, hosted, is_array, lengths, signature, stack
from ..nn.sequential import Sequential, check_features
from .batches import Batches
from .callbacks import Callback
from .divergence import DivergenceError, check_finite, flag, keep_state, look_for
from .history import History
from .optimizers import SGD, Optimizer
from .schedules import Constant, Schedule
from .step import Learner

__all__ = ["DivergenceError", "Trainer"]

LONG = 10_000  # updates between two looks at their losses, at most


class Trainer:
    """Trains one network, or many at once: any hyper-parameter may be a sequence over the models.

    Parameters
    ----------
    architecture : Sequential
        The network's layers.
    optimizer : Optimizer
        SGD by default.
    schedule : Schedule or float
        The learning rate of each update; its bounds may have one value per model (NumPy arrays).
    loss : Loss
        What is made small: softmax cross-entropy by default. It decides what labels are, and what ``evaluate``
        measures beside the loss.
    l2 : float or sequence of float
        The penalty's factor: the cost is ``loss + l2 * sum of squared weights``.
    batch_size : int
        Examples per update; all of them where the data are fewer.
    seed : int or sequence of int
        Of the initial weights and the dropout, one per model where it is a sequence.
    order_seed : int, optional
        Of the order of the examples, which all models share; the (first) seed by default.
    dtype : {"float32", "float64"}
        Of the arithmetic.
    device : str or Device, optional
        Where to train; by default where the data are.
    callbacks : sequence of Callback
        What else happens at evaluation points.
    divergence : {"raise", "freeze", "halve"}
        Whether a non-finite loss or weight ends the run, or a model that has one stays as it was when last evaluated:
        its history goes on as NaN, it is noted in ``diverged``, and the others go on, not changed by one bit. Or
        (one network only) whether the run goes back to its last evaluation, and on from there with half the rate,
        with a warning.

    Attributes
    ----------
    step : int
        Updates made.
    history : History
        What was measured.
    diverged : dict of int to int
        The first update with a non-finite loss, by model (0 for a single one).
    causes : dict of int to str
        For each of them, what was not finite, when, and at which rate.
    halvings : list of str
        Why the rate was halved, each time (``divergence="halve"``).
    stopped : bool
        Whether a callback ended the run.
    """

    def __init__(
        self,
        architecture: Sequential,
        *,
        optimizer: Optimizer | None = None,
        schedule: Schedule | float = 0.01,
        loss: Loss | None = None,
        l2: Any = 0.0,
        batch_size: int = 100,
        seed: int | Sequence[int] = 0,
        order_seed: int | None = None,
        dtype: str = "float32",
        device: str | Device | None = None,
        callbacks: Sequence[Callback] = (),
        divergence: str = "raise",
    ) -> None:
        given: Any = architecture
        if not isinstance(given, Sequential):
            raise TypeError(f"Trainer: expected a Sequential, like xpnet.mlp(...), got {given!r}")
        rule: Any = optimizer or SGD()
        if isinstance(rule, type) or not hasattr(rule, "update"):
            raise TypeError(f"Trainer: expected an optimizer, like xpnet.SGD(), got {optimizer!r}")
        measure: Any = loss or SoftmaxCrossEntropy()
        if isinstance(measure, type) or not (hasattr(measure, "encoder") and hasattr(measure, "measures")):
            raise TypeError(f"Trainer: expected a loss, like xpnet.SoftmaxCrossEntropy(), with its forward, encoder, "
                            f"measures and so on, got {loss!r}")
        at_least_1("Trainer", "batch_size", batch_size)
        if batch_size < architecture.least_batch:
            kind = next(type(layer).__name__ for layer in architecture.layers if layer.least_batch > batch_size)
            raise ValueError(f"Trainer: expected a batch_size of at least {architecture.least_batch}, since {kind} "
                             f"cannot train on {batch_size} example{'s' * (batch_size > 1)}")
        per_model: dict[str, Any] = {"l2": l2, "seed": seed}
        for name, value in per_model.items():
            check_range("Trainer", name, value)
            if getattr(value, "ndim", 0) > 1:
                raise ValueError(f"Trainer: expected {name} as one number per model, got an array of {value.ndim} axes")
        for one in seed if is_array(seed) else [seed]:  # type: ignore[union-attr]
            if not hasattr(one, "__index__"):
                raise TypeError(f"Trainer: expected seed as an integer, or one for each model, got {seed!r}")
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype: expected 'float32' or 'float64', got {dtype!r}")
        if divergence not in ("raise", "freeze", "halve"):
            raise ValueError(f"divergence: expected 'raise', 'freeze' or 'halve', got {divergence!r}")
        self.options: dict[str, Any] = {
            "optimizer": rule, "schedule": schedule, "loss": measure, "l2": l2, "batch_size": batch_size, "seed": seed,
            "order_seed": order_seed, "dtype": dtype, "device": device,
        }
        self.architecture: Sequential = architecture
        self.optimizer: Optimizer = rule
        self.schedule: Schedule = hosted(schedule if callable(schedule) else Constant(schedule))
        self.loss: Loss = measure
        self.l2: float | Array = l2
        self.batch_size: int = batch_size
        self.seed: int | Sequence[int] = seed
        self.dtype: str = dtype
        first: Any = seed[0] if is_array(seed) else seed  # type: ignore[index]
        self.order_seed: int = first if order_seed is None else order_seed
        self.callbacks: tuple[Callback, ...] = tuple(callbacks)
        self.divergence = divergence
        self.device: Device | None = Device(device) if isinstance(device, str) else device
        self._moves_data = self.device is not None
        self.models: tuple[int, ...] = self._model_axis()
        self.step: int = 0
        self.history: History = History()
        self.diverged: dict[int, int] = {}
        self.causes: dict[int, str] = {}
        if divergence == "halve" and self.models:
            raise ValueError("divergence='halve' is for one network; several have 'freeze'")
        self.halvings: list[str] = []
        self._learner: Learner | None = None
        self.data: dict[str, tuple[Array, Array]] = {}
        self.plan: dict[str, int] = {}
        self.stopping: bool = False
        self.stopped: bool = False
        self._kept: dict[str, Array] = {}
        self._kept_step = self._unseen = 0
        self._resumed: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Give what a copy or a pickle holds: what was learned by name, without the views that training writes to."""
        held = {**self.__dict__, "_learner": None}
        if self._learner:
            device = self.network.device
            held["_learned"] = {name: device.asarray(a, copy=True) for name, a in self.state().items()}
        return held

    def __setstate__(self, held: dict[str, Any]) -> None:
        learned = held.pop("_learned", None)
        self.__dict__.update(held)
        if learned is not None:
            kept = self._kept
            self.start(self.device or Device())
            self.restore(learned, self.step)
            self._kept = kept

    def _model_axis(self) -> tuple[int, ...]:
        """Find how many models the hyper-parameters describe."""
        own = {"l2": self.l2, "seed": self.seed, "learning rate": self.schedule(0)}
        sizes = dict(lengths(self.optimizer)) | {name: len(v) for name, v in own.items() if is_array(v)}
        for size in self.architecture.models():
            sizes["network"] = size
        if len(set(sizes.values())) > 1:
            raise ValueError(f"expected hyper-parameters of one length (the number of models), got {sizes}")
        return tuple(set(sizes.values()))

    def config(self) -> dict[str, Any]:
        """Describe the trainer in plain values (JSON), but for its callbacks.

        Returns
        -------
        dict
            What checkpoints compare.
        """
        device = self.device.name if self.device else None
        options = {name: describe(value) for name, value in self.options.items()}
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
        return {"in_features": self.architecture.in_features, "layers": layers, **fixed}

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
            If they differ in more than l2, seed, and the numbers of layers, optimiser and schedule.
        """
        first = trainers[0]
        if any(t.signature() != first.signature() for t in trainers) or any(t.models for t in trainers):
            raise ValueError("stack: expected trainers of one model each that differ in l2, seed, and the numbers of "
                             "their layers, optimiser and schedule only; train the others apart")
        rows = zip(*[t.architecture.layers for t in trainers], strict=True)
        architecture = Sequential(first.architecture.in_features, [stack(row) for row in rows])
        common = {**first.options, "optimizer": stack([t.optimizer for t in trainers]),
                  "schedule": stack([t.options["schedule"] for t in trainers]),
                  "seed": [t.seed for t in trainers], "l2": [t.l2 for t in trainers]}
        return cls(architecture, **{**common, **options})

    @property
    def arrays(self) -> dict[str, Array]:
        """Parameters, running statistics and the input's scaling by name; none before ``fit`` begins."""
        return self._learner.arrays if self._learner else {}

    def state(self) -> dict[str, Array]:
        """Give everything that changes as training goes on, by name: with ``step``, all that a run is.

        Parameters, running statistics, the input's scaling, and the optimiser's moments, as
        ``"velocity.W1"``. The arrays are the live ones: copy what must stay as it is.

        Returns
        -------
        dict of str to array
            On the trainer's device.
        """
        return self.learner.state()

    @property
    def learner(self) -> Learner:
        """The arrays, and what an update makes of them."""
        if self._learner is None:
            raise RuntimeError("this trainer has no network yet: call fit(x, y) first")
        return self._learner

    def restore(self, state: Mapping[str, Any], step: int, device: Device | None = None) -> None:
        """Go back, or on, to a state that ``state()`` gave, of arrays of any library.

        Parameters
        ----------
        state : mapping of str to array
            What ``state()`` gave.
        step : int
            The update at which it did.
        device : Device, optional
            Where to train; by default where the trainer was or names.
        """
        if not self.arrays:
            self.start(device or self.device or Device())
        for name, array in self.state().items():
            array[...] = self.network.device.asarray(state[name], self.dtype)
        self.step, self._kept = step, {}

    def resume(self, run: str | Path) -> None:
        """Take up a run where its newest intact checkpoint left it; ``fit`` then goes on as if it had never ended.

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
        from .checkpoints import resume

        resume(self, Path(run))

    def stop(self) -> None:
        """Ask ``fit`` to end after the update that it is at, from a signal handler, a callback or a thread."""
        self.stopping = True

    def start(self, device: Device, x: Array | None = None) -> None:
        """Allocate everything on ``device``, write the initial values, and standardise by ``x``.

        Parameters
        ----------
        device : Device
            Where to train.
        x : array of shape (n, features), optional
            The training features, for a network that standardises.
        """
        self._learner = Learner(self.architecture, self.optimizer, self.loss, self.l2, models=self.models,
                                seed=self.seed, device=device, dtype=self.dtype, x=x)
        self.device = device

    @property
    def network(self) -> Network:
        """The network as it is now; its arrays change as training goes on."""
        return Network(self.architecture, self.learner.arrays)

    def update(self, x: Array, targets: Array, lr: Any, noise: Mapping[str, Array] | None = None) -> Array:
        """Make one update, and give the minibatch's loss (*models) without waiting for it.

        Parameters
        ----------
        x : array of shape (n, features)
            A batch in the trainer's dtype, standardised if the network begins by doing so. ``fit`` gives ``Halves``,
            which stand for an array, where they are faster.
        targets : array of shape (n, outputs)
            What the loss makes of labels: one-hot rows for softmax cross-entropy.
        lr : float or array of shape (*models, 1)
            The learning rate.
        noise : mapping of str to array
            Uniform draws for dropout.

        Returns
        -------
        array of shape (*models)
            The batch's mean loss before the update, on the device.
        """
        value = self.learner.update(x, targets, lr, noise, self.step)
        self.step += 1
        return value

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
        if (steps is None) == (epochs is None):
            raise ValueError("fit: expected either steps= or epochs=, got both or neither")
        check_range("fit", "steps or epochs", steps if epochs is None else epochs)
        if not (steps is None or hasattr(steps, "__index__")):
            raise TypeError(f"fit: expected steps as an integer, got {steps!r}")
        for name, count in (("evaluate_every", evaluate_every), ("train_sample", train_sample)):
            if count is not None:
                at_least_1("fit", name, count)
        pair: Any = validation
        if not (pair is None or (isinstance(pair, Sequence) and len(pair) == 2)):
            raise TypeError("fit: expected validation=(features, labels)")
        device = self.device or check_same_device(x=from_dlpack(x), y=from_dlpack(y))
        x, y = self._examples(x, y, device, "")
        held_out = self._examples(*validation, device, "validation ") if validation else None
        with device.activate(), device.watched():
            if not self.arrays:
                self.start(device, x)
            elif self.network.device != device:  # resumed on the host, with data elsewhere
                before, kept = self.state(), self._kept
                self.start(device)
                self.restore(before, self.step)
                self._kept = {name: device.asarray(a, copy=True) for name, a in kept.items()}
            self.device, batches = device, self.batches(x, y)
            total = steps if steps is not None else round((epochs or 0) * batches.per_epoch)
            every = evaluate_every or batches.per_epoch
            seen = min(train_sample or x.shape[0], x.shape[0])
            data = {"train": (x[:seen, :], y[:seen, ...])} | ({"validation": held_out} if held_out else {})
            self.data = {**data, "train": (x, y)}
            self.plan = {"steps": total, "evaluate_every": every, "train_sample": seen}
            stop = self.stopped = bool(self._resumed and self._resumed(self))
            self._resumed = None
            begun: list[Callback] = []
            try:
                for callback in self.callbacks:
                    callback.on_begin(self, total)
                    begun.append(callback)
                measured = self.history.rows[-1]["step"] if self.history.rows else -1
                due = measured < 0 or (measured < self.step and (self.step == total or self.step % every == 0))
                stop = stop or (due and self._measure(data, batches)) or self.stopping
                while self.step < total and not stop:
                    point = min(total, (self.step // every + 1) * every)
                    self._run(batches, min(point, (self.step // LONG + 1) * LONG))
                    stop = (self.step == point and self._measure(data, batches)) or self.stopping
                for callback in begun if self.stopping else ():
                    if hasattr(callback, "on_stop"):
                        callback.on_stop(self)
            finally:
                self.stopping = False
                with contextlib.ExitStack() as ends:  # each hears of the end, whatever another raises
                    ends.callback(self.data.clear)
                    for callback in reversed(begun):
                        ends.callback(callback.on_end, self)
        return self.history

    def batches(self, x: Array, y: Array) -> Batches:
        """Give the minibatches of checked data, to a run that was started.

        Parameters
        ----------
        x : array of shape (n, features)
            The features.
        y : array
            The labels, as the loss keeps them.

        Returns
        -------
        Batches
            By update.
        """
        return Batches(
            x, y, self.architecture.out_features, size=self.batch_size, seed=self.order_seed,
            device=self.network.device, dtype=self.dtype, rows=self.learner.batches(x, self.batch_size),
            loss=self.loss, at_least=self.architecture.least_batch,
        )

    def _rate(self, step: int) -> Any:
        """Give the learning rate of an update."""
        rate = self.schedule(step)
        return rate * 0.5 ** len(self.halvings) if self.halvings else rate

    def _rates(self, first: int, until: int) -> list[Any]:
        """Give the learning rates of updates first to until - 1, on the device where there is one for each model."""
        device, rates = self.network.device, [self._rate(t) for t in range(first, until)]
        freezes = bool(self.models) and self.divergence == "freeze"
        if freezes or is_array(rates[0]):  # (updates, models, 1); a frozen model's are 0
            going = to_numpy([[float(model not in self.diverged) for model in range(self.models[0])]])
            given = to_numpy([to_numpy(rate) if is_array(rate) else [rate] for rate in rates])
            table = device.asarray(given * going, self.dtype)[..., None]
            return [table[i, ...] for i in range(until - first)]
        return [float(rate) for rate in rates]  # a NumPy scalar would make float64 of float32

    def _run(self, batches: Batches, until: int) -> None:
        """Make updates until update ``until``, or until asked to stop, then look at their losses."""
        device, first, losses = self.network.device, self.step, []
        rates = self._rates(first, until)
        shapes = self.learner.network.noise_shapes(batches.size)
        try:
            with contextlib.closing(batches.run(first, until)) as run:
                for t, (x, targets) in enumerate(run, first):
                    noise = {name: device.asarray(random.uniform(self.seed, name, t, (x.shape[0], k)), self.dtype)
                             for name, (_, k) in shapes.items()}
                    losses.append(self.update(x, targets, rates[t - first], noise))
                    if self.stopping:
                        break
        finally:  # an interruption loses nothing that was measured
            host = to_numpy(device.xp.stack(losses)) if losses else to_numpy([])
            host = self._without_frozen(host) if losses else host
            self.history.batch_loss += list(host) if self.models else host.tolist()
            self._unseen += len(losses)
        if self._unseen and (self.step == until or self.divergence != "freeze"):
            # A model is frozen at the same update whether or not the run was interrupted before.
            losses, self._unseen = self.history.batch_loss[-self._unseen :], 0
            look_for(self, to_numpy(losses), self.step - len(losses), batches)

    def _without_frozen(self, values: Any) -> Any:
        """Give measured values (..., *models) with NaN for models that are frozen."""
        if self.models and self.diverged:
            values = to_numpy(values).copy()
            values[..., list(self.diverged)] = float("nan")
        return values

    def evaluate(self, x: Array, y: Array) -> dict[str, Any]:
        """Give ``loss``, ``cost`` and what the loss measures beside (``accuracy``), as floats or arrays over models.

        Parameters
        ----------
        x : array of shape (n, features)
            The features.
        y : array of shape (n,) or (n, outputs)
            What the loss takes.

        Returns
        -------
        dict
            Of floats; of arrays (models,) with several models.
        """
        network = self.network
        x, y = self._examples(x, y, network.device, "")
        return self._evaluate(x, y)

    def _evaluate(self, x: Array, y: Array) -> dict[str, Any]:
        found = self.learner.evaluate(x, y)
        return {name: to_numpy(v) if self.models else float(to_numpy(v)) for name, v in found.items()}

    def _measure(self, data: Mapping[str, tuple[Array, Array]], batches: Batches) -> bool:
        """Add a row to the history and tell the callbacks; True if one of them wants to stop."""
        row: dict[str, Any] = {"step": self.step, "epoch": self.step / batches.per_epoch}
        lr = self._rate(self.step)
        row["lr"] = to_numpy(lr) if is_array(lr) else float(lr)
        found = {name: self._evaluate(x, y) for name, (x, y) in data.items()}
        for name, measured in found.items():
            if look_for(self, to_numpy(measured["loss"]), self.step, batches, f"{name} loss"):
                return False
            row |= {f"{name}_{key}": value for key, value in measured.items()}
        # A weight of -inf may hide behind a ReLU.
        if look_for(self, to_numpy(flag(self)), self.step, batches, "parameters"):
            return False
        row = {name: v if name in ("step", "epoch", "lr") else self._without_frozen(v) for name, v in row.items()}
        self.history.rows.append(row)
        keep_state(self)
        self.stopped = len(self.diverged) == (self.models or (1,))[0]
        for callback in self.callbacks:
            self.stopped = bool(callback.on_evaluation(self, row)) or self.stopped
        return self.stopped

    def _examples(self, x: Array, y: Array, device: Device, what: str) -> tuple[Array, Array]:
        """Bring features and labels to the device, if one was asked for, and see that they fit."""
        with device.activate():
            return self._checked(from_dlpack(x), from_dlpack(y), device, what)

    def _checked(self, x: Array, y: Array, device: Device, what: str) -> tuple[Array, Array]:
        if self._moves_data:
            x, y = (a if Device.of(a) == device else device.asarray(a) for a in (x, y))
        x = together(check_features(x, self.architecture, device), device.free_memory)
        check_same_device(x=x, y=y)
        outputs = self.architecture.out_features
        fitting = self.loss.shapes(outputs)
        if x.ndim != 2 or tuple(y.shape[1:]) not in fitting.values() or y.shape[:1] != x.shape[:1] or not x.shape[0]:
            raise ValueError(
                f"{what}data: expected features (n, {self.architecture.in_features}) and {' or '.join(fitting)} with n "
                f"at least 1, got shapes {tuple(x.shape)} and {tuple(y.shape)}"
                + ("; use y[:, 0] for a column of labels, y.argmax(axis=-1) for one-hot rows" if y.ndim == 2 else "")
            )
        check_finite(x, f"{what}features")
        return x, self.loss.check(y, outputs, what)
