"""Every parameter of the estimators and of the grid search: what is taken, what is refused, and what is kept."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from estimating import SHORT, all_entrances, both_kinds, flat
from helpers import assert_same, blobs

from xpnet import SGD, Adam, Constant, CyclicLR, He, Normal
from xpnet.backend import Device
from xpnet.estimators import GridSearch, MLPClassifier
from xpnet.estimators.candidates import clone
from xpnet.estimators.parameters import CHECKS, checked

NAN, INF = float("nan"), float("inf")
NOT_COUNTS = [0, -1, 2.0, 2.5, "2", None, True, [2], NAN, np.asarray([2]), 1j]
NOT_NUMBERS = [-0.1, NAN, INF, -INF, "0.1", "a", None, False, np.bool_(True), [0.1], [0.1, 0.2], (0.1,), 1j, {},
               np.asarray([0.1]), np.asarray([[0.1]])]
NOT_BOOLEANS = [0, 1, 0.5, "no", "False", None, [True], np.asarray([True])]
NOT_SEEDS = [-1, 0.5, "0", [0, 1], np.asarray([1]), True, object()]

#: Values that each parameter refuses.
WRONG: dict[str, list[Any]] = {
    "hidden_layer_sizes": [0, -1, 2.5, "8", None, True, (8, 0), [8.0], ("8",), [[8]], {8}, {8: 1}, np.asarray([[8]]),
                           np.asarray([8.0])],
    "batch_norm": NOT_BOOLEANS, "standardize": NOT_BOOLEANS, "nesterovs_momentum": NOT_BOOLEANS,
    "early_stopping": NOT_BOOLEANS, "warm_start": NOT_BOOLEANS, "verbose": [0.5, "no", None, [True]],
    "dropout": [*NOT_NUMBERS, 1.0, 1.5], "momentum": [*NOT_NUMBERS, 1.0, 1.5], "l2": NOT_NUMBERS, "tol": NOT_NUMBERS,
    "learning_rate_init": NOT_NUMBERS, "validation_fraction": [*NOT_NUMBERS, 0.0, 1.0, 1.5],
    "initializer": ["he", He, 0.1, [He()], Normal([0.1, 0.2])],
    "solver": ["lbfgs", "", None, SGD, [SGD()], 5, SGD([0.1, 0.9]), Adam(beta1=[0.9])],
    "schedule": ["constant", CyclicLR, [0.1], [0.1, 0.2], -0.1, NAN, CyclicLR([0.1, 0.2], 0.3, 5), Constant([0.1]),
                 lambda step: "fast", lambda step: [0.1, 0.2], lambda step: None, lambda step: -1.0],
    "batch_size": [*NOT_COUNTS, "all"], "max_iter": NOT_COUNTS, "n_iter_no_change": [*NOT_COUNTS, INF],
    "random_state": [*NOT_SEEDS, np.random.RandomState, np.random.default_rng], "order_seed": [*NOT_SEEDS, None],
    "device": [5, "gpu", "", ["cpu"], True],
}
#: Values of other kinds that each parameter takes, with the plain ones that they stand for.
TAKEN: dict[str, list[tuple[Any, Any]]] = {
    "hidden_layer_sizes": [(np.int64(8), 8), ([8], (8,)), (np.asarray([8, 4]), (8, 4)), ((np.int8(8),), (8,)),
                           (range(4, 6), (4, 5)), (np.asarray(8), 8)],
    "batch_norm": [(np.bool_(True), True)], "standardize": [(np.bool_(False), False)],
    "nesterovs_momentum": [(np.bool_(False), False)], "early_stopping": [(np.bool_(False), False)],
    "warm_start": [(np.bool_(False), False)], "verbose": [(np.bool_(False), False), (0, False)],
    "dropout": [(np.float64(0.5), 0.5), (np.float32(0.5), 0.5), (0, 0.0), (np.asarray(0.5), 0.5)],
    "momentum": [(np.float32(0.5), 0.5), (0, 0.0)], "l2": [(np.float32(0.5), 0.5), (1, 1.0), (np.int64(1), 1.0)],
    "tol": [(np.float32(0.5), 0.5), (0, 0.0)], "learning_rate_init": [(np.float32(0.5), 0.5), (np.asarray(0.5), 0.5)],
    "validation_fraction": [(np.float32(0.25), 0.25)], "initializer": [(None, None)],
    "solver": [(np.str_("adam"), "adam"), (Adam(np.float64(0.5)), Adam(0.5))],
    "schedule": [(0.5, Constant(0.5)), (np.float32(0.5), Constant(0.5)), (lambda step: np.float64(0.5), Constant(0.5)),
                 (lambda step: np.asarray(0.5), Constant(0.5))],
    "batch_size": [(np.int64(16), 16), (np.uint8(16), 16), ("auto", 200)], "max_iter": [(np.int64(4), 4)],
    "n_iter_no_change": [(np.int16(1), 1)], "random_state": [(np.int64(3), 3), (np.uint64(3), 3)],
    "order_seed": [(np.int64(3), 3)], "device": [(np.str_("cpu"), "cpu")],
}


def test_every_parameter_is_checked_here() -> None:
    assert CHECKS.keys() == WRONG.keys() == TAKEN.keys() == MLPClassifier().get_params().keys()


@both_kinds
@all_entrances
@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused_by_name(make: Any, params: Any, train: Any, name: str) -> None:
    x, y = blobs(Device(), 60)
    model = make(**params)
    for value in WRONG[name]:
        model.set_params(**{name: value})
        before = vars(model).copy()
        with pytest.raises((TypeError, ValueError)) as caught:
            train(model, x, y)
        assert name in str(caught.value), f"{value!r}: {caught.value}"
        assert "got" in str(caught.value)
        assert type(caught.value).__module__ in ("builtins", "xpnet.backend.devices")
        assert all(vars(model)[key] is held for key, held in before.items())
        assert vars(model).keys() == before.keys()


@both_kinds
@pytest.mark.parametrize("name", WRONG)
def test_a_search_refuses_wrong_values_before_it_trains(monkeypatch: pytest.MonkeyPatch, make: Any, name: str) -> None:
    def train(*args: Any, **options: Any) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr("xpnet.estimators.grid_search.train", train)
    x, y = blobs(Device(), 60)
    for value in WRONG[name]:
        for model, grid in ((make(), {name: [value]}), (make(**{name: value}), {"l2": [0.0]})):
            if name == "l2" and grid == {"l2": [0.0]}:
                continue
            with pytest.raises((TypeError, ValueError), match=rf"{name}\b.*got"):
                GridSearch(model, grid, cv=2).fit(x, y)


@both_kinds
@all_entrances
@pytest.mark.filterwarnings("ignore:.*has not converged")
@pytest.mark.parametrize("name", TAKEN)
def test_other_kinds_stand_for_plain_values(make: Any, params: Any, train: Any, name: str) -> None:
    x, y = blobs(Device(), 60)
    for given, plain in TAKEN[name]:
        model, expected = (make(**{**params, name: value}) for value in (given, plain))
        assert_same(train(model, x, y).network_.arrays, train(expected, x, y).network_.arrays)
        assert model.loss_curve_ == expected.loss_curve_
        assert model.network_.models == ()
        # What was given is kept, by the estimator and its copies, as scikit-learn asks.
        assert model.get_params()[name] is given
        assert type(clone(model).get_params()[name]) is type(given)


@pytest.mark.parametrize("name", ["l2", "dropout", "learning_rate_init", "momentum", "random_state"])
def test_numbers_of_any_kind_are_searched(name: str) -> None:
    x, y = blobs(Device(), 60)
    values = [3, 5] if name == "random_state" else [0.0, 0.25]
    model = MLPClassifier(**{**SHORT, "solver": "sgd"})
    plain = GridSearch(model, {name: values}, cv=2).fit(x, y)
    other = GridSearch(model, {name: np.asarray(values)}, cv=np.int64(2)).fit(x, y)
    assert other.cv_results_["mean_test_score"].tolist() == plain.cv_results_["mean_test_score"].tolist()


@pytest.mark.parametrize(("options", "words"), [
    ({"scoring": ["accuracy"]}, "scoring: expected"), ({"scoring": 5}, "scoring: expected"),
    ({"refit": "accuracy"}, "expected refit as"), ({"refit": None}, "expected refit as"),
    ({"cv": 1}, "expected cv of at least 2"), ({"cv": 61}, "cv: expected 2 to 60"),
    ({"cv": 2.5}, "cv: expected a number"), ({"cv": "five"}, "cv: expected a number"),
    ({"cv": True}, "expected cv as an integer"), ({"cv": []}, "cv: expected a number"), ({"cv": [1]}, "cv: expected a"),
    ({"cv": [([], [0])]}, "cv: expected at least 1 sample"), ({"cv": [([0, 99], [1])]}, "cv: expected indices of 60"),
    ({"error_score": "nan"}, "error_score: expected"), ({"error_score": None}, "error_score: expected"),
    ({"return_train_score": "yes"}, "expected return_train_score as"), ({"verbose": "yes"}, "expected verbose as"),
    ({"estimator": None}, "expected an MLPClassifier"), ({"estimator": MLPClassifier}, "expected an MLPClassifier"),
    ({"param_grid": None}, "param_grid: expected"), ({"param_grid": 5}, "param_grid: expected"),
    ({"param_grid": []}, "param_grid: expected"), ({"param_grid": ["l2"]}, "param_grid: expected"),
    ({"param_grid": {"l2": 0.1}}, "param_grid: expected"), ({"param_grid": {"l2": []}}, "param_grid: expected"),
], ids=str)
def test_the_searchs_own_parameters_are_checked(options: dict[str, Any], words: str) -> None:
    x, y = blobs(Device(), 60)
    search = GridSearch(**{"estimator": MLPClassifier(**SHORT), "param_grid": {"l2": [0.0]}, "cv": 2, **options})
    with pytest.raises((TypeError, ValueError, IndexError), match=words):
        search.fit(x, y)
    assert not hasattr(search, "cv_results_")


def test_parameters_of_a_subclass_pass() -> None:
    assert checked({"l2": np.float32(0.5), "mine": [1]}) == {"l2": 0.5, "mine": [1]}


def test_generators_are_drawn_from_once_a_fit() -> None:
    x, y = blobs(Device(), 60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        a, b = (MLPClassifier(**{**SHORT, "random_state": np.random.default_rng(1)}) for _ in range(2))
        a.fit(x, y)
        b.set_params(random_state=int(np.random.default_rng(1).integers(2**31 - 1))).fit(x, y)
    assert_same(a.network_.arrays, b.network_.arrays)
    assert flat(a)["_slots"] == flat(b)["_slots"]
