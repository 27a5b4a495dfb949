"""Estimators under scikit-learn's own checks, in its pipelines and searches, and beside its grid search."""

from __future__ import annotations

import importlib.util
import os

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # before SciPy is imported: the checks of array-API input need it

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import optional
from helpers import blobs

sklearn = optional("sklearn")

from sklearn import model_selection  # noqa: E402
from sklearn.base import clone, is_classifier, is_regressor  # noqa: E402
from sklearn.calibration import CalibratedClassifierCV  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils import estimator_checks, get_tags  # noqa: E402

from xpnet.backend import Device  # noqa: E402
from xpnet.estimators import (  # noqa: E402
    GridSearch,
    MLPClassifier,
    MLPRegressor,
)
from xpnet.estimators.candidates import folds  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*has not converged in max_iter", "ignore:.*BaseEstimator")

SEEDED = {"hidden_layer_sizes": (10,), "max_iter": 20, "n_iter_no_change": 20, "learning_rate_init": 0.02,
          "random_state": 0}
CHECKED: dict[str, Any] = {
    "classifier": MLPClassifier(), "regressor": MLPRegressor(),
    "classifier, other rules": MLPClassifier(batch_norm=True, dropout=0.1, solver="sgd", learning_rate_init=0.05),
    "regressor, linear": MLPRegressor((), solver="adamw", learning_rate_init=0.05),
    "search": GridSearch(MLPClassifier(random_state=0, max_iter=100, learning_rate_init=0.01), {"l2": [0, 0.1]}, cv=2),
}
#: The search's error comes from its best estimator, and names that.
EXPECTED = {"search": {"check_array_api_same_namespace": "names the best estimator"}}


@pytest.mark.backends("numpy", "torch", "cupy")  # the checks bring arrays of the libraries that are here
@pytest.mark.filterwarnings("ignore")  # they provoke many
@pytest.mark.parametrize("case", [
    name if name in ("classifier", "regressor") else pytest.param(name, marks=pytest.mark.slow) for name in CHECKED])
def test_scikit_learns_checks_pass(case: str) -> None:
    found = estimator_checks.check_estimator(
        CHECKED[case], on_fail=None, on_skip=None, expected_failed_checks=EXPECTED.get(case, {}))
    failed = {row["check_name"]: row["exception"] for row in found if row["status"] == "failed"}
    assert not failed
    expected = {row["check_name"] for row in found if row["status"] == "xfail"}
    assert expected == set(EXPECTED.get(case, {}))
    passed = [row["check_name"] for row in found if row["status"] == "passed"]
    assert len(passed) > 50
    assert passed.count("check_array_api_input") >= 2  # NumPy and array-api-strict at least
    assert "check_estimators_partial_fit_n_features" in passed
    # It mixes torch with NumPy.
    assert "check_array_api_mixed_inputs" in passed or not importlib.util.find_spec("torch")
    # Nothing is left out but for libraries and devices that are not here.
    assert all("array_api" in row["check_name"] for row in found if row["status"] == "skipped")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("check", ["check_dataframe_column_names_consistency", "check_inplace_ensure_writeable"])
def test_checks_that_check_estimator_leaves_out_pass_too(make: Any, check: str) -> None:
    if "dataframe" in check:
        pytest.importorskip("pandas", reason="pandas is not installed")
    getattr(estimator_checks, check)(make.__name__, make(max_iter=5))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_library_gives_the_values_of_numpy(device: Device, make: Any, dtype: str) -> None:
    library = {"cpu": "numpy"}.get(device.name, device.xp.__name__.rpartition(".")[2])
    where = {"torch": "cpu", "array_api_strict": "device1"}.get(library)
    model = make(hidden_layer_sizes=(10,), max_iter=10)
    estimator_checks.check_array_api_input_and_values(make.__name__, model, library, where, dtype)


class Off(MLPRegressor):
    """A regressor that predicts a little more at each call."""

    calls = 0

    def predict(self, X: Any) -> Any:
        """Predict wrongly."""
        Off.calls += 1
        return super().predict(X) + float(Off.calls)


@pytest.mark.filterwarnings("ignore")
def test_other_values_than_those_of_numpy_are_seen() -> None:
    with pytest.raises(AssertionError, match="did not the return the same result"):
        estimator_checks.check_array_api_input_and_values("Off", Off(max_iter=2), "array_api_strict")


def test_tags_say_what_the_estimators_are() -> None:
    assert is_classifier(MLPClassifier())
    assert is_regressor(MLPRegressor())
    assert is_classifier(GridSearch(MLPClassifier(), {}))
    assert get_tags(MLPRegressor()).target_tags.multi_output
    assert get_tags(MLPClassifier()).array_api_support


def test_errors_and_warnings_are_scikit_learns_where_it_is_imported() -> None:
    with pytest.raises(NotFittedError):
        MLPClassifier().predict([[1.0]])
    with pytest.warns(sklearn.exceptions.ConvergenceWarning):
        MLPClassifier(max_iter=11).fit([[1.0], [2.0]], [0, 1])
    with pytest.warns(sklearn.exceptions.DataConversionWarning):
        MLPClassifier(max_iter=1).fit([[1.0], [2.0]], [[0], [1]])


