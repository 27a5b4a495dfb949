"""What scikit-learn's conventions ask of any estimator: parameters by name, tags, inputs checked, errors in its words.

scikit-learn is never imported here. Where the program has imported it, its own classes of errors, warnings and
tags are used, so that whoever catches them catches these.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Self

from ..backend import Array, Device, namespace, to_numpy
from ..datasets.admission import admit, check_finite, feature_names

__all__ = [
    "ConvergenceWarning", "DataConversionWarning", "Estimator", "NotFittedError", "encode", "features", "is_numeric",
    "labels", "of_sklearn", "same_kind", "same_length", "targets", "unique", "warn",
]


class NotFittedError(ValueError, AttributeError):
    """An estimator was used before ``fit``."""


class DataConversionWarning(UserWarning):
    """Data were taken in another shape than they came in."""


class ConvergenceWarning(UserWarning):
    """Training ended before it had converged."""


def of_sklearn(own: type[Any]) -> type[Any]:
    """Return scikit-learn's class of the same name where it is imported, else ``own``."""
    found: type[Any] = getattr(sys.modules.get("sklearn.exceptions"), own.__name__, own)
    return found


def warn(message: str, own: type[Any]) -> None:
    """Warn at the line outside the package that called it."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__package__") == __package__:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, of_sklearn(own), stacklevel=level)


class Estimator:
    """A dataclass whose fields are its parameters, and what scikit-learn asks of it beside fit and predict."""

    _kind = "classifier"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name.

        Parameters
        ----------
        deep : bool
            Also those of parameters that are estimators, as ``name__parameter``.
        """
        found = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = found[field.name] = getattr(self, field.name)
            if deep and hasattr(value, "get_params") and not isinstance(value, type):
                found |= {f"{field.name}__{name}": inner for name, inner in value.get_params().items()}
        return found

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name, and give the estimator.

        Raises
        ------
        ValueError
            If there is no such parameter.
        """
        names = [field.name for field in dataclasses.fields(self)]  # type: ignore[arg-type]
        for name, value in params.items():
            own, nested, inner = name.partition("__")
            if own not in names:
                raise ValueError(f"Invalid parameter {own!r} for estimator {self}. Valid parameters are: {names!r}.")
            if nested:
                getattr(self, own).set_params(**{inner: value})
            else:
                setattr(self, own, value)
        return self

    def __repr__(self) -> str:
        fields = [(f, getattr(self, f.name)) for f in dataclasses.fields(self)]  # type: ignore[arg-type]
        changed = [f"{f.name}={value!r}" for f, value in fields if repr(value) != repr(f.default)]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        """Describe the estimator to scikit-learn, which has to be imported."""
        utils: Any = sys.modules.get("sklearn.utils")
        if utils is None:
            raise RuntimeError("tags are scikit-learn's, which is not imported: import sklearn first")
        classifies = self._kind == "classifier"
        return utils.Tags(
            estimator_type=self._kind,
            target_tags=utils.TargetTags(required=True, multi_output=not classifies),
            classifier_tags=utils.ClassifierTags() if classifies else None,
            regressor_tags=None if classifies else utils.RegressorTags(),
            array_api_support=True,
        )

    @contextlib.contextmanager
    def unchanged_by_errors(self) -> Iterator[None]:
        """Put every attribute back if an error, or an interruption, ends what is done inside.

        An estimator that could not be fitted is then as it was before: not fitted, or fitted to earlier data.
        """
        before = vars(self).copy()
        try:
            yield
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    def check_fitted(self, attribute: str = "network_") -> None:
        """Check that ``fit`` was called."""
        if not hasattr(self, attribute):
            raise of_sklearn(NotFittedError)(f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with "
                                             "appropriate arguments before using this estimator.")


def features(estimator: Any, X: Any, *, reset: bool) -> Array:
    """Return X as an array (n, features) of finite real numbers, where it lies.

    Parameters
    ----------
    estimator : Estimator
        The estimator whose ``n_features_in_`` and ``feature_names_in_`` are compared, or set if ``reset``.
    X : array, list of lists or data frame
        The features.
    reset : bool
        Set the attributes rather than compare with them.
    """
    owner = type(estimator).__name__
    names = feature_names(X)
    x = admit(X, "X", convert=True)
    if x.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {x.ndim}D array instead, of shape {tuple(x.shape)}. Reshape your data either "
            "using X.reshape(-1, 1) if your data has a single feature or X.reshape(1, -1) if it contains a single "
            "sample."
        )
    n, k = x.shape
    if not reset:
        _same_names(names, getattr(estimator, "feature_names_in_", None), owner)
    for count, what in ((n, "sample"), (k, "feature")):
        if not count:
            raise ValueError(f"Found array with 0 {what}(s) (shape={(n, k)}) while a minimum of 1 is required by "
                             f"{owner}.")
    if not reset and k != estimator.n_features_in_:
        raise ValueError(f"X has {k} features, but {owner} is expecting {estimator.n_features_in_} features as input.")
    with Device.of(x).activate():
        check_finite(x, "X", dtype=namespace(x).float64)
    if reset:
        estimator.n_features_in_ = k
        vars(estimator).pop("feature_names_in_", None)
        if names is not None:
            estimator.feature_names_in_ = to_numpy(names).astype(object)
    return x


def _same_names(names: list[str] | None, known: Sequence[str] | None, owner: str) -> None:
    """Check that names of features are those that were seen in fit, in their order."""
    if names is None or known is None:
        if known is not None:
            warn(f"X does not have valid feature names, but {owner} was fitted with feature names", UserWarning)
        elif names is not None:
            warn(f"X has feature names, but {owner} was fitted without feature names", UserWarning)
        return
    fitted = list(known)
    if names == fitted:
        return
    lines = ["The feature names should match those that were passed during fit."]
    for title, found in (("Feature names unseen at fit time:", sorted(set(names) - set(fitted))),
                         ("Feature names seen at fit time, yet now missing:", sorted(set(fitted) - set(names)))):
        if found:
            lines += [title, *[f"- {name}" for name in found[:5]], *(["- ..."] if len(found) > 5 else [])]
    if len(lines) == 1:
        lines.append("Feature names must be in the same order as they were in fit.")
    raise ValueError("\n".join(lines) + "\n")


def same_length(x: Array, y: Array) -> None:
    """Check that there are as many labels as samples."""
    if x.shape[0] != y.shape[0]:
        raise ValueError(f"Found input variables with inconsistent numbers of samples: {[x.shape[0], y.shape[0]]}")


def labels(y: Any, owner: str, home: Device) -> Array:
    """Return the classes' labels (n,): numbers where X lies, text and other objects on the host."""
    y = given(y, owner)
    if y.ndim == 2 and y.shape[1] == 1:
        warn("A column-vector y was passed when a 1d array was expected. Please change the shape of y to (n_samples,), "
             "for example using ravel().", DataConversionWarning)
        y = y[:, 0]
    if y.ndim != 1:
        raise ValueError(f"y should be a 1d array, got an array of shape {tuple(y.shape)} instead.")
    if not is_numeric(y):
        return y
    y, xp = home.asarray(y), home.xp
    if xp.isdtype(y.dtype, "real floating"):
        with home.activate():
            check_finite(y, "y")
            whole = bool(xp.all(y == xp.round(y)))
        if not whole:
            raise ValueError("Unknown label type: continuous. Classes are integers or text: use MLPRegressor, or label "
                             "the bins of a continuous target")
    return y


