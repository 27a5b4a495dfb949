"""Training until convergence: a network that diverged in its last update is none, wherever it was trained."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

from xpnet.backend import Device
from xpnet.datasets.admission import NotFiniteError
from xpnet.estimators import MLPClassifier, MLPRegressor
from xpnet.estimators.grid_search import GridSearch
from xpnet.training.trainer import DivergenceError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 4))
Y = np.arange(90) % 3
SGD: dict[str, Any] = {"solver": "sgd", "max_iter": 1, "random_state": 0}


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("rate", [1e200, 1e308])
@pytest.mark.parametrize("name", ["classifier", "regressor", "partial_fit"])
def test_a_last_update_that_diverged_is_an_error(device: Device, name: str, rate: float) -> None:
    x = device.asarray(X)
    options = {**SGD, "learning_rate_init": rate}
    train = {"classifier": lambda: MLPClassifier((8,), **options).fit(x, Y),
             "partial_fit": lambda: MLPClassifier((8,), **options).partial_fit(x, Y, classes=[0, 1, 2]),
             "regressor": lambda: MLPRegressor((8,), **options).fit(x, x[:, 0])}[name]
    with pytest.raises(DivergenceError, match=r"of the network w.* at update 1 "):
        train()


def test_parameters_that_are_finite_but_too_large_are_seen() -> None:
    x = X.astype("float32")
    with pytest.raises(DivergenceError, match=r"the loss of the network was inf at update 1 \(learning rate 1e\+18\)"):
        MLPRegressor((8,), **SGD, learning_rate_init=1e18).fit(x, x[:, 0])


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("many", [True, False], ids=["side by side", "one by one"])
def test_a_candidate_that_diverged_in_its_last_update_failed(kind: Any, many: bool) -> None:
    y = Y if kind is MLPClassifier else X[:, 0]
    grid = {"learning_rate_init": [0.01, 1e200], **({} if many else {"batch_size": [90]})}
    found = GridSearch(kind((8,), **SGD), grid, cv=3).fit(X, y)
    assert [math.isnan(score) for score in found.cv_results_["mean_test_score"]] == [False, True]
    assert found.best_params_["learning_rate_init"] == 0.01
    with pytest.raises(DivergenceError, match=r"learning_rate_init.: 1e.200"):
        GridSearch(kind((8,), **SGD), grid, cv=3, error_score="raise").fit(X, y)


def test_a_candidate_whose_predictions_overflow_failed() -> None:
    def far(model: Any, x: Any, y: Any) -> float:
        if model.learning_rate_init == 0.02:
            raise NotFiniteError("the network's outputs are not finite for row(s) 3")
        return float(model.score(x, y))

    model = MLPClassifier((8,), **SGD)
    with pytest.warns(RuntimeWarning, match=r"0.02\} has no score on a fold: the network's outputs"):
        found = GridSearch(model, {"learning_rate_init": [0.01, 0.02]}, cv=3, scoring=far).fit(X, Y)
    assert [math.isnan(score) for score in found.cv_results_["mean_test_score"]] == [False, True]
    with pytest.raises(DivergenceError, match="outputs are not finite"):
        GridSearch(model, {"learning_rate_init": [0.02]}, cv=3, scoring=far, error_score="raise").fit(X, Y)


# Early stopping -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_early_stopping_holds_out_two_or_more(kind: Any) -> None:
    y = np.arange(19) % 2
    with pytest.raises(ValueError, match=r"holds out 2 samples or more, and not all, got 0.1 of 19 sample\(s\)"):
        kind((4,), early_stopping=True).fit(X[:19], y)
    for advised in ({"validation_fraction": 0.2}, {"early_stopping": False}):
        kind((4,), max_iter=2, **{"early_stopping": True, **advised}).fit(X[:19], y)


@pytest.mark.parametrize("search", [False, True], ids=["alone", "grid search"])
def test_early_stopping_needs_targets_that_vary(search: bool) -> None:
    y = np.zeros(60)
    y[5] = 1.0  # an event so rare that none is held out
    model: Any = MLPRegressor((4,), early_stopping=True, max_iter=2)
    model = GridSearch(model, {"l2": [0.0, 0.1]}, cv=2) if search else model
    with pytest.raises(ValueError, match=r"early_stopping: r2 on what is held out is not defined, since the . targets"):
        model.fit(X[:60], y)


def test_candidates_without_a_defined_score_are_not_ranked() -> None:
    model = MLPRegressor((4,), max_iter=2)
    one_by_one = [(np.delete(np.arange(12), i), [i]) for i in range(12)]
    with pytest.raises(ValueError, match=r"no candidate has a score on every fold: .* take fewer folds"):
        GridSearch(model, {"l2": [10.0, 0.0]}, cv=one_by_one).fit(X[:12], X[:12, 0])
    GridSearch(model, {"l2": [10.0, 0.0]}, cv=3).fit(X[:12], X[:12, 0])
