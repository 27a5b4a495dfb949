"""An independent model of a network in plain NumPy, in float64: predictions, costs, gradients and full-batch updates.

It shares no code with the package: its gradients are written out for whole networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Layers = Sequence[tuple[str, Mapping[str, Any]]]
#: What shows how much rounding matters: a function that changes intermediate numbers a little.
Rounding = Callable[[np.ndarray], np.ndarray] | None


def describe(architecture: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return kind and options of each layer, from a network's configuration."""
    layers = architecture.config()["layers"]
    return [(layer["type"], {key: value for key, value in layer.items() if key != "type"}) for layer in layers]


def forward(
    layers: Layers, arrays: Mapping[str, np.ndarray], x: np.ndarray, *, train: bool = False, rounding: Rounding = None
) -> tuple[np.ndarray, list[Any]]:
    """Return the outputs, and what each layer keeps for the way back. Dropout is only for predictions."""
    rounded = rounding or (lambda values: values)
    counts: dict[str, int] = {}

    def take(*names: str) -> list[np.ndarray]:
        for name in names:
            counts[name] = counts.get(name, 0) + 1
        return [np.asarray(arrays[f"{name}{counts[name]}"], np.float64) for name in names]

    kept: list[Any] = []
    for kind, options in layers:
        if kind == "Standardize":
            offset, scale = take("offset", "scale")
            x = rounded((x - offset) * scale)
            kept.append(None)
        elif kind == "Linear":
            W, b = take("W", "b")
            kept.append((x, W))
            x = rounded(x @ W + b)
        elif kind == "BatchNorm":
            gamma, beta, mean, var = take("gamma", "beta", "mean", "var")
            if train:
                mean, var = x.mean(axis=0), x.var(axis=0)
            deviation = np.sqrt(var + options["eps"])
            normal = rounded(x - mean) / deviation
            kept.append((normal, deviation, gamma, mean, var))
            x = gamma * normal + beta
        elif kind in ("ReLU", "LeakyReLU", "Tanh", "Dropout"):
            slope = options.get("slope", 0.0)
            y = rounded(np.tanh(x)) if kind == "Tanh" else x if kind == "Dropout" else np.where(x > 0, x, slope * x)
            kept.append(1 - y * y if kind == "Tanh" else 1.0 if kind == "Dropout" else np.where(x > 0, 1.0, slope))
            x = y
        else:
            raise NotImplementedError(kind)
    return x, kept


def backward(layers: Layers, kept: Sequence[Any], d: np.ndarray, rounding: Rounding = None) -> dict[str, np.ndarray]:
    """Return the gradients of parameters by name, of a batch that trained."""
    rounded = rounding or (lambda values: values)
    counts = {name: sum(kind == of for kind, _ in layers) for of, name in (("Linear", "W"), ("BatchNorm", "gamma"))}
    found = {}
    following = ""
    for (kind, _), own in zip(reversed(layers), reversed(kept), strict=True):
        if kind == "Linear":
            x, W = own
            # Batch norm cancels a bias in front of it: what rounding leaves of its gradient, Adam would blow up.
            d = rounded(d)
            found[f"W{counts['W']}"] = rounded(x).T @ d
            found[f"b{counts['W']}"] = d.sum(axis=0) * (following != "BatchNorm")
            counts["W"] -= 1
            d = d @ W.T
        elif kind == "BatchNorm":
            normal, deviation, gamma, _, _ = own
            found[f"gamma{counts['gamma']}"], found[f"beta{counts['gamma']}"] = (d * normal).sum(axis=0), d.sum(axis=0)
            counts["gamma"] -= 1
            d = d * gamma
            d = (d - d.mean(axis=0) - normal * (d * normal).mean(axis=0)) / deviation
        elif own is not None:
            d = d * own
        following = kind
    return found


def loss(outputs: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean loss and its gradient: cross-entropy for class indices (n,), else the mean squared error."""
    n = len(outputs)
    if y.ndim == 1:
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        p = np.exp(logs)
        p[np.arange(n), y] -= 1
        return float(-logs[np.arange(n), y].mean()), p / n
    off = outputs - y
    return float((off * off).mean()), 2 * off / off.size


def train(
    layers: Layers, arrays: Mapping[str, np.ndarray], x: np.ndarray, y: np.ndarray, *, steps: int, lr: float,
    l2: float = 0.0, rule: str = "sgd", momentum: float = 0.0, decay: float = 0.0, rounding: Rounding = None,
) -> dict[str, np.ndarray]:
    """Return the arrays after full-batch updates with SGD, momentum or AdamW."""
    a = {name: np.array(value, np.float64) for name, value in arrays.items()}
    slots = {name: [np.zeros_like(value), np.zeros_like(value)] for name, value in a.items()}
    for step in range(steps):
        outputs, kept = forward(layers, a, x, train=True, rounding=rounding)
        gradients = backward(layers, kept, loss(outputs, y)[1], rounding)
        norms = [own for (kind, _), own in zip(layers, kept, strict=True) if kind == "BatchNorm"]
        options = [own for kind, own in layers if kind == "BatchNorm"]
        for i, (norm, option) in enumerate(zip(norms, options, strict=True), 1):
            for name, value in ((f"mean{i}", norm[3]), (f"var{i}", norm[4])):
                share = option["momentum"] if step else 0.0
                a[name] = share * a[name] + (1 - share) * value
        for name, g in gradients.items():
            weight = name.startswith("W")
            g = g + 2 * l2 * a[name] if weight else g
            m, v = slots[name]
            if rule == "sgd":
                m[...] = momentum * m + g
                a[name] -= lr * m
                continue
            a[name] *= 1 - lr * decay if weight else 1.0
            m[...], v[...] = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            a[name] -= lr * (m / (1 - 0.9 ** (step + 1))) / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-8)
    return a