def targets(y: Any, owner: str, home: Device) -> Array:
    """Return the numbers to predict, (n,) or (n, outputs), where X lies."""
    y = given(y, owner, real=True)
    if y.ndim not in (1, 2) or not all(y.shape[1:]):
        raise ValueError(f"y should be a 1d array or a 2d array with a column for each output, got an array of shape "
                         f"{tuple(y.shape)} instead.")
    with Device.of(y).activate():
        check_finite(y, "y", dtype=namespace(y).float64)
    return home.asarray(y)


def given(y: Any, owner: str, *, real: bool = False) -> Array:
    """Return y as an array, having checked that there is one."""
    if y is None:
        raise ValueError(f"{owner} requires y to be passed, but the target y is None.")
    return admit(y, "y", convert=True, real=real)


def is_numeric(y: Array) -> bool:
    """Return whether labels are numbers (or true and false), which any library's arrays hold."""
    xp = namespace(y)
    if xp.isdtype(y.dtype, "complex floating"):
        raise ValueError("Complex data not supported: labels are integers or text")
    return bool(xp.isdtype(y.dtype, ("bool", "integral", "real floating")))


def unique(y: Array) -> Array:
    """Return the classes among labels, in ascending order."""
    xp = namespace(y)
    if xp.isdtype(y.dtype, "bool"):
        return xp.astype(unique(xp.astype(y, xp.uint8)), y.dtype)
    try:
        with Device.of(y).activate():
            return xp.sort(xp.unique_values(y))
    except TypeError as error:  # NumPy cannot order objects of several kinds
        raise ValueError(f"Unknown label type: labels that have no order ({error}); use text or integers") from None


def same_kind(classes: Array, y: Array) -> None:
    """Check that labels are of the same kind as the classes: numbers are never equal to text, whatever they say.

    Raises
    ------
    ValueError
        If they are not.
    """
    kinds = []
    for a in (classes, y):
        found = {type(value) for value in ([0] if is_numeric(a) else to_numpy(a).reshape(-1).tolist())}
        kinds.append(" and ".join(sorted({int: "numbers", str: "text"}.get(t, t.__name__) for t in found)))
    if kinds[0] != kinds[1]:
        raise ValueError(f"y: expected {kinds[0]}, like the classes (dtype {classes.dtype}) that the network was "
                         f"trained on, got {kinds[1]} (dtype {y.dtype}); convert with y.astype(classes_.dtype)")


def encode(classes: Array, y: Array) -> Array:
    """Return each label's index among the sorted ``classes``.

    Raises
    ------
    ValueError
        If a label is not among them, or of another kind.
    """
    same_kind(classes, y)
    xp = namespace(y)
    if xp.isdtype(y.dtype, "bool"):
        y, classes = xp.astype(y, xp.uint8), xp.astype(classes, xp.uint8)
    with Device.of(y).activate():
        found = xp.clip(xp.searchsorted(classes, y), 0, classes.shape[0] - 1)
        known = bool(xp.all(xp.take(classes, found, axis=0) == y))
    if not known:
        raise ValueError(f"y has labels that are not among the classes {to_numpy(classes).tolist()}")
    return found
