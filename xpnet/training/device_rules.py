"""CUDA code of update rules, for the kernel that makes many updates of a network in one launch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .optimizers import SGD, Adam, AdamW

__all__ = ["RULES", "RuleCode", "rule_code"]


class RuleCode(NamedTuple):
    """A text that changes ``w``, ``slot0`` and ``slot1`` by the gradient ``g``, and the numbers that it names.

    ``rates`` maps the learning rates (updates, models) and the updates made before to numbers of each update.
    """

    text: str
    numbers: Mapping[str, Any]
    rates: Callable[[Any, Any], Mapping[str, Any]] = lambda lr, step: {"lr": lr}


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
