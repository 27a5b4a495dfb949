"""The update of all parameters in one launch, or three where the gradient's norm is limited."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array, to_numpy
from .launch import Kernels, Launch, c_name, declare, pointer

__all__ = ["Flat", "Rule"]

THREADS = 256  # as in update.cu
PARTS = 64  # blocks that share a model's norm, at most
BLOCKS = 4096  # of all models together, at most
EACH = 4  # elements of a thread, at least, if there are so many: beginning a block costs more than an element
RULES = {"descent": 0, "momentum": 1, "nesterov": 2, "adam": 3}


class Flat(NamedTuple):
    """A segment of parameters, its gradient, and up to two arrays of the rule: (size,), (M, size), or (in, M, out)."""

    w: Array
    g: Array
    slots: Sequence[Array]
    is_weight: bool


@dataclass(frozen=True)
class Rule:
    """The chain around an update rule; numbers, or arrays with one for each model.

    Parameters
    ----------
    kind : {"descent", "momentum", "nesterov", "adam"}
        The rule.
    first, second, eps : float or array
        The momentum or both betas, and Adam's eps.
    penalty, decay, clip : float or array, optional
        The factor of w in the penalty's gradient, the rule's weight decay, and the gradient's largest norm.
    """

    kind: str
    first: Any = 0.0
    second: Any = 0.0
    eps: Any = 0.0
    penalty: Any = None
    decay: Any = None
    clip: Any = None
    _numbers: tuple[str, ...] = field(default=("first", "second", "eps", "penalty", "decay", "clip"), repr=False)

    def launches(
        self, dtype: str, segments: Sequence[Flat], models: int, rate: Mapping[str, Any]
    ) -> tuple[list[Launch], Any]:
        """Return the launches of an update, and what must stay in memory for them.

        Parameters
        ----------
        dtype : str
            The dtype of the parameters.
        segments : sequence of Flat
            All parameters.
        models : int
            Number of models, 1 for one network.
        rate : mapping of str to ctypes values
            ``rates``, the address of a rate for each model, or null for ``rate``; and ``step``.
        """
        xp = importlib.import_module("cupy")
        values = [getattr(self, name) for name in self._numbers]
        table = np.stack([np.broadcast_to(to_numpy(0.0 if value is None else value).astype("float64").reshape(-1),
                                          (models,)) for value in values])
        hyper = xp.asarray(table)
        largest = max(flat.w.size // models for flat in segments)
        parts = min(PARTS, 1 << (-(-largest // THREADS) - 1).bit_length())
        squares, scale = xp.empty((models, parts)), xp.empty(models, dtype)
        segment, first = declare("Segment", "T* w; const T* g; T* first; T* second; int size; int width; "
                                            "long long row; long long model; int is_weight; ")
        kind, second = declare("Update", f"Segment segments[{len(segments)}]; const double* hyper; int models; "
                                         "double* squares; T* scale; ", {"Segment": segment})
        macros = {"RULE": RULES[self.kind], "PENALIZES": int(self.penalty is not None), "SEGMENTS": len(segments),
                  "DECAYS": int(self.decay is not None), "CLIPS": int(self.clip is not None)}
        text = "".join(f"#define {name} {value}\n" for name, value in macros.items())
        kernels = Kernels("update.cu", f"typedef {c_name(dtype)} T;\n{text}{first}{second}")
        argument = kind(hyper=hyper.data.ptr, models=models, squares=squares.data.ptr, scale=scale.data.ptr)
        for place, flat in zip(argument.segments, segments, strict=True):
            width = flat.w.shape[-1]
            slots = [pointer(slot) for slot in flat.slots] + [None, None]
            place.w, place.g, place.first, place.second = pointer(flat.w), pointer(flat.g), slots[0], slots[1]
            place.size, place.width, place.is_weight = flat.w.size // models, width, int(flat.is_weight)
            place.model, place.row = width, models * width  # the row counts where a model has several
        made = []
        if self.clip is not None:
            made += [kernels.launch("square_gradients", (parts, models), (THREADS,), argument),
                     kernels.launch("limit_gradients", (models,), (parts,), argument)]
        grid = (min(-(-largest // (EACH * THREADS)), max(1, BLOCKS // models)), models, len(segments))
        made.append(kernels.launch("update", grid, (THREADS,), argument, rate["rates"], rate["rate"], rate["step"]))
        return made, (hyper, squares, scale)


def rate_arguments() -> dict[str, Any]:
    """Return the arguments that change between updates: see ``Rule.launches``."""
    return {"rates": ctypes.c_void_p(), "rate": ctypes.c_double(), "step": ctypes.c_longlong()}
