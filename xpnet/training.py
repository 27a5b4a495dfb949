"""Training: the step that changes a network, and the loop around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import random
from .backend import Array, Device, check_same_device, descent, from_dlpack, namespace, to_numpy
from .batches import Batches, blocks, fill, moments
from .callbacks import Callback
from .history import History
from .hyper import at_least_1, bind, check_range, describe, hosted, is_array, lengths, signature, stack
from .layers import BatchNorm, Linear, Standardize
from .losses import SoftmaxCrossEntropy, l2_penalty
from .network import Network, Sequential, check_features
from .optimizers import SGD, Optimizer
from .schedules import Constant, Schedule

__all__ = ["DivergenceError", "Trainer"]

BLOCK = 250  # rows evaluated at a time: their float32 pixels stay in the processor's cache


class DivergenceError(ArithmeticError):
    """The loss became infinite or NaN; the message names the update and the rate."""


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
    divergence : {"raise", "freeze"}
        Whether a non-finite loss ends the run, or a model that has one stays as it was when last evaluated: its
        history goes on as NaN, it is noted in ``diverged``, and the others go on, not changed by one bit.

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
    """

    def __init__(
        self,
        architecture: Sequential,
        *,
        optimizer: Optimizer | None = None,
        schedule: Schedule | float = 0.01,
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
        at_least_1("Trainer", "batch_size", batch_size)
        if batch_size == 1 and any(isinstance(layer, BatchNorm) for layer in architecture.layers):
            raise ValueError("Trainer: batch norm needs a batch_size of at least 2, since one example has no variance")
        check_range("Trainer", "l2", l2)
        check_range("Trainer", "seed", seed)
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype: expected 'float32' or 'float64', got {dtype!r}")
        if divergence not in ("raise", "freeze"):
            raise ValueError(f"divergence: expected 'raise' or 'freeze', got {divergence!r}")
        self._options = {
            "optimizer": rule, "schedule": schedule, "l2": l2, "batch_size": batch_size, "seed": seed,
            "order_seed": order_seed, "dtype": dtype, "device": device,
        }
        self.architecture: Sequential = architecture
        self.optimizer: Optimizer = rule
        self.schedule: Schedule = hosted(schedule if callable(schedule) else Constant(schedule))
        self.loss = SoftmaxCrossEntropy()
        self.l2, self.batch_size, self.seed, self.dtype = l2, batch_size, seed, dtype
        first: Any = seed[0] if is_array(seed) else seed  # type: ignore[index]
        self.order_seed: int = first if order_seed is None else order_seed
        self.callbacks, self.divergence = tuple(callbacks), divergence
        self.device = Device(device) if isinstance(device, str) else device
        self._moves_data = self.device is not None
        self.models = self._model_axis()
        self.step = 0
        self.history = History()
        self.diverged: dict[int, int] = {}
        self.causes: dict[int, str] = {}
        self.arrays: dict[str, Array] = {}
        self._kept: dict[str, Array] = {}

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
        """Describe the trainer in plain values (JSON), but for its callbacks."""
        device = self.device.name if self.device else None
        options = {name: describe(value) for name, value in self._options.items()}
        return {"network": self.architecture.config(), **options, "device": device}

    def signature(self) -> dict[str, Any]:
        """Describe what trainers must have in common to be one trainer with a model axis: see ``stack``."""
        layers = [signature(layer) for layer in self.architecture.layers]
        fixed = {name: signature(self._options[name]) for name in ("optimizer", "schedule", "batch_size", "order_seed",
                                                                   "dtype")}
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
        common = {**first._options, "optimizer": stack([t.optimizer for t in trainers]),
                  "schedule": stack([t._options["schedule"] for t in trainers]),
                  "seed": [t.seed for t in trainers], "l2": [t.l2 for t in trainers]}
        return cls(architecture, **{**common, **options})

    def state(self) -> dict[str, Array]:
        """Give everything that changes as training goes on, by name: with ``step``, all that a run is.

        Parameters, running statistics, the input's scaling, and the optimiser's moments, as
        ``"velocity.W1"``. The arrays are the live ones: copy what must stay as it is.
        """
        moments = {f"{slot}.{name}": a for slot, buffers in self._slots.items() for name, a in buffers.views.items()}
        return {**self.arrays, **moments}

    def restore(self, state: Mapping[str, Any], step: int, device: Device | None = None) -> None:
        """Go back, or on, to a state that ``state()`` gave, of arrays of any library."""
        if not self.arrays:
            self.start(device or self.device or Device())
        for name, array in self.state().items():
            array[...] = self.network.device.asarray(state[name], self.dtype)
        self.step = step

    def start(self, device: Device, x: Array | None = None) -> None:
        """Allocate everything on ``device``, write the initial values, and standardise by ``x``."""
        self.device = device
        network = self._network = self.architecture.bind(device, self.dtype)
        # Batches come standardised: what is trained begins behind that layer.
        first = int(isinstance(network.layers[0], Standardize))
        self._trained = Sequential(network.in_features, network.layers[first:])
        self._parameters, self._running, inputs = network.allocate(self.models, device, self.dtype)
        self.arrays = {**self._parameters.views, **self._running.views, **inputs.views}
        network.initialize(self.arrays, self.seed, device, self.dtype)
        if x is not None and inputs.views:
            self.arrays["offset1"][...], self.arrays["scale1"][...] = moments(x, device, self.dtype)
        self._scaling = (self.arrays["offset1"], self.arrays["scale1"]) if first else None
        self._gradients = self._parameters.like()
        self._optimizer = bind(self.optimizer, device, self.dtype, axes=1)
        self._slots = {name: self._parameters.like() for name in self._optimizer.slots}
        self._l2: Any = device.asarray(self.l2, self.dtype) if is_array(self.l2) else float(self.l2)
        factor = self._l2 if isinstance(self._l2, float) else self._l2[..., None]
        self._penalties = [factor if names[0] in network.weights else None for names in self._parameters.names]
        self._into: dict[str, Any] = dict(self._gradients.views)
        # The first layer's weights are the largest array by far: plain descent needs no gradient array for it.
        plain = hasattr(self._optimizer, "linear") and not self._slots and isinstance(self._trained.layers[0], Linear)
        self._descent = descent(self._parameters.segments[0], self._trained.in_features) if plain else None
        if self._descent:
            self._into[self._trained.weights[0]] = self._descent
        rates = [1.0 - layer.momentum for layer, width in zip(network.layers, network.widths, strict=True)
                 if isinstance(layer, BatchNorm) for _ in layer.statistics for _ in range(width)]
        self._running_rate = device.asarray(rates, self.dtype)

    @property
    def network(self) -> Network:
        """The network as it is now; its arrays change as training goes on."""
        if not self.arrays:
            raise RuntimeError("this trainer has no network yet: call fit(x, y) first")
        return Network(self.architecture, self.arrays)

    def update(self, x: Array, targets: Array, lr: Any, noise: Mapping[str, Array] | None = None) -> Array:
        """Make one update, and give the minibatch's loss (*models) without waiting for it.

        Parameters
        ----------
        x : array of shape (n, features)
            A batch in the trainer's dtype, standardised if the network begins by doing so.
        targets : array of shape (n, classes)
            One-hot rows.
        lr : float or array of shape (*models, 1)
            The learning rate.
        noise : mapping of str to array
            Uniform draws for dropout.
        """
        outputs, pullback, statistics = self._trained.forward(self.arrays, x, train=True, noise=noise)
        value, loss_pullback = self.loss.forward(outputs, targets)
        if self._descent:
            self._descent.keep, self._descent.factor = self._optimizer.linear(lr, self._penalties[0])
        pullback(loss_pullback(), into=self._into, wrt_input=False)
        for running in self._running.segments:  # one, or none without batch norm
            rate = self._running_rate if self.step else 1.0  # the first batch sets them
            running += rate * (namespace(running).concat(statistics, axis=-1) - running)
        for i in range(1 if self._descent else 0, len(self._penalties)):
            slots = {name: buffers.segments[i] for name, buffers in self._slots.items()}
            self._optimizer.update(self._parameters.segments[i], self._gradients.segments[i], slots, lr,
                                   self._penalties[i], self.step)
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
        y : array of int, shape (n,)
            Class indices, 0 to classes - 1.
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

        Raises
        ------
        ValueError, TypeError
            If the data do not fit the network or each other.
        DivergenceError
            If a loss is not finite (``divergence="raise"``, or every model diverged).
        """
        if (steps is None) == (epochs is None):
            raise ValueError("fit: expected either steps= or epochs=, got both or neither")
        check_range("fit", "steps or epochs", steps if epochs is None else epochs)
        for name, count in (("evaluate_every", evaluate_every), ("train_sample", train_sample)):
            if count is not None:
                at_least_1("fit", name, count)
        pair: Any = validation
        if not (pair is None or (isinstance(pair, Sequence) and len(pair) == 2)):
            raise TypeError("fit: expected validation=(features, labels)")
        device = self.device or check_same_device(x=from_dlpack(x), y=from_dlpack(y))
        x, y = self._examples(x, y, device, "")
        held_out = self._examples(*validation, device, "validation ") if validation else None
        with device.activate():
            if not self.arrays:
                self.start(device, x)
            normalises = any(isinstance(layer, BatchNorm) for layer in self.architecture.layers)
            batches = Batches(
                x, y, self.architecture.out_features, size=self.batch_size, seed=self.order_seed, device=device,
                dtype=self.dtype, at_least=2 if normalises else 1,
                scaling=self._scaling,
            )
            total = steps if steps is not None else round((epochs or 0) * batches.per_epoch)
            every = evaluate_every or batches.per_epoch
            seen = min(train_sample or x.shape[0], x.shape[0])
            data = {"train": (x[:seen, :], y[:seen])} | ({"validation": held_out} if held_out else {})
            begun: list[Callback] = []
            try:
                for callback in self.callbacks:
                    callback.on_begin(self, total)
                    begun.append(callback)
                stop = not self.history.rows and self._measure(data, batches)
                while self.step < total and not stop:
                    self._run(batches, min(total, (self.step // every + 1) * every))
                    stop = self._measure(data, batches)
            finally:
                for callback in begun:
                    callback.on_end(self)
        return self.history

    def _run(self, batches: Batches, until: int) -> None:
        """Make updates until update ``until``, then look at their losses."""
        device, first, losses = self.network.device, self.step, []
        rates = [self.schedule(t) for t in range(first, until)]
        freezes = bool(self.models) and self.divergence == "freeze"
        if freezes or is_array(rates[0]):  # (updates, models, 1); a frozen model's are 0
            going = to_numpy([[float(model not in self.diverged) for model in range(self.models[0])]])
            given = to_numpy([to_numpy(rate) if is_array(rate) else [rate] for rate in rates])
            table = device.asarray(given * going, self.dtype)[..., None]
            rates = [table[i, ...] for i in range(until - first)]
        else:
            rates = [float(rate) for rate in rates]  # a NumPy scalar would make float64 of float32
        shapes = self._network.noise_shapes(batches.size)
        try:
            for t, (x, targets) in zip(range(first, until), batches.run(first, until), strict=True):
                noise = {name: device.asarray(random.uniform(self.seed, name, t, (x.shape[0], k)), self.dtype)
                         for name, (_, k) in shapes.items()}
                losses.append(self.update(x, targets, rates[t - first], noise))
        finally:  # an interruption loses nothing that was measured
            host = to_numpy(device.xp.stack(losses)) if losses else to_numpy([])
            host = self._without_frozen(host) if losses else host
            self.history.batch_loss += list(host) if self.models else host.tolist()
        self._look_for_divergence(host, first)

    def _look_for_divergence(self, losses: Any, first: int, what: str = "loss") -> None:
        """Note each model's first non-finite loss among ``losses`` (updates, *models), and raise as asked."""
        models = self.models[0] if self.models else 1
        for model in range(models):
            row = losses.reshape(-1, models)[:, model]
            finite = abs(row) < float("inf")  # false for NaN too
            if not finite.all() and model not in self.diverged:
                step = self.diverged[model] = first + int(finite.argmin())
                rate = to_numpy(self.schedule(step))
                self.causes[model] = (
                    f"the {what} of {f'model {model}' if self.models else 'the network'} was {row[finite.argmin()]} at "
                    f"update {step} (learning rate {rate[model] if rate.ndim else rate:.3g})"
                )
        if self.diverged and self.divergence == "raise":
            first_one = min(self.diverged, key=lambda model: self.diverged[model])
            raise DivergenceError(f"{self.causes[first_one]}; lower the rate, or check the features for NaN")

    def _without_frozen(self, values: Any) -> Any:
        """Give measured values (..., *models) with NaN for models that are frozen."""
        if self.models and self.diverged:
            values = to_numpy(values).copy()
            values[..., list(self.diverged)] = float("nan")
        return values

    def _keep_state(self) -> None:
        """Where models may be frozen, go back with those that diverged, and keep the state of the others."""
        if self.divergence == "raise":
            return
        if not self._kept:
            self._kept = {name: namespace(a).asarray(a, copy=True) for name, a in self.state().items()}
        own = {name: len(shape) for name, shape in self._network.shapes.items()}
        for name, array in self.state().items():
            kept = self._kept[name]
            if not self.models or array.ndim == own[name.rpartition(".")[2]]:
                to, new = (array, kept) if self.diverged and not self.models else (kept, array)
                to[...] = new
                continue
            for model in range(self.models[0]):
                to, new = (array, kept) if model in self.diverged else (kept, array)
                to[model, ...] = new[model, ...]

    def evaluate(self, x: Array, y: Array) -> dict[str, Any]:
        """Give ``loss``, ``cost`` and ``accuracy`` on data, as floats or as arrays over the models."""
        network = self.network
        x, y = self._examples(x, y, network.device, "")
        return self._evaluate(x, y)

    def _evaluate(self, x: Array, y: Array) -> dict[str, Any]:
        device = self.network.device
        xp, n = device.xp, x.shape[0]
        loss, hits = 0.0, 0.0
        with device.activate():
            one_hot = xp.eye(self.architecture.out_features, dtype=getattr(xp, self.dtype), device=device.native)
            room = device.empty((min(n, BLOCK), x.shape[1]), self.dtype)
            for rows in blocks(n, BLOCK):
                labels = y[rows]
                part = fill(room[: labels.shape[0], :], x[rows, :], self._scaling)
                outputs, _, _ = self._trained.forward(self.arrays, part)
                value, _ = self.loss.forward(outputs, xp.take(one_hot, labels, axis=0))
                right = xp.argmax(outputs, axis=-1) == labels
                loss = loss + value * (labels.shape[0] / n)
                hits = hits + xp.sum(xp.astype(right, one_hot.dtype), axis=-1)
            cost = loss + l2_penalty(self._l2, [self.arrays[name] for name in self._network.weights])
        found = {"loss": to_numpy(loss), "cost": to_numpy(cost), "accuracy": to_numpy(hits) / n}
        return found if self.models else {name: float(v) for name, v in found.items()}

    def _measure(self, data: Mapping[str, tuple[Array, Array]], batches: Batches) -> bool:
        """Add a row to the history and tell the callbacks; True if one of them wants to stop."""
        row: dict[str, Any] = {"step": self.step, "epoch": self.step / batches.per_epoch}
        lr = self.schedule(self.step)
        row["lr"] = to_numpy(lr) if is_array(lr) else float(lr)
        found = {name: self._evaluate(x, y) for name, (x, y) in data.items()}
        for name, measured in found.items():
            self._look_for_divergence(to_numpy(measured["loss"]), self.step, f"{name} loss")
            row |= {f"{name}_{key}": value for key, value in measured.items()}
        row = {name: v if name in ("step", "epoch", "lr") else self._without_frozen(v) for name, v in row.items()}
        self.history.rows.append(row)
        self._keep_state()
        stop = any([callback.on_evaluation(self, row) for callback in self.callbacks])
        return stop or len(self.diverged) == (self.models or (1,))[0]

    def _examples(self, x: Array, y: Array, device: Device, what: str) -> tuple[Array, Array]:
        """Bring features and labels to the device, if one was asked for, and see that they fit."""
        with device.activate():
            return self._checked(from_dlpack(x), from_dlpack(y), device, what)

    def _checked(self, x: Array, y: Array, device: Device, what: str) -> tuple[Array, Array]:
        if self._moves_data:
            x, y = (a if Device.of(a) == device else device.asarray(a) for a in (x, y))
        x, xp = check_features(x, self.architecture, device), device.xp
        check_same_device(x=x, y=y)
        if x.ndim != 2 or y.ndim != 1 or y.shape[0] != x.shape[0] or not x.shape[0]:
            raise ValueError(
                f"{what}data: expected features (n, {self.architecture.in_features}) and labels (n,) with n at "
                f"least 1, got shapes {tuple(x.shape)} and {tuple(y.shape)}"
            )
        if not xp.isdtype(y.dtype, "integral"):
            raise TypeError(f"{what}labels: expected integers from 0, got dtype {y.dtype}; use y.astype('int64')")
        low, high = int(xp.min(y)), int(xp.max(y))
        if low < 0 or high >= self.architecture.out_features:
            raise ValueError(
                f"{what}labels: expected 0 to {self.architecture.out_features - 1} (the network has "
                f"{self.architecture.out_features} outputs), got {low} to {high}"
            )
        return x, xp.astype(y, xp.int64, copy=False)
