"""Many updates in one launch: the kernel that makes those of a run between two evaluations on a GPU."""

from __future__ import annotations

import math
from typing import Any

from ..backend import Array, Device, represents_exactly, to_numpy
from ..backend.cuda import persistent as gpu
from ..backend.cuda.persistent import CompileError
from ..backend.ops import switched_off
from ..nn.device_code import LOSSES, why_no_kernel
from ..nn.layers import Linear
from ..nn.losses import Loss
from ..nn.per_model import hosted, is_array
from ..nn.scaling import working_scaling
from ..nn.sequential import Sequential
from .batches import Batches
from .device_rules import RULES, rule_code
from .kernel_source import Geometry, Program, write
from .optimizers import Optimizer
from .step import Learner

__all__ = ["CompileError", "Persistent", "UnsuitableError", "geometry"]

LONGEST = 1000  # updates in one launch: until it ends, tens of milliseconds, nothing interrupts it
LARGEST = 2048  # examples in a batch
MOST = 2**22  # multiplications of a block in a pass; by estimate, cuBLAS is faster beyond
THREADS = 256  # of a block, at most


class UnsuitableError(ValueError):
    """No kernel makes the updates of a run; the message says why."""


def geometry(
    network: Sequential, batch: int, models: int, size: int, limits: gpu.Limits, threads: int = 0
) -> Geometry | None:
    """Return how a kernel is laid out, or None if the first layers' input does not fit in shared memory.

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
        The GPU's.
    threads : int
        Threads of a block, a power of 2 from 32; by default as many as the batch and the first layer's product occupy.
    """
    widths = [layer.out_width for layer in network.layers if isinstance(layer, Linear)]
    occupied = max(batch, -(-batch // 4) * -(-widths[0] // 8))
    threads = threads or min(THREADS, max(64, _power(occupied)))
    # More blocks would have a few features to multiply each, and no feature of a layer.
    group = max(1, min(limits.blocks // models, max(-(-network.in_features // 8), *widths)))
    share = -(-network.in_features // group)
    row = 4 * -(-batch // 4) + 1
    room = limits.shared // size
    in_shared = share * (row + widths[0]) <= room
    chunk = share if in_shared else min(share, room // row)
    if not chunk or (chunk < share and not isinstance(network.layers[0], Linear)):
        return None
    columns = -(-max(widths) // group)
    team = min(threads, max(32, min(threads // _power(columns), _power(batch))))
    return Geometry(batch, threads, group, share, chunk, team, in_shared)


def _power(n: int) -> int:
    """Return the smallest power of 2 that is at least n."""
    return 1 << (n - 1).bit_length()


class Persistent:
    """The kernel that makes the updates of a network in training.

    Parameters
    ----------
    learner : Learner
        The network's arrays on a GPU, which the kernel changes in place.
    architecture : Sequential
        Its layers, with hyper-parameters in host memory.
    optimizer : Optimizer
        The rule.
    loss : Loss
        The objective.
    l2 : float or array
        The penalty's factor.
    clip_norm : float or array, optional
        The largest norm of the gradient.
    seed : int or sequence of int
        Seed of dropout.
    batches : Batches
        The minibatches.
    limits : Limits, optional
        Those of the device by default.
    threads : int
        Threads of a block: see ``geometry``.

    Attributes
    ----------
    program : Program
        The kernel's source.

    Raises
    ------
    UnsuitableError
        If no kernel makes these updates.
    CompileError
        If the kernel does not compile.
    """

    def __init__(
        self, learner: Learner, architecture: Sequential, optimizer: Optimizer, loss: Loss, l2: Any, clip_norm: Any,
        seed: Any, batches: Batches, *, limits: gpu.Limits | None = None, threads: int = 0,
    ) -> None:
        (x, labels, _), first = batches.data, learner.parameters.segments[0]
        device, dtype, batch = Device.of(x), str(first.dtype), batches.size
        seeds = list(seed) if is_array(seed) else [seed]
        why = _why_not(architecture, optimizer, loss, clip_norm, x, seeds, batch)
        if why:
            raise UnsuitableError(why)
        limits = limits or gpu.limits(device)
        network = learner.trained.with_layers(architecture.layers[int(architecture.scales_input) :])
        self._models: tuple[int, ...] = first.shape[1:-1]
        models = self._models[0] if self._models else 1
        placed = geometry(network, batch, models, first.dtype.itemsize, limits, threads)
        if placed is None:
            raise UnsuitableError("a batch of the first layers' input does not fit in shared memory")
        work = batch * sum(math.prod(network.shapes[name]) for name in network.weights) // placed.group
        if work > MOST:
            raise UnsuitableError(f"a block would have {work:,} multiplications in each pass, which cuBLAS does faster")
        rule = rule_code(hosted(optimizer), to_numpy(l2) if is_array(l2) else l2)
        scaling, standard = learner.scaling and working_scaling(x, *learner.scaling, first.dtype), dtype
        if scaling:
            standard = str(scaling[0].dtype) if represents_exactly(scaling[0], x) else "float64"
        types = {"T": gpu.C_TYPES[dtype], "X": gpu.C_TYPES[str(x.dtype)], "C": gpu.C_TYPES[standard]}
        self.program: Program = write(network, rule, loss, placed, types, scaling is not None, len(seeds))
        groups = models if placed.group > 1 else min(models, 4 * limits.blocks)
        first_width = network.shapes[network.weights[0]][1]
        numbers = placed.chunk * (4 * -(-batch // 4) + 1) + placed.first_in_shared * placed.share * first_width
        self._device, self._dtype, self._rule, self._batches = device, dtype, rule, batches
        self._launch = (groups * placed.group, placed.threads, first.dtype.itemsize * numbers)
        host = Device()
        words = host.asarray([[s >> 32 * i & 0xFFFFFFFF for i in range(4)] for s in seeds], "uint32")
        with device.activate():
            targets = labels if LOSSES[type(loss)].labels else loss.encoder(network.out_features, device, dtype)(labels)
            # In the place of arrays that there are none of, the kernel is given another that it does not read.
            state = [a for part in _by_kind(learner) for a in (*part, *[first] * (3 - len(part)))]
            running = learner.running.segments or [first]
            given = self._table(self.program.numbers or [0.0], (models,))
            self._before = [x, *(scaling or (first, first)), device.xp.ascontiguousarray(targets)]
            self._between = [*state, running[0], device.asarray(given, dtype)]
            self._after = [device.asarray(words), device.empty((groups * self.program.scratch,), dtype)]
            self._kernel = gpu.compile_kernel(self.program.text, placed.group > 1, self._launch[2], device)

    @staticmethod
    def _table(values: Any, shape: tuple[int, ...]) -> Any:
        """Return numbers, each of which broadcasts to a shape, side by side in host memory."""
        host = Device()
        return host.xp.stack([host.xp.broadcast_to(host.asarray(value, "float64"), shape) for value in values], axis=-1)

    def run(self, first: int, until: int, rates: Any) -> Array:
        """Make updates first to until - 1 in one launch, without waiting for it.

        Parameters
        ----------
        first, until : int
            The updates.
        rates : array of shape (updates, models) or (updates, 1)
            The learning rates, in host memory.

        Returns
        -------
        array of shape (updates, *models)
            The loss of each update's batch before it, on the device.
        """
        device, updates, only = self._device, until - first, self._batches.data[2]
        models = self._models or (1,)
        step = Device().asarray(range(first, until))[:, None]
        table = self._table(self._rule.rates(rates, step).values(), (updates, *models))
        with device.activate():
            examples, sizes = self._batches.examples(first, until)
            labelled = device.asarray(examples, "int32")
            rows = labelled if only is None else device.asarray(device.xp.take(only, labelled), "int32")
            losses = device.empty((updates, *self._models), self._dtype)
            gpu.launch(self._kernel, *self._launch, [
                *self._before, rows, labelled, device.asarray(sizes, "int32"), *self._between,
                device.asarray(table, self._dtype), *self._after, losses], models[0], updates, first)
        return losses


def _why_not(
    network: Sequential, optimizer: Optimizer, loss: Loss, clip_norm: Any, x: Array, seeds: list[int], batch: int
) -> str:
    """Return why no kernel makes the updates of a run; "" if one does."""
    why = "XPNET_FAST is 0" if switched_off() else why_no_kernel(network.layers, Device.of(x))
    if why:
        return why
    for what, thing, known in (("optimizer", optimizer, RULES), ("loss", loss, LOSSES)):
        if type(thing) not in known:
            return f"the {what} {type(thing).__name__} has no CUDA code"
    if clip_norm is not None:
        return "gradients are clipped, which takes their norm over all layers first"
    if batch > LARGEST:
        return f"a batch has {batch} examples, more than {LARGEST}"
    if str(x.dtype) not in gpu.C_TYPES:
        return f"the features are {x.dtype}"
    if not x.flags.c_contiguous:
        return "the features are not in row-major order"
    return "a seed has more than 128 bits" if max(seeds) >= 2**128 else ""


def _by_kind(learner: Learner) -> list[list[Array]]:
    """Return the flat arrays of the first weights, of the others, and of vectors, each with those of the slots."""
    found: list[list[Array]] = [[], [], []]
    for i, names in enumerate(learner.parameters.names):
        kind = 0 if not i else 1 if names[0] in learner.network.weights else 2
        found[kind] = [learner.parameters.segments[i], *(slot.segments[i] for slot in learner.slots.values())]
    return found
