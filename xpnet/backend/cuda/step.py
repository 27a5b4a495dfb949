"""An update of a whole network as a list of launches, laid out once for each batch size."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..arrays import Array
from .columns import Columns, Trained, between_models
from .launch import Kernels, Launch, Matrix, c_name, declare, pointer, product
from .rows import GatheredRows
from .update import Flat, Rule, rate_arguments

__all__ = ["LOSSES", "Dense", "FusedStep"]

LOSSES = {"softmax": 1, "squares": 0}
THREADS = 512  # at most, as in loss.cu
AHEAD = 256  # losses in one array
SIZES = 8  # batch sizes for which launches are laid out
_LOSS = ("const T* z; long long z_row; long long z_model; const T* bias; T* dbias; long long bias_model; "
         "const T* targets; T* dz; int n; int k; ")


class Dense(NamedTuple):
    """A product with a weight matrix."""

    weight: Array  # (*models, in, out)
    gradient: Array


class _Plan(NamedTuple):
    x: Array
    targets: Array
    launches: list[tuple[Any, tuple[Any, ...]]]
    noise: list[tuple[Any, str, int]]  # the arguments' fields that take draws, and the width
    kept: list[Any]


class FusedStep:
    """One update of a network in fused launches: forward, loss, backward, running statistics, parameters.

    The gradients are left in their arrays, before penalty and clipping.

    Parameters
    ----------
    stages : sequence of Dense or Columns
        The network, first to last.
    loss : {"softmax", "squares"}
        Softmax cross-entropy or the mean squared error.
    rule : Rule
        How parameters change.
    segments : sequence of Flat
        All parameters.
    features, outputs : int
        Widths of the input and of the targets.
    models : tuple of int
        The model axis; () for one network.
    dtype : {"float32", "float64"}
        The dtype of all arrays.
    """

    def __init__(
        self, stages: Sequence[Dense | Columns], loss: str, rule: Rule, segments: Sequence[Flat], *, features: int,
        outputs: int, models: tuple[int, ...], dtype: str,
    ) -> None:
        self._cupy = importlib.import_module("cupy")
        self._stages, self._loss, self._rule, self._segments = list(stages), loss, rule, list(segments)
        self._features, self._outputs, self._models, self._dtype = features, outputs, models, dtype
        self._count: int = models[0] if models else 1
        self._plans: dict[tuple[int, int, int], _Plan] = {}
        self._rate = rate_arguments()
        self._value = ctypes.c_void_p()
        self._kind: Any = self._cupy.dtype(dtype)
        self._ahead: tuple[Array, list[tuple[Array, int]]] = None, []  # losses, and those that no update has taken

    def loader(
        self, x: Array, labels: Array, scaling: tuple[Array, Array] | None = None, only: Array | None = None
    ) -> Callable[[Array], tuple[Array, Array]]:
        """Return what loads a batch by its examples' indices (int64): features and targets, valid until the next.

        Parameters
        ----------
        x, labels, scaling, only
            As ``GatheredRows`` has them.
        """
        rows = GatheredRows(x, labels, self._outputs, self._dtype, one_hot=self._loss == "softmax", scaling=scaling,
                            only=only)

        def load(chosen: Array) -> tuple[Array, Array]:
            plan = self._plan(chosen.shape[0])
            rows.take(chosen, plan.x, plan.targets)
            return plan.x, plan.targets

        return load

    def __call__(self, x: Array, targets: Array, lr: Any, noise: Sequence[Array], step: int) -> Array:
        """Make update ``step`` and return the loss (*models) of the batch before it.

        Parameters
        ----------
        x, targets : array of shape (n, features), (n, outputs)
            The batch, copied unless it is what ``loader`` loaded.
        lr : float or array of shape (models, 1)
            The learning rate.
        noise : sequence of array
            Uniform draws for each noisy function, (n, k) or (models, n, k), or broadcasting to either.
        step : int
            Updates made before.
        """
        n = x.shape[0]
        plan = self._plan(n)
        if x is not plan.x:
            plan.x[...] = x
        if targets is not plan.targets:
            plan.targets[...] = targets
        draws = []  # which must last until they are read
        for given, (argument, field, width) in zip(noise, plan.noise, strict=True):
            apart = given.ndim > 2
            u = self._as(given, (self._count, n, width) if apart else (n, width))
            draws.append(u)
            setattr(argument, field, u.data.ptr)
            setattr(argument, f"{field}_model", n * width * apart)
        rate = self._rate
        rate["step"].value = step
        if isinstance(lr, float | int):
            rate["rate"].value, rate["rates"].value = lr, None
        else:
            lr = self._as(lr, (self._count, 1))
            rate["rates"].value = lr.data.ptr
        if not self._ahead[1]:
            losses = self._cupy.empty((AHEAD, *self._models), self._dtype)
            address, stride = losses.data.ptr, losses.strides[0]
            self._ahead = losses, [(losses[i], address + i * stride) for i in range(AHEAD)]
        loss, self._value.value = self._ahead[1].pop()
        for function, arguments in plan.launches:
            function(*arguments)
        return loss

    def _as(self, a: Array, shape: tuple[int, ...]) -> Array:
        """Return an array as kernels read it: of this shape and dtype, in one piece."""
        if a.shape == shape and a.dtype == self._kind and a.flags.c_contiguous:
            return a
        return self._cupy.ascontiguousarray(self._cupy.broadcast_to(self._cupy.asarray(a, self._dtype), shape))

    def _plan(self, n: int) -> _Plan:
        cuda = self._cupy.cuda
        key = n, cuda.get_current_stream().ptr, cuda.get_cublas_handle()  # each thread has its own of both
        try:
            return self._plans[key]
        except KeyError:
            if len(self._plans) >= SIZES:
                self._plans.clear()
            plan = self._plans[key] = self._laid_out(n)
            return plan

    def _laid_out(self, n: int) -> _Plan:
        """Lay out an update of ``n`` rows: memory for all that lies between layers, and every launch."""
        dtype, count, kept = self._dtype, self._count, list[Any]()

        def room(k: int, like: Matrix | None = None) -> Matrix:
            """Return memory for (models, n, k), or for (n, models, k) if ``like`` has it so."""
            kept.append(self._cupy.empty((count, n, k), dtype))
            address = kept[-1].data.ptr
            if like and like.row > like.columns:
                return Matrix(address, n, k, count * k, k, count)
            return Matrix(address, n, k, k, n * k if count > 1 else 0, count)

        x, targets = (self._cupy.zeros((n, k), dtype) for k in (self._features, self._outputs))
        noise: list[tuple[Any, str, int]] = []
        last = self._stages[-1]
        # The loss adds the last product's bias.
        head = last if isinstance(last, Columns) and last.norm is None and not last.chain else None
        stages = self._stages[:-1] if head else self._stages
        at, launches, backs = Matrix.of(x), list[Launch](), list[Any]()
        for stage in stages:
            before = at
            if isinstance(stage, Dense):
                weight, gradient = Matrix.of(stage.weight, count), Matrix.of(stage.gradient, count)
                # Models that share their input are one wide product.
                wide = count > 1 and before.model == 0 and weight.row == count * weight.columns
                at = room(weight.columns, weight if wide else None)
                sides = (weight.side_by_side(), at.side_by_side()) if wide else (weight, at)
                launches.append(product(dtype, before, *sides))
                backs.append((before, weight, gradient, wide))
            else:
                at = room(stage.features, before if before.models == count else None)
                made = stage.launches(dtype, before, at, count, self._rate["step"])
                launches.append(made.forward)
                noise += [(made.argument, field, stage.features) for field in made.noise]
                kept += made.kept
                backs.append((before, made))
        d = room(self._outputs, at)
        launches.append(self._loss_launch(at, d, targets, head.bias if head else None))
        first = next(i for i, stage in enumerate(stages) if isinstance(stage, Dense) or stage.is_trained)
        for i in range(len(stages) - 1, first - 1, -1):
            stage, (before, *rest) = stages[i], backs[i]
            dx = room(before.columns, before) if i > first else None
            if isinstance(stage, Dense):
                weight, gradient, wide = rest
                sides = (d.side_by_side(), gradient.side_by_side()) if wide else (d, gradient)
                launches.append(product(dtype, before, *sides, turn_a=True))
                if dx:
                    launches.append(product(dtype, d, weight, dx, turn_b=True))
            else:
                rest[0].argument.dy = d.address
                rest[0].argument.dz = dx.address if dx else None
                launches.append(rest[0].backward)
            d = dx or d
        updates, arrays = self._rule.launches(dtype, self._segments, count, self._rate)
        launches += updates
        return _Plan(x, targets, [(launch.function, launch.arguments) for launch in launches], noise,
                     [launches, kept, arrays])

    def _loss_launch(self, z: Matrix, d: Matrix, targets: Array, bias: Trained | None) -> Launch:
        kind, text = declare("Loss", _LOSS)
        fields: dict[str, Any] = {
            "z": z.address, "z_row": z.row, "z_model": z.model, "dz": d.address, "targets": pointer(targets),
            "n": z.rows, "k": self._outputs}
        if bias:
            fields |= {"bias": pointer(bias.value), "dbias": pointer(bias.gradient),
                       "bias_model": between_models(bias.value)}
        argument = kind(**fields)
        lanes = min(32, 1 << (self._outputs - 1).bit_length())
        kernels = Kernels("loss.cu", f"typedef {c_name(self._dtype)} T;\n#define SOFTMAX {LOSSES[self._loss]}\n{text}")
        rows = max(32, min(THREADS, lanes << (z.rows - 1).bit_length())) // lanes  # whole warps, since lanes exchange
        return kernels.launch("loss", (self._count,), (lanes, rows), argument, self._value)
