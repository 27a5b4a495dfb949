"""The optimizers' updates of flat parameters, in one pass over each segment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..deferred import kind
from .jit import compiled

__all__ = ["updater"]

#: What a model's column of ``numbers`` holds. Factors of 0 are left out of the sum, as a weight may be infinite.
_LR, _PENALTY, _KEEP, _MOMENTUM, _BETA1, _REST1, _BETA2, _REST2, _CORRECTION, _EPS = range(10)


def sgd(w: Any, g: Any, v: Any, numbers: Any, penalized: bool, decayed: bool, nesterov: bool) -> None:
    """Change w (rows, models, n) and the velocity v, which has no entries if there is no momentum."""
    real = w.dtype.type
    for a in range(w.shape[0]):
        for m in range(w.shape[1]):
            x, d = w[a, m], g[a, m]
            lr, penalty, momentum = real(numbers[_LR, m]), real(numbers[_PENALTY, m]), real(numbers[_MOMENTUM, m])
            keep = real(numbers[_KEEP, m])
            if penalized:
                for i in range(x.size):
                    d[i] += penalty * x[i]
            if decayed:
                for i in range(x.size):
                    x[i] *= keep
            if v.size == 0:
                for i in range(x.size):
                    x[i] -= lr * d[i]
                continue
            u = v[a, m]
            if nesterov:
                for i in range(x.size):
                    speed = u[i] * momentum + d[i]
                    u[i] = speed
                    x[i] -= lr * (d[i] + momentum * speed)
            else:
                for i in range(x.size):
                    speed = u[i] * momentum + d[i]
                    u[i] = speed
                    x[i] -= lr * speed


def adam(w: Any, g: Any, first: Any, second: Any, numbers: Any, penalized: bool, decayed: bool) -> None:
    """Change w (rows, models, n) and the two moments."""
    real = w.dtype.type
    for a in range(w.shape[0]):
        for m in range(w.shape[1]):
            x, d, p, q = w[a, m], g[a, m], first[a, m], second[a, m]
            lr, penalty, keep = real(numbers[_LR, m]), real(numbers[_PENALTY, m]), real(numbers[_KEEP, m])
            beta1, rest1 = real(numbers[_BETA1, m]), real(numbers[_REST1, m])
            beta2, rest2 = real(numbers[_BETA2, m]), real(numbers[_REST2, m])
            correction, eps = real(numbers[_CORRECTION, m]), real(numbers[_EPS, m])
            if penalized:
                for i in range(x.size):
                    d[i] += penalty * x[i]
            if decayed:
                for i in range(x.size):
                    x[i] *= keep
            for i in range(x.size):
                mean = p[i] * beta1 + rest1 * d[i]
                d[i] *= d[i]  # as the rule does: whoever looks for what overflowed finds it here
                square = q[i] * beta2 + rest2 * d[i]
                p[i], q[i] = mean, square
                x[i] -= lr * mean / (np.sqrt(square / correction) + eps)


SIGNATURES: dict[Callable[..., Any], str] = {
    sgd: "void(T[:,:,::1], T[:,:,::1], T[:,:,::1], float64[:,::1], boolean, boolean, boolean)",
    adam: "void(T[:,:,::1], T[:,:,::1], T[:,:,::1], T[:,:,::1], float64[:,::1], boolean, boolean)",
}


def updater(
    plain: Callable[[Any, int], None], rule: Any, segments: Sequence[Any], clip_norm: Any, axes: int
) -> Callable[[Any, int], None]:
    """Return what ``Ops.updater`` asks for: a kernel if the rule is one of xpnet's and nothing is clipped."""
    name = kind(rule)
    if name not in ("SGD", "Adam", "AdamW") or clip_norm is not None or axes > 1 or not segments:
        return plain
    dtype = segments[0].w.dtype
    arrays = [a for segment in segments for a in (segment.w, segment.g, *segment.slots.values())]
    if dtype not in (np.float32, np.float64) or not all(a.flags.c_contiguous and a.dtype == dtype for a in arrays):
        return plain
    kernels = compiled(SIGNATURES, T=dtype.name)
    models = segments[0].w.shape[-2] if axes else 1
    none = np.empty((0, 0, 0), dtype)
    numbers = np.zeros((10, models))

    def three(a: Any) -> Any:
        return a if a.ndim == 3 else a.reshape(1, models, -1)

    parts = [
        (three(s.w), three(s.g), [three(s.slots[slot]) for slot in rule.slots], s.penalty, s.decay) for s in segments
    ]
    if name == "SGD":
        numbers[_MOMENTUM] = np.ravel(rule.momentum)
    else:
        beta1, beta2 = np.ravel(rule.beta1), np.ravel(rule.beta2)
        numbers[_BETA1], numbers[_REST1] = beta1, 1.0 - beta1
        numbers[_BETA2], numbers[_REST2] = beta2, 1.0 - beta2
        numbers[_EPS] = np.ravel(rule.eps)

    def update(lr: Any, step: int) -> None:
        rate = lr if isinstance(lr, float) else np.ravel(lr)
        numbers[_LR] = rate
        if name != "SGD":
            numbers[_LR] /= 1.0 - numbers[_BETA1] ** (step + 1)
            numbers[_CORRECTION] = 1.0 - numbers[_BETA2] ** (step + 1)
        for w, g, slots, penalty, decay in parts:
            if penalty is not None:
                numbers[_PENALTY] = np.ravel(penalty)
            if decay is not None:
                numbers[_KEEP] = 1.0 - rate * np.ravel(decay)
            if name == "SGD":
                kernels.sgd(w, g, slots[0] if slots else none, numbers, penalty is not None, decay is not None,
                            rule.nesterov)
            else:
                kernels.adam(w, g, *slots, numbers, penalty is not None, decay is not None)

    return update
