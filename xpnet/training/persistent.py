"""Many updates in one launch: a kernel for the network that makes all updates between two evaluations on a GPU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backend import Array, Device, represents_exactly, to_numpy
from ..backend.cuda import persistent as gpu
from ..nn.layers import Linear
from ..nn.losses import Loss
from ..nn.per_model import hosted, is_array
from ..nn.scaling import working_scaling
from ..nn.sequential import Sequential
from .device_code import LAYERS, LOSSES, RULES, rule_code
from .kernel_source import Geometry, Program, write
from .optimizers import Optimizer
from .step import Learner

__all__ = ["Persistent", "UnsuitableError", "geometry", "why_not"]

LONGEST = 1000  # updates in one launch: it is tens of milliseconds until an interruption is noticed
WIDEST = 256  # outputs of a layer
LARGEST = 2048  # examples in a batch
THREADS = 256


def why_not(network: Sequential, optimizer: Optimizer, loss: Loss, clip_norm: Any, batch: int) -> str:
    """Return why no kernel can be written for a network's updates; "" if one can.

    Parameters
    ----------
    network : Sequential
        The layers, with or without standardisation.
    optimizer : Optimizer
        The rule.
    loss : Loss
        The objective.
    clip_norm : float or array, optional
        The largest norm of the gradient.
    batch : int
        Examples in a batch.
    """
    layers = network.layers[int(network.scales_input) :]
    for i, layer in enumerate(layers, 1 + int(network.scales_input)):
        if type(layer) is not Linear and type(layer) not in LAYERS:
            return f"layer {i}, {type(layer).__name__}, has no CUDA code"
        if type(layer) is Linear and layer.out_width > WIDEST:
            return f"layer {i} has {layer.out_width} outputs, more than {WIDEST}"
    if not any(type(layer) is Linear for layer in layers):
        return "there is no Linear layer"
    for what, thing, known in (("optimizer", optimizer, RULES), ("loss", loss, LOSSES)):
        if type(thing) not in known:
            return f"the {what} {type(thing).__name__} has no CUDA code"
    if clip_norm is not None:
        return "gradients are clipped, which takes their norm over all layers before the update"
    if batch > LARGEST:
        return f"a batch has {batch} examples, more than {LARGEST}"
    return ""


def geometry(network: Sequential, batch: int, models: int, size: int, limits: gpu.Limits,
             threads: int = THREADS) -> Geometry | None:
    """Return how a kernel is laid out, or None if the input does not fit in shared memory.

    Parameters
    ----------
    network : Sequential
        The layers behind the standardisation.
    batch : int
        Examples in a batch.
    models : int
        How many models train.
    size : int
        Bytes of a number.
    limits : Limits
        The GPU.
    threads : int
        Threads of a block, a power of 2.
    """
    layers = network.layers
    first = next(i for i, layer in enumerate(layers) if isinstance(layer, Linear))
    features = network.in_features
    widths = [layer.out_width for layer in layers if isinstance(layer, Linear)]
    # Blocks beyond these would have no more than a few features to multiply, and no column of a layer.
    group = max(1, min(limits.blocks // models, max(-(-features // 8), *widths)))
    share = -(-features // group)
    row = 4 * -(-batch // 4) + 1
    room = limits.shared // size
    in_shared = share * (row + widths[0]) <= room
    chunk = share if in_shared or share * row <= room else room // row
    if not chunk or (first and chunk < share):
        return None
    columns = -(-max(widths) // group)
    team = max(32, min(threads // _power(columns), _power(batch)))
    return Geometry(batch, threads, group, share, chunk, min(team, threads), in_shared)


def _power(n: int) -> int:
    """Return the smallest power of 2 that is at least n."""
    return int(2 ** math.ceil(math.log2(n)))


class UnsuitableError(ValueError):
    """There is no kernel for a network and its data; the message says why."""


class Persistent:
    """The kernel that makes the updates of a network in training.

    Parameters
    ----------
    learner : Learner
        The network's arrays, which the kernel changes in place.
    architecture : Sequential
        Its layers, with hyper-parameters in host memory.
    optimizer : Optimizer
        The rule.
    loss : Loss
        The objective.
    l2 : float or array
        The penalty's factor.
    seed : int or sequence of int
        Seed of dropout.
    x : array of shape (n, features)
        The data.
    labels : array of shape (m,) or (m, outputs)
        The labels, as the loss keeps them.
    batch : int
        The most examples in a batch.
    limits : Limits, optional
        Those of the device by default.
    threads : int
        Threads of a block.

    Raises
    ------
    UnsuitableError
        If there is no kernel for this network and these data.
    """

    def __init__(
        self, learner: Learner, architecture: Sequential, optimizer: Optimizer, loss: Loss, l2: Any, seed: Any,
        x: Array, labels: Array, batch: int, *, limits: gpu.Limits | None = None, threads: int = THREADS,
    ) -> None:
        device, first = Device.of(x), learner.parameters.segments[0]
        dtype, features = str(first.dtype), str(x.dtype)
        layers = [hosted(layer) for layer in architecture.layers[int(architecture.scales_input) :]]
        network = Sequential(architecture.in_features, layers)
        rule = rule_code(hosted(optimizer), to_numpy(l2) if is_array(l2) else l2)
        seeds = list(seed) if is_array(seed) else [seed]
        self._has_models = first.ndim > 2
        self.models: int = first.shape[1] if self._has_models else 1
        placed = geometry(network, batch, self.models, first.dtype.itemsize, limits or gpu.limits(device), threads)
        why = why_not(architecture, optimizer, loss, None, batch) or _unsuitable(x, seeds, placed)
        if placed is None or why:
            raise UnsuitableError(why)
        scaling, standard = learner.scaling and working_scaling(x, *learner.scaling, first.dtype), dtype
        if scaling:
            standard = str(scaling[0].dtype) if represents_exactly(scaling[0], x) else "float64"
        types = {"T": gpu.C_TYPES[dtype], "X": gpu.C_TYPES[features], "C": gpu.C_TYPES[standard]}
        self.geometry: Geometry = placed
        self.program: Program = write(network, rule, loss, placed, types, scaling is not None, len(seeds))
        groups = self.models if placed.group > 1 else min(self.models, 4 * (limits or gpu.limits(device)).blocks)
        self._blocks, self._threads = groups * placed.group, threads
        self._shared = first.dtype.itemsize * (placed.chunk * (4 * -(-batch // 4) + 1) + placed.first_in_shared *
                                               placed.share * learner.trained.shapes[learner.trained.weights[0]][1])
        self._device, self._dtype, self._rule, self._batch = device, dtype, rule, batch
        xp = device.xp
        # Arrays that there are none of are never read; the kernel is given another in their place.
        parameters = dict(zip(("first", "weights", "vectors"), _by_kind(learner), strict=True))
        state = [a for part in parameters.values() for a in (*part, *(first,) * (3 - len(part)))]
        running = learner.running.segments or [first]
        numbers = np.stack([np.broadcast_to(value, (self.models,)) for value in self.program.numbers or [0.0]], axis=-1)
        words = np.asarray([[s >> 32 * i & 0xFFFFFFFF for i in range(4)] for s in seeds], dtype="uint32")
        targets = labels if LOSSES[type(loss)].labels else loss.encoder(network.out_features, device, dtype)(labels)
        scratch = xp.empty((groups * self.program.scratch,), dtype=first.dtype)
        self._data = [x, *(scaling or (first, first)), xp.ascontiguousarray(targets)]
        self._state = [*state, running[0], device.asarray(numbers, dtype)]
        self._rest = [device.asarray(words), scratch]
        with device.activate():
            self._kernel = gpu.compile_kernel(self.program.text, placed.group > 1, self._shared, device)

    def run(self, step: int, rates: Any, examples: Any, sizes: Any, only: Array | None = None) -> Array:
        """Make updates in one launch, without waiting for them.

        Parameters
        ----------
        step : int
            Updates made before.
        rates : array of shape (updates,) or (updates, models)
            The learning rates, in host memory.
        examples : array of int32, shape (updates, batch)
            The examples of each update, numbered as the labels are, in host memory.
        sizes : array of int32, shape (updates,)
            How many of them there are in each update.
        only : array of int, optional
            The indices of the rows of x that the labels belong to.

        Returns
        -------
        array of shape (updates, *models)
            The losses before each update, on the device.
        """
        updates, device = len(sizes), self._device
        lr = np.asarray(rates, dtype="float64").reshape(updates, -1)
        each = self._rule.rates(lr, np.arange(step, step + updates)[:, None])
        table = np.stack([np.broadcast_to(value, (updates, self.models)) for value in each.values()], axis=-1)
        with device.activate():
            labelled = device.asarray(np.ascontiguousarray(examples, dtype="int32"))
            rows = labelled if only is None else device.xp.take(only, labelled).astype("int32")
            losses = device.xp.empty((updates, self.models), dtype=self._dtype)
            gpu.launch(
                self._kernel, self._blocks, self._threads, self._shared,
                [*self._data, rows, labelled, device.asarray(np.asarray(sizes, dtype="int32")), *self._state,
                 device.asarray(table, self._dtype), *self._rest, losses], self.models, updates, step)
        return losses if self._has_models else losses[:, 0]


def _by_kind(learner: Learner) -> list[list[Array]]:
    """Return the segments of the first weights, of the others, and of vectors, each with those of the slots."""
    found: list[list[Array]] = [[], [], []]
    for i, names in enumerate(learner.parameters.names):
        kind = 0 if not i else 1 if names[0] in learner.network.weights else 2
        found[kind] = [learner.parameters.segments[i], *(b.segments[i] for b in learner.slots.values())]
    return found


def _unsuitable(x: Array, seeds: list[int], placed: Geometry | None) -> str:
    """Return why these data are not for the kernel; "" if they are."""
    if str(x.dtype) not in gpu.C_TYPES:
        return f"the features are {x.dtype}"
    if not x.flags.c_contiguous:
        return "the features are not in row-major order"
    if max(seeds) >= 2**128:
        return "a seed has more than 128 bits"
    return "" if placed else "the input of the first layers does not fit in shared memory"
