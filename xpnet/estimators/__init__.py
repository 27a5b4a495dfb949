"""Estimators: networks with scikit-learn's conventions, without importing scikit-learn.

``MLPClassifier`` and ``MLPRegressor`` make a ``Trainer`` of their parameters in ``fit``, and predict with the
network that it trained, their attribute ``network_``.
"""

from .grid_search import GridSearch
from .mlp import MLPClassifier, MLPRegressor

__all__ = ["GridSearch", "MLPClassifier", "MLPRegressor"]