def test_in_pipelines_and_cross_validation() -> None:
    x, y = blobs(Device(), 90)
    model = MLPClassifier(**SEEDED)
    pipeline = make_pipeline(StandardScaler(), model)
    assert pipeline.fit(x, y).score(x, y) > 0.9
    assert pipeline.predict_proba(x).shape == (90, 3)
    assert pipeline._repr_html_()
    scores = model_selection.cross_val_score(model, x, y, cv=3)
    assert scores.min() > 0.8
    assert pickle.loads(pickle.dumps(pipeline)).score(x, y) == pipeline.score(x, y)  # noqa: S301
    copied = clone(pipeline.named_steps["mlpclassifier"])
    assert not hasattr(copied, "network_")
    assert copied.get_params() == model.get_params()


def test_in_a_grid_search_and_calibration() -> None:
    x, y = blobs(Device(), 90)
    search = model_selection.GridSearchCV(
        make_pipeline(StandardScaler(), MLPClassifier(**SEEDED)), {"mlpclassifier__l2": [0.0, 10.0]}, cv=3).fit(x, y)
    assert search.best_params_ == {"mlpclassifier__l2": 0.0}
    for method in ("sigmoid", "isotonic"):
        calibrated = CalibratedClassifierCV(MLPClassifier(**SEEDED), method=method, cv=3).fit(x, y)
        assert calibrated.score(x, y) > 0.9
        assert np.allclose(calibrated.predict_proba(x).sum(axis=1), 1.0)


@pytest.mark.backends("torch")
def test_arrays_of_other_libraries_go_through_scikit_learn(device: Device) -> None:
    x, y = blobs(device, 60)
    with sklearn.config_context(array_api_dispatch=True):
        assert model_selection.cross_val_score(MLPClassifier(**SEEDED), x, y, cv=3).min() > 0.8
        search = model_selection.GridSearchCV(MLPClassifier(**SEEDED), {"l2": [0.0, 10.0]}, cv=3).fit(x, y)
    assert search.best_params_ == {"l2": 0.0}
    assert Device.of(search.best_estimator_.predict(x)) == device


@pytest.mark.parametrize("k", [2, 3, 5])
def test_folds_are_those_of_scikit_learn(k: int) -> None:
    generator = np.random.default_rng(0)
    for n in (20, 53):
        y = generator.choice(["b", "a", "c"], n, p=[0.5, 0.3, 0.2])
        for splitter, strata in ((model_selection.KFold(k), None), (model_selection.StratifiedKFold(k), y.tolist())):
            expected = np.empty(n, int)
            for number, (_, test) in enumerate(splitter.split(y, y)):
                expected[test] = number
            assert folds(n, k, strata) == expected.tolist()


@pytest.mark.parametrize("make", [MLPClassifier, MLPRegressor])
def test_the_search_ranks_as_scikit_learns(make: Any) -> None:
    x, y = blobs(Device(), 90, dtype="float64", spread=3.0)
    grid = {"l2": [0.0, 0.03, 0.3], "learning_rate_init": [0.003, 0.03], "random_state": [0, 1]}
    options: dict[str, Any] = {"cv": 3, "return_train_score": True}
    mine = GridSearch(make(**SEEDED), grid, **options).fit(x, y)
    theirs = model_selection.GridSearchCV(make(**SEEDED), grid, **options).fit(x, y)
    assert set(mine.cv_results_) == set(theirs.cv_results_)
    assert mine.cv_results_["params"] == theirs.cv_results_["params"]
    for name, expected in theirs.cv_results_.items():
        if name.endswith("score"):
            assert np.allclose(mine.cv_results_[name], expected, rtol=1e-9, atol=0), name
            assert mine.cv_results_[name].dtype == expected.dtype
        if name.startswith("param_"):
            assert mine.cv_results_[name].tolist() == expected.tolist()
    assert mine.cv_results_["rank_test_score"].tolist() == theirs.cv_results_["rank_test_score"].tolist()
    for name in ("best_params_", "best_index_", "n_splits_", "multimetric_", "n_features_in_"):
        assert getattr(mine, name) == getattr(theirs, name)
    assert mine.best_score_ == pytest.approx(theirs.best_score_)
    assert np.array_equal(mine.predict(x), theirs.predict(x))


@pytest.mark.slow
def test_the_benchmark_of_the_search_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import search

    monkeypatch.setattr(search, "CASES", {"300 x 3, (4,)": (300, 3, (4,), 1)})
    search.main(["--rounds", "1", "--cases", "300 x 3", "--out", str(tmp_path)])
    seconds = json.loads((tmp_path / "search.json").read_text("utf-8"))["cases"]["300 x 3, (4,)"]["seconds"]
    assert len(seconds) == 5
    assert all(len(each) == 1 and each[0] > 0 for each in seconds.values())
    assert "| GridSearch |" in (tmp_path / "search.md").read_text("utf-8")


def test_scorers_of_scikit_learn_are_known_by_name() -> None:
    x, y = blobs(Device(), 60, dtype="float64", spread=3.0)
    options: dict[str, Any] = {"param_grid": {"l2": [0.0, 0.1, 1.0]}, "scoring": "neg_log_loss", "cv": 3}
    mine = GridSearch(MLPClassifier(**SEEDED), **options).fit(x, y)
    theirs = model_selection.GridSearchCV(MLPClassifier(**SEEDED), **options).fit(x, y)
    assert np.allclose(mine.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], rtol=1e-9)
    assert mine.score(x, y) == pytest.approx(theirs.score(x, y))
    cv = model_selection.StratifiedKFold(3, shuffle=True, random_state=1)
    assert GridSearch(MLPClassifier(**SEEDED), {"l2": [0.0]}, cv=cv).fit(x, y).n_splits_ == 3
