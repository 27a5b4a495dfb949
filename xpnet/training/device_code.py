"""CUDA code of layers, losses and update rules, for the kernel that makes many updates of a network.

The registries ``LAYERS``, ``LOSSES`` and ``RULES`` have a text for each class. A layer's text sees one feature in all
examples of the batch, of which a thread has some: ``c.each`` calls a function for each of them, ``c.total`` sums one
over the batch, and ``v[i]`` is the value of the thread's i-th. ``forward`` turns it from the layer's input into the
output, ``backward`` from the gradient with respect to the output into that with respect to the input. The layer's
parameters and running statistics (of this feature, by their names), its numbers, and ``n`` examples are there, and
``saved[b]`` keeps a number of example b from one to the other; ``saved[BATCH]`` is one more. ``backward`` sets the
gradient of ``gamma`` as ``dgamma``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..nn.layers import BatchNorm, Dropout, LeakyReLU, ReLU, Tanh
from ..nn.losses import MeanSquaredError, SoftmaxCrossEntropy
from .optimizers import SGD, Adam, AdamW

__all__ = ["LAYERS", "LOSSES", "RULES", "RuleCode", "rule_code"]


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


class RuleCode(NamedTuple):
    """A text that changes ``w``, ``slot0`` and ``slot1`` by the gradient ``g``, and the numbers that it names.

    ``rates`` maps the learning rates (updates, models) and the updates made before to numbers of each update.
    """

    text: str
    numbers: Mapping[str, Any]
    rates: Callable[[Any, Any], Mapping[str, Any]] = lambda lr, step: {"lr": lr}


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


def _sgd(rule: SGD) -> RuleCode:
    if rule.plain:
        return RuleCode("w -= lr * g;", {})
    step = "g + momentum * slot0" if rule.nesterov else "slot0"
    return RuleCode(f"slot0 = momentum * slot0 + g;\n    w -= lr * ({step});", {"momentum": rule.momentum})


def _adam(rule: Adam) -> RuleCode:
    return RuleCode(
        """slot0 = beta1 * slot0 + rest1 * g;
    slot1 = beta2 * slot1 + rest2 * (g * g);
    w -= rate * slot0 / (sqrt(slot1 / correction) + eps);""",
        {"beta1": rule.beta1, "beta2": rule.beta2, "rest1": 1.0 - rule.beta1, "rest2": 1.0 - rule.beta2,
         "eps": rule.eps},
        lambda lr, step: {"lr": lr, "rate": lr / (1.0 - rule.beta1 ** (step + 1)),
                          "correction": 1.0 - rule.beta2 ** (step + 1)},
    )


RULES: dict[type, Callable[[Any], RuleCode]] = {SGD: _sgd, Adam: _adam, AdamW: _adam}


def rule_code(rule: Any, l2: Any) -> RuleCode:
    """Return the text of a rule with the penalty and the decay of weights before it.

    Parameters
    ----------
    rule : Optimizer
        One of ``RULES``, its hyper-parameters numbers or arrays (models,).
    l2 : float or array
        The penalty's factor.
    """
    code, numbers, before = RULES[type(rule)](rule), {}, ""
    if hasattr(l2, "shape") or l2:
        numbers["penalty"] = 2.0 * l2
        before += "if (weight) g += penalty * w;\n    "
    if hasattr(rule.weight_decay, "shape") or rule.weight_decay:
        numbers["decay"] = rule.weight_decay
        before += "if (weight) w *= 1 - lr * decay;\n    "
    return code._replace(text=before + code.text, numbers={**code.numbers, **numbers})
