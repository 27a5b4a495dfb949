"""Grid search with cross-validation, in which the candidates of a fold train side by side."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Real
from typing import Any, ClassVar, Self

from ..backend import Array, Device, ops_of, to_numpy
from ..datasets.admission import NotFiniteError
from ..nn.per_model import shown
from ..training.trainer import DivergenceError
from .base import MLP
from .candidates import clone, folds, groups, points, score, scorer, selected, side_by_side
from .conventions import Estimator, features, labels, same_length, targets, warn
from .epochs import Data, train
from .parameters import boolean, integer

__all__ = ["GridSearch"]


class FitFailedWarning(RuntimeWarning):
    """A candidate has no score, because its loss became infinite or NaN."""


@dataclass(eq=False, repr=False)
class GridSearch(Estimator):
    """Find an estimator's best parameters, as scikit-learn's ``GridSearchCV`` does, in one training per fold.

    Candidates that differ in ``l2``, ``dropout``, ``learning_rate_init``, ``momentum`` and ``random_state``, or in the
    numbers of ``solver``, ``schedule`` and ``initializer``, train side by side; those that differ in anything else,
    such as ``hidden_layer_sizes``, in groups. Scores are those that each candidate alone would have, up to rounding.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        What has the parameters that are not searched.
    param_grid : dict or list of dict
        The values of each parameter by name, or several such grids.
    scoring : str or function, optional
        From a fitted estimator, X and y to a score, more being better; the estimator's ``score`` by default. Names are
        those of scikit-learn, and need it. A function is given the examples of a fold as an array in memory; training
        and the estimator's own score read X batch by batch, and never copy a memory-mapped file.
    refit : bool or function
        Fit ``best_estimator_`` on all data; a function from ``cv_results_`` to an index chooses the best.
    cv : int, splitter or iterable, optional
        Number of folds (5 by default: stratified for classifiers, unshuffled), an object with ``split(X, y)``, or
        pairs of training and test indices.
    error_score : float or "raise"
        Score of a candidate whose loss became infinite or NaN.
    return_train_score : bool
        Have the scores on the training folds too.
    verbose : bool
        Show a progress bar for each training.

    Attributes
    ----------
    cv_results_ : dict of str to array
        ``params``, ``param_*``, ``split0_test_score`` and so on, ``mean_test_score``, ``std_test_score``,
        ``rank_test_score``, and times in seconds; candidates that train side by side share the time.
    best_estimator_ : estimator
        Fitted with the best parameters on all data, where ``refit``.
    best_index_, best_score_, best_params_ : int, float, dict
        Those of the candidate with the best mean score.
    n_splits_ : int
        Number of folds.
    refit_time_ : float
        Seconds.
    """

    estimator: Any
    param_grid: Any
    _: KW_ONLY
    scoring: Any = None
    refit: Any = True
    cv: Any = None
    error_score: Any = math.nan
    return_train_score: bool = False
    verbose: bool = False

    multimetric_: ClassVar[bool] = False

    @property
    def _kind(self) -> str:  # type: ignore[override]
        return str(self.estimator._kind)

    def fit(self, X: Any, y: Any) -> Self:
        """Score every candidate on every fold, and fit the best one on all data.

        An error, or Ctrl-C before the scores are complete, leaves the search as it was before, and is raised. Ctrl-C
        while the best estimator is fitted on all data does what it does in the estimator's own ``fit``: the network so
        far is kept, with a warning.

        Parameters
        ----------
        X, y : array
            As in the estimator's ``fit``.

        Returns
        -------
        GridSearch
            The search itself.

        Raises
        ------
        ValueError
            If a candidate has a parameter that there is not, or no candidate has a score on every fold.
        """
        if not isinstance(self.estimator, MLP):
            raise TypeError(f"GridSearch: expected an MLPClassifier or MLPRegressor, got {shown(self.estimator)}; "
                            "others, such as a Pipeline, can be searched with scikit-learn's GridSearchCV")
        boolean("return_train_score", self.return_train_score)
        boolean("verbose", self.verbose)
        if not callable(self.refit):
            boolean("refit", self.refit)
        if self.error_score != "raise" and not isinstance(self.error_score, Real):
            raise TypeError(f"error_score: expected a number or 'raise', got {shown(self.error_score)}")
        with self.unchanged_by_errors():
            for name in [name for name in vars(self) if name.endswith("_")]:  # refit may have been on before
                delattr(self, name)
            self._search(X, y)
        return self

    def _search(self, X: Any, y: Any) -> None:
        candidates = list(points(self.param_grid))
        for point in candidates:
            clone(self.estimator, point)._checked()
        x = features(clone(self.estimator), X, reset=True)
        known = (labels if self._kind == "classifier" else targets)(y, type(self.estimator).__name__, Device.of(x))
        same_length(x, known)
        splits = self._splits(X, y, known)
        self.scorer_: Callable[[Any, Any, Any], Any] = scorer(self.scoring)
        self.n_splits_: int = len(splits)
        together = groups(self.estimator, candidates, x)
        measured: list[list[dict[str, float]]] = []
        with Device.of(x).activate():
            for split in splits:
                sides = [selected(side, x.shape[0]) for side in split]
                training, test = [
                    (x, ops_of(known).take(known, Device.of(known).asarray(rows)), Device.of(x).asarray(rows))
                    for rows in sides]
                fold: dict[int, dict[str, float]] = {}
                for group in together:
                    fold |= zip(group, self._measure(training, test, [candidates[i] for i in group]), strict=True)
                measured.append([fold[i] for i in range(len(candidates))])
        self.cv_results_: dict[str, Any] = self._results(candidates, measured)
        best = self.refit(self.cv_results_) if callable(self.refit) else self.cv_results_["rank_test_score"].argmin()
        self.best_index_: int = int(best)
        self.best_params_: dict[str, Any] = candidates[self.best_index_]
        self.best_score_: float = float(self.cv_results_["mean_test_score"][self.best_index_])
        if self.refit:
            start = time.perf_counter()
            self.best_estimator_: Any = clone(self.estimator, self.best_params_).fit(X, y)
            self.refit_time_: float = time.perf_counter() - start

    def _splits(self, X: Any, y: Any, known: Array) -> list[tuple[Any, Any]]:
        cv: Any = 5 if self.cv is None else self.cv
        if not hasattr(cv, "__index__"):
            splits = list(cv) if hasattr(cv, "__iter__") else list(cv.split(X, y)) if hasattr(cv, "split") else []
            if not splits or not all(hasattr(pair, "__len__") and len(pair) == 2 for pair in splits):
                raise TypeError("cv: expected a number of folds, a splitter, or pairs of training and test indices, "
                                f"got {shown(self.cv)}")
            return splits
        cv = integer("cv", cv, 2)
        strata = to_numpy(known).tolist() if self._kind == "classifier" else None
        numbers = to_numpy(folds(known.shape[0], cv, strata))
        return [((numbers != k).nonzero()[0], (numbers == k).nonzero()[0]) for k in range(cv)]

    def _measure(
        self, training: Data, test: Data, params: Sequence[Mapping[str, Any]]
    ) -> Iterator[dict[str, float]]:
        """Train candidates side by side, and give each one's scores and times."""
        start = time.perf_counter()
        base = clone(self.estimator, params[0])
        p = base._checked()
        x, y, outputs = base._prepared(p, *training[:2], fresh=True, only=training[2])
        data, held_out = base._split(p, x, y, Device.of(x).asarray(training[2]))
        swept = side_by_side([clone(self.estimator, own)._checked() for own in params])
        trainer = base._trainer({**p, **swept}, x, outputs)
        trainer.start(Device.of(x), x, data[2])
        out = train(trainer, data, held_out, epochs=p["max_iter"], tol=p["tol"], patience=p["n_iter_no_change"],
                    label="GridSearch" if self.verbose else "")
        if out.interrupted:
            raise out.interrupted
        seconds = (time.perf_counter() - start) / len(params)
        learned = {name: value for name, value in vars(base).items() if name not in base.get_params()}
        for model, own in enumerate(params):
            row = {"fit_time": seconds, "score_time": 0.0, "test_score": self.error_score}
            if self.return_train_score:
                row["train_score"] = self.error_score
            cause = out.causes.get(model, "")
            if not cause:
                member = clone(self.estimator, own)
                vars(member).update(learned)
                member._take(out, model, {})
                start = time.perf_counter()
                try:
                    scores = {"test_score": score(self.scorer_, member, *test)}
                    scores["score_time"] = time.perf_counter() - start
                    if self.return_train_score:
                        scores["train_score"] = score(self.scorer_, member, *training)
                    row |= scores
                except NotFiniteError as error:
                    cause = str(error)
            if cause and self.error_score == "raise":
                raise DivergenceError(f"{dict(own)}: {cause}")
            if cause:
                warn(f"{dict(own)} has no score on a fold: {cause}", FitFailedWarning)
            yield row

    def _results(self, candidates: list[dict[str, Any]], measured: list[list[dict[str, float]]]) -> dict[str, Any]:
        """Return the table of results, from what was measured (folds, candidates)."""
        found: dict[str, Any] = {"params": candidates}
        for name in dict.fromkeys(itertools.chain(*candidates)):
            column = to_numpy([None] * len(candidates)).astype(object)
            for i, point in enumerate(candidates):
                column[i] = point.get(name)
            found[f"param_{name}"] = column
        for what in measured[0][0]:
            table = to_numpy([[row[what] for row in fold] for fold in measured])
            if what.endswith("score"):
                found |= {f"split{k}_{what}": column for k, column in enumerate(table)}
            found |= {f"mean_{what}": table.mean(axis=0), f"std_{what}": table.std(axis=0)}
        means = [mean if math.isfinite(mean) else -math.inf for mean in found["mean_test_score"].tolist()]
        if max(means) == -math.inf:
            raise ValueError("GridSearch: no candidate has a score on every fold: each one's loss became infinite or "
                             "NaN, or its score is not defined; lower the learning rates, or take fewer folds, so that "
                             "each has samples with different targets")
        ranks = [1 + sum(other > mean for other in means) for mean in means]
        found["rank_test_score"] = to_numpy(ranks).astype("int32")
        return found

    def _best(self) -> Any:
        self.check_fitted("best_estimator_")
        return self.best_estimator_

    def _of_best(self, name: str) -> Any:
        """Return a method of the best estimator, if its kind has it; without one it says so when called."""
        method = getattr(clone(self.estimator), name)
        return getattr(self.best_estimator_, name) if hasattr(self, "best_estimator_") else method

    def predict(self, X: Any) -> Array:
        """Predict with the best estimator.

        Parameters
        ----------
        X : array of shape (n, features)
            The features.

        Returns
        -------
        array
            What the best estimator's ``predict`` gives.
        """
        return self._best().predict(X)

    def score(self, X: Any, y: Any) -> float:
        """Score the best estimator, by ``scoring``.

        Parameters
        ----------
        X : array of shape (n, features)
            The features.
        y : array
            The true labels or values.

        Returns
        -------
        float
            The larger, the better.
        """
        return float(self.scorer_(self._best(), X, y))

    @property
    def predict_proba(self) -> Callable[[Any], Array]:
        """The best classifier's method."""
        method: Callable[[Any], Array] = self._of_best("predict_proba")
        return method

    @property
    def predict_log_proba(self) -> Callable[[Any], Array]:
        """The best classifier's method."""
        method: Callable[[Any], Array] = self._of_best("predict_log_proba")
        return method

    @property
    def decision_function(self) -> Callable[[Any], Array]:
        """The best classifier's method."""
        method: Callable[[Any], Array] = self._of_best("decision_function")
        return method

    @property
    def classes_(self) -> Array:
        """The best classifier's labels."""
        return self._best().classes_

    @property
    def n_features_in_(self) -> int:
        """Width of X."""
        return int(self._best().n_features_in_)

    @property
    def feature_names_in_(self) -> Array:
        """Names of the columns, where X had some."""
        return self._best().feature_names_in_
