"""Functions whose gradients are proven: every registered layer, by its example, every loss, and networks of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .. import random
from ..backend import Array, Device, form, namespace
from .layers import LAYERS, Layer
from .losses import LOSSES, Loss, MeanSquaredError, SoftmaxCrossEntropy, l2_penalty
from .sequential import Sequential, mlp

__all__ = ["CASES", "EXAMPLES", "Case", "Function", "draws", "layer_function", "layers_with_inputs", "network_function",
           "probabilities", "random_arrays"]

#: From arrays by name to the value (*models) and a function that gives its gradients by name.
Function = Callable[[Mapping[str, Array]], tuple[Array, Callable[[], Mapping[str, Array]]]]
Case = Callable[..., tuple[Function, dict[str, Array]]]


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

        return value + l2_penalty(l2, arrays, network), gradients

    return f


def layer_function(layer: Layer, factors: Array, *, train: bool = True, noise: Array | None = None) -> Function:
    """Return a layer's outputs, multiplied by random factors, as a function of its input ``x`` and its arrays.

    Parameters
    ----------
    layer : Layer
        The layer.
    factors : array of shape (n, outputs)
        The factors, which are then the gradient with respect to the outputs.
    train : bool
        Whether the layer trains.
    noise : array of shape (n, features), optional
        Uniform draws for a noisy layer.

    Returns
    -------
    function
        From arrays by name to the products and the gradients of their sum by name.
    """

    def f(a: Mapping[str, Array]) -> tuple[Array, Callable[[], Mapping[str, Array]]]:
        arrays = [a[name] for name in (*layer.parameters, *layer.statistics)]
        y, pullback, _ = layer.forward(a["x"], *arrays, train=train, noise=noise)

        def gradients() -> Mapping[str, Array]:
            dx, own = pullback(factors)
            return dict(zip(("x", *layer.parameters), map(form, (dx, *own)), strict=True))

        return y * factors, gradients

    return f


def layers_with_inputs(
    network: Sequential, arrays: Mapping[str, Array], x: Array, noise: Mapping[str, Array]
) -> Iterator[tuple[Layer, dict[str, Array], Array | None]]:
    """Yield each layer, first to last, with its input ``x`` and its arrays by name, and its uniform draws."""
    drawn = iter(noise.values())
    for layer, names in zip(network.layers, network._names, strict=True):
        own = dict(zip((*layer.parameters, *layer.statistics), (arrays[name] for name in names), strict=True))
        u = next(drawn) if layer.noisy else None
        yield layer, {"x": x, **own}, u
        x = layer.forward(x, *own.values(), train=True, noise=u)[0]


def draws(network: Sequential, seed: int, n: int, device: Device, dtype: str = "float64") -> dict[str, Array]:
    """Return uniform draws for a network's noisy layers, by name."""
    return {name: device.asarray(random.uniform(seed, name, 0, shape), dtype)
            for name, shape in network.noise_shapes(n).items()}


def random_arrays(network: Sequential, seed: int, device: Device, dtype: str = "float64") -> dict[str, Array]:
    """Return a network's arrays at random values: its initial weights, and all else off its initial value.

    At the initial values, gamma = 1 and beta = 0, a forgotten factor or term would not show, and a ReLU may be at its
    kink.
    """
    arrays = {name: view for part in network.allocate((), device, dtype) for name, view in part.views.items()}
    with device.activate():
        network.initialize(arrays, seed, device, dtype)
        positive = {name for layer, names in zip(network.layers, network._names, strict=True)
                    for own, name in zip((*layer.parameters, *layer.statistics), names, strict=True)
                    if own in layer.positive}
        for name in (*network.parameters, *network.statistics):
            if name not in network.weights or len(network.shapes[name]) < 2:
                offset = random.normal(seed, name, network.shapes[name], 0.1)
                arrays[name] += device.asarray(abs(offset) if name in positive else offset, dtype)
    return arrays


def probabilities(device: Device, dtype: str, n: int, classes: int, seed: int = 1) -> Array:
    """Return random targets (n, classes): numbers in (0, 1) with sum 1 per row, which every loss takes."""
    weights = abs(random.normal(seed, "targets", (n, classes)))
    return device.asarray(weights / weights.sum(axis=-1, keepdims=True), dtype)


def _layer_case(layer: Layer, features: int = 4, *, train: bool = True, n: int = 6) -> Case:
    """Make a case of a layer."""

    def make(device: Device, dtype: str = "float64") -> tuple[Function, dict[str, Array]]:
        def draw(name: str, shape: tuple[int, ...]) -> Array:
            return device.asarray(random.normal(1, name, shape), dtype)

        shapes = layer.shapes(features)
        arrays = {"x": draw("x", (n, features))} | {name: draw(name, shape) for name, shape in shapes.items()}
        with device.activate():
            arrays |= {name: arrays[name] ** 2 + 0.5 for name in layer.positive}
        factors = draw("dy", (n, layer.out_features(features)))
        noise = device.asarray(random.uniform(1, "noise", 0, (n, features)), dtype) if layer.noisy else None
        return layer_function(layer, factors, train=train, noise=noise), arrays

    return make


def _loss_case(loss: Any, n: int = 6, classes: int = 4) -> Case:
    """Make a case of a loss."""

    def make(device: Device, dtype: str = "float64") -> tuple[Function, dict[str, Array]]:
        arrays = {"outputs": device.asarray(random.normal(1, "outputs", (n, classes)), dtype)}
        targets = probabilities(device, dtype, n, classes)

        def f(a: Mapping[str, Array]) -> tuple[Array, Callable[[], Mapping[str, Array]]]:
            value, pullback = loss.forward(a["outputs"], targets)
            return value, lambda: {"outputs": pullback()}

        return f, arrays

    return make


def _network_case(network: Sequential, *, l2: float = 0.0, loss: Loss | None = None, n: int = 7) -> Case:
    """Make a case of a network."""

    def make(device: Device, dtype: str = "float64") -> tuple[Function, dict[str, Array]]:
        x = device.asarray(random.normal(1, "x", (n, network.in_features)), dtype)
        targets = probabilities(device, dtype, n, network.out_features)
        arrays, noise = random_arrays(network, 1, device, dtype), draws(network, 1, n, device, dtype)
        return network_function(network, x, targets, l2=l2, noise=noise, loss=loss), arrays

    return make


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
