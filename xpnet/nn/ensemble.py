"""Several networks as one classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..backend import Array, check_same_device, to_numpy
from .examples import check_examples
from .losses import SoftmaxCrossEntropy
from .network import Network
from .per_model import integer, is_array, shown

__all__ = ["Ensemble"]


class Ensemble:
    """Several networks as one classifier: the mean of their probabilities.

    Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive uncertainty estimation using deep
    ensembles", NeurIPS 2017, section 2.4.

    Parameters
    ----------
    networks : sequence of Network
        The members, on one device: classifiers.

    Raises
    ------
    ValueError
        If there are none, or they differ in their features, their classes or their device.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        if not is_array(networks) or not all(isinstance(network, Network) for network in networks):
            raise TypeError(f"Ensemble: expected a list of networks, got {shown(networks)}")
        self.networks: list[Network] = list(networks)
        integer("Ensemble", "the number of networks", len(self.networks))
        shapes = {(n.architecture.in_features, n.architecture.out_features) for n in self.networks}
        if len(shapes) > 1 or any(n.models for n in self.networks):
            raise ValueError(f"Ensemble: expected single networks of equal numbers of features and classes, got "
                             f"{', '.join(map(repr, self.networks))[:300]}; take one of several with network.member(i)")
        names = {n.architecture.feature_names for n in self.networks if n.architecture.feature_names}
        if len(names) > 1:
            first, other, *_ = names
            raise ValueError("Ensemble: expected networks of the same features in the same order, got "
                             f"{', '.join(first)[:120]} and {', '.join(other)[:120]}; train them on the same columns")
        check_same_device(**{f"network {i}": n.arrays[n.architecture.parameters[0]]
                             for i, n in enumerate(self.networks)})

    def predict_proba(self, x: Array) -> Array:
        """Return the mean of the members' probabilities (n, classes), for features (n, features).

        Parameters
        ----------
        x : array of shape (n, features)
            The features.

        Returns
        -------
        array of shape (n, classes)
            Each row sums to 1.
        """
        with self.networks[0].device.activate():
            total: Any = sum(network.predict_proba(x) for network in self.networks)
            return total / len(self.networks)

    def predict(self, x: Array) -> Array:
        """Return the index of the likeliest class (n,).

        Parameters
        ----------
        x : array of shape (n, features)
            The features.

        Returns
        -------
        array of int, shape (n,)
            Out of 0 to classes - 1.
        """
        device = self.networks[0].device
        with device.activate():
            return device.xp.argmax(self.predict_proba(x), axis=-1)

    def evaluate(self, x: Array, y: Array) -> dict[str, Any]:
        """Return ``accuracy`` of the ensemble, and ``members``, a list of its members' accuracies.

        Parameters
        ----------
        x, y : arrays
            Features (n, features), and class indices (n,).

        Returns
        -------
        dict
            The values are a float and a list of float.

        Raises
        ------
        ValueError, TypeError
            If features and labels do not fit the networks or each other, as for ``Trainer.evaluate``.
        """
        first = self.networks[0]
        dtype = str(first.arrays[first.architecture.parameters[0]].dtype).rpartition(".")[2]
        x, y = check_examples(x, y, first.architecture, SoftmaxCrossEntropy(), first.device, dtype=dtype)
        labels = to_numpy(y)
        members = [float((to_numpy(network.predict(x)) == labels).mean()) for network in self.networks]
        return {"accuracy": float((to_numpy(self.predict(x)) == labels).mean()), "members": members}
