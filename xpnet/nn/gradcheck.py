"""Gradients compared with numerical ones, for every layer, loss and network.

Two methods: central differences (truncation h^2, rounding 1e-16 / h), and complex-step differentiation
(Squire and Trapp, "Using complex variables to estimate derivatives of real functions", SIAM Review 40,
1998), which subtracts nothing and so is exact to rounding. A perturbed copy of a parameter is one more
model, so a whole array is checked in a few wide evaluations.

``CASES`` is the registry, see ``gradient_cases``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .. import random
from ..backend import Array, Device, namespace, ops_of, to_numpy
from .gradient_cases import (
    CASES,
    EXAMPLES,
    Function,
    draws,
    layer_function,
    layers_with_inputs,
    network_function,
    probabilities,
    random_arrays,
)
from .losses import Loss, SoftmaxCrossEntropy
from .sequential import Sequential
from .wired import Wired

__all__ = ["CASES", "EXAMPLES", "METHODS", "check", "check_network", "network_function", "numerical_gradient", "parity",
           "passes"]

METHODS = {"central": 1e-6, "complex": 1e-30}
KINK = 1e-4  # how near to 0 the input of a kinked layer may come in a check of a network, against h = 1e-6


def numerical_gradient(
    f: Function, arrays: Mapping[str, Array], name: str, *, method: str = "central", h: float | None = None,
    block_bytes: int = 2**25,
) -> Array:
    """Differentiate ``f`` with respect to one array.

    Parameters
    ----------
    f : function
        From arrays by name to its value and gradients; only the value is used.
    arrays : mapping of str to array
        Where to differentiate, in float64.
    name : str
        The array to perturb, entry by entry.
    method : {"central", "complex"}
        Central differences or complex step.
    h : float, optional
        The step; 1e-6 for central differences, 1e-30 for the complex step.
    block_bytes : int
        How much memory the perturbed copies may take at a time.

    Returns
    -------
    array
        An array of dtype float64 and the array's shape.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected 'central' or 'complex', got {method!r}")
    h = METHODS[method] if h is None else h
    x = arrays[name]
    xp, shape, size = namespace(x), x.shape, to_numpy(x).size
    with Device.of(x).activate():
        if method == "complex":
            arrays = {key: xp.astype(a, xp.complex128) for key, a in arrays.items()}
        rows = max(1, block_bytes // (32 * size))
        parts = []
        for start in range(0, size, rows):
            n = min(rows, size - start)
            unit = xp.eye(n, size, k=start, dtype=arrays[name].dtype, device=Device.of(x).native)
            unit = xp.reshape(unit, (n, *shape))

            def value(offset: Array) -> Array:
                values = f({**arrays, name: arrays[name] + offset})[0]
                return xp.sum(xp.reshape(values, (values.shape[0], -1)), axis=-1)

            if method == "complex":
                parts.append(xp.imag(value(unit * complex(0.0, h))) / h)
            else:
                parts.append((value(unit * h) - value(unit * -h)) / (2.0 * h))
        return xp.reshape(xp.concat(parts), shape)


def check(
    f: Function, arrays: Mapping[str, Array], names: Sequence[str] | None = None,
    methods: Sequence[str] = ("central", "complex"),
) -> list[dict[str, Any]]:
    """Compare the gradients that ``f`` gives with numerical ones.

    Parameters
    ----------
    f : function
        From arrays by name to its value and a function that gives its gradients by name.
    arrays : mapping of str to array
        Where to check, in float64.
    names : sequence of str, optional
        Which arrays; by default those that ``f`` gives a gradient for.
    methods : sequence of str
        ``"central"``, ``"complex"``, or both.

    Returns
    -------
    list of dict
        Per array: ``parameter``, ``analytical_norm``, and with a and n the two gradients, per method

        - central: ``numerical_norm``, ``error`` = ``abs(|a| - |n|) / max(1e-5, |a| + |n|)`` and
          ``strict_error`` = ``|a - n| / max(1e-5, |a| + |n|)``;
        - complex: ``complex_step_norm`` and ``complex_step_error``, like ``strict_error``.
    """
    with Device.of(next(iter(arrays.values()))).activate():
        gradients = f(arrays)[1]()
        rows = []
        for name in names or gradients:
            a = to_numpy(gradients[name])
            row: dict[str, Any] = {"parameter": name, "analytical_norm": _norm(a)}
            for method in methods:
                n = to_numpy(numerical_gradient(f, arrays, name, method=method))
                scale = max(1e-5, _norm(a) + _norm(n))
                strict = _norm(a - n) / scale if a.shape == n.shape else float("inf")
                if method == "central":
                    row |= {"numerical_norm": _norm(n), "error": abs(_norm(a) - _norm(n)) / scale,
                            "strict_error": strict}
                else:
                    row |= {"complex_step_norm": _norm(n), "complex_step_error": strict}
            rows.append(row)
        return rows


def _norm(x: Any) -> float:
    return float((abs(x) ** 2).sum() ** 0.5)


def check_network(
    network: Sequential, *, samples: int = 20, l2: float = 0.0, loss: Loss | None = None, seed: int = 0,
    device: Device | None = None, methods: Sequence[str] = ("central", "complex"),
) -> list[dict[str, Any]]:
    """Check a network's gradients in float64, on random features N(0, 1), random targets and random parameters.

    Each parameter's gradient is checked through the whole network, each layer's gradient with respect to its input by
    itself, so that a wrong one is known to be that layer's, and what training computes (in place, of two models side
    by side) against the gradient of one model.

    Parameters
    ----------
    network : Sequential
        The layers.
    samples : int
        Examples in the batch.
    l2 : float
        Factor of the penalty in the cost.
    loss : Loss, optional
        Softmax cross-entropy by default. Its targets are probabilities, here.
    seed : int
        Seed of the features, targets and parameters.
    device : Device, optional
        Where to compute; the CPU by default.
    methods : sequence of str
        Out of ``"central"`` and ``"complex"``.

    Returns
    -------
    list of dict
        One row per parameter, as ``check`` returns it, with ``training_error``: the largest difference from the
        gradient that training computes, over the largest entry of all gradients. Then one row for the input of each
        layer behind the first one, as ``"input of ReLU (layer 3)"``.
    """
    device = device or Device()
    with device.activate():
        arrays, noise = random_arrays(network, seed, device), draws(network, seed, samples, device)
        best = -1.0
        for attempt in range(100):
            drawn = device.asarray(random.normal(seed, f"x, draw {attempt}", (samples, network.in_features)), "float64")
            if (distance := _distance_to_kink(network, arrays, drawn, noise)) > best:
                best, x = distance, drawn
            if best > KINK:
                break
        targets = probabilities(device, "float64", samples, network.out_features, seed)
        measure = loss or SoftmaxCrossEntropy()
        f = network_function(network, x, targets, l2=l2, noise=noise, loss=measure)
        rows = check(f, arrays, network.parameters, methods)
        gradients, trained = f(arrays)[1](), _as_training_does(network, arrays, x, targets, noise, measure, l2)
        proven = {name: to_numpy(gradients[name]) for name in network.parameters}
        scale = max(largest(a) for a in proven.values())
        for row in rows:
            row["training_error"] = largest(trained[row["parameter"]] - proven[row["parameter"]]) / scale
        for i, (layer, own, u) in enumerate(layers_with_inputs(network, arrays, x, noise)):
            if i and layer.forward(*own.values(), train=True, noise=u)[0] is not own["x"]:
                shape = (samples, layer.out_features(network.widths[i]))
                factors = device.asarray(random.normal(seed, f"factors {i}", shape), "float64")
                found = check(layer_function(layer, factors, noise=u), own, ["x"], methods)
                rows += [{**row, "parameter": f"input of {type(layer).__name__} (layer {i + 1})"} for row in found]
        return rows


def _as_training_does(
    network: Sequential, arrays: Mapping[str, Array], x: Array, targets: Array, noise: Mapping[str, Array],
    loss: Loss, l2: float,
) -> dict[str, Any]:
    """Return the first of two models' gradients, written to the arrays that training allocates."""
    device = Device.of(x)
    parameters, running, inputs = network.allocate((2,), device, "float64")
    values = {**parameters.views, **running.views, **inputs.views}
    for name, array in values.items():
        both = [arrays[name], arrays[name] * 0.5 + 0.25]
        array[...] = namespace(x).stack(both) if network.has_model_axis(name, array) else both[0]
    gradients = parameters.like().views
    ops = ops_of(x)
    outputs, pullback, _ = Wired(network, values, ops.fuse(network.layers)).forward(x, train=True, noise=noise)
    pullback(ops.loss(loss).forward(outputs, targets)[1](), [gradients[name] for name in network.parameters], False)
    for name in network.weights:
        gradients[name][...] += 2.0 * l2 * values[name]
    return {name: to_numpy(array)[0] for name, array in gradients.items()}


def _distance_to_kink(network: Sequential, arrays: Mapping[str, Array], x: Array, noise: Mapping[str, Array]) -> float:
    """Return the smallest input of any kinked layer: nearer to 0 than h, central differences straddle two slopes."""
    xp, distance, depends = namespace(x), float("inf"), False
    for layer, own, _ in layers_with_inputs(network, arrays, x, noise):
        if layer.kinked and depends:  # before the first parameter there is nothing to perturb
            distance = min(distance, float(xp.min(xp.abs(own["x"]))))
        depends = depends or bool(layer.parameters)
    return distance


def passes(row: Mapping[str, Any]) -> bool:
    """Judge a row of ``check``: error below 1e-7, strict below 1e-6, complex-step and training error below 1e-12.

    A gradient that is zero (a bias that batch norm cancels) has no relative error: there the norms are
    judged, analytical and complex-step below 1e-14, numerical (rounding noise / h) below 1e-8. Nor do central
    differences resolve a tiny gradient: a difference below 1e-9 is their rounding noise.

    Parameters
    ----------
    row : mapping
        With the keys that ``check`` gives.

    Returns
    -------
    bool
        Whether every error that the row holds is small enough.

    Raises
    ------
    ValueError
        If the row holds no error to judge.
    """
    if not {"error", "complex_step_error"} & set(row):
        raise ValueError("expected a row with the errors of at least one method, got none")
    if not row.get("training_error", 0.0) < 1e-12:
        return False
    if row["analytical_norm"] < 1e-14:
        return bool(row.get("complex_step_norm", 0.0) < 1e-14 and row.get("numerical_norm", 0.0) < 1e-8)
    limits = {"error": 1e-7, "strict_error": 1e-6, "complex_step_error": 1e-12}
    scale = max(row["analytical_norm"] + row.get("numerical_norm", 0.0), 1e-5)  # NaN stays NaN
    if scale < math.inf and row.get("strict_error", 1.0) * scale < 1e-9:
        limits = {"complex_step_error": 1e-12}
    return all(row[name] < limit for name, limit in limits.items() if name in row)


def parity(device: Device, dtype: str) -> list[dict[str, Any]]:
    """Compare every registered case on ``device`` in ``dtype`` with NumPy in float64.

    Parameters
    ----------
    device : Device
        Where to compute.
    dtype : str
        ``"float32"`` or ``"float64"``.

    Returns
    -------
    list of dict
        Per case ``forward`` and ``backward``: the largest difference over the largest golden value, of the
        outputs and of all gradients. ``tolerance`` is 100 roundings of the dtype, and ``passes`` compares.
    """
    rows = []
    tolerance = 100 * float(device.xp.finfo(getattr(device.xp, dtype)).eps)
    with device.activate():
        for name, case in CASES.items():
            golden, found = (_run(*case(where, kind)) for where, kind in ((Device(), "float64"), (device, dtype)))
            forward = largest(found.pop("outputs") - golden["outputs"]) / largest(golden.pop("outputs"))
            scale = max(map(largest, golden.values()))
            backward = max(largest(found[name] - golden[name]) for name in golden) / scale
            row = {"case": name, "dtype": dtype, "forward": forward, "backward": backward}
            rows.append(row | {"tolerance": tolerance, "passes": max(forward, backward) < tolerance})
    return rows


def _run(f: Function, arrays: Mapping[str, Array]) -> dict[str, Any]:
    outputs, gradients = f(arrays)
    return {**{f"d {name}": to_numpy(g) for name, g in gradients().items()}, "outputs": to_numpy(outputs)}


def largest(x: Any) -> float:
    """Return the largest absolute value; infinity if there is NaN."""
    value = float(abs(x).max())
    return value if value == value else float("inf")  # ``max`` loses NaN


