"""Every function that takes features or labels, by name: what one refuses, all must refuse."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from helpers import blobs

import xpnet
from xpnet import MeanSquaredError, Trainer, mlp, sweep
from xpnet.backend import Device
from xpnet.estimators import MLPClassifier, MLPRegressor
from xpnet.estimators.grid_search import GridSearch
from xpnet.nn.summary import activation_statistics
from xpnet.sweeps.refine import coarse_to_fine
from xpnet.sweeps.space import Uniform
from xpnet.training.lr_range import find_lr

CLASSES, WIDTH, N = 3, 6, 60
SMALL: dict[str, Any] = {"hidden_layer_sizes": (4,), "max_iter": 2, "random_state": 0, "standardize": False}


def data() -> tuple[Any, Any]:
    """Return features and class indices as NumPy arrays."""
    return blobs(Device(), N)


def trainer(**options: Any) -> Trainer:
    """Return a trainer of a small float32 classifier."""
    return Trainer(mlp(WIDTH, [4], CLASSES), **{"batch_size": 20, **options})


def regression(**options: Any) -> Trainer:
    """Return a trainer of a small float32 network that predicts a number."""
    return Trainer(mlp(WIDTH, [4], 1), **{"batch_size": 20, "loss": MeanSquaredError(), **options})


@functools.cache
def fitted(kind: str) -> Any:
    """Return something trained, made once."""
    (x, y), numbers = data(), data()[0][:, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "trainer":
            made: Any = trainer()
            made.fit(x, y, steps=2)
            return made
        if kind == "regression":
            made = regression()
            made.fit(x, numbers, steps=2)
            return made
        if kind == "ensemble":
            return xpnet.Ensemble([fitted("trainer").network])
        if kind == "sweep":
            return sweep(lambda seed: trainer(seed=seed), {"seed": [0, 1]}, x, y, steps=2)
        if kind == "classifier":
            return MLPClassifier(**SMALL).fit(x, y)
        if kind == "regressor":
            return MLPRegressor(**SMALL).fit(x, numbers)
        return GridSearch(MLPClassifier(**SMALL), {"l2": [0.0, 0.1]}, cv=2).fit(x, y)


def entrance(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the call without the warnings of estimators that have not converged."""
    def quiet(given: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call(given)
    return quiet


Y = data()[1]
X = data()[0]
NUMBERS = X[:, 0]
GRID = {"l2": [0.0, 0.1]}

#: From features (N, WIDTH). The first group takes arrays alone, the second lists and data frames too.
ARRAYS: dict[str, Callable[[Any], Any]] = {name: entrance(call) for name, call in {
    "Trainer.fit": lambda x: trainer().fit(x, Y, steps=1),
    "Trainer.fit, device named": lambda x: trainer(device="cpu").fit(x, Y, steps=1),
    "Trainer.fit, validation": lambda x: trainer().fit(X, Y, steps=1, validation=(x, Y)),
    "Trainer.fit, regression": lambda x: regression().fit(x, NUMBERS, steps=1),
    "Trainer.evaluate": lambda x: fitted("trainer").evaluate(x, Y),
    "Network": lambda x: fitted("trainer").network(x),
    "Network.predict": lambda x: fitted("trainer").network.predict(x),
    "Network.predict_proba": lambda x: fitted("trainer").network.predict_proba(x),
    "Ensemble.predict": lambda x: fitted("ensemble").predict(x),
    "Ensemble.predict_proba": lambda x: fitted("ensemble").predict_proba(x),
    "Ensemble.evaluate": lambda x: fitted("ensemble").evaluate(x, Y),
    "activation_statistics": lambda x: activation_statistics(fitted("trainer").network, x),
    "find_lr": lambda x: find_lr(mlp(WIDTH, [4], CLASSES), x, Y, steps=20),
    "sweep": lambda x: sweep(lambda seed: trainer(seed=seed), {"seed": [0, 1]}, x, Y, steps=1),
    "sweep, validation": lambda x: sweep(lambda seed: trainer(seed=seed), {"seed": [0]}, X, Y, steps=1,
                                         validation=(x, Y)),
    "coarse_to_fine": lambda x: coarse_to_fine(lambda l2: trainer(l2=l2), {"l2": Uniform(0, 1)}, x, Y, steps=1,
                                               draws=2),
    "Sweep.evaluate": lambda x: fitted("sweep").evaluate(x, Y),
}.items()}
TABLES: dict[str, Callable[[Any], Any]] = {name: entrance(call) for name, call in {
    "MLPClassifier.fit": lambda x: MLPClassifier(**SMALL).fit(x, Y),
    "MLPClassifier.partial_fit": lambda x: MLPClassifier(**SMALL).partial_fit(x, Y, classes=[0, 1, 2]),
    "MLPClassifier.predict": lambda x: fitted("classifier").predict(x),
    "MLPClassifier.predict_proba": lambda x: fitted("classifier").predict_proba(x),
    "MLPClassifier.predict_log_proba": lambda x: fitted("classifier").predict_log_proba(x),
    "MLPClassifier.decision_function": lambda x: fitted("classifier").decision_function(x),
    "MLPClassifier.score": lambda x: fitted("classifier").score(x, Y),
    "MLPRegressor.fit": lambda x: MLPRegressor(**SMALL).fit(x, NUMBERS),
    "MLPRegressor.partial_fit": lambda x: MLPRegressor(**SMALL).partial_fit(x, NUMBERS),
    "MLPRegressor.predict": lambda x: fitted("regressor").predict(x),
    "MLPRegressor.score": lambda x: fitted("regressor").score(x, NUMBERS),
    "GridSearch.fit": lambda x: GridSearch(MLPClassifier(**SMALL), GRID, cv=2).fit(x, Y),
    "GridSearch.predict": lambda x: fitted("search").predict(x),
    "GridSearch.predict_proba": lambda x: fitted("search").predict_proba(x),
    "GridSearch.score": lambda x: fitted("search").score(x, Y),
}.items()}
FEATURES = ARRAYS | TABLES

#: From class indices (N,).
LABELS: dict[str, Callable[[Any], Any]] = {name: entrance(call) for name, call in {
    "Trainer.fit": lambda y: trainer().fit(X, y, steps=1),
    "Trainer.fit, device named": lambda y: trainer(device="cpu").fit(X, y, steps=1),
    "Trainer.fit, validation": lambda y: trainer().fit(X, Y, steps=1, validation=(X, y)),
    "Trainer.evaluate": lambda y: fitted("trainer").evaluate(X, y),
    "Ensemble.evaluate": lambda y: fitted("ensemble").evaluate(X, y),
    "find_lr": lambda y: find_lr(mlp(WIDTH, [4], CLASSES), X, y, steps=20),
    "sweep": lambda y: sweep(lambda seed: trainer(seed=seed), {"seed": [0, 1]}, X, y, steps=1),
    "sweep, validation": lambda y: sweep(lambda seed: trainer(seed=seed), {"seed": [0]}, X, Y, steps=1,
                                         validation=(X, y)),
    "Sweep.evaluate": lambda y: fitted("sweep").evaluate(X, y),
    "MLPClassifier.fit": lambda y: MLPClassifier(**SMALL).fit(X, y),
    "MLPClassifier.partial_fit": lambda y: MLPClassifier(**SMALL).partial_fit(X, y, classes=[0, 1, 2]),
    "MLPClassifier.score": lambda y: fitted("classifier").score(X, y),
    "GridSearch.fit": lambda y: GridSearch(MLPClassifier(**SMALL), GRID, cv=2).fit(X, y),
    "GridSearch.score": lambda y: fitted("search").score(X, y),
}.items()}
#: From numbers (N,) to predict.
TARGETS: dict[str, Callable[[Any], Any]] = {name: entrance(call) for name, call in {
    "Trainer.fit": lambda y: regression().fit(X, y, steps=1),
    "Trainer.fit, validation": lambda y: regression().fit(X, NUMBERS, steps=1, validation=(X, y)),
    "Trainer.evaluate": lambda y: fitted("regression").evaluate(X, y),
    "sweep": lambda y: sweep(lambda seed: regression(seed=seed), {"seed": [0, 1]}, X, y, steps=1),
    "MLPRegressor.fit": lambda y: MLPRegressor(**SMALL).fit(X, y),
    "MLPRegressor.partial_fit": lambda y: MLPRegressor(**SMALL).partial_fit(X, y),
    "MLPRegressor.score": lambda y: fitted("regressor").score(X, y),
    "GridSearch.fit": lambda y: GridSearch(MLPRegressor(**SMALL), GRID, cv=2).fit(X, y),
}.items()}
