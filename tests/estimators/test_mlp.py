"""Estimators and their grid search, without scikit-learn: what they learn, refuse, keep and give back."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest
from helpers import assert_close, assert_same, blobs, draw

from xpnet import SGD, Adam, CyclicLR, He, Linear, ReLU, Sequential, Trainer, mlp
from xpnet.backend import Device, to_numpy
from xpnet.estimators import GridSearch, MLPClassifier, MLPRegressor
from xpnet.estimators.conventions import ConvergenceWarning, DataConversionWarning, NotFittedError, of_sklearn
from xpnet.estimators.epochs import hold_out
from xpnet.nn.network import Network

SHORT = {"hidden_layer_sizes": (8,), "max_iter": 30, "n_iter_no_change": 30, "learning_rate_init": 0.05,
         "random_state": 0, "batch_size": 32}


def classifier(**params: Any) -> MLPClassifier:
    """Return a small classifier that makes all its passes."""
    return MLPClassifier(**{**SHORT, **params})


def regressor(**params: Any) -> MLPRegressor:
    """Return a small regressor that makes all its passes."""
    return MLPRegressor(**{**SHORT, **params})


def plane(device: Device, n: int = 80, dtype: str = "float64") -> tuple[Any, Any]:
    """Return features and a smooth target."""
    x = draw(device, "x", (n, 3), dtype)
    return x, x[:, 0] - 2.0 * x[:, 1] + 0.5 * x[:, 2] ** 2


# They learn -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [
    {}, {"batch_norm": True, "dropout": 0.1}, {"solver": "sgd"}, {"solver": "adamw", "hidden_layer_sizes": ()},
    {"solver": SGD(0.5), "schedule": CyclicLR(0.01, 0.1, 20), "initializer": He(), "standardize": False},
    {"hidden_layer_sizes": 5, "l2": 1e-3},
], ids=["adam", "batch norm, dropout", "sgd", "linear", "own rules", "int"])
def test_a_classifier_learns_clouds(device: Device, params: dict[str, Any]) -> None:
    x, y = blobs(device, 120, spread=0.5)
    model = classifier(**params)
    assert model.fit(x, y) is model
    assert model.score(x, y) > 0.95
    assert model.loss_curve_[-1] < 0.5 * model.loss_curve_[0]
    assert len(model.loss_curve_) == model.n_iter_ == 30
    assert model.best_loss_ == min(model.loss_curve_)
    p = model.predict_proba(x)
    assert_close(to_numpy(p).sum(axis=1), np.ones(120), 1e-6)
    assert_close(np.exp(to_numpy(model.predict_log_proba(x))), p, 1e-6)
    assert to_numpy(model.predict(x)).tolist() == to_numpy(p).argmax(axis=1).tolist()
    assert tuple(model.decision_function(x).shape) == (120, 3)


@pytest.mark.parametrize("params", [{}, {"batch_norm": True}, {"solver": "sgd", "learning_rate_init": 0.01}], ids=str)
def test_a_regressor_learns_a_plane(device: Device, params: dict[str, Any]) -> None:
    x, y = plane(device)
    model = regressor(max_iter=60, n_iter_no_change=60, **params).fit(x, y)
    assert model.score(x, y) > 0.9
    h, p = to_numpy(y), to_numpy(model.predict(x))
    assert p.shape == (80,)
    assert model.score(x, y) == pytest.approx(1 - ((h - p) ** 2).sum() / ((h - h.mean()) ** 2).sum())


def test_targets_keep_their_shape(device: Device) -> None:
    x, y = plane(device)
    column = regressor().fit(x, y[:, None]).predict(x)
    assert tuple(column.shape) == (80, 1)
    assert_same(column[:, 0], regressor().fit(x, y).predict(x))
    two = regressor().fit(x, device.xp.stack([y, -y], axis=1))
    assert tuple(two.predict(x).shape) == (80, 2)
    assert two.score(x, device.xp.stack([y, -y], axis=1)) > 0.8


def test_two_classes_have_one_decision(device: Device) -> None:
    x, y = blobs(device, 60, classes=2)
    model = classifier().fit(x, y)
    decision = to_numpy(model.decision_function(x))
    assert decision.shape == (60,)
    assert (decision > 0).astype(int).tolist() == to_numpy(model.predict(x)).tolist()


def test_the_same_seed_gives_the_same_network(device: Device) -> None:
    x, y = blobs(device, 60)
    a, b, c = (classifier(random_state=s, dropout=0.2).fit(x, y) for s in (3, 3, 4))
    assert_same(a.network_.arrays, b.network_.arrays)
    assert (to_numpy(a.network_.arrays["W1"]) != to_numpy(c.network_.arrays["W1"])).any()


def test_random_states_of_all_kinds_give_seeds() -> None:
    x, y = blobs(Device(), 60)
    first = [classifier(random_state=kind(5)).fit(x, y).network_.arrays["W1"]
             for kind in (np.random.RandomState, np.random.RandomState, np.random.default_rng, np.int64)]
    assert_same(first[0], first[1])
    assert_same(first[3], classifier(random_state=5).fit(x, y).network_.arrays["W1"])
    fresh = [classifier(random_state=None).fit(x, y).network_.arrays["W1"] for _ in range(2)]
    assert (fresh[0] != fresh[1]).any()


# The same in as out ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "computed"), [
    ("float32", "float32"), ("float64", "float64"), ("int64", "float64"), ("int32", "float64"), ("uint8", "float32"),
    ("int16", "float32"), ("bool", "float32"),
])
def test_the_dtype_follows_x(device: Device, given: str, computed: str) -> None:
    x, y = blobs(device, 60)
    x = device.asarray(np.clip(to_numpy(x) * 20 + 100, 0, 255) > 100 if given == "bool" else
                       np.clip(to_numpy(x) * 20 + 100, 0, 255), given)
    model = classifier().fit(x, y)
    kind = getattr(device.xp, computed)
    inputs = model.network_.architecture.inputs  # the scaling, which is float64 in any network
    assert all(a.dtype == kind for name, a in model.network_.arrays.items() if name not in inputs)
    for found in (model.predict_proba(x), model.decision_function(x), regressor().fit(x, y).predict(x)):
        assert found.dtype == kind


def test_predictions_are_of_the_library_of_x(device: Device) -> None:
    x, y = blobs(device, 60)
    model, other = classifier().fit(x, y), regressor().fit(x, y)
    for found in (model.predict(x), model.predict_proba(x), model.predict_log_proba(x), model.decision_function(x),
                  model.classes_, other.predict(x), *model.network_.arrays.values()):
        assert Device.of(found) == device
    assert model.predict(x).dtype == y.dtype == model.classes_.dtype


def test_labels_follow_x(device: Device) -> None:
    x, y = blobs(device, 60)
    model = classifier().fit(x, to_numpy(y))
    assert_same(model.network_.arrays, classifier().fit(x, y).network_.arrays)
    assert Device.of(model.predict(x)) == device
    assert model.score(x, to_numpy(y).tolist()) == model.score(x, y)


@pytest.mark.parametrize("names", [["one", "two", "three"], [-7, 2, 30], [0.0, 1.0, 5.0]], ids=str)
def test_labels_of_any_kind_come_back(device: Device, names: list[Any]) -> None:
    x, y = blobs(device, 60, spread=0.5)
    host = np.asarray(names)[to_numpy(y)]
    model = classifier().fit(x, host)
    assert to_numpy(model.classes_).tolist() == sorted(names)
    found = to_numpy(model.predict(x))
    assert (found == host).mean() > 0.95
    assert found.dtype == host.dtype
    assert model.score(x, host) == (found == host).mean()
    assert classifier().fit(x, host.astype(object)).score(x, host.tolist()) > 0.95


def test_true_and_false_are_classes(device: Device) -> None:
    x, y = blobs(device, 60, classes=2)
    model = classifier().fit(x, y == 1)
    assert to_numpy(model.classes_).tolist() == [False, True]
    assert to_numpy(model.predict(x)).dtype == bool
    assert model.score(x, y == 1) > 0.9


def test_one_class_is_predicted(device: Device) -> None:
    x, y = blobs(device, 20)
    model = classifier().fit(x, y * 0 + 4)
    assert to_numpy(model.predict(x)).tolist() == [4] * 20


def test_lists_and_non_contiguous_and_read_only_arrays_are_taken() -> None:
    x, y = blobs(Device(), 60, dtype="float64")
    wide = np.asfortranarray(np.repeat(x, 2, axis=1))[:, ::2]
    wide.flags.writeable = y.flags.writeable = False
    expected = classifier().fit(x, y).predict_proba(x)
    assert_close(classifier().fit(wide, y).predict_proba(wide), expected, 1e-12)
    assert_same(classifier().fit(x.tolist(), y.tolist()).predict_proba(x.tolist()), expected)
    assert_same(classifier().fit(x.astype(object), y).predict_proba(x), expected)


@pytest.mark.backends("strict", "torch", "cupy")
def test_where_a_device_is_asked_for_data_are_moved_and_results_come_back(device: Device) -> None:
    x, y = blobs(device, 60)
    model = classifier(device="cpu").fit(x, y)
    assert model.network_.device == Device("cpu")
    assert Device.of(model.predict(x)) == Device.of(model.predict_proba(x)) == device
    assert isinstance(model.predict_proba(to_numpy(x)), np.ndarray)
    with pytest.raises(ValueError, match=r"MLPClassifier.predict\(\) must use the same namespace.*got cpu, expected"):
        classifier().fit(x, y).predict(to_numpy(x))


# Stopping -------------------------------------------------------------------------------------------------------


def test_training_stops_when_the_loss_gets_no_better(device: Device) -> None:
    x, y = blobs(device, 60, spread=0.3)
    model = classifier(max_iter=500, n_iter_no_change=3, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(x, y)
    assert 5 < model.n_iter_ < 500
    curve, best, wait = model.loss_curve_, np.inf, 0
    for i, loss in enumerate(curve):  # the rule, once more
        wait = 0 if loss <= best - 1e-3 else wait + 1
        best = min(best, loss)
        assert (wait > 3) == (i == len(curve) - 1)


def test_who_has_not_converged_is_warned(device: Device) -> None:
    x, y = blobs(device, 60)
    with pytest.warns(of_sklearn(ConvergenceWarning), match="has not converged in max_iter=5 passes") as caught:
        classifier(max_iter=5, n_iter_no_change=2).fit(x, y)
    assert caught[0].filename == __file__


def test_early_stopping_keeps_the_best_network(device: Device) -> None:
    x, y = blobs(device, 200, spread=4.0)
    model = classifier(early_stopping=True, validation_fraction=0.25, n_iter_no_change=5, max_iter=300).fit(x, y)
    assert model.n_iter_ < 300
    assert model.best_loss_ is None
    scores = model.validation_scores_
    assert scores is not None
    assert model.best_validation_score_ == max(scores)
    assert scores[-1] < max(scores) or scores.index(max(scores)) < len(scores) - 1
    held = hold_out(y, 0.25, model.order_seed, classes=True)[1]
    found = model.score(device.asarray(to_numpy(x)[held]), device.asarray(to_numpy(y)[held]))
    assert found == pytest.approx(max(scores))
    other = regressor(early_stopping=True, n_iter_no_change=5).fit(*plane(device))
    assert other.best_validation_score_ == max(other.validation_scores_ or [])


def test_what_is_held_out_is_of_each_class_alike(device: Device) -> None:
    y = device.asarray([0] * 30 + [1] * 20)
    train_on, held = hold_out(y, 0.2, 3, classes=True)
    assert sorted([*train_on.tolist(), *held.tolist()]) == list(range(50))
    assert Counter(to_numpy(y)[held].tolist()) == {0: 6, 1: 4}
    assert sorted(hold_out(y, 0.2, 4, classes=True)[1]) != sorted(held)
    assert hold_out(y, 0.5, 0, classes=False)[1].shape == (25,)


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0.01, float("nan")])
def test_a_fraction_that_holds_nothing_out_is_refused(fraction: float) -> None:
    x, y = blobs(Device(), 20)
    with pytest.raises(ValueError, match="validation_fraction: expected a share above 0 and below 1"):
        classifier(early_stopping=True, validation_fraction=fraction).fit(x, y)
    y[:] = 0
    y[0] = 1
    with pytest.raises(ValueError, match="at least 2 samples of each class, got a class with 1 sample"):
        classifier(early_stopping=True).fit(x, y)


# Going on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["adam", "sgd", "adamw"])
def test_passes_one_by_one_are_those_of_fit(device: Device, solver: str) -> None:
    x, y = blobs(device, 70, dtype="float64")
    params = {"solver": solver, "batch_norm": True, "dropout": 0.2, "schedule": CyclicLR(1e-3, 0.02, 4)}
    whole, parts = classifier(max_iter=5, **params).fit(x, y), classifier(**params)
    for _ in range(5):
        if device.xp.__name__ != "array_api_strict":  # whose arrays cannot be pickled
            parts = pickle.loads(pickle.dumps(parts))  # noqa: S301
        parts.partial_fit(x, y, classes=[0, 1, 2])
    assert parts.n_iter_ == 5
    assert parts.loss_curve_ == whole.loss_curve_
    assert_same(parts.network_.arrays, whole.network_.arrays)


def test_each_pass_sees_each_example_once_whatever_came_before(device: Device) -> None:
    x, y = blobs(device, 70, dtype="float64")
    model = classifier(learning_rate_init=0.0, standardize=False).partial_fit(x[:50, :], y[:50], [0, 1, 2])
    model.partial_fit(x, y).partial_fit(x[:7, :], y[:7])  # 2, 3 and 1 updates: no pass ends where another's epoch does
    trainer = Trainer(mlp(6, [8], 3), dtype="float64")
    trainer.restore(model.network_.arrays, 0, device)
    loss = [trainer.evaluate(x[:n, :], y[:n])["loss"] for n in (50, 70, 7)]
    assert model.loss_curve_ == pytest.approx(loss, rel=1e-12)


def test_a_warm_start_goes_the_way_of_one_fit(device: Device) -> None:
    x, y = blobs(device, 70, dtype="float64")
    whole, model = classifier(max_iter=6).fit(x, y), classifier(max_iter=3, warm_start=True).fit(x, y).fit(x, y)
    assert model.loss_curve_ == whole.loss_curve_
    assert_same(model.network_.arrays, whole.network_.arrays)


def test_a_pass_over_one_batch_is_an_update_of_the_trainer(device: Device) -> None:
    x, y = blobs(device, 30, dtype="float64")
    model = classifier(standardize=False, batch_size=30, initializer=He())
    trainer = Trainer(mlp(6, [8], 3), optimizer=Adam(), schedule=0.05, dtype="float64", batch_size=30)
    trainer.fit(x, y, steps=3)
    for _ in range(3):
        model.partial_fit(x, y, [0, 1, 2])
    for name, expected in trainer.arrays.items():
        assert_close(model.network_.arrays[name], expected, 1e-12, name)


def test_a_warm_start_goes_on(device: Device) -> None:
    x, y = blobs(device, 70, dtype="float64")
    model = classifier(warm_start=True, max_iter=3).fit(x, y)
    first = to_numpy(model.network_.arrays["W1"]).copy()
    model.fit(x, y)
    assert model.n_iter_ == 6
    assert model.loss_curve_[3] < model.loss_curve_[0]
    assert (to_numpy(model.network_.arrays["W1"]) != first).any()
    with pytest.raises(ValueError, match=r"y has labels that are not among the classes \[0, 1, 2\]"):
        model.fit(x, y + 1)
    model.warm_start = False
    assert model.fit(x, y).n_iter_ == 3
    assert_same(model.network_.arrays["W1"], first)


def test_partial_fit_needs_to_know_all_classes_at_first(device: Device) -> None:
    x, y = blobs(device, 30)
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        classifier().partial_fit(x, y)
    model = classifier().partial_fit(x[:10, :], y[:10] * 0, classes=[2, 0, 1])
    assert to_numpy(model.classes_).tolist() == [0, 1, 2]
    model.partial_fit(x, y)
    with pytest.raises(ValueError, match=r"classes: expected those of the first call, \[0, 1, 2\], got \[0, 1\]"):
        model.partial_fit(x, y, classes=[0, 1])
    with pytest.raises(ValueError, match="X has 5 features, but MLPClassifier is expecting 6 features as input"):
        model.partial_fit(x[:, :5], y)
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        classifier(early_stopping=True).partial_fit(x, y, [0, 1, 2])
    with pytest.raises(ValueError, match=r"y: expected 1 output\(s\), as before, got 2"):
        regressor().partial_fit(x, y).partial_fit(x, x[:, :2])


# A network, and back --------------------------------------------------------------------------------------------


def test_the_network_is_an_ordinary_one_and_makes_an_estimator(device: Device) -> None:
    x, y = blobs(device, 60)
    model = classifier(hidden_layer_sizes=(8, 4), batch_norm=True, dropout=0.1, initializer=He()).fit(x, y)
    assert isinstance(model.network_, Network)
    same = mlp(6, [8, 4], 3, batch_norm=True, dropout=0.1, standardize=True)
    assert model.network_.architecture.config() == same.config()
    back = MLPClassifier.from_network(model.network_, classes=to_numpy(model.classes_).tolist(), l2=0.5)
    assert_same(back.predict_proba(x), model.predict_proba(x))
    assert_same(back.predict(x), model.predict(x))
    described = {"hidden_layer_sizes": (8, 4), "batch_norm": True, "dropout": 0.1, "standardize": True, "l2": 0.5}
    assert described.items() <= back.get_params().items()
    assert back.n_iter_ == 0
    before = model.score(x, y)
    batch, mean = to_numpy(x)[:20], to_numpy(model.network_.arrays["mean1"]).copy()
    first = {name: to_numpy(model.network_.arrays[name]) for name in ("offset1", "scale1", "W1", "b1")}
    inner = ((batch - first["offset1"]) * first["scale1"]) @ first["W1"] + first["b1"]
    back.partial_fit(x[:20, :], y[:20])
    assert back.n_iter_ == 1
    assert_close(back.network_.arrays["mean1"], 0.9 * mean + 0.1 * inner.mean(axis=0), 1e-5)  # not forgotten
    assert back.score(x, y) > before - 0.2  # it went on from there


def test_a_network_makes_a_regressor(device: Device) -> None:
    x, _ = blobs(device, 60)
    trainer = Trainer(mlp(6, [4], 1))
    trainer.start(device)
    model = MLPRegressor.from_network(trainer.network)
    assert_same(model.predict(x), trainer.network(x)[:, 0])


def test_networks_that_parameters_do_not_describe_are_refused() -> None:
    trainer = Trainer(Sequential(6, [ReLU(), Linear(3)]))
    trainer.start(Device())
    with pytest.raises(ValueError, match=r"from_network: expected layers as xpnet\.mlp makes them"):
        MLPClassifier.from_network(trainer.network)
    several = Trainer(mlp(6, [4], 3), l2=[0.0, 0.1])
    several.start(Device())
    with pytest.raises(ValueError, match=r"take one with network\.member\(i\)"):
        MLPClassifier.from_network(several.network)
    with pytest.raises(ValueError, match="from_network: expected 3 classes in ascending order, got"):
        MLPClassifier.from_network(several.network.member(1), classes=["b", "a", "c"])


@pytest.mark.backends("numpy", "torch", "cupy")
def test_pickles_and_copies_predict_the_same(device: Device) -> None:
    x, y = blobs(device, 60)
    model = classifier(batch_norm=True).fit(x, y)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):  # noqa: S301
        assert_same(other.predict_proba(x), model.predict_proba(x))
        assert other.get_params() == model.get_params()
        assert other.loss_curve_ == model.loss_curve_
        assert other.network_.device == device
    assert pickle.loads(pickle.dumps(classifier())).get_params() == classifier().get_params()  # noqa: S301


# Parameters -----------------------------------------------------------------------------------------------------


def test_parameters_are_read_and_set_by_name() -> None:
    model = MLPClassifier((5, 5), l2=0.1)
    assert model.get_params()["hidden_layer_sizes"] == (5, 5)
    assert model.set_params(l2=0.2, max_iter=7) is model
    assert (model.l2, model.max_iter) == (0.2, 7)
    assert repr(model) == "MLPClassifier(hidden_layer_sizes=(5, 5), l2=0.2, max_iter=7)"
    with pytest.raises(ValueError, match=r"Invalid parameter 'alpha' for estimator MLPC.*Valid parameters are"):
        model.set_params(alpha=1)
    search = GridSearch(model, {"l2": [0.0]})
    assert search.get_params()["estimator__max_iter"] == 7
    assert search.set_params(estimator__max_iter=8, cv=3) is search
    assert (model.max_iter, search.cv) == (8, 3)


def test_both_estimators_document_every_parameter() -> None:
    for cls in (MLPClassifier, MLPRegressor):
        assert all(f"\n{name} : " in str(inspect.getdoc(cls)) for name in cls().get_params())
        assert str(cls.__doc__).index("Parameters") < str(cls.__doc__).index("Attributes")


@pytest.mark.parametrize(("params", "error", "words"), [
    ({"solver": "lbfgs"}, ValueError, "solver: expected 'adam', 'adamw', 'sgd' or an optimizer, got 'lbfgs'"),
    ({"solver": SGD}, TypeError, "solver: expected .* or an optimizer"),
    ({"max_iter": 0}, ValueError, "expected max_iter of at least 1, got 0"),
    ({"n_iter_no_change": 2.5}, TypeError, "expected n_iter_no_change as an integer"),
    ({"tol": -1.0}, ValueError, "expected tol of at least 0"),
    ({"l2": -1.0}, ValueError, "expected l2 of at least 0"),
    ({"dropout": 1.0}, ValueError, "expected dropout of at least 0 and below 1"),
    ({"learning_rate_init": -0.1}, ValueError, "expected learning_rate_init of at least 0"),
    ({"random_state": -1}, ValueError, "expected random_state of at least 0"),
    ({"batch_size": 0}, ValueError, "expected batch_size of at least 1"),
    ({"hidden_layer_sizes": (0,)}, ValueError, "expected hidden_layer_sizes of at least 1"),
    ({"device": "gpu"}, ValueError, "expected the device 'cpu', 'cuda'"),
], ids=lambda v: str(v) if isinstance(v, dict) else "")
def test_wrong_parameters_are_refused_by_fit(params: dict[str, Any], error: type[Exception], words: str) -> None:
    x, y = blobs(Device(), 20)
    model = classifier(**params)
    with pytest.raises(error, match=words):
        model.fit(x, y)


# Inputs ---------------------------------------------------------------------------------------------------------

NAN = float("nan")
BAD: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "1-D": ([1.0, 2.0], [0, 1], ValueError, "Expected 2D array, got 1D array.*Reshape your data"),
    "3-D": ([[[1.0]], [[2.0]]], [0, 1], ValueError, "Expected 2D array, got 3D array"),
    "no samples": (np.empty((0, 3)), [], ValueError, r"0 sample\(s\) \(shape=\(0, 3\)\) while a minimum of 1"),
    "no features": (np.empty((2, 0)), [0, 1], ValueError, r"0 feature\(s\) \(shape=\(2, 0\)\) while a minimum of 1"),
    "NaN": ([[1.0], [NAN]], [0, 1], ValueError, "X: expected finite numbers, got nan in example 1, feature 0; .* NaN"),
    "infinite": ([[1.0], [np.inf]], [0, 1], ValueError, "X: expected finite numbers, got inf in example 1, feature 0"),
    "complex": ([[1j], [2.0]], [0, 1], ValueError, "Complex data not supported"),
    "text": ([["a"], ["b"]], [0, 1], ValueError, "X: expected real numbers, got dtype <U1; convert"),
    "objects": (np.asarray([[{}], [1]], dtype=object), [0, 1], TypeError, "argument must be .* string.* number"),
    "no y": ([[1.0], [2.0]], None, ValueError, "requires y to be passed, but the target y is None"),
    "lengths": ([[1.0], [2.0]], [0], ValueError, r"inconsistent numbers of samples: \[2, 1\]"),
    "wide y": ([[1.0], [2.0]], np.zeros((2, 2, 2)), ValueError, "y should be a 1d array"),
    "y NaN": ([[1.0], [2.0]], [NAN, 1.0], ValueError, "y: expected finite numbers, got nan in example 0"),
    "y complex": ([[1.0], [2.0]], [1j, 0], ValueError, "Complex data not supported"),
}


@pytest.mark.parametrize("make", [classifier, regressor], ids=["classifier", "regressor"])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_the_reason(make: Any, case: str) -> None:
    x, y, error, words = BAD[case]
    with pytest.raises(error, match=words):
        make().fit(x, y)


def test_labels_that_are_no_classes_are_refused() -> None:
    x = [[1.0], [2.0]]
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        classifier().fit(x, [0.5, 1.0])
    with pytest.raises(ValueError, match="Unknown label type: labels that have no order"):
        classifier().fit(x, np.asarray(["a", 1], dtype=object))
    with pytest.raises(ValueError, match=r"y should be a 1d array, got an array of shape \(2, 2\)"):
        classifier().fit(x, [[0, 1], [1, 0]])
    with pytest.warns(of_sklearn(DataConversionWarning), match="A column-vector y was passed when"):
        classifier().fit(x, [[0], [1]])


class Sparse:
    """What a sparse matrix looks like."""

    def tocsr(self) -> None:
        """Convert."""


def test_sparse_data_are_refused() -> None:
    with pytest.raises(TypeError, match=r"Sparse data was passed for X, but dense data is needed: use X\.toar"):
        classifier().fit(Sparse(), [0, 1])
    with pytest.raises(TypeError, match="Sparse data was passed for y"):
        regressor().fit([[1.0]], Sparse())


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "decision_function"])
def test_who_is_not_fitted_says_so(method: str) -> None:
    with pytest.raises(of_sklearn(NotFittedError), match="This MLPClassifier instance is not fitted yet"):
        getattr(MLPClassifier(), method)([[1.0]])


def test_prediction_checks_its_input(device: Device) -> None:
    x, y = blobs(device, 30)
    model = classifier().fit(x, y)
    with pytest.raises(ValueError, match="X has 5 features, but MLPClassifier is expecting 6"):
        model.predict(x[:, :5])
    with pytest.raises(ValueError, match="X: expected finite numbers, got nan"):
        model.predict_proba(x * NAN)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.score(x, y[:5])


class Frame:
    """A data frame, as far as an estimator looks."""

    def __init__(self, values: Any, columns: list[Any]) -> None:
        self.values, self.columns = values, columns

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.values, dtype)


def test_names_of_columns_are_kept_and_compared() -> None:
    x, y = blobs(Device(), 30, 3)
    model = classifier().fit(Frame(x, ["a", "b", "c"]), y)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    assert model.feature_names_in_.dtype == object
    model.predict(Frame(x, ["a", "b", "c"]))
    for columns, words in ((["b", "a", "c"], "must be in the same order"), (["a", "b"], "yet now missing:\n- c"),
                           (["a", "b", "d"], "unseen at fit time:\n- d\n")):
        with pytest.raises(ValueError, match=f"should match those that were passed during fit.\n(.|\n)*{words}"):
            model.predict(Frame(x[:, : len(columns)], columns))
    with pytest.warns(UserWarning, match="X does not have valid feature names, but MLPClassifier was fitted with"):
        model.predict(x)
    with pytest.raises(TypeError, match="Feature names are only supported if all input features have string names"):
        classifier().fit(Frame(x, ["a", 1, 2]), y)
    plain = model.fit(x, y)
    assert not hasattr(plain, "feature_names_in_")
    with pytest.warns(UserWarning, match="X has feature names, but MLPClassifier was fitted without"):
        plain.predict(Frame(x, ["a", "b", "c"]))
    assert not hasattr(classifier().fit(Frame(x, [0, 1, 2]), y), "feature_names_in_")


def test_one_sample_and_batch_norm_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="batch_norm needs at least 2 samples, got n_samples=1"):
        classifier(batch_norm=True).fit([[1.0]], [0])
    assert classifier().fit([[1.0]], [0]).predict([[1.0]]).tolist() == [0]


def test_a_bar_is_shown_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = blobs(Device(), 30)
    classifier().fit(x, y)
    assert capsys.readouterr().err == ""
    classifier(verbose=True).fit(x, y)
    assert "MLPClassifier" in capsys.readouterr().err


def test_scikit_learn_is_not_imported() -> None:
    code = ("import sys; from xpnet.estimators import MLPClassifier as M, GridSearch as G\n"
            "x, y = [[0.0], [1.0]] * 6, [0, 1] * 6\n"
            "m = M((4,), max_iter=10, random_state=0); m.fit(x, y).predict(x); m.score(x, y); repr(m)\n"
            "G(m, {'l2': [0.0, 0.1]}, cv=2).fit(x, y).predict(x)\n"
            "print('sklearn' in sys.modules, 'scipy' in sys.modules)\n"
            "try: m.__sklearn_tags__()\nexcept RuntimeError as e: print(e)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = "tags are scikit-learn's, which is not imported: import sklearn first"
    assert done.stdout.splitlines() == ["False False", said]


@pytest.mark.backends("numpy")
def test_networks_keep_the_names_of_a_tables_columns() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    x, y = blobs(Device(), 60)
    for columns, kept in (("abcdef", tuple("abcdef")), ("abcdea", None), (range(6), None)):
        model = classifier().fit(pandas.DataFrame(x, columns=list(columns)), y)
        assert model.network_.architecture.feature_names == kept
    model = classifier().fit(pandas.DataFrame(x, columns=list("abcdef")), y)
    assert type(model).from_network(model.network_).network_.architecture.feature_names == tuple("abcdef")
