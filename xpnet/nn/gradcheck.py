"""Gradients compared with numerical ones, for every layer, loss and network.

Two methods: central differences (truncation h^2, rounding 1e-16 / h), and complex-step differentiation
(Squire and Trapp, "Using complex variables to estimate derivatives of real functions", SIAM Review 40,
1998), which subtracts nothing and so is exact to rounding. A perturbed copy of a parameter is one more
model, so a whole array is checked in a few wide evaluations.

``CASES`` is the registry: every registered layer, by its example, every registered loss, and networks of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import random
from ..backend import Array, Device, namespace, to_numpy
from .layers import LAYERS, Layer
from .losses import LOSSES, Loss, MeanSquaredError, SoftmaxCrossEntropy, l2_penalty
from .sequential import Sequential, mlp

__all__ = ["CASES", "EXAMPLES", "METHODS", "check", "check_network", "network_function", "numerical_gradient", "parity",
           "passes"]

#: From arrays by name to the value (*models) and a function that gives its gradients by name.
Function = Callable[[Mapping[str, Array]], tuple[Array, Callable[[], Mapping[str, Array]]]]
Case = Callable[..., tuple[Function, dict[str, Array]]]
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
        Of dtype float64 and the array's shape.
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


def network_function(
    network: Sequential, x: Array, targets: Array, *, l2: float = 0.0, noise: Mapping[str, Array] | None = None,
    loss: Loss | None = None,
) -> Function:
    """Return a network's cost in training mode as a function of its arrays.

    Parameters
    ----------
    network : Sequential
        The layers.
    x : array of shape (n, features)
        The features.
    targets : array of shape (n, outputs)
        What the loss's encoder makes of labels.
    l2 : float
        Factor of the penalty.
    noise : mapping of str to array, optional
        Uniform draws for the dropout layers.
    loss : Loss, optional
        Softmax cross-entropy by default.

    Returns
    -------
    function
        From arrays by name to the cost and its gradients by name.
    """
    measure = loss or SoftmaxCrossEntropy()

    def f(arrays: Mapping[str, Array]) -> tuple[Array, Callable[[], Mapping[str, Array]]]:
        xp = namespace(targets)
        kind = next(iter(arrays.values())).dtype
        outputs, pullback, _ = network.forward(arrays, xp.astype(x, kind), train=True, noise=noise)
        value, loss_pullback = measure.forward(outputs, targets)

        def gradients() -> Mapping[str, Array]:
            _, found = pullback(loss_pullback(), wrt_input=False)
            return {n: found[n] + 2.0 * l2 * arrays[n] if n in network.weights else found[n]
                    for n in network.parameters}

        return value + l2_penalty(l2, [arrays[name] for name in network.weights]), gradients

    return f


def check_network(
    network: Sequential, *, samples: int = 20, l2: float = 0.0, seed: int = 0, device: Device | None = None,
    methods: Sequence[str] = ("central", "complex"),
) -> list[dict[str, Any]]:
    """Check a network's gradients on random features N(0, 1) and random labels, in float64.

    Parameters
    ----------
    network : Sequential
        The layers.
    samples : int
        Examples in the batch.
    l2 : float
        Factor of the penalty in the cost.
    seed : int
        Of features, labels and initial values.
    device : Device, optional
        Where to compute; the CPU by default.
    methods : sequence of str
        Out of ``"central"`` and ``"complex"``.

    Returns
    -------
    list of dict
        One row per parameter, as ``check`` gives it.
    """
    device = device or Device()
    with device.activate():
        arrays = _initial(network, seed, device)
        noise = _noise(network, seed, samples, device)
        for attempt in range(100):
            x = device.asarray(random.normal(seed, f"x, draw {attempt}", (samples, network.in_features)), "float64")
            if _distance_to_kink(network, arrays, x, noise) > KINK:
                break
        labels = device.asarray(random.stream(seed, "y").integers(network.out_features, size=samples))
        one_hot = device.xp.eye(network.out_features, dtype=device.xp.float64, device=device.native)
        targets = device.xp.take(one_hot, labels, axis=0)
        return check(network_function(network, x, targets, l2=l2, noise=noise), arrays, network.parameters, methods)


def _distance_to_kink(network: Sequential, arrays: Mapping[str, Array], x: Array, noise: Mapping[str, Array]) -> float:
    """Return the smallest input of any kinked layer: nearer to 0 than h, central differences straddle two slopes."""
    xp, distance = namespace(x), float("inf")
    for depth, layer in enumerate(network.layers):
        if layer.kinked:
            inputs = Sequential(network.in_features, network.layers[:depth]).forward(arrays, x, train=True, noise=noise)
            distance = min(distance, float(xp.min(xp.abs(inputs[0]))))
    return distance


def passes(row: Mapping[str, Any]) -> bool:
    """Judge a row of ``check``: error below 1e-7, strict below 1e-6, complex-step below 1e-12.

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
            forward = _largest(found.pop("outputs") - golden["outputs"]) / _largest(golden.pop("outputs"))
            scale = max(map(_largest, golden.values()))
            backward = max(_largest(found[name] - golden[name]) for name in golden) / scale
            row = {"case": name, "dtype": dtype, "forward": forward, "backward": backward}
            rows.append(row | {"tolerance": tolerance, "passes": max(forward, backward) < tolerance})
    return rows


