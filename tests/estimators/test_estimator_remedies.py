"""Every remedy that an error of the estimators names is followed: the error is provoked, and the remedy works."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import blobs
from remedies import Remedy

import xpnet
from xpnet import (
    SGD,
    Adam,
    DivergenceError,
    GridSearch,
    Linear,
    MLPClassifier,
    MLPRegressor,
    ReLU,
    Sequential,
    Trainer,
    mlp,
)
from xpnet.backend import Device
from xpnet.estimators.conventions import ConvergenceWarning, of_sklearn

X, Y = blobs(Device(), 60)
MODEL: dict[str, Any] = {"hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0, "batch_size": 20}


def trained(network: Any = None, **options: Any) -> Trainer:
    """Return a trainer after a few updates."""
    made = Trainer(network or mlp(6, [8], 3), **{"batch_size": 20, **options})
    made.fit(X, Y, steps=6)
    return made


def classifier(**params: Any) -> MLPClassifier:
    """Return a small classifier."""
    return MLPClassifier(**{**MODEL, **params})


@functools.cache
def fitted() -> MLPClassifier:
    """Return a fitted classifier, not to be changed."""
    return classifier().fit(X, Y)


class Values:
    """An array-like of another library, with one of its methods."""

    def __init__(self, values: Any, columns: Any = None) -> None:
        self.values = values
        if columns is not None:
            self.columns = columns

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.values, dtype)


class Sparse:
    """Looks like one of SciPy's sparse matrices."""

    dtype = np.dtype("float64")

    def toarray(self) -> Any:
        """Return the dense array."""
        return X


def again(remedied: Callable[[MLPClassifier], Any], **params: Any) -> Any:
    """Change a fitted classifier, and continue with it."""
    model = classifier(warm_start=True, **params).fit(X, Y)
    remedied(model)
    return model.fit(X, Y)


def regressor(**params: Any) -> Any:
    """Fit a regressor."""
    return MLPRegressor(**{**MODEL, "solver": "sgd", **params}).fit(X, X[:, 0])


def searched(rates: list[float]) -> Any:
    """Search learning rates."""
    return GridSearch(MLPRegressor(**MODEL, solver="sgd"), {"learning_rate_init": rates}, cv=2).fit(X, X[:, 0])


def mixed() -> Any:
    """Return labels of two kinds."""
    return np.asarray([name if name else "none" for name in Y.tolist()], dtype=object)


def frame(change: Callable[[Any], Any] = lambda columns: columns) -> Any:
    """Return a data frame with names of several kinds, or with what is made of them."""
    return Values(X, change(np.asarray(["a", 1, 2, 3, 4, 5], dtype=object)))


