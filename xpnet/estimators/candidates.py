"""The candidates of a grid search: which there are, which train side by side, on which folds, how they are scored."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..backend import Array, Device, namespace, ops_of, to_numpy
from ..nn.examples import blocks
from ..nn.per_model import shown, signature, stack
from .conventions import warn
from .parameters import seed_of

__all__ = ["clone", "folds", "groups", "points", "score", "scorer", "selected",
           "side_by_side"]

NUMBERS = ("l2", "dropout", "learning_rate_init", "momentum", "random_state")  # parameters that may differ side by side
RULES = ("solver", "schedule", "initializer")  # those whose own numbers may
MOST = 32  # models side by side
ROOM = 2**20  # bytes that one layer's outputs of all models take on a CPU: more fall out of its cache


def clone(estimator: Any, params: Mapping[str, Any] | None = None) -> Any:
    """Return an unfitted estimator with copies of the parameters, and other ones in place of some."""
    made = type(estimator)(**copy.deepcopy(estimator.get_params(deep=False)))
    return made.set_params(**copy.deepcopy(dict(params or {})))


def points(param_grid: Any) -> Iterator[dict[str, Any]]:
    """Return every combination of a grid's values, the last name's varying fastest, the names in alphabetical order."""
    grids = [param_grid] if isinstance(param_grid, Mapping) else param_grid
    if not isinstance(grids, Sequence) or not grids or not all(isinstance(one, Mapping) for one in grids):
        raise TypeError(f"param_grid: expected a dict of the values of each parameter, like {{'l2': [0.0, 0.1]}}, or "
                        f"several such dicts, got {shown(param_grid)}")
    for one in grids:
        for name, values in one.items():
            if isinstance(values, str) or not hasattr(values, "__len__") or not len(values):
                raise ValueError(f"param_grid: expected some values of {name}, like [0.0, 0.1], got {shown(values)}")
        names = sorted(one)
        for values in itertools.product(*[one[name] for name in names]):
            yield dict(zip(names, values, strict=True))


def groups(estimator: Any, candidates: Sequence[Mapping[str, Any]], x: Array) -> list[list[int]]:
    """Return the indices of candidates that can train side by side on features x, as many as are fast together."""
    found: dict[str, list[int]] = {}
    most: dict[str, int] = {}
    for i, point in enumerate(candidates):
        params = clone(estimator, point)._checked()
        fixed = {name: value for name, value in params.items() if name not in NUMBERS}
        # Copies of a function have its name and not its place in memory: the values of the grid tell them apart.
        rules = {name: point.get(name, fixed[name]) for name in RULES}
        fixed |= {name: signature(v) if dataclasses.is_dataclass(v) else v for name, v in rules.items()}
        key = repr(sorted(fixed.items()))
        found.setdefault(key, []).append(i)
        if key not in most:
            trainer = clone(estimator, point)._trainer(params, x, 1)
            rows, widths = min(trainer.batch_size, x.shape[0]), trainer.architecture.widths[1:] or [1]
            size = rows * max(widths) * (4 if trainer.dtype == "float32" else 8)
            most[key] = max(1, min(MOST, ROOM // size)) if Device.of(x).is_host else MOST
    return [group[k : k + most[key]] for key, group in found.items() for k in range(0, len(group), most[key])]


def side_by_side(params: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the parameters that may differ as one set of parameters, with lists over the models."""
    first = params[0]
    seeds = [seed_of(copy.deepcopy(p["random_state"])) for p in params]
    if len(params) == 1:
        return {"random_state": seeds[0]}
    swept: dict[str, Any] = {name: [p[name] for p in params] for name in NUMBERS} | {"random_state": seeds}
    alike = {name: values[0] for name, values in swept.items() if name != "l2" and len(set(values)) == 1}
    rules = {name: stack([p[name] for p in params]) for name in RULES if dataclasses.is_dataclass(first[name])}
    return {**swept, **alike, **rules}


def folds(n: int, k: int, strata: Sequence[Any] | None) -> list[int]:
    """Return the number of each example's fold, 0 to k - 1: each stratum is dealt to the folds in turn.

    Without strata, folds are runs of the examples in their order; with them, so are each stratum's.
    """
    if k < 2 or n < k:
        raise ValueError(f"cv: expected 2 to {n} folds of {n} sample(s), got {k}")
    strata = [0] * n if strata is None else strata
    counts = Counter(strata)  # in the order in which they first appear
    if k > max(counts.values()):
        raise ValueError(f"cv: expected at most {max(counts.values())} folds, the size of the largest class, got {k}")
    if k > min(counts.values()):
        warn(f"the smallest class has {min(counts.values())} samples, fewer than the {k} folds", UserWarning)
    dealt, begin = {}, 0
    for stratum, count in counts.items():
        dealt[stratum] = iter(sorted((begin + i) % k for i in range(count)))
        begin += count
    return [next(dealt[stratum]) for stratum in strata]


def selected(rows: Any, n: int) -> Any:
    """Return the indices, at least 0 and in host memory, of rows that are given by indices or by a mask."""
    rows = to_numpy(rows)
    rows = rows.nonzero()[0] if rows.dtype == bool else rows
    if not rows.size:
        raise ValueError("cv: expected at least 1 sample on each side of a split, got none")
    if not -n <= rows.min() <= rows.max() < n:
        raise IndexError(f"cv: expected indices of {n} sample(s), got {rows.min()} to {rows.max()}; split the data "
                         "that fit is given")
    return rows % n


def scorer(scoring: Any) -> Callable[[Any, Any, Any], Any]:
    """Return the function from an estimator, X and y to a score."""
    if scoring is None:
        return _own_score
    if callable(scoring):
        chosen: Callable[[Any, Any, Any], Any] = scoring
        return chosen
    if not isinstance(scoring, str):
        raise TypeError(f"scoring: expected a name or a function, got {shown(scoring)}; several scores at once are not "
                        "taken")
    try:
        from sklearn.metrics import get_scorer  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise ModuleNotFoundError(
            f"scoring={scoring!r} is a name of scikit-learn's ({error}): pip install scikit-learn, or give a function "
            "of an estimator, X and y", name="sklearn",
        ) from error
    named: Callable[[Any, Any, Any], Any] = get_scorer(scoring)
    return named


def _own_score(estimator: Any, X: Any, y: Any) -> Any:
    """Return an estimator's own score."""
    return estimator.score(X, y)


def score(scorer: Callable[[Any, Any, Any], Any], estimator: Any, x: Array, y: Array, only: Array) -> float:
    """Return a score of the rows ``only`` of x, whose labels are y.

    An estimator's own score has them gathered block by block; any other function is given all of them as an array.
    """
    if scorer is not _own_score:
        return float(scorer(estimator, ops_of(x).take(x, only), y))
    home = Device.of(x)
    parts = [estimator.predict(ops_of(x).take(x, only[rows])) for rows in blocks(only.shape[0])]
    with home.activate():
        return float(estimator._score(namespace(parts[0]).concat(parts), y))