def _run(f: Function, arrays: Mapping[str, Array]) -> dict[str, Any]:
    outputs, gradients = f(arrays)
    return {**{f"d {name}": to_numpy(g) for name, g in gradients().items()}, "outputs": to_numpy(outputs)}


def _largest(x: Any) -> float:
    value = float(abs(x).max())
    return value if value == value else float("inf")  # ``max`` loses NaN


def _noise(network: Sequential, seed: int, n: int, device: Device, dtype: str = "float64") -> dict[str, Array]:
    return {name: device.asarray(random.uniform(seed, name, 0, shape), dtype)
            for name, shape in network.noise_shapes(n).items()}


def _initial(network: Sequential, seed: int, device: Device, dtype: str = "float64") -> dict[str, Array]:
    arrays = {name: view for part in network.allocate((), device, dtype) for name, view in part.views.items()}
    with device.activate():
        network.initialize(arrays, seed, device, dtype)
    return arrays


def _layer_case(layer: Layer, features: int = 4, *, train: bool = True, n: int = 6) -> Case:
    """Make a case: the layer's outputs, weighed with random factors."""

    def make(device: Device, dtype: str = "float64") -> tuple[Function, dict[str, Array]]:
        def draw(name: str, shape: tuple[int, ...]) -> Array:
            return device.asarray(random.normal(1, name, shape), dtype)

        shapes = layer.shapes(features)
        arrays = {"x": draw("x", (n, features))} | {name: draw(name, shape) for name, shape in shapes.items()}
        with device.activate():
            arrays |= {name: arrays[name] ** 2 + 0.5 for name in layer.positive}
        factors = draw("dy", (n, layer.out_features(features)))
        noise = device.asarray(random.uniform(1, "noise", 0, (n, features)), dtype) if layer.noisy else None

        def f(a: Mapping[str, Array]) -> tuple[Array, Callable[[], Mapping[str, Array]]]:
            y, pullback, _ = layer.forward(
                a["x"], *[a[name] for name in (*layer.parameters, *layer.statistics)], train=train, noise=noise
            )

            def gradients() -> Mapping[str, Array]:
                dx, own = pullback(factors)
                return {"x": dx, **dict(zip(layer.parameters, own, strict=True))}

            return y * factors, gradients

        return f, arrays

    return make


def _loss_case(loss: Any, n: int = 6, classes: int = 4) -> Case:
    def make(device: Device, dtype: str = "float64") -> tuple[Function, dict[str, Array]]:
        arrays = {"outputs": device.asarray(random.normal(1, "outputs", (n, classes)), dtype)}
        targets = _probabilities(device, dtype, n, classes)

        def f(a: Mapping[str, Array]) -> tuple[Array, Callable[[], Mapping[str, Array]]]:
            value, pullback = loss.forward(a["outputs"], targets)
            return value, lambda: {"outputs": pullback()}

        return f, arrays

    return make


def _network_case(network: Sequential, *, l2: float = 0.0, loss: Loss | None = None, n: int = 7) -> Case:
    def make(device: Device, dtype: str = "float64") -> tuple[Function, dict[str, Array]]:
        x = device.asarray(random.normal(1, "x", (n, network.in_features)), dtype)
        targets = _probabilities(device, dtype, n, network.out_features)
        arrays = _initial(network, 1, device, dtype)
        for name in network.parameters:  # away from the initial zeros, where a ReLU may sit on its kink
            if name not in network.weights:
                with device.activate():
                    arrays[name] += device.asarray(random.normal(1, name, network.shapes[name], 0.1), dtype)
        noise = _noise(network, 1, n, device, dtype)
        return network_function(network, x, targets, l2=l2, noise=noise, loss=loss), arrays

    return make


def _probabilities(device: Device, dtype: str, n: int, classes: int) -> Array:
    weights = abs(random.normal(1, "targets", (n, classes)))
    return device.asarray(weights / weights.sum(axis=-1, keepdims=True), dtype)


def _examples() -> dict[str, tuple[Layer, bool]]:
    found: dict[str, tuple[Layer, bool]] = {}
    for name, cls in LAYERS.items():
        found[name] = cls.example, True
        if cls.noisy or (cls.statistics and not cls.scales_input):
            found[f"{name}, prediction"] = cls.example, False
    return found


#: The registered layers' examples, and whether each trains; layers that predict otherwise than they train are there
#: twice.
EXAMPLES: dict[str, tuple[Layer, bool]] = _examples()

#: Name to what makes, for a device and a dtype (float64), a function and the arrays at which to check it.
CASES: dict[str, Case] = {
    **{name: _layer_case(layer, train=train) for name, (layer, train) in EXAMPLES.items()},
    **{name: _loss_case(cls()) for name, cls in LOSSES.items()},
    "softmax regression, L2": _network_case(mlp(5, [], 3), l2=0.01),
    "dense + ReLU, L2": _network_case(mlp(5, [4, 3], 3), l2=0.01),
    "dense + batch norm + ReLU, L2": _network_case(mlp(5, [4, 3], 3, batch_norm=True), l2=0.01),
    "dense + batch norm + ReLU + dropout, L2": _network_case(
        mlp(5, [4, 3], 3, batch_norm=True, dropout=0.3, standardize=True), l2=0.01
    ),
    "dense + ReLU + mean squared error, L2": _network_case(mlp(5, [4, 3], 2), l2=0.01, loss=MeanSquaredError()),
}
