"""What an estimator and a grid search keep of a fit that is interrupted."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from estimating import all_entrances, both_kinds, partial_fit
from helpers import assert_same, blobs

from xpnet import DivergenceError, Trainer
from xpnet.backend import Device, to_numpy
from xpnet.estimators import GridSearch
from xpnet.training.run import Run


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Have Ctrl-C interrupt: in a shell's background jobs it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt(monkeypatch: pytest.MonkeyPatch, update: int, how: Callable[[], Any]) -> None:
    """Interrupt training after so many updates from now."""
    plain, made = Run.update, [0]

    def counted(self: Run, *args: Any) -> Any:
        value = plain(self, *args)
        made[0] += 1
        if made[0] == update:
            how()
        return value

    monkeypatch.setattr(Run, "update", counted)


def ctrl_c() -> None:
    """Do what Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


@both_kinds
@all_entrances
@pytest.mark.parametrize("epochs", [0, 2])
def test_ctrl_c_keeps_the_network_so_far(
    monkeypatch: pytest.MonkeyPatch, make: Any, params: Any, train: Any, epochs: int
) -> None:
    early, epochs = "early_stopping" in params, 0 if train is partial_fit else epochs
    x, y = blobs(Device(), 64, dtype="float64")
    interrupt(monkeypatch, epochs * 4 + 2, ctrl_c)  # passes of 4 batches, with and without the 6 that are held out
    model = make(**params)
    words = f"interrupted by user after {epochs} passes: MLP.* keeps the network so far"
    with pytest.warns(UserWarning, match=words) as caught:
        assert train(model, x, y) is model
    assert len(caught) == 1  # nothing of convergence
    assert caught[0].filename == train.__code__.co_filename
    assert model.n_iter_ == len(model.loss_curve_) == epochs
    assert np.isfinite(to_numpy(model.predict(x)).astype(float)).all()
    monkeypatch.undo()
    if early and epochs:  # the best network of the passes that were made
        assert_same(model.network_.arrays, make(**{**params, "max_iter": epochs}).fit(x, y).network_.arrays)
    else:
        assert model._step == epochs * 4 + 2
    model.set_params(warm_start=True, max_iter=2).fit(x, y)
    assert model.n_iter_ == epochs + 2


@both_kinds
def test_ctrl_c_keeps_the_updates_that_were_made(monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    x, y = blobs(Device(), 64, dtype="float64")
    passes = make(max_iter=2).fit(x, y)
    interrupt(monkeypatch, 8, ctrl_c)
    with pytest.warns(UserWarning, match="interrupted by user"):
        stopped = make().fit(x, y)
    assert_same(stopped.network_.arrays, passes.network_.arrays)


@both_kinds
@all_entrances
def test_ctrl_c_before_the_first_update_is_raised(
    monkeypatch: pytest.MonkeyPatch, make: Any, params: Any, train: Any
) -> None:
    x, y = blobs(Device(), 60)

    def start(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "start", start)
    model = make(**params)
    before = vars(model).copy()
    with pytest.raises(KeyboardInterrupt):
        train(model, x, y)
    assert vars(model) == before


@both_kinds
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
def test_what_is_kept_of_an_interrupted_fit_is_finite(monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    x, y = blobs(Device(), 64)
    interrupt(monkeypatch, 3, ctrl_c)
    model = make(solver="sgd", learning_rate_init=1e30)
    with pytest.raises(DivergenceError, match="lower learning_rate_init"):
        model.fit(x, y)
    assert not hasattr(model, "network_")


@both_kinds
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("fitted", [False, True], ids=["first", "later"])
def test_ctrl_c_in_a_search_is_raised(monkeypatch: pytest.MonkeyPatch, make: Any, fitted: bool, early: bool) -> None:
    x, y = blobs(Device(), 60)
    search = GridSearch(make(early_stopping=early), {"l2": [0.0, 0.1]}, cv=2)
    if fitted:
        search.fit(x, y)
    before = vars(search).copy()
    interrupt(monkeypatch, 7, ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        search.fit(x, y)
    assert vars(search) == before


@both_kinds
def test_ctrl_c_while_a_search_refits_keeps_the_network_so_far(monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    x, y = blobs(Device(), 64)
    whole = GridSearch(make(), {"l2": [0.0, 0.1]}, cv=2).fit(x, y)
    interrupt(monkeypatch, 2 * 4 * 2 + 3, ctrl_c)  # 2 folds of 4 passes of 2 batches
    with pytest.warns(UserWarning, match="interrupted by user after 0 passes"):
        search = GridSearch(make(), {"l2": [0.0, 0.1]}, cv=2).fit(x, y)
    assert search.cv_results_["mean_test_score"].tolist() == whole.cv_results_["mean_test_score"].tolist()
    assert search.predict(x).shape == (64,)
