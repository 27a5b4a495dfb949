"""A network's trainable state and its update step."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..backend import Array, Device, OutOfMemoryError, format_bytes, namespace, ops_of
from ..nn.examples import blocks
from ..nn.layers import Layer, Linear
from ..nn.losses import Loss, l2_penalty
from ..nn.parameters import Buffers
from ..nn.per_model import bind, is_array
from ..nn.scaling import working_scaling
from ..nn.sequential import Sequential
from ..nn.wired import Wired
from .optimizers import Optimizer, Segment, apply, cast
from .rows import Rows, moments
from .two_threads import Halves, halves_are_faster

__all__ = ["Learner"]

BLOCK = 240  # rows evaluated at a time: their float32 pixels stay in the processor's cache


class Learner:
    """The arrays that training changes, on a device, and one update of them.

    Parameters
    ----------
    architecture : Sequential
        The network's layers.
    optimizer : Optimizer
        Its hyper-parameters may be sequences over the models.
    loss : Loss
        The objective to minimise.
    l2 : float or sequence of float
        The penalty's factor.
    models : tuple of int
        The model axis; () for one network.
    seed : int or sequence of int
        Seed of the initial weights.
    device : Device
        Where the arrays are.
    dtype : str
        Floating-point precision of the computation.
    clip_norm : float or sequence of float, optional
        The largest norm of the gradient over all parameters.
    x : array of shape (n, features), optional
        The training features, for a network that standardises.

    Attributes
    ----------
    arrays : dict of str to array
        Parameters, running statistics and the input's scaling by name.
    network, trained : Sequential
        The layers with their hyper-parameters on the device; those behind the standardisation, which is the batches'.
    parameters, gradients, running : Buffers
        What the optimiser changes, what it reads, and the running statistics.
    slots : dict of str to Buffers
        The optimiser's moments.
    scaling : tuple of array, or None
        The input's offset and scale.
    descent : object or None
        What takes the first layer's gradient as it is formed.
    fused : object or None
        What makes a whole update in one call: see ``Ops.whole_update``.
    why : str
        The reason if there is none.

    Raises
    ------
    OutOfMemoryError
        If the arrays do not fit in the device's free memory.
    """

    def __init__(
        self, architecture: Sequential, optimizer: Optimizer, loss: Loss, l2: Any, *, models: tuple[int, ...],
        seed: int | Sequence[int], device: Device, dtype: str, clip_norm: Any = None, x: Array | None = None,
        only: Array | None = None,
    ) -> None:
        check_memory(architecture, optimizer, models, device, dtype)
        network = architecture.bind(device, dtype)
        self.network: Sequential = network
        # Batches come standardised: what is trained begins behind that layer.
        first = int(network.scales_input)
        self.trained: Sequential = Sequential(network.in_features, network.layers[first:])
        self.parameters: Buffers
        self.running: Buffers
        self.parameters, self.running, inputs = network.allocate(models, device, dtype)
        self.arrays: dict[str, Array] = {**self.parameters.views, **self.running.views, **inputs.views}
        network.initialize(self.arrays, seed, device, dtype)
        if x is not None and inputs.views:
            for name, value in zip(network.inputs, moments(x, device, only), strict=True):
                self.arrays[name][...] = value
        scaling: Any = tuple(self.arrays[name] for name in network.inputs)
        self.scaling: tuple[Array, Array] | None = scaling or None
        self.gradients: Buffers = self.parameters.like()
        rule: Any = bind(optimizer, device, "float64", axes=1)
        self.slots: dict[str, Buffers] = {name: self.parameters.like() for name in rule.slots}
        self._dtype, self._device, self._loss = dtype, device, loss
        self._l2: Any = device.asarray(l2, dtype) if is_array(l2) else float(l2)
        self._clip_norm: Any = device.asarray(clip_norm, "float64")[..., None] if is_array(clip_norm) else clip_norm
        # The penalty's gradient is 2 * l2 * w; None if there is no penalty.
        factor: Any = self._l2
        self._penalty: Any = 2.0 * factor[..., None] if is_array(l2) else 2.0 * factor or None
        decay: Any = rule.weight_decay
        decay = None if isinstance(decay, float | int) and decay == 0 else cast(decay, self.parameters.segments[0])
        into: dict[str, Any] = dict(self.gradients.views)
        # The first layer's weights are the largest array by far: plain descent needs no gradient array for it.
        ops, flat = ops_of(self.parameters.segments[0]), self.parameters.segments[0]
        plain = rule.plain and clip_norm is None and type(self.trained.layers[0]) is Linear
        self.descent: Any = ops.descent(flat, self.trained.in_features) if plain else None
        if self.descent:
            into[self.trained.weights[0]] = self.descent
        # The gradient of a bias that the next layer cancels is 0. What rounding makes of it, Adam would blow up to the
        # size of the rate.
        trained = self.trained.layers
        for layer, following, names in zip(trained, trained[1:], self.trained._names, strict=False):
            if following.cancels_bias:
                into |= {name: None for own, name in zip(layer.parameters, names, strict=False) if own in layer.biases}
        self._wired = Wired(self.trained, self.arrays, ops.fuse(self.trained.layers))
        self._into: list[Any] = [into[name] for name in self.trained.parameters]
        self._objective = ops.loss(loss)
        segments = zip(self.parameters.segments, self.gradients.segments, self.parameters.names, strict=True)
        changed = [
            Segment(w, g, {name: buffers.segments[i] for name, buffers in self.slots.items()},
                    *((self._penalty, decay) if names[0] in network.weights else ()))
            for i, (w, g, names) in enumerate(segments) if i or not self.descent]
        update = functools.partial(apply, rule, changed, clip_norm=self._clip_norm, axes=len(models))
        self._update = ops.updater(update, rule, changed, self._clip_norm, len(models))
        self.fused: Any
        self.why: str
        self.fused, self.why = ops.whole_update(self._of_layers(), loss, rule, changed, self._clip_norm, models)
        self._noise: tuple[str, ...] = tuple(self.trained.noise_shapes(1))
        rates = [1.0 - layer.momentum for layer, names in zip(network.layers, network._names, strict=True)
                 for name in names[len(layer.parameters) :] if name not in network.inputs
                 for _ in range(network.shapes[name][0])]
        self._running_rate = device.asarray(rates, dtype)

    @property
    def path(self) -> str:
        """How updates are made: see ``Trainer.path``."""
        return "fused" if self.fused else "plain"

    def state(self) -> dict[str, Array]:
        """Return the live arrays and the optimiser's moments, as ``"velocity.W1"``, by name.

        Returns
        -------
        dict of str to array
        """
        moments = {f"{slot}.{name}": a for slot, buffers in self.slots.items() for name, a in buffers.views.items()}
        return {**self.arrays, **moments}

    def batches(self, x: Array, size: int) -> Halves | Rows:
        """Return what prepares batches of ``x``, in halves where the first layer's products gain from it.

        Parameters
        ----------
        x : array of shape (n, features)
            The data.
        size : int
            The most examples in a batch. Fewer are prepared alike: for a while after a product in threads of its own,
            BLAS keeps them waiting on their cores.

        Returns
        -------
        Halves or Rows
        """
        weights = [self.arrays[name].size for name in self.trained.weights]
        kind = Halves if self.descent and halves_are_faster(x, weights, size) else Rows
        return kind(x, min(size, x.shape[0]), self._device, self._dtype, self.scaling)

    def loader(
        self, x: Array, labels: Array, only: Array | None = None
    ) -> Callable[[Array], tuple[Array, Array]] | None:
        """Return what loads a batch and its targets in one go, by the examples' indices; None if nothing does.

        Parameters
        ----------
        x : array of shape (n, features)
            The data.
        labels : array
            The labels, as the loss keeps them.
        only : array of int, optional
            The indices of the rows of x that the labels belong to; all by default.
        """
        if not self.fused:
            return None
        scaling = self.scaling and working_scaling(x, *self.scaling, self.parameters.segments[0].dtype)
        load: Callable[[Array], tuple[Array, Array]] = self.fused.loader(x, labels, scaling, only)
        return load

    def update(self, x: Array, targets: Array, lr: Any, noise: Mapping[str, Array] | None, step: int) -> Array:
        """Make update ``step``: see ``Trainer.update``.

        Parameters
        ----------
        x : array of shape (n, features)
            A batch, standardised if the network begins by doing so.
        targets : array of shape (n, outputs)
            What the loss makes of labels.
        lr : float or array of shape (*models, 1)
            The learning rate.
        noise : mapping of str to array
            Uniform draws for dropout.
        step : int
            Updates made before: the first batch sets the running statistics.

        Returns
        -------
        array of shape (*models)
            The batch's mean loss before the update.
        """
        # What the layers do not take, they refuse.
        if self.fused and x.ndim == 2 and x.shape[0] >= self.network.least_batch and (noise or not self._noise):
            return self.fused(x, targets, lr, [noise[name] for name in self._noise] if noise else (), step)
        outputs, pullback, statistics = self._wired.forward(x, train=True, noise=noise)
        value, loss_pullback = self._objective.forward(outputs, targets)
        self.set_descent(lr)
        pullback(loss_pullback(), self._into, False)
        for running in self.running.segments:  # one, or none without batch norm
            batch = namespace(running).concat(statistics, axis=-1)
            if step:
                running += self._running_rate * (batch - running)
            else:  # set, not added: the initial 1 would round a small variance
                running[...] = batch
        self.apply(lr, step)
        return value

    def _of_layers(self) -> list[tuple[Layer, dict[str, Array], dict[str, Array]]]:
        """Return each trained layer with its arrays and its gradients, by the layer's own names."""
        found = []
        for layer, names in zip(self.trained.layers, self.trained._names, strict=True):
            own = dict(zip((*layer.parameters, *layer.statistics), names, strict=True))
            found.append((layer, {key: self.arrays[name] for key, name in own.items()},
                          {key: self.gradients.views[own[key]] for key in layer.parameters}))
        return found

    def set_descent(self, lr: Any) -> None:
        """Set the factors by which the first layer's weights take their gradient as it is formed, if they do."""
        if self.descent:
            self.descent.keep = 1.0 if self._penalty is None else 1.0 - lr * self._penalty
            self.descent.factor = -lr

    def apply(self, lr: Any, step: int) -> None:
        """Change the parameters by their gradients, but those that took them as they were formed."""
        self._update(lr, step)

    def evaluate(
        self, x: Array, y: Array, only: Array | None = None, *, measures: bool = True
    ) -> dict[str, Array]:
        """Return ``loss``, ``cost`` and what the loss measures beside, block by block.

        Parameters
        ----------
        x : array of shape (n, features)
            Features as they are given.
        y : array of shape (n,) or (n, outputs)
            Checked labels.
        only : array of int, optional
            The indices of the rows of x that the labels belong to; all by default.
        measures : bool
            Whether to measure anything beside loss and cost.

        Returns
        -------
        dict of str to array
            Arrays of shape (*models), on the device.
        """
        device, n = self._device, y.shape[0]
        loss, tally = 0.0, 0.0
        with device.activate():
            encode = self._loss.encoder(self.network.out_features, device, self._dtype)
            with self.batches(x, BLOCK) as part:
                for rows in blocks(n, BLOCK):
                    labels = y[rows, ...]
                    features = part.slice(rows) if only is None else part.take(only[rows])
                    outputs, _, _ = self._wired.forward(features)
                    value, _ = self._loss.forward(outputs, encode(labels))
                    loss = loss + value * (labels.shape[0] / n)
                    tally = tally + self._loss.tally(outputs, labels) if measures else 0.0
            beside: Mapping[str, Array] = self._loss.score(tally, y) if measures else {}
            cost = loss + l2_penalty(self._l2, self.arrays, self.network)
        return {"loss": loss, "cost": cost, **beside}


def check_memory(
    architecture: Sequential, optimizer: Optimizer, models: tuple[int, ...], device: Device, dtype: str
) -> None:
    """Check that the arrays fit, before a system that promises more than it has ends the process."""
    numbers = sum(math.prod(shape) * (1 if name in architecture.inputs else math.prod(models))
                  for name, shape in architecture.shapes.items())
    copies = 3 + len(optimizer.slots)  # weights, gradients, how they were when last evaluated
    needed, free = numbers * copies * (8 if dtype == "float64" else 4), device.free_memory()
    if free is not None and needed > free:
        raise OutOfMemoryError(
            f"the network needs {format_bytes(needed)} on {device.name} ({copies} copies of {numbers:,} {dtype} "
            f"numbers), {format_bytes(free)} are free: lower the widths of its layers or the number of models"
        )
