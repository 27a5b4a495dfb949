"""Checks of an estimator's parameters, which make plain Python values of NumPy's and name the parameter in errors."""

from __future__ import annotations

import math
import operator
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..backend import Device
from ..nn import per_model
from ..nn.initializers import Xavier
from ..nn.per_model import is_array, is_boolean, lengths, shown
from ..training.optimizers import SGD, Adam, AdamW

__all__ = ["SOLVERS", "boolean", "checked", "integer", "seed_of"]

SOLVERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "adam": lambda p: Adam(), "adamw": lambda p: AdamW(),
    "sgd": lambda p: SGD(p["momentum"], nesterov=p["nesterovs_momentum"]),
}


def boolean(name: str, value: Any) -> bool:
    """Return True or False, also of NumPy's kind."""
    if not is_boolean(value) or is_array(value):
        raise TypeError(f"expected {name} as True or False, got {shown(value)}")
    return bool(value)


def integer(name: str, value: Any, low: int = 1) -> int:
    """Return an integer of at least ``low``, also of NumPy's kind."""
    return per_model.integer("", name, value, low)


def real(name: str, value: Any, below: float = math.inf) -> float:
    """Return a number from 0 to below ``below``, also of NumPy's kind."""
    if is_array(value) and not isinstance(value, Mapping):
        raise TypeError(f"expected {name} as one number, got {shown(value)}; GridSearch tries several values of {name}")
    try:
        if is_boolean(value) or isinstance(value, str | bytes):
            raise TypeError
        found = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"expected {name} as a number, got {shown(value)}") from None
    if not 0.0 <= found < below:
        upper = "finite" if below == math.inf else f"below {below:g}"
        raise ValueError(f"expected {name} of at least 0 and {upper}, got {shown(value)}")
    return found


def _one_model(name: str, value: Any) -> Any:
    """Return a rule back whose own numbers are one each."""
    several = dict(lengths(value))
    if several:
        raise TypeError(f"{name}: expected one number for {', '.join(several)}, got {shown(value)}; GridSearch tries "
                        f"several values of {name}")
    return value


def _widths(name: str, value: Any) -> tuple[int, ...]:
    if (isinstance(value, Sequence) and not isinstance(value, str | bytes)) or getattr(value, "ndim", 0) == 1:
        return tuple(integer(name, width) for width in value)
    try:
        return (integer(name, value),)
    except TypeError:
        found = shown(value)
        raise TypeError(f"{name}: expected an integer or a sequence of integers, like (100,), got {found}") from None


def _initializer(name: str, value: Any) -> Any:
    if value is None:
        return Xavier()
    if isinstance(value, type) or not hasattr(value, "std"):
        raise TypeError(f"{name}: expected an initializer, like xpnet.He(), got {shown(value)}")
    return _one_model(name, value)


def _solver(name: str, value: Any) -> Any:
    if isinstance(value, str) and value not in SOLVERS:
        raise ValueError(f"{name}: expected {', '.join(map(repr, SOLVERS))} or an optimizer, got {shown(value)}")
    if not isinstance(value, str) and (isinstance(value, type) or not hasattr(value, "update")):
        raise TypeError(f"{name}: expected {', '.join(map(repr, SOLVERS))} or an optimizer, like xpnet.SGD(), got "
                        f"{shown(value)}")
    return _one_model(name, value)


def _schedule(name: str, value: Any) -> Any:
    if value is None:
        return None
    if not callable(value):
        return real(name, value)
    if isinstance(value, type):
        raise TypeError(f"{name}: expected a schedule, like xpnet.CyclicLR(), got {shown(value)}")
    real(f"{name}(0)", _one_model(name, value)(0))
    return value


def _batch_size(name: str, value: Any) -> int:
    if isinstance(value, str) and value == "auto":
        return 200
    if isinstance(value, str):
        raise ValueError(f"{name}: expected 'auto' or an integer of at least 1, got {shown(value)}")
    return integer(name, value)


def _random_state(name: str, value: Any) -> Any:
    if value is None or (not isinstance(value, type) and (hasattr(value, "integers") or hasattr(value, "randint"))):
        return value
    if not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an integer, None, or a generator such as numpy.random.default_rng(0), got "
                        f"{shown(value)}")
    return integer(name, value, 0)


def _fraction(name: str, value: Any) -> float:
    found = 0.0 if isinstance(value, float) and value != value else real(name, value)
    if not 0.0 < found < 1.0:
        raise ValueError(f"{name}: expected a share above 0 and below 1, got {shown(value)}; early_stopping=False "
                         "holds nothing out")
    return found


def _device(name: str, value: Any) -> str | None:
    if not (value is None or isinstance(value, str)):
        raise TypeError(f"{name}: expected None or a name, like 'cpu', got {shown(value)}")
    return value if value is None else Device(value).name


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "hidden_layer_sizes": _widths, "batch_norm": boolean, "dropout": lambda name, value: real(name, value, 1.0),
    "standardize": boolean, "initializer": _initializer, "solver": _solver, "learning_rate_init": real,
    "momentum": lambda name, value: real(name, value, 1.0), "nesterovs_momentum": boolean, "schedule": _schedule,
    "l2": real, "batch_size": _batch_size, "max_iter": integer, "early_stopping": boolean,
    "validation_fraction": _fraction, "n_iter_no_change": integer, "tol": real, "random_state": _random_state,
    "order_seed": lambda name, value: integer(name, value, 0), "warm_start": boolean,
    "verbose": lambda name, value: boolean(name, bool(value) if isinstance(value, int) else value), "device": _device,
}


def checked(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return an estimator's parameters as training takes them: Python's numbers, and defaults filled in.

    Raises
    ------
    TypeError, ValueError
        If one is of another kind or out of its range; the message names it.
    """
    return {name: CHECKS[name](name, value) if name in CHECKS else value for name, value in params.items()}


def seed_of(random_state: Any) -> int:
    """Return a seed for a ``random_state`` as scikit-learn takes it."""
    if random_state is None:
        return secrets.randbits(32)
    for draw in ("integers", "randint"):  # of a Generator, of a RandomState
        if hasattr(random_state, draw):
            return int(getattr(random_state, draw)(2**31 - 1))
    return operator.index(random_state)
