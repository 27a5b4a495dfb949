"""What an estimator keeps: of a fit that fails, and when it continues with other parameters or data."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from estimating import ENTRANCES, SHORT, all_entrances, all_that_continue, both_kinds, flat, partial_fit
from helpers import assert_same, blobs

from xpnet import SGD, Adam, AdamW, CyclicLR, DivergenceError
from xpnet.backend import Device
from xpnet.estimators import GridSearch, MLPRegressor
from xpnet.estimators.conventions import NotFittedError, of_sklearn

# A fit that fails ---------------------------------------------------------------------------------------------------

NAN = float("nan")
FAILURES: dict[str, Callable[[Any, Any], tuple[Any, Any, dict[str, Any]]]] = {
    "NaN in X": lambda x, y: (x * NAN, y, {}),
    "fewer labels": lambda x, y: (x, y[:-1], {}),
    "complex labels": lambda x, y: (x, y * 1j, {}),
    "divergence": lambda x, y: (x, y, {"solver": SGD(), "learning_rate_init": 1e30}),
    "a parameter": lambda x, y: (x, y, {"l2": -1.0}),
    "a solver that raises": lambda x, y: (x, y, {"solver": Broken()}),
}


class Broken(SGD):
    """An optimiser that raises at every fourth update."""

    def update(self, w: Any, g: Any, slots: Any, lr: Any, step: int) -> None:
        """Raise, or make an update."""
        if step % 4 == 2:
            raise RuntimeError("the optimiser failed")
        super().update(w, g, slots, lr, step)


@both_kinds
@all_entrances
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("fitted", [False, True], ids=["first", "later"])
def test_a_fit_that_fails_changes_nothing(make: Any, params: Any, train: Any, failure: str, fitted: bool) -> None:
    x, y = blobs(Device(), 60)
    model = make(**params)
    if fitted:
        train(model, x, y)
    bad_x, bad_y, wrong = FAILURES[failure](x, y)
    model.set_params(**wrong)
    before = flat(model)
    with pytest.raises((ValueError, RuntimeError)):
        train(model, bad_x, bad_y)
    assert flat(model) == before
    if not fitted:
        assert not [name for name in vars(model) if name.endswith("_")]
        with pytest.raises(of_sklearn(NotFittedError)):
            model.predict(x)
    # What failed does not matter to what follows.
    model.set_params(**{name: make().get_params()[name] for name in wrong})
    train(model, x, y)
    expected = train(make(**params), x, y)
    assert flat(model) == flat(train(expected, x, y) if fitted else expected)


@both_kinds
@pytest.mark.parametrize("fitted", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("failure", ["NaN in X", "fewer labels", "divergence", "a parameter", "scoring"])
def test_a_search_that_fails_changes_nothing(make: Any, failure: str, fitted: bool) -> None:
    def no_score(model: Any, x: Any, y: Any) -> float:
        raise RuntimeError("no score")

    x, y = blobs(Device(), 60)
    search = GridSearch(make(), {"l2": [0.0, 0.1]}, cv=2)
    if fitted:
        search.fit(x, y)
    wrong = {"divergence": {"param_grid": {"learning_rate_init": [1e30], "solver": ["sgd"]}},
             "a parameter": {"param_grid": {"l2": [-1.0]}}, "scoring": {"scoring": no_score}}
    search.set_params(**wrong.get(failure, {}))
    before = vars(search).copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((ValueError, RuntimeError)):
            search.fit(x * NAN if failure == "NaN in X" else x, y[:-1] if failure == "fewer labels" else y)
    assert vars(search) == before
    assert hasattr(search, "best_estimator_") == hasattr(search, "cv_results_") == fitted


@both_kinds
def test_a_search_keeps_nothing_of_the_search_before(make: Any) -> None:
    x, y = blobs(Device(), 60)
    search = GridSearch(make(), {"l2": [0.0, 0.1]}, cv=2).fit(x, y)
    names = {name for name in vars(search) if name.endswith("_")}
    search.set_params(refit=False).fit(x, y)
    assert names - {name for name in vars(search) if name.endswith("_")} == {"best_estimator_", "refit_time_"}


@both_kinds
@all_entrances
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
def test_divergence_is_a_value_error_that_names_own_parameters(make: Any, params: Any, train: Any) -> None:
    x, y = blobs(Device(), 60)
    for wrong, name in (({"learning_rate_init": 1e30}, "learning_rate_init"),
                        ({"schedule": CyclicLR(1e30, 1e31, 3)}, "the rates of schedule")):
        model = make(**params, solver="sgd", **wrong)
        words = rf"at update \d+ \(learning rate \de\+3\d\): lower {name}; the MLP\w+ is as it was before"
        with pytest.raises(DivergenceError, match=words) as caught:
            train(model, x, y)
        assert isinstance(caught.value, ValueError)
        assert "divergence=" not in str(caught.value)


@both_kinds
def test_divergence_in_the_last_update_is_noticed(make: Any) -> None:
    x, y = blobs(Device(), 60)
    with pytest.raises(DivergenceError, match="the parameters of the network were not finite at update 1 "):
        make(solver="sgd", batch_size=60, max_iter=1, l2=1e300, learning_rate_init=1e30).fit(x.astype("float64"), y)


# A fit that continues -----------------------------------------------------------------------------------------------

@both_kinds
@all_that_continue
@pytest.mark.parametrize(("first", "then", "words"), [
    ({}, {"hidden_layer_sizes": (64, 64)}, r"hidden_layer_sizes=\(8,\), got hidden_layer_sizes=\(64, 64\); set"),
    ({}, {"hidden_layer_sizes": 9}, r"expected hidden_layer_sizes=\(8,\), got hidden_layer_sizes=\(9,\); set"),
    ({}, {"batch_norm": True}, "expected batch_norm=False, got batch_norm=True"),
    ({"batch_norm": True}, {"batch_norm": False}, "expected batch_norm=True, got batch_norm=False"),
    ({}, {"standardize": False}, "expected standardize=True, got standardize=False"),
    ({"standardize": False}, {"standardize": True}, "expected standardize=False, got standardize=True"),
    ({}, {"hidden_layer_sizes": (), "batch_norm": True}, r"expected hidden_layer_sizes=\(8,\)"),
    ({"solver": "sgd"}, {"solver": "adam"}, "solver: expected one that .* got 'adam', which needs its m and v"),
    ({"solver": "adam"}, {"solver": "sgd"}, "got 'sgd', which needs its velocity"),
    ({"solver": SGD()}, {"solver": Adam()}, r"got Adam\(.*which needs its m and v: keep the solver"),
])
def test_what_the_networks_arrays_depend_on_cannot_change(
    make: Any, params: Any, train: Any, first: dict[str, Any], then: dict[str, Any], words: str
) -> None:
    x, y = blobs(Device(), 60)
    model = train(make(**params, **first), x, y)
    model.set_params(**then)
    before = flat(model)
    with pytest.raises(ValueError, match=words):
        train(model, x, y)
    assert flat(model) == before
    model.set_params(warm_start=False).fit(x, y)  # the remedy
    new = make(**{**params, **first, **then, "warm_start": False}).fit(x, y)
    assert_same(model.network_.arrays, new.network_.arrays)


@both_kinds
@pytest.mark.parametrize("then", [
    {"hidden_layer_sizes": [8]}, {"hidden_layer_sizes": 8}, {"dropout": 0.5}, {"l2": 1.0}, {"learning_rate_init": 0.2},
    {"schedule": CyclicLR(0.1, 0.2, 3)}, {"batch_size": 7}, {"solver": AdamW(weight_decay=0.5)}, {"order_seed": 5},
], ids=str)
@pytest.mark.parametrize("call", ["warm start", "partial_fit"])  # with early stopping, the best network may be the old
def test_what_they_do_not_depend_on_takes_effect(make: Any, call: str, then: dict[str, Any]) -> None:
    params, train = ENTRANCES[call]
    x, y = blobs(Device(), 60, dtype="float64")
    model, plain = (train(make(**params), x, y) for _ in range(2))
    train(model.set_params(**then), x, y)
    train(plain, x, y)
    same = "hidden_layer_sizes" in then
    assert np.array_equal(model.network_.arrays["W1"], plain.network_.arrays["W1"]) == same
    assert ("Dropout(rate=0.5)" in map(repr, model.network_.architecture.layers)) == ("dropout" in then)
    assert model.n_iter_ == plain.n_iter_ == 2 * (1 if train is partial_fit else 4)


@both_kinds
@pytest.mark.parametrize("seed", range(4))
def test_a_warm_start_keeps_the_best_network(device: Device, make: Any, seed: int) -> None:
    x, y = blobs(device, 120, spread=6.0)
    model = make(early_stopping=True, warm_start=True, learning_rate_init=0.1, random_state=seed, max_iter=8).fit(x, y)
    scores = list(model.validation_scores_)
    for _ in range(5):
        before, best = model.network_, model.best_validation_score_
        model.set_params(max_iter=1).fit(x, y)
        scores.append(model.validation_scores_[-1])
        assert model.validation_scores_ == scores
        assert model.best_validation_score_ == max(scores)
        if scores[-1] <= best:
            assert_same(model.network_.arrays, before.arrays)
        assert len(model.loss_curve_) == model.n_iter_ == len(scores)


@both_kinds
def test_the_state_that_a_warm_start_continues_from_is_that_of_one_update(make: Any) -> None:
    x, y = blobs(Device(), 120, spread=6.0, dtype="float64")
    model = make(early_stopping=True, warm_start=True, learning_rate_init=0.1, max_iter=12, batch_norm=True).fit(x, y)
    best = model.validation_scores_.index(model.best_validation_score_) + 1
    assert best < 12  # the best network is not the last
    same = make(early_stopping=True, learning_rate_init=0.1, max_iter=best, batch_norm=True).fit(x, y)
    assert_same([model.network_.arrays, model._slots, model._step], [same.network_.arrays, same._slots, same._step])


def test_the_shape_of_predictions_follows_the_last_y() -> None:
    x, y = blobs(Device(), 60)
    model = MLPRegressor(**SHORT).partial_fit(x, y)
    assert model.predict(x).shape == (60,)
    assert model.partial_fit(x, y[:, None]).predict(x).shape == (60, 1)


# Few samples --------------------------------------------------------------------------------------------------------


@both_kinds
@all_that_continue
@pytest.mark.parametrize("n", [1, 2, 9])
def test_a_scaling_of_few_samples_is_not_continued_with(make: Any, params: Any, train: Any, n: int) -> None:
    x, y = blobs(Device(), 60)
    few, y = slice(0, n), y * 0
    words = f"expected at least 10 samples in it .* got {n}; begin with more, or set standardize=False"
    params = {name: value for name, value in params.items() if name != "early_stopping"}
    with pytest.raises(ValueError, match=words):
        train(make(**params), x[few], y[few])
    model = make(**params, standardize=False)  # the remedies
    train(train(model, x[few], y[few]), x, y)
    train(train(make(**params), x[:10], y[:10]), x[few], y[few])
    # A fit by itself takes any number of samples, but nothing continues with its scaling.
    alone = make().fit(x[few], y[few])
    alone.predict(x)
    with pytest.raises(ValueError, match=words):
        train(alone.set_params(**params), x, y)


def test_samples_that_are_held_out_do_not_count() -> None:
    x, y = blobs(Device(), 12)
    model = MLPRegressor(**SHORT, early_stopping=True, validation_fraction=0.3, warm_start=True)
    with pytest.raises(ValueError, match=r"expected at least 10 samples in it .* got 9"):
        model.fit(x, y)
