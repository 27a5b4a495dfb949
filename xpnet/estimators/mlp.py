"""The classifier and the regressor."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from ..backend import Array, Device, namespace, to_numpy
from ..nn.losses import Loss, MeanSquaredError, SoftmaxCrossEntropy, log_softmax, softmax
from ..nn.network import Network
from .base import MLP
from .conventions import encode, is_numeric, labels, same_kind, same_length, targets, unique

__all__ = ["MLPClassifier", "MLPRegressor"]


class MLPClassifier(MLP):
    """A multilayer perceptron that tells classes apart, with scikit-learn's conventions.

    Attributes
    ----------
    network_ : Network
        The trained network.
    classes_ : array of shape (classes,)
        The labels that were seen, in ascending order.
    n_features_in_ : int
        Width of X.
    feature_names_in_ : array of str, shape (features,)
        Names of the columns, where X had some.
    loss_curve_ : list of float
        The mean cross-entropy of each pass over the data, without the penalty.
    best_loss_ : float or None
        The smallest of them; None with ``early_stopping``.
    validation_scores_, best_validation_score_ : list of float and float, or None
        The accuracy on what was held out after each pass, with ``early_stopping``.
    n_iter_ : int
        Passes made.
    """

    _kind = "classifier"
    _loss: ClassVar[Loss] = SoftmaxCrossEntropy()

    def _labels(self, y: Any, home: Device, *, fresh: bool, classes: Any) -> tuple[Array, int]:
        owner = type(self).__name__
        y = labels(y, owner, home)
        given = None if classes is None else unique(labels(classes, owner, home))
        if fresh:
            self.classes_: Array = unique(y) if given is None else given
        elif given is not None and plain(given) != plain(self.classes_):
            raise ValueError(f"classes: expected those of the first call, {plain(self.classes_)}, got {plain(given)}")
        known = home.asarray(self.classes_) if is_numeric(self.classes_) else self.classes_
        return encode(known, y), known.shape[0]

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Make one pass over some data, from where training stands.

        Parameters
        ----------
        X, y : array
            As in ``fit``.
        classes : array of shape (classes,)
            All labels that any call will bring; needed in the first.

        Returns
        -------
        MLPClassifier
            The estimator itself.
        """
        if classes is None and not hasattr(self, "network_"):
            raise ValueError("classes must be passed on the first call to partial_fit.")
        return self._partial_fit(X, y, classes)

    def predict(self, X: Any) -> Array:
        """Return the likeliest class of each row of X, as an array (n,) of the labels that ``fit`` saw.

        Parameters
        ----------
        X : array of shape (n, features)
            The features.

        Returns
        -------
        array of shape (n,)
            Labels out of ``classes_``; those that are numbers lie where X does.
        """
        indices, known = self._outputs(X, "predict", lambda o: namespace(o).argmax(o, axis=-1)), self.classes_
        with Device.of(known).activate():
            found = namespace(known).take(known, Device.of(known).asarray(indices), axis=0)
        return Device.of(indices).asarray(found) if is_numeric(found) else found

    def predict_proba(self, X: Any) -> Array:
        """Return the probabilities of ``classes_`` for each row of X: (n, classes).

        Parameters
        ----------
        X : array of shape (n, features)
            The features.

        Returns
        -------
        array of shape (n, classes)
            Each row sums to 1; where X lies, in the dtype of the network.
        """
        return self._outputs(X, "predict_proba", softmax)

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of the probabilities: (n, classes).

        Parameters
        ----------
        X : array of shape (n, features)
            The features.

        Returns
        -------
        array of shape (n, classes)
            Finite also where a probability rounds to 0.
        """
        return self._outputs(X, "predict_log_proba", log_softmax)

    def decision_function(self, X: Any) -> Array:
        """Return the network's outputs (n, classes); for two classes the second's less the first's (n,).

        Parameters
        ----------
        X : array of shape (n, features)
            The features.

        Returns
        -------
        array of shape (n, classes) or (n,)
            The larger, the likelier.
        """
        return self._outputs(X, "decision_function", lambda o: o[:, 1] - o[:, 0] if o.shape[1] == 2 else o)

    def score(self, X: Any, y: Any) -> float:
        """Return the accuracy: the share of rows of X whose predicted class is that of y.

        Parameters
        ----------
        X : array of shape (n, features)
            The features.
        y : array of shape (n,)
            The true labels.

        Returns
        -------
        float
            Between 0 and 1.
        """
        return self._score(self.predict(X), y)

    def _score(self, found: Array, y: Any) -> float:
        y = labels(y, type(self).__name__, Device.of(found))
        same_length(found, y)
        same_kind(self.classes_, y)
        return float((to_numpy(found) == to_numpy(y)).mean())

    @classmethod
    def from_network(cls, network: Network, *, classes: Any = None, **params: Any) -> Self:
        """Make a fitted classifier of a trained network.

        Parameters
        ----------
        network : Network
            With layers as ``xpnet.mlp`` makes them; its arrays are used, not copied.
        classes : array of shape (outputs,), optional
            The label of each output, in ascending order; 0, 1, ... by default.
        **params
            Parameters of the estimator that say nothing of the layers.
        """
        outputs = network.architecture.out_features
        names = list(range(outputs)) if classes is None else classes
        known = labels(names, cls.__name__, network.device)
        if known.shape[0] != outputs or plain(unique(known)) != plain(known):
            raise ValueError(f"from_network: expected {outputs} classes in ascending order, got {names!r}")
        self = cls._from_network(network, **params)
        self.classes_ = known
        return self


def plain(classes: Array) -> list[Any]:
    """Return classes as a list."""
    found: list[Any] = to_numpy(classes).tolist()
    return found


class MLPRegressor(MLP):
    """A multilayer perceptron that predicts numbers, with scikit-learn's conventions.

    Attributes
    ----------
    network_ : Network
        The trained network.
    n_features_in_ : int
        Width of X.
    feature_names_in_ : array of str, shape (features,)
        Names of the columns, where X had some.
    loss_curve_ : list of float
        The mean squared error of each pass over the data, without the penalty.
    best_loss_ : float or None
        The smallest of them; None with ``early_stopping``.
    validation_scores_, best_validation_score_ : list of float and float, or None
        The r2 on what was held out after each pass, with ``early_stopping``.
    n_iter_ : int
        Passes made.
    """

    _kind = "regressor"
    _loss: ClassVar[Loss] = MeanSquaredError()
    _flat = True

    def _labels(self, y: Any, home: Device, *, fresh: bool, classes: Any) -> tuple[Array, int]:
        y = targets(y, type(self).__name__, home)
        outputs = y.shape[1] if y.ndim == 2 else 1
        if not fresh and outputs != (before := self.network_.architecture.out_features):
            raise ValueError(f"y: expected {before} output(s), as before, got {outputs}")
        self._flat = y.ndim == 1
        return y, outputs

    def partial_fit(self, X: Any, y: Any) -> Self:
        """Make one pass over some data, from where training stands.

        Parameters
        ----------
        X, y : array
            As in ``fit``.

        Returns
        -------
        MLPRegressor
            The estimator itself.
        """
        return self._partial_fit(X, y)

    def predict(self, X: Any) -> Array:
        """Return the predictions for X, of shape (n,) or (n, outputs) as y had it.

        Parameters
        ----------
        X : array of shape (n, features)
            The features.

        Returns
        -------
        array of shape (n,) or (n, outputs)
            Where X lies, in the dtype of the network.
        """
        return self._outputs(X, "predict", lambda o: o[:, 0] if self._flat and o.shape[1] == 1 else o)

    def score(self, X: Any, y: Any) -> float:
        """Return r2, the coefficient of determination, averaged over the outputs: 1 is best.

        Parameters
        ----------
        X : array of shape (n, features)
            The features.
        y : array of shape (n,) or (n, outputs)
            The true values.

        Returns
        -------
        float
            At most 1; 0 is what predicting the mean gives.
        """
        return self._score(self._outputs(X, "score"), y)

    def _score(self, found: Array, y: Any) -> float:
        home = Device.of(found)
        outputs, y = found if found.ndim == 2 else found[:, None], targets(y, type(self).__name__, home)
        same_length(outputs, y)
        if (given := y.shape[1] if y.ndim == 2 else 1) != outputs.shape[1]:
            raise ValueError(f"y: expected {outputs.shape[1]} output(s), as in fit, got {given}")
        with home.activate(), home.ignore_overflow():
            return float(to_numpy(self._loss.score(self._loss.tally(outputs, y), y)["r2"]))

    @classmethod
    def from_network(cls, network: Network, **params: Any) -> Self:
        """Make a fitted regressor of a trained network.

        Parameters
        ----------
        network : Network
            With layers as ``xpnet.mlp`` makes them; its arrays are used, not copied.
        **params
            Parameters of the estimator that say nothing of the layers.
        """
        return cls._from_network(network, **params)
