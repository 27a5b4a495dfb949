"""From layers, loss and optimizer to the stages of a ``FusedStep``: what has kernels, and which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..arrays import Array
from ..deferred import kind
from .columns import Columns, Elementwise, Norm, Trained
from .step import Dense, FusedStep
from .update import Flat, Rule

__all__ = ["fused_step", "without_kernels"]

# In C, as ``Elementwise`` says: value, slope, and the layer's field that is ``a``.
FUNCTIONS = {
    "ReLU": ("x > T(0) || x != x ? x : T(0)", "T(x > T(0))", ""),
    "LeakyReLU": ("x > T(0) ? x : a * x", "x > T(0) ? T(1) : a", "slope"),
    "Tanh": ("tanh(x)", "T(1) - y * y", ""),
    "Dropout": ("x * (T(u >= a) / (T(1) - a))", "T(u >= a) / (T(1) - a)", "rate"),
}
LOSSES = {"SoftmaxCrossEntropy": "softmax", "MeanSquaredError": "squares"}
RULES = ("SGD", "Adam", "AdamW")
MODELS, NUMBERS = 65_535, 2**30  # blocks of a grid in y; what an int counts


def without_kernels(layers: Sequence[Any], loss: Any, rule: Any, segments: Sequence[Any], models: int) -> str:
    """Return for what part of an update there is no kernel, empty if there is one for everything.

    Parameters
    ----------
    layers : sequence of Layer
        The trained layers.
    loss : Loss
        The objective.
    rule : Optimizer
        The optimizer.
    segments : sequence of Segment
        All parameters.
    models : int
        Number of models.
    """
    if not any(kind(layer) == "Linear" for layer in layers):
        return "a network without Linear"
    if models > MODELS or any(segment.w.size // models > NUMBERS for segment in segments):
        return f"more than {MODELS} models, or {NUMBERS} parameters of a model"
    known = {"Linear", "BatchNorm", *FUNCTIONS}
    unknown = [part for part in layers if kind(part) not in known]
    unknown += [loss] * (kind(loss) not in LOSSES) + [rule] * (kind(rule) not in RULES)
    return ", ".join(dict.fromkeys(type(part).__name__ for part in unknown))


def fused_step(
    layers: Sequence[tuple[Any, Mapping[str, Array], Mapping[str, Array]]], loss: Any, rule: Any,
    segments: Sequence[Any], clip_norm: Any, models: tuple[int, ...],
) -> FusedStep:
    """Return a network's update in fused launches.

    Parameters
    ----------
    layers : sequence of tuple
        Each layer with its arrays, and the gradients of its parameters, by the layer's own names.
    loss : Loss
        The objective.
    rule : Optimizer
        The optimizer.
    segments : sequence of Segment
        All parameters: flat arrays, gradients, the optimizer's arrays, penalty, and decay.
    clip_norm : float, array or None
        The largest norm of the gradient.
    models : tuple of int
        The model axis.
    """
    weights = [arrays["W"] for layer, arrays, _ in layers if kind(layer) == "Linear"]
    width = features = weights[0].shape[-2]
    stages: list[Dense | Columns] = []
    for layer, arrays, gradients in layers:
        trained = {name: Trained(arrays[name], gradient) for name, gradient in gradients.items()}
        last = stages[-1] if stages and isinstance(stages[-1], Columns) else None
        if kind(layer) == "Linear":
            width = arrays["W"].shape[-1]
            stages += [Dense(*trained["W"]), Columns(width, bias=trained["b"])]
        elif kind(layer) == "BatchNorm":
            norm = Norm(trained["gamma"], trained["beta"], arrays["mean"], arrays["var"], 1.0 - layer.momentum,
                        layer.eps)
            if last and not last.norm and not last.chain:
                stages[-1] = last._replace(norm=norm)
            else:
                stages.append(Columns(width, norm=norm))
        else:
            value, slope, factor = FUNCTIONS[kind(layer)]
            function = Elementwise(value, slope, getattr(layer, factor) if factor else 0.0, layer.noisy)
            if last:
                stages[-1] = last._replace(chain=(*last.chain, function))
            else:
                stages.append(Columns(width, chain=(function,)))
    flat = [Flat(s.w, s.g, list(s.slots.values()), s.penalty is not None or s.decay is not None) for s in segments]
    chained = next((s for s in segments if s.penalty is not None or s.decay is not None), segments[0])
    numbers = {"penalty": chained.penalty, "decay": chained.decay, "clip": clip_norm}
    if kind(rule) == "SGD":
        name = "descent" if rule.plain else "nesterov" if rule.nesterov else "momentum"
        chain = Rule(name, rule.momentum, **numbers)
    else:
        chain = Rule("adam", rule.beta1, rule.beta2, rule.eps, **numbers)
    return FusedStep(stages, LOSSES[kind(loss)], chain, flat, features=features, outputs=weights[-1].shape[-1],
                     models=models, dtype=str(weights[0].dtype))
