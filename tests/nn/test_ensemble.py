"""Ensembles: of networks that belong together, and evaluated on what a trainer would evaluate."""

from __future__ import annotations

import numpy as np
import pytest
from entrances import X, Y, fitted, trainer

import xpnet
from xpnet import Trainer, mlp


def test_accuracies_are_those_of_the_networks() -> None:
    networks = [fitted("sweep").network(i) for i in range(2)]
    found = xpnet.Ensemble(networks).evaluate(X, Y)
    assert found["members"] == [float((network.predict(X) == Y).mean()) for network in networks]
    mean = sum(network.predict_proba(X) for network in networks) / 2
    assert found["accuracy"] == (mean.argmax(axis=1) == Y).mean()


@pytest.mark.parametrize("other", [mlp(6, [4], 2), mlp(5, [4], 3)], ids=["classes", "features"])
def test_members_have_the_same_features_and_classes(other: xpnet.Sequential) -> None:
    made = Trainer(other)
    made.fit(X[:, : other.in_features], Y % 2, steps=1)
    with pytest.raises(ValueError, match="expected single networks of equal numbers of features and classes"):
        xpnet.Ensemble([fitted("trainer").network, made.network])


def test_members_are_single_networks() -> None:
    made = trainer(seed=[0, 1])
    made.fit(X, Y, steps=1)
    with pytest.raises(ValueError, match=r"take one of several with network.member\(i\)"):
        xpnet.Ensemble([made.network])
    members = xpnet.Ensemble([made.network.member(i) for i in range(2)])
    assert np.isclose(members.predict_proba(X).sum(axis=1), 1.0).all()


def test_members_have_features_of_the_same_names() -> None:
    made = []
    for names in (list("abcdef"), list("fabcde"), None):
        member = Trainer(mlp(6, [4], 3, feature_names=names), batch_size=20)
        member.fit(X, Y, steps=1)
        made.append(member.network)
    with pytest.raises(ValueError, match=r"the same features in the same order, got .*train them on the same columns"):
        xpnet.Ensemble(made)
    assert xpnet.Ensemble([made[0], made[0], made[2]]).predict(X).shape == Y.shape
