"""The ways in which an estimator may be trained, for tests that go through all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from xpnet.backend import to_numpy
from xpnet.estimators import MLPClassifier, MLPRegressor

SHORT = {"hidden_layer_sizes": (8,), "max_iter": 4, "n_iter_no_change": 99, "learning_rate_init": 0.02,
         "random_state": 0, "batch_size": 16}
ESTIMATORS = {"classifier": MLPClassifier, "regressor": MLPRegressor}


def small(kind: str, **params: Any) -> Any:
    """Return a small estimator that makes all its passes."""
    return ESTIMATORS[kind](**{**SHORT, **params})


def fit(model: Any, x: Any, y: Any) -> Any:
    """Call fit."""
    return model.fit(x, y)


def partial_fit(model: Any, x: Any, y: Any) -> Any:
    """Call partial_fit, with the classes where they are needed."""
    first = isinstance(model, MLPClassifier) and not hasattr(model, "network_")
    return model.partial_fit(x, y, **({"classes": [0, 1, 2]} if first else {}))


#: How training may be called: the parameters, and the call that takes X and y.
ENTRANCES: dict[str, tuple[dict[str, Any], Callable[[Any, Any, Any], Any]]] = {
    "fit": ({}, fit), "fit, early stopping": ({"early_stopping": True}, fit), "warm start": ({"warm_start": True}, fit),
    "warm start, early stopping": ({"warm_start": True, "early_stopping": True}, fit), "partial_fit": ({}, partial_fit),
}
CONTINUING = {name: entrance for name, entrance in ENTRANCES.items() if not name.startswith("fit")}

both_kinds = pytest.mark.parametrize("make", [functools.partial(small, kind) for kind in ESTIMATORS], ids=ESTIMATORS)
all_entrances = pytest.mark.parametrize(("params", "train"), ENTRANCES.values(), ids=ENTRANCES)
all_that_continue = pytest.mark.parametrize(("params", "train"), CONTINUING.values(), ids=CONTINUING)


def flat(model: Any) -> dict[str, Any]:
    """Return what an estimator is, bit by bit, in values that can be compared."""
    held = model.__getstate__()
    if "_network" in held:
        architecture, arrays = held.pop("_network")
        held |= {"layers": repr(architecture), "arrays": arrays}
    for name in held.keys() & {"arrays", "_slots"}:
        held[name] = {key: to_numpy(a).tobytes() for key, a in held[name].items()}
    return {name: value if isinstance(value, dict) else repr(value) for name, value in held.items()}