ESTIMATORS: dict[str, Remedy] = {
    "not fitted": Remedy(ValueError, "Call 'fit' with appropriate arguments",
                         lambda: classifier().predict(X), lambda: classifier().fit(X, Y).predict(X)),
    "divergence": Remedy(DivergenceError, "lower learning_rate_init", lambda: regressor(learning_rate_init=1e30),
                         lambda: regressor(learning_rate_init=1e-3)),
    "divergence of a schedule": Remedy(DivergenceError, "lower the rates of schedule", lambda: regressor(schedule=1e30),
                                       lambda: regressor(schedule=1e-3)),
    "divergence of all candidates": Remedy(ValueError, "lower the learning rates", lambda: searched([1e30, 1e31]),
                                           lambda: searched([1e-2, 1e-3])),
    "other widths": Remedy(ValueError, r"expected hidden_layer_sizes=\(8,\), got .*; set the former",
                           lambda: again(lambda m: m.set_params(hidden_layer_sizes=(9,))),
                           lambda: again(lambda m: m.set_params(hidden_layer_sizes=(9,)).set_params(
                               hidden_layer_sizes=(8,)))),
    "other widths, anew": Remedy(ValueError, "set warm_start=False and call fit to train a new network",
                                 lambda: again(lambda m: m.set_params(hidden_layer_sizes=(9,))),
                                 lambda: again(lambda m: m.set_params(hidden_layer_sizes=(9,), warm_start=False))),
    "another solver": Remedy(ValueError, "keep the solver, or", lambda: again(lambda m: m.set_params(solver="sgd")),
                             lambda: again(lambda m: m.set_params(solver="adam"))),
    "another solver, anew": Remedy(ValueError, "or set warm_start=False and call fit",
                                   lambda: again(lambda m: m.set_params(solver="sgd")),
                                   lambda: again(lambda m: m.set_params(solver="sgd", warm_start=False))),
    "few samples, more": Remedy(ValueError, "begin with more",
                                lambda: classifier().partial_fit(X[:3], Y[:3], [0, 1, 2]),
                                lambda: classifier().partial_fit(X, Y, [0, 1, 2]).partial_fit(X[:3], Y[:3])),
    "few samples, unscaled": Remedy(ValueError, "set standardize=False and scale the features beforehand",
                                    lambda: classifier().partial_fit(X[:3], Y[:3], [0, 1, 2]),
                                    lambda: classifier(standardize=False).partial_fit(X[:3] / 3, Y[:3], [0, 1, 2])),
    "partial_fit without classes": Remedy(ValueError, "classes must be passed on the first call",
                                          lambda: classifier().partial_fit(X, Y),
                                          lambda: classifier().partial_fit(X, Y, classes=[0, 1, 2])),
    "partial_fit, early stopping": Remedy(ValueError, "set early_stopping=False",
                                          lambda: classifier(early_stopping=True).partial_fit(X, Y, [0, 1, 2]),
                                          lambda: classifier(early_stopping=False).partial_fit(X, Y, [0, 1, 2])),
    "partial_fit, or fit": Remedy(ValueError, "or call fit",
                                  lambda: classifier(early_stopping=True).partial_fit(X, Y, [0, 1, 2]),
                                  lambda: classifier(early_stopping=True).fit(X, Y)),
    "nothing to hold out": Remedy(ValueError, "early_stopping=False holds nothing out",
                                  lambda: classifier(early_stopping=True).fit(X[:4], Y[:4]),
                                  lambda: classifier(early_stopping=False).fit(X[:4], Y[:4])),
    "a share of nothing": Remedy(ValueError, "early_stopping=False holds nothing out",
                                 lambda: classifier(early_stopping=True, validation_fraction=0.0).fit(X, Y),
                                 lambda: classifier(early_stopping=False).fit(X, Y)),
    "several numbers": Remedy(TypeError, "GridSearch tries several values of l2",
                              lambda: classifier(l2=[0.0, 0.1]).fit(X, Y),
                              lambda: GridSearch(classifier(), {"l2": [0.0, 0.1]}, cv=2).fit(X, Y)),
    "several numbers of a solver": Remedy(TypeError, "GridSearch tries several values of solver",
                                          lambda: classifier(solver=Adam([0.5, 0.9])).fit(X, Y),
                                          lambda: GridSearch(classifier(), {"solver": [Adam(0.5), Adam(0.9)]},
                                                             cv=2).fit(X, Y)),
    "an initializer": Remedy(TypeError, r"like xpnet\.He\(\)", lambda: classifier(initializer="he").fit(X, Y),
                             lambda: classifier(initializer=xpnet.He()).fit(X, Y)),
    "a solver": Remedy(TypeError, r"like xpnet\.SGD\(\)", lambda: classifier(solver=SGD).fit(X, Y),
                       lambda: classifier(solver=xpnet.SGD()).fit(X, Y)),
    "a schedule": Remedy(TypeError, r"like xpnet\.CyclicLR\(\)", lambda: classifier(schedule=xpnet.CyclicLR).fit(X, Y),
                         lambda: classifier(schedule=xpnet.CyclicLR()).fit(X, Y)),
    "widths": Remedy(TypeError, r"like \(100,\)", lambda: classifier(hidden_layer_sizes="100").fit(X, Y),
                     lambda: classifier(hidden_layer_sizes=(100,)).fit(X, Y)),
    "a random state": Remedy(TypeError, r"such as numpy\.random\.default_rng\(0\)",
                             lambda: classifier(random_state=0.5).fit(X, Y),
                             lambda: classifier(random_state=np.random.default_rng(0)).fit(X, Y)),
    "one feature": Remedy(ValueError, r"X\.reshape\(-1, 1\) if your data has a single feature",
                          lambda: classifier().fit(X[:, 0], Y), lambda: classifier().fit(X[:, 0].reshape(-1, 1), Y)),
    "one sample": Remedy(ValueError, r"X\.reshape\(1, -1\) if it contains a single", lambda: fitted().predict(X[0]),
                         lambda: fitted().predict(X[0].reshape(1, -1))),
    "sparse data": Remedy(TypeError, r"use X\.toarray\(\)", lambda: classifier().fit(Sparse(), Y),
                          lambda: classifier().fit(Sparse().toarray(), Y)),
    "complex data": Remedy(ValueError, "use the real part or the modulus", lambda: classifier().fit(X + 1j, Y),
                           lambda: classifier().fit((X + 1j).real, Y).fit(abs(X + 1j), Y)),
    "missing data": Remedy(ValueError, "fill them in or leave", lambda: classifier().fit(np.where(X > 2, np.nan, X), Y),
                           lambda: classifier().fit(np.nan_to_num(np.where(X > 2, np.nan, X)), Y)),
    "numbers as labels": Remedy(ValueError, "use MLPRegressor", lambda: classifier().fit(X, X[:, 0]),
                                lambda: MLPRegressor(**MODEL).fit(X, X[:, 0])),
    "labels in bins": Remedy(ValueError, "or label the bins", lambda: classifier().fit(X, X[:, 0]),
                             lambda: classifier().fit(X, np.digitize(X[:, 0], [-1.0, 1.0]))),
    "labels without order": Remedy(ValueError, "use text or integers",
                                   lambda: classifier().fit(X, mixed()),
                                   lambda: classifier().fit(X, mixed().astype(str))),
    "names that are no strings": Remedy(TypeError, r"use X\.columns = X\.columns\.astype\(str\)",
                                        lambda: classifier().fit(frame(), Y),
                                        lambda: classifier().fit(frame(lambda columns: columns.astype(str)), Y)),
    "a pipeline to search": Remedy(TypeError, "expected an MLPClassifier or MLPRegressor",
                                   lambda: GridSearch(object(), {}).fit(X, Y),
                                   lambda: GridSearch(MLPClassifier(**MODEL), {}, cv=2).fit(X, Y)),
    "values of a grid": Remedy(ValueError, r"expected some values of l2, like \[0\.0, 0\.1\]",
                               lambda: GridSearch(classifier(), {"l2": 0.1}, cv=2).fit(X, Y),
                               lambda: GridSearch(classifier(), {"l2": [0.0, 0.1]}, cv=2).fit(X, Y)),
    "no grid": Remedy(TypeError, r"like \{'l2': \[0\.0, 0\.1\]\}",
                      lambda: GridSearch(classifier(), None, cv=2).fit(X, Y),
                      lambda: GridSearch(classifier(), {"l2": [0.0, 0.1]}, cv=2).fit(X, Y)),
    "folds of other data": Remedy(IndexError, "split the data that fit is given",
                                  lambda: GridSearch(classifier(), {}, cv=[([0, 60], [1])]).fit(X, Y),
                                  lambda: GridSearch(classifier(), {}, cv=[(range(50), range(50, 60))]).fit(X, Y)),
    "several networks": Remedy(ValueError, r"take one with network\.member\(i\)",
                               lambda: MLPClassifier.from_network(trained(l2=[0.0, 0.1]).network),
                               lambda: MLPClassifier.from_network(trained(l2=[0.0, 0.1]).network.member(1))),
    "another architecture": Remedy(ValueError, r"expected layers as xpnet\.mlp makes them",
                                   lambda: MLPClassifier.from_network(
                                       trained(Sequential(6, [ReLU(), Linear(3)])).network),
                                   lambda: MLPClassifier.from_network(trained().network)),
}


@pytest.mark.parametrize("remedy", ESTIMATORS.values(), ids=ESTIMATORS)
def test_a_remedy_that_an_error_names_works(remedy: Remedy) -> None:
    remedy.follow()


@pytest.mark.parametrize("remedy", [{"max_iter": 400}, {"tol": 10.0}], ids=["raise max_iter", "raise tol"])
def test_the_advice_on_convergence_works(remedy: dict[str, Any]) -> None:
    model = classifier(n_iter_no_change=2, tol=1e-2, max_iter=4, learning_rate_init=0.1)
    words = "has not converged in max_iter=4 .*: raise max_iter, or tol"
    with pytest.warns(of_sklearn(ConvergenceWarning), match=words):
        model.fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.set_params(**remedy).fit(X, Y)


@pytest.mark.backends("strict", "torch", "cupy")
def test_arrays_on_another_device_are_moved(device: Device) -> None:
    model = classifier().fit(*blobs(device, 60))
    with pytest.raises(ValueError, match="Move them, or set device= to have them moved"):
        model.predict(X)
    model.predict(model.network_.device.asarray(X))
    model.set_params(device="cpu").predict(X)
