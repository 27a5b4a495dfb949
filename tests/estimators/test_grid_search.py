"""Grid search: folds and candidates, models side by side beside each alone, what diverges, and what is refused."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers import assert_close, assert_same, blobs, draw

from xpnet import SGD, Adam, CyclicLR, DivergenceError, Normal, Step
from xpnet.backend import Device, to_numpy
from xpnet.estimators import GridSearch, MLPClassifier, MLPRegressor
from xpnet.estimators.candidates import MOST, clone, folds, groups, points, side_by_side
from xpnet.estimators.conventions import NotFittedError, of_sklearn
from xpnet.estimators.grid_search import FitFailedWarning

SMALL = {"hidden_layer_sizes": (6,), "max_iter": 8, "n_iter_no_change": 8, "learning_rate_init": 0.02,
         "random_state": 0, "batch_size": 20}


def alone(search: GridSearch, x: Any, y: Any) -> np.ndarray:
    """Return the scores (candidates, folds) of each candidate fitted alone, as a plain grid search has them."""
    host, strata = to_numpy(x), to_numpy(y).tolist() if isinstance(search.estimator, MLPClassifier) else None
    numbers = np.asarray(folds(len(host), search.cv, strata))
    device, rows = Device.of(x), []
    for point in points(search.param_grid):
        row = []
        for k in range(search.cv):
            parts = [(device.asarray(host[side]), device.asarray(to_numpy(y)[side]))
                     for side in (numbers != k, numbers == k)]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                row.append(clone(search.estimator, point).fit(*parts[0]).score(*parts[1]))
        rows.append(row)
    return np.asarray(rows)


def table(search: GridSearch) -> np.ndarray:
    """Return the scores (candidates, folds) that a search found."""
    return np.stack([search.cv_results_[f"split{k}_test_score"] for k in range(search.n_splits_)], axis=1)


GRIDS: dict[str, tuple[dict[str, Any], Any]] = {
    "numbers": ({"solver": "sgd"}, {"l2": [0.0, 0.1], "learning_rate_init": [0.01, 0.1], "momentum": [0.0, 0.9]}),
    "seeds and dropout": ({"batch_norm": True}, {"dropout": [0.0, 0.3], "random_state": [0, 1, 5]}),
    "early stopping": ({"early_stopping": True, "n_iter_no_change": 2, "max_iter": 40}, {"learning_rate_init": [
        1e-3, 1e-2, 0.1], "l2": [0.0, 0.3]}),
    "stopping": ({"tol": 0.02, "n_iter_no_change": 2, "max_iter": 40}, {"learning_rate_init": [1e-3, 1e-2, 0.1, 0.3]}),
    "rules": ({}, [{"solver": [Adam(), Adam(0.5), SGD(0.9), SGD(0.1)], "initializer": [Normal(0.1)]},
                   {"schedule": [CyclicLR(1e-3, 0.1, 5), CyclicLR(1e-3, 0.02, 5)], "initializer": [Normal(1.0)]}]),
    "architectures": ({}, [{"hidden_layer_sizes": [(4,), (5, 3)], "l2": [0.0, 0.1]}, {"batch_norm": [True]}]),
}


@pytest.mark.parametrize("case", GRIDS)
def test_side_by_side_is_as_alone(device: Device, case: str) -> None:
    params, grid = GRIDS[case]
    x, y = blobs(device, 60, dtype="float64", spread=3.0)
    search = GridSearch(MLPClassifier(**{**SMALL, **params}), grid, cv=2).fit(x, y)
    expected = alone(search, x, y)
    assert len(set(expected.mean(axis=1))) > 1
    assert_same(table(search), expected)
    assert search.best_index_ == expected.mean(axis=1).argmax()
    assert search.score(x, y) == clone(search.estimator, search.best_params_).fit(x, y).score(x, y)


def test_regressors_are_searched_too(device: Device) -> None:
    x = draw(device, "x", (60, 3))
    y = x[:, 0] - 2.0 * x[:, 1]
    search = GridSearch(MLPRegressor(**SMALL), {"l2": [0.0, 0.1, 1.0], "learning_rate_init": [0.01, 0.1]}, cv=3)
    assert_close(table(search.fit(x, y)), alone(search, x, y), 1e-9)
    assert search.best_score_ == pytest.approx(table(search).mean(axis=1).max())
    with pytest.raises(AttributeError):
        search.predict_proba(x)


def test_results_have_the_names_and_order_of_a_grid_search() -> None:
    x, y = blobs(Device(), 60)
    grid = {"momentum": [0.9, 0.5], "l2": [0.0, 0.1, 0.2]}
    search = GridSearch(MLPClassifier(**SMALL, solver="sgd"), grid, cv=4, return_train_score=True).fit(x, y)
    found = search.cv_results_
    assert found["params"] == [{"l2": a, "momentum": b} for a, b in itertools.product([0.0, 0.1, 0.2], [0.9, 0.5])]
    parts = ["mean", "std", *(f"split{k}" for k in range(4))]
    kinds = [f"{part}_{what}_score" for what in ("test", "train") for part in parts]
    times = [f"{part}_{what}_time" for what in ("fit", "score") for part in ("mean", "std")]
    assert set(found) == {"params", "param_l2", "param_momentum", "rank_test_score", *kinds, *times}
    assert found["param_momentum"].tolist() == [0.9, 0.5] * 3
    means = table(search).mean(axis=1)
    assert_close(found["mean_test_score"], means, 1e-15)
    assert_close(found["std_test_score"], table(search).std(axis=1), 1e-15)
    assert found["rank_test_score"].tolist() == [1 + int((means > m).sum()) for m in means]
    assert found["rank_test_score"].dtype == np.int32
    assert search.best_score_ == means.max()
    assert search.best_params_ == found["params"][search.best_index_]
    assert all(v > 0 for v in found["mean_fit_time"])
    assert search.refit_time_ > 0


def test_parameters_that_a_grid_leaves_alone_are_none() -> None:
    x, y = blobs(Device(), 30)
    grid = [{"hidden_layer_sizes": [(4,), (3, 3)]}, {"l2": [0.5]}]
    search = GridSearch(MLPClassifier(**SMALL), grid, cv=2, refit=False).fit(x, y)
    assert search.cv_results_["param_hidden_layer_sizes"].tolist() == [(4,), (3, 3), None]
    assert search.cv_results_["param_l2"].tolist() == [None, None, 0.5]
    assert not hasattr(search, "best_estimator_")
    assert search.best_params_ in ({"hidden_layer_sizes": (4,)}, {"hidden_layer_sizes": (3, 3)}, {"l2": 0.5})


def test_numbers_train_in_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from xpnet.estimators import grid_search as module

    runs: list[tuple[int, ...]] = []
    train = module.train

    def counted(trainer: Any, *args: Any, **options: Any) -> Any:
        runs.append(trainer.models)
        return train(trainer, *args, **options)

    monkeypatch.setattr(module, "train", counted)
    x, y = blobs(Device(), 40)
    grid = {"l2": [0.0, 0.1], "dropout": [0.0, 0.2], "learning_rate_init": [0.01, 0.1], "random_state": [0, 1]}
    GridSearch(MLPClassifier(**SMALL), grid, cv=2).fit(x, y)
    assert runs == [(16,), (16,)]
    runs.clear()
    GridSearch(MLPClassifier(**SMALL), {"l2": [0.1 * i for i in range(MOST + 3)]}, cv=2).fit(x, y)
    assert runs == [(MOST,), (3,)] * 2


def test_models_that_have_stopped_are_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from xpnet.estimators import epochs as module

    left: list[int] = []
    part = module._part

    def counted(trainer: Any, places: list[int]) -> Any:
        left.append(len(places))
        return part(trainer, places)

    monkeypatch.setattr(module, "_part", counted)
    x, y = blobs(Device(), 60)
    rates = [0.0, 0.0, 0.0, 1e-9, 0.1, 0.1, 0.1, 0.03]  # the first four get no better, and stop after four epochs
    model = MLPClassifier(**{**SMALL, "max_iter": 30, "n_iter_no_change": 3, "tol": 1e-5})
    GridSearch(model, {"learning_rate_init": rates}, cv=2, refit=False).fit(x, y)
    assert left[0] == 4
    assert all(a > b for a, b in itertools.pairwise(left[: left.index(4, 1)] if 4 in left[1:] else left))


def test_groups_are_of_those_that_differ_in_numbers(device: Device) -> None:
    x = draw(device, "x", (50, 3))

    def rate(step: int) -> float:
        return 0.1

    def other(step: int) -> float:
        return 0.2

    other.__qualname__ = rate.__qualname__
    candidates = list(points({"l2": [0.0, 1.0], "schedule": [None, CyclicLR(0.1, 0.2, 3), CyclicLR(0.1, 0.3, 3),
                                                           CyclicLR(0.1, 0.2, 4), rate, other]}))
    found = groups(MLPClassifier(), candidates, x)
    assert sorted(itertools.chain(*found)) == list(range(12))
    assert sorted(len(group) for group in found) == [2, 2, 2, 2, 4]
    wide = groups(MLPClassifier((4000,)), [{"l2": float(i)} for i in range(6)], draw(device, "x", (400, 3)))
    assert len(wide) == (6 if device.is_host else 1)


def test_swept_numbers_are_lists_where_they_differ() -> None:
    one = MLPClassifier(random_state=3).get_params()
    assert side_by_side([one]) == {"random_state": 3}
    swept = side_by_side([one, {**one, "dropout": 0.5, "solver": "adam"}])
    assert swept["l2"] == [0.0, 0.0]
    assert swept["dropout"] == [0.0, 0.5]
    assert swept["random_state"] == 3
    assert swept["momentum"] == 0.9
    state, drawn = np.random.RandomState(1), np.random.RandomState(1).randint(2**31 - 1)
    assert side_by_side([{**one, "random_state": state}] * 2)["random_state"] == drawn


# Divergence -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rates", [[0.01, 1e12, 0.05], [1e12, 0.01]], ids=str)
def test_what_diverges_has_no_score_and_comes_last(device: Device, rates: list[float]) -> None:
    x = draw(device, "x", (60, 3), "float32")
    y = x[:, 0] - 2.0 * x[:, 1]
    search = GridSearch(MLPRegressor(**SMALL, solver="sgd"), {"learning_rate_init": rates}, cv=2)
    with pytest.warns(of_sklearn(FitFailedWarning), match=r"_init': 1000000000000.0\} has no score on a fold: the"):
        search.fit(x, y)
    bad = rates.index(1e12)
    found = search.cv_results_
    assert [math.isnan(v) for v in found["mean_test_score"]] == [i == bad for i in range(len(rates))]
    assert found["rank_test_score"][bad] == len(rates)
    kept = [r for r in rates if r != 1e12]
    good = GridSearch(MLPRegressor(**SMALL, solver="sgd"), {"learning_rate_init": kept}, cv=2).fit(x, y)
    assert_close(np.delete(table(search), bad, axis=0), table(good), 1e-6)
    assert search.best_params_ == good.best_params_


def test_what_diverges_after_its_best_epoch_has_no_score_either() -> None:
    x = draw(Device(), "x", (60, 3))
    model = MLPRegressor(**{**SMALL, "solver": "sgd", "early_stopping": True, "validation_fraction": 0.2})
    search = GridSearch(model, {"schedule": [Step(0.01, 6, 1.0), Step(0.01, 6, 1e20)]}, cv=2)
    with pytest.warns(of_sklearn(FitFailedWarning), match="at update 9 "):
        search.fit(x, x[:, 0])
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False, True]
    with pytest.raises(DivergenceError):
        clone(model, {"schedule": Step(0.01, 6, 1e20)}).fit(x, x[:, 0])


def test_an_error_score_of_raise_raises() -> None:
    x, y = blobs(Device(), 40)
    params = {"learning_rate_init": [0.01, 1e12]}
    search = GridSearch(MLPRegressor(**SMALL, solver="sgd"), params, cv=2, error_score="raise")
    with pytest.raises(DivergenceError, match=r"'learning_rate_init': 1000000000000\.0"):
        search.fit(x, y)
    search.set_params(error_score=-5.0)
    with pytest.warns(of_sklearn(FitFailedWarning)):
        assert search.fit(x, y).cv_results_["mean_test_score"][1] == -5.0
    search.set_params(error_score=math.nan, param_grid={"learning_rate_init": [1e12]})
    with (pytest.warns(of_sklearn(FitFailedWarning)),
          pytest.raises(ValueError, match="no candidate has a score on every fold")):
        search.fit(x, y)


# Folds and scores -----------------------------------------------------------------------------------------------


def test_folds_are_runs_or_each_stratum_s_runs() -> None:
    assert folds(7, 3, None) == [0, 0, 0, 1, 1, 2, 2]
    numbers = folds(10, 2, ["b"] * 3 + ["a"] * 3 + ["b"] * 4)
    assert numbers == [0, 0, 0, 0, 1, 1, 0, 1, 1, 1]
    for k, words in ((1, "expected 2 to 5 folds"), (6, "expected 2 to 5 folds"), (4, "at most 3 folds, the size")):
        with pytest.raises(ValueError, match=words):
            folds(5, k, [0, 0, 0, 1, 1])
    with pytest.warns(UserWarning, match="the smallest class has 2 samples, fewer than the 3 folds"):
        assert sorted(folds(5, 3, [0, 0, 0, 1, 1])) == [0, 0, 1, 1, 2]


class Halves:
    """A splitter: the first half and the second, once as indices and once as masks."""

    def split(self, x: Any, y: Any) -> Iterator[tuple[Any, Any]]:
        """Return two splits."""
        first = np.arange(len(y)) % 2 == 0
        yield first.nonzero()[0], (~first).nonzero()[0]
        yield ~first, first


def test_splitters_and_pairs_of_indices_are_taken() -> None:
    x, y = blobs(Device(), 40, spread=3.0)
    grid = {"l2": [0.0, 0.5]}
    one = GridSearch(MLPClassifier(**SMALL), grid, cv=Halves()).fit(x, y)
    pairs = [(list(range(0, 40, 2)), list(range(1, 40, 2))), (list(range(1, 40, 2)), list(range(0, 40, 2)))]
    two = GridSearch(MLPClassifier(**SMALL), grid, cv=iter(pairs)).fit(x, y)
    assert one.n_splits_ == two.n_splits_ == 2
    assert_same(table(one), table(two))


def test_scoring_is_a_function_of_estimator_and_data(device: Device) -> None:
    x, y = blobs(device, 40)
    seen: list[Any] = []

    def score(model: Any, features: Any, labels: Any) -> float:
        seen.append((Device.of(features), Device.of(labels)))
        return -float(model.l2)

    search = GridSearch(MLPClassifier(**SMALL), {"l2": [0.1, 0.0, 0.2]}, scoring=score, cv=2).fit(x, y)
    assert search.best_params_ == {"l2": 0.0}
    assert set(seen) == {(device, device)}
    assert search.score(x, y) == 0.0
    with pytest.raises(TypeError, match="scoring: expected a name or a function"):
        GridSearch(MLPClassifier(**SMALL), {"l2": [0.1]}, scoring=["accuracy"]).fit(x, y)


def test_refit_may_choose() -> None:
    x, y = blobs(Device(), 40)
    search = GridSearch(MLPClassifier(**SMALL), {"l2": [0.1, 0.2, 0.3]}, cv=2, refit=lambda results: 2).fit(x, y)
    assert (search.best_index_, search.best_estimator_.l2) == (2, 0.3)


# As an estimator ------------------------------------------------------------------------------------------------


def test_a_search_predicts_with_its_best_estimator(device: Device) -> None:
    x, y = blobs(device, 60)
    search = GridSearch(MLPClassifier(**SMALL), {"l2": [0.0, 0.1]}, cv=2)
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        with pytest.raises(of_sklearn(NotFittedError)):
            getattr(search, method)(x)
    assert not hasattr(search, "classes_")
    search.fit(x, y)
    best = search.best_estimator_
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        assert_same(getattr(search, method)(x), getattr(best, method)(x))
    assert search.score(x, y) == best.score(x, y)
    assert (to_numpy(search.classes_).tolist(), search.n_features_in_) == ([0, 1, 2], 6)


def test_text_labels_are_searched() -> None:
    x, y = blobs(Device(), 60)
    names = np.asarray(["c", "a", "b"])[y]
    search = GridSearch(MLPClassifier(**SMALL), {"l2": [0.0, 0.1]}, cv=2).fit(x.tolist(), names.tolist())
    assert search.classes_.tolist() == ["a", "b", "c"]
    assert set(search.predict(x)) <= {"a", "b", "c"}


def test_what_was_given_is_not_changed() -> None:
    x, y = blobs(Device(), 40)
    model, grid = MLPClassifier(**SMALL), {"l2": [0.0, 0.1], "solver": [SGD(0.1), SGD(0.5)]}
    before, params = copy.deepcopy(grid), model.get_params()
    GridSearch(model, grid, cv=2).fit(x, y)
    assert (grid, model.get_params()) == (before, params)
    assert not hasattr(model, "network_")


@pytest.mark.parametrize(("grid", "words"), [
    ({"alpha": [1.0]}, "Invalid parameter 'alpha'"), ({"l2": []}, "expected some values of l2"),
    ({"solver": "adam"}, "expected some values of solver"), ({"l2": 0.1}, "expected some values of l2"),
    ({"l2": [0.1, -1.0]}, "expected l2 of at least 0"),
], ids=str)
def test_wrong_grids_are_refused(grid: Any, words: str) -> None:
    x, y = blobs(Device(), 40)
    with pytest.raises(ValueError, match=words):
        GridSearch(MLPClassifier(**SMALL), grid, cv=2).fit(x, y)


def test_other_estimators_are_refused() -> None:
    with pytest.raises(TypeError, match=r"expected an MLPClassifier or MLPRegressor, got .*Halves.*GridSearchCV"):
        GridSearch(Halves(), {"l2": [0.0]}).fit([[1.0]], [0])
