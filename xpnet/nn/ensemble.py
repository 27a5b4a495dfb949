"""Several networks as one classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..backend import Array, from_dlpack, to_numpy
from .network import Network
from .per_model import at_least_1

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
        If there are none.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self.networks: list[Network] = list(networks)
        at_least_1("Ensemble", "the number of networks", len(self.networks))

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
            Of a float and a list of float.

        Raises
        ------
        ValueError
            If there is not one label for each example.
        """
        x, labels = from_dlpack(x), to_numpy(from_dlpack(y))
        if labels.shape != tuple(x.shape[:1]) or not labels.size:
            raise ValueError(f"evaluate: expected features (n, features) and labels (n,) with n at least 1, got shapes "
                             f"{tuple(x.shape)} and {labels.shape}")
        members = [float((to_numpy(network.predict(x)) == labels).mean()) for network in self.networks]
        return {"accuracy": float((to_numpy(self.predict(x)) == labels).mean()), "members": members}
