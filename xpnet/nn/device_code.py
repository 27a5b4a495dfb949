"""CUDA code of layers and losses, for the kernel that makes many updates of a network in one launch.

The registries ``LAYERS`` and ``LOSSES`` have a text for each class. A layer's text sees one feature in all
examples of the batch, of which a thread has some: ``c.each`` calls a function for each of them, ``c.total`` sums one
over the batch, and ``v[i]`` is the value of the thread's i-th. ``forward`` turns it from the layer's input into the
output, ``backward`` from the gradient with respect to the output into that with respect to the input. The layer's
parameters and running statistics (of this feature, by their names), its numbers, and ``n`` examples are there, and
``saved[b]`` keeps a number of example b from one to the other; ``saved[BATCH]`` is one more. ``backward`` sets the
gradient of ``gamma`` as ``dgamma``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..backend import Device
from .layers import BatchNorm, Dropout, Layer, LeakyReLU, Linear, ReLU, Standardize, Tanh
from .losses import MeanSquaredError, SoftmaxCrossEntropy

__all__ = ["LAYERS", "LOSSES", "why_no_kernel"]


class LayerCode(NamedTuple):
    """A layer's text, and the numbers that it names: floats, or arrays with one for each model."""

    forward: str
    backward: str
    saves: bool = True
    numbers: Callable[[Any], Mapping[str, Any]] = lambda layer: {}


class LossCode(NamedTuple):
    """A text that sets ``value``, an example's part of the loss, and ``gradient`` with respect to its output ``k``.

    ``y(j)`` is output j; ``target`` is the example's label or the first of its targets.
    """

    text: str
    labels: bool  # rather than targets in the network's dtype


LAYERS: dict[type, LayerCode] = {
    BatchNorm: LayerCode(
        """
    const T centre = c.total([&](int i, int b) { return v[i]; }) / n;
    c.each([&](int i, int b) { v[i] -= centre; });
    const T spread = c.total([&](int i, int b) { return v[i] * v[i]; }) / n;
    const T deviation = sqrt(spread + eps);
    c.each([&](int i, int b) {
        saved[b] = v[i] / deviation;
        v[i] = gamma * saved[b] + beta;
    });
    if (c.leads()) {
        saved[BATCH] = deviation;
        mean = s.step ? mean + share * (centre - mean) : centre;
        var = s.step ? var + share * (spread - var) : spread;
    }""",
        """
    dbeta = c.total([&](int i, int b) { return v[i]; });
    dgamma = c.total([&](int i, int b) { return v[i] * saved[b]; });
    const T scale = gamma / saved[BATCH];
    c.each([&](int i, int b) { v[i] = scale * (v[i] - (dbeta + saved[b] * dgamma) / n); });""",
        numbers=lambda layer: {"eps": layer.eps, "share": 1.0 - layer.momentum},
    ),
    ReLU: LayerCode(
        """
    c.each([&](int i, int b) {
        saved[b] = v[i] > 0;
        if (v[i] < 0) v[i] = 0;
    });""",
        """
    c.each([&](int i, int b) { v[i] *= saved[b]; });""",
    ),
    LeakyReLU: LayerCode(
        """
    c.each([&](int i, int b) {
        saved[b] = v[i] > 0 ? T(1) : slope;
        v[i] *= saved[b];
    });""",
        """
    c.each([&](int i, int b) { v[i] *= saved[b]; });""",
        numbers=lambda layer: {"slope": layer.slope},
    ),
    Tanh: LayerCode(
        """
    c.each([&](int i, int b) { v[i] = saved[b] = tanh(v[i]); });""",
        """
    c.each([&](int i, int b) { v[i] *= 1 - saved[b] * saved[b]; });""",
    ),
    Dropout: LayerCode(
        """
    c.each([&](int i, int b) {
        saved[b] = T(uniform(s.seed, PURPOSE, s.step, b * WIDTH + c.k)) >= rate ? 1 / (1 - rate) : T(0);
        v[i] *= saved[b];
    });""",
        """
    c.each([&](int i, int b) { v[i] *= saved[b]; });""",
        numbers=lambda layer: {"rate": layer.rate},
    ),
}

LOSSES: dict[type, LossCode] = {
    SoftmaxCrossEntropy: LossCode(
        """
    T largest = y(0), total = 0, hit = 0;
    for (int j = 1; j < OUTPUTS; j++) largest = max(largest, y(j));
    for (int j = 0; j < OUTPUTS; j++) {
        total += exp(y(j) - largest);
        hit += (y(j) - largest) * T(j == *target);
    }
    value = (log(total) - hit) / n;
    gradient = (exp(y(k) - largest) / total - T(k == *target)) / n;""",
        labels=True,
    ),
    MeanSquaredError: LossCode(
        """
    for (int j = 0; j < OUTPUTS; j++) value += (y(j) - target[j]) * (y(j) - target[j]);
    value /= n * OUTPUTS;
    gradient = 2 * (y(k) - target[k]) / (n * OUTPUTS);""",
        labels=False,
    ),
}

WIDEST = 256  # outputs of a layer


def why_no_kernel(layers: Sequence[Layer], device: Device) -> str:
    """Return why no kernel makes many updates of a network in one launch; "" if one does.

    Parameters
    ----------
    layers : sequence of Layer
        All layers; one that scales the input comes first.
    device : Device
        Where they train.
    """
    if not device.name.startswith("cuda"):
        return f"{device.name} is no GPU"
    for i, layer in enumerate(layers):
        if type(layer) is Linear and layer.out_width > WIDEST:
            return f"layer {i + 1} has {layer.out_width} outputs, more than {WIDEST}"
        if type(layer) not in (Linear, *LAYERS) and not (type(layer) is Standardize and not i):
            return f"layer {i + 1}, {type(layer).__name__}, has no CUDA code"
    return "" if any(type(layer) is Linear for layer in layers) else "there is no Linear layer"
