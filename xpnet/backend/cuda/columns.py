"""Stages of a network between two products: bias, batch normalisation, functions of single numbers."""

from __future__ import annotations

import ctypes
import importlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..arrays import Array, to_numpy
from .launch import Kernels, Launch, Matrix, c_name, declare, pointer

__all__ = ["Columns", "Elementwise", "Norm", "Trained"]

TX, TY = 8, 32  # as in columns.cu
EACH = 4  # rows of a thread, roughly
_FIELDS = (
    "const T* z; long long z_row; long long z_model; T* y; long long y_row; long long y_model; const T* dy; T* dz; "
    "const T* bias; T* dbias; long long bias_model; const T* gamma; const T* beta; T* dgamma; T* dbeta; "
    "long long norm_model; T* mean; T* deviation; T* running_mean; T* running_var; long long running_model; "
    "double rate; double eps; int n; int k; ")
_NAME = re.compile(r"\w+")


class Elementwise(NamedTuple):
    """A function of single numbers, in C.

    Its names are ``x``, the number; ``y``, the function's value, which the slope may use; ``a``, the layer's
    hyper-parameter; and ``u``, its uniform draw.
    """

    value: str
    slope: str
    factor: Any = 0.0  # ``a``: a number, or an array with one for each model
    noisy: bool = False


class Trained(NamedTuple):
    """A parameter and its gradient, vectors (*models, k)."""

    value: Array
    gradient: Array | None


class Norm(NamedTuple):
    """Batch normalisation: its arrays, the share of the batch in the running statistics, and what the variance gets."""

    gamma: Trained
    beta: Trained
    mean: Array
    var: Array
    rate: float
    eps: float


class Columns(NamedTuple):
    """What lies between two products; at most one bias, then at most one norm, then any number of functions."""

    features: int
    bias: Trained | None = None
    norm: Norm | None = None
    chain: tuple[Elementwise, ...] = ()

    @property
    def is_trained(self) -> bool:
        """Whether it has parameters."""
        return self.bias is not None or self.norm is not None

    def prelude(self, dtype: str) -> tuple[type[ctypes.Structure], str]:
        """Return the structure of the kernels' argument, and what stands before their text."""
        own = "".join(f"const double* a{i}; int a{i}_model; const T* u{i}; long long u{i}_model; "
                      for i in range(len(self.chain)))
        kind, text = declare("Columns", _FIELDS + own)
        lines = []
        for i, function in enumerate(self.chain):
            names = f"T a = T(p.a{i}[m * p.a{i}_model]); " * ("a" in _NAME.findall(function.value + function.slope))
            names += f"T u = p.u{i}[m * p.u{i}_model + at]; " * function.noisy
            lines.append(f"    {{ {names}T y = {function.value}; slope *= {function.slope}; x = y; }}\n")
        return kind, (f"typedef {c_name(dtype)} T;\n#define BIAS {int(self.bias is not None)}\n"
                      f"#define NORM {int(self.norm is not None)}\n{text}"
                      "__device__ T apply(const Columns& p, T x, int m, long long at, T& slope) {\n    slope = T(1);\n"
                      f"{''.join(lines)}    return x;\n}}\n")

    def launches(self, dtype: str, z: Matrix, y: Matrix, models: int, step: ctypes.c_longlong) -> _Pass:
        """Return the launches for a batch in ``z``, of which the second lacks the gradients' addresses."""
        xp = importlib.import_module("cupy")
        kind, prelude = self.prelude(dtype)
        fields: dict[str, Any] = {
            "z": z.address, "z_row": z.row, "z_model": z.model, "y": y.address, "y_row": y.row, "y_model": y.model,
            "n": z.rows, "k": self.features}
        kept: list[Any] = []
        if self.bias:
            fields |= {"bias": pointer(self.bias.value), "dbias": pointer(self.bias.gradient),
                       "bias_model": between_models(self.bias.value)}
        if self.norm:
            gamma, beta, mean, var, rate, eps = self.norm
            batch = xp.empty((2, models, self.features), dtype)
            kept.append(batch)
            fields |= {
                "mean": pointer(batch[0]), "deviation": pointer(batch[1]), "rate": rate, "eps": eps,
                "gamma": pointer(gamma.value), "dgamma": pointer(gamma.gradient), "beta": pointer(beta.value),
                "dbeta": pointer(beta.gradient), "norm_model": between_models(gamma.value),
                "running_mean": pointer(mean), "running_var": pointer(var), "running_model": between_models(mean)}
        for i, function in enumerate(self.chain):
            factor = xp.asarray(to_numpy(function.factor).astype("float64").reshape(-1))
            kept.append(factor)
            fields |= {f"a{i}": pointer(factor), f"a{i}_model": int(factor.size > 1)}
        made = kind(**fields)
        grid, kernels = (-(-self.features // TX), models), Kernels("columns.cu", prelude)
        block = TX, max(4, min(TY, 1 << (-(-z.rows // EACH) - 1).bit_length()))
        forward, backward = (kernels.launch(f"columns_{way}", grid, block, made, step)
                             for way in ("forward", "backward"))
        noise = [f"u{i}" for i, function in enumerate(self.chain) if function.noisy]
        return _Pass(made, forward, backward, noise, kept)


class _Pass(NamedTuple):
    argument: Any
    forward: Launch
    backward: Launch
    noise: Sequence[str]  # the argument's fields that take the draws
    kept: Sequence[Any]


def between_models(vector: Array) -> int:
    """Return the numbers between two models' vectors, 0 for a single model."""
    return int(vector.strides[0] // vector.itemsize) if vector.ndim > 1 else 0
