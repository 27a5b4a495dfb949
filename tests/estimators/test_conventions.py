"""Labels compared with classes: of one kind, or an error that names both."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from entrances import LABELS, SMALL, X, Y

from xpnet.estimators import MLPClassifier
from xpnet.estimators.grid_search import GridSearch

KINDS: dict[str, Any] = {
    "numbers": Y, "floats": Y.astype(float), "text": np.asarray(["a", "b", "c"])[Y], "digits": Y.astype(str),
    "bytes": Y.astype("S"), "objects": np.asarray(["a", "b", "c"], dtype=object)[Y],
}
NUMBERS = ("numbers", "floats")
TEXT = ("text", "digits", "objects")
SCORES: dict[str, Callable[[Any, Any], Any]] = {
    "MLPClassifier.score": lambda fit, given: MLPClassifier(**SMALL).fit(X, fit).score(X, given),
    "MLPClassifier.partial_fit": lambda fit, given: MLPClassifier(**SMALL).partial_fit(X, fit, np.unique(fit))
                                                                           .partial_fit(X, given),
    "MLPClassifier.partial_fit, classes": lambda fit, given: MLPClassifier(**SMALL).partial_fit(X, given,
                                                                                                np.unique(fit)),
    "GridSearch.score": lambda fit, given: GridSearch(MLPClassifier(**SMALL), {"l2": [0.0]}, cv=2).fit(X, fit)
                                                                                               .score(X, given),
}


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("entrance", SCORES)
@pytest.mark.parametrize("fit", KINDS)
@pytest.mark.parametrize("given", KINDS)
def test_labels_of_another_kind_than_the_classes_are_refused(entrance: str, fit: str, given: str) -> None:
    groups = [next(i for i, group in enumerate((NUMBERS, TEXT, ("bytes",))) if kind in group) for kind in (fit, given)]
    if groups[0] == groups[1]:
        if {fit, given} in ({"text", "digits"}, {"digits", "objects"}) and "score" not in entrance:
            with pytest.raises(ValueError, match="labels that are not among the classes"):
                SCORES[entrance](KINDS[fit], KINDS[given])
            return
        SCORES[entrance](KINDS[fit], KINDS[given])
        return
    names = [("numbers", "text", "bytes")[group] for group in groups]
    with pytest.raises(ValueError, match=rf"y: expected {names[0]}, like the classes .* got {names[1]} \(dtype"):
        SCORES[entrance](KINDS[fit], KINDS[given])


def test_the_remedy_of_the_error_is_taken() -> None:
    model = MLPClassifier(**SMALL).fit(X, Y)
    assert model.score(X, Y.astype(str).astype(model.classes_.dtype)) == model.score(X, Y)
    model = MLPClassifier(**SMALL).fit(X, Y.astype(str))
    assert model.score(X, Y.astype(model.classes_.dtype)) == model.score(X, Y.astype(str))


@pytest.mark.parametrize("entrance", [name for name in LABELS if "MLP" not in name and "Grid" not in name])
@pytest.mark.parametrize("kind", ["text", "digits", "bytes", "objects", "floats"])
def test_networks_of_class_indices_take_integers(entrance: str, kind: str) -> None:
    with pytest.raises(TypeError, match=r"labels: expected integers from 0, got dtype"):
        LABELS[entrance](KINDS[kind])
