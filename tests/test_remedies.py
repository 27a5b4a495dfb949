"""Every remedy that an error names is followed: the error is provoked, names the remedy, and the remedy works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import blobs
from remedies import Remedy

import xpnet
from xpnet import (
    SGD,
    BestWeights,
    DivergenceError,
    EarlyStopping,
    History,
    Linear,
    MeanSquaredError,
    ReLU,
    Sequential,
    Trainer,
    find_lr,
    mlp,
    sweep,
)
from xpnet.backend import Device
from xpnet.training.callbacks import CSV

pytestmark = pytest.mark.filterwarnings("ignore:.*has not converged", "ignore:overflow", "ignore:invalid value")


X, Y = blobs(Device(), 60)
X64 = X.astype("float64")
WEIGHTS = mlp(6, [8], 3)
MODEL: dict[str, Any] = {"hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0, "batch_size": 20}


def trainer(network: Any = WEIGHTS, **options: Any) -> Trainer:
    """Return a small trainer."""
    return Trainer(network, **{"batch_size": 20, **options})


def trained(network: Any = WEIGHTS, x: Any = X, y: Any = Y, **options: Any) -> Trainer:
    """Return a trainer after a few updates."""
    made = trainer(network, **options)
    made.fit(x, y, steps=6)
    return made


def make(lr: float = 0.1, seed: int = 0, batch_size: int = 20) -> Trainer:
    """Return a sweep's trainer."""
    return trainer(schedule=lr, seed=seed, batch_size=batch_size)


def named(**values: float) -> Trainer:
    """Return a sweep's trainer of values under any name."""
    return trainer(schedule=next(iter(values.values())))


def regression(seed: int = 0) -> Trainer:
    """Return a sweep's trainer for regression."""
    return trainer(mlp(6, [4], 1), loss=MeanSquaredError(), seed=seed)


GENERAL: dict[str, Remedy] = {
    "a class for a layer": Remedy(TypeError, r"make it, like ReLU\(\)", lambda: Sequential(2, [Linear(2), ReLU]),  # type: ignore[list-item]
                                  lambda: Sequential(2, [Linear(2), ReLU()])),
    "a list to predict": Remedy(TypeError, r"wrap it in numpy\.asarray", lambda: trained().network.predict(X.tolist()),
                                lambda: trained().network.predict(np.asarray(X.tolist()))),
    "lists to train on": Remedy(TypeError, r"wrap it in numpy\.asarray", lambda: trainer().fit(X.tolist(), Y, steps=1),
                                lambda: trainer().fit(np.asarray(X.tolist()), np.asarray(Y.tolist()), steps=1)),
    "a masked array": Remedy(TypeError, r"use x\.filled\(\.\.\.\), or leave",
                             lambda: trainer().fit(np.ma.masked_array(X, X > 9), Y, steps=1),
                             lambda: trainer().fit(np.ma.masked_array(X, X > 9).filled(0.0), Y, steps=1)),
    "labels of floats": Remedy(TypeError, r"for whole numbers use y\.astype\('int64'\)",
                               lambda: trainer().fit(X, Y.astype(float), steps=1),
                               lambda: trainer().fit(X, Y.astype(float).astype("int64"), steps=1)),
    "labels of text": Remedy(TypeError, r"for names numpy\.unique\(y, return_inverse=True\)\[1\]",
                             lambda: trainer().fit(X, np.asarray(["a", "b", "c"])[Y], steps=1),
                             lambda: trainer().fit(X, np.unique(np.asarray(["a", "b", "c"])[Y], return_inverse=True)[1],
                                                   steps=1)),
    "targets for a classifier": Remedy(TypeError, r"for regression Trainer\(\.\.\., loss=xpnet\.MeanSquaredError\(\)\)",
                                       lambda: trainer(mlp(6, [4], 1)).fit(X, X[:, 0], steps=1),
                                       lambda: trainer(mlp(6, [4], 1), loss=xpnet.MeanSquaredError()).fit(
                                           X, X[:, 0], steps=1)),
    "targets of objects": Remedy(TypeError, r"use y\.astype\('float32'\)",
                                 lambda: regression().fit(X, X[:, 0].astype(object), steps=1),
                                 lambda: regression().fit(X, X[:, 0].astype(object).astype("float32"), steps=1)),
    "a column of labels": Remedy(ValueError, r"use y\[:, 0\] for a column of labels",
                                 lambda: trainer().fit(X, Y[:, None], steps=1),
                                 lambda: trainer().fit(X, Y[:, None][:, 0], steps=1)),
    "one-hot rows": Remedy(ValueError, r"y\.argmax\(axis=-1\) for one-hot rows",
                           lambda: trainer().fit(X, np.eye(3)[Y], steps=1),
                           lambda: trainer().fit(X, np.eye(3)[Y].argmax(axis=-1), steps=1)),
    "NaN": Remedy(ValueError, "fill them in or leave them out",
                  lambda: trainer().fit(np.where(X > 2, np.nan, X), Y, steps=1),
                  lambda: trainer().fit(np.nan_to_num(np.where(X > 2, np.nan, X)), Y, steps=1)),
    "no network": Remedy(TypeError, r"expected a Sequential, like xpnet\.mlp\(", lambda: Trainer([8]),  # type: ignore
                         lambda: Trainer(xpnet.mlp(6, [8], 3))),
    "a class for an optimizer": Remedy(TypeError, r"like xpnet\.SGD\(\)", lambda: trainer(optimizer=SGD),
                                       lambda: trainer(optimizer=xpnet.SGD())),
    "a class for a loss": Remedy(TypeError, r"like xpnet\.SoftmaxCrossEntropy\(\)",
                                 lambda: trainer(loss=MeanSquaredError),
                                 lambda: trainer(loss=xpnet.SoftmaxCrossEntropy())),
    "batches of one": Remedy(ValueError, "expected a batch_size of at least 2",
                             lambda: trainer(mlp(6, [8], 3, batch_norm=True), batch_size=1),
                             lambda: trained(mlp(6, [8], 3, batch_norm=True), batch_size=2)),
    "halving several": Remedy(ValueError, "several have 'freeze'", lambda: trainer(l2=[0.0, 0.1], divergence="halve"),
                              lambda: trained(l2=[0.0, 0.1], divergence="freeze")),
    "divergence, a lower rate": Remedy(DivergenceError, "lower the rate", lambda: trained(schedule=1e5),
                                       lambda: trained(schedule=1e-2)),
    "divergence, halving": Remedy(DivergenceError, "go on at half the rate, with divergence='halve'",
                                  lambda: explode("raise"), lambda: explode("halve")),
    "divergence, freezing": Remedy(DivergenceError, "go on without that model, with divergence='freeze'",
                                   lambda: trained(schedule=np.asarray([0.01, 1e30]), l2=[0.0, 0.0]),
                                   lambda: trained(schedule=np.asarray([0.01, 1e30]), l2=[0.0, 0.0],
                                                   divergence="freeze")),
    "nothing to plot": Remedy(ValueError, r"train first, with Trainer\.fit", lambda: History().plot(),
                              lambda: trained().history.plot()),
    "several to plot": Remedy(ValueError, r"draw history\.member\(0\)\.plot\(\)",
                              lambda: trained(l2=[0.0, 0.1]).history.plot(),
                              lambda: trained(l2=[0.0, 0.1]).history.member(0).plot()),
    "no lines": Remedy(ValueError, "leave it out for all lines", lambda: trained().history.table(last=0),
                       lambda: trained().history.table()),
    "no validation data": Remedy(ValueError, r"give fit validation=\(x, y\)",
                                 lambda: trainer(callbacks=[EarlyStopping()]).fit(X, Y, steps=3),
                                 lambda: trainer(callbacks=[EarlyStopping()]).fit(X, Y, steps=3, validation=(X, Y))),
    "an unknown column": Remedy(ValueError, "with mode='min' or mode='max' it may be a column that a callback adds",
                                lambda: trainer(callbacks=[Adds(), EarlyStopping("mine")]).fit(X, Y, steps=3),
                                lambda: trainer(callbacks=[Adds(), EarlyStopping("mine", mode="min")]).fit(
                                    X, Y, steps=3)),
    "no best weights": Remedy(RuntimeError, r"call Trainer\.fit with it first",
                              lambda: BestWeights().restore(trained()),
                              lambda: best().restore(trained())),
    "no network yet": Remedy(RuntimeError, r"call fit\(x, y\) first", lambda: trainer().network,
                             lambda: trained().network),
    "a rate test of several": Remedy(ValueError, "give each option one value",
                                     lambda: find_lr(WEIGHTS, X, Y, steps=10, l2=[0.0, 0.1]),
                                     lambda: find_lr(WEIGHTS, X, Y, steps=10, l2=0.1)),
    "a rate test's own option": Remedy(TypeError, "leave schedule= out",
                                       lambda: find_lr(WEIGHTS, X, Y, steps=10, schedule=0.1),
                                       lambda: find_lr(WEIGHTS, X, Y, steps=10)),
    "no range to suggest": Remedy(ValueError, "raise high= or steps=, lower low=",
                                  lambda: find_lr(WEIGHTS, X, Y, high=2e-5, steps=20).eta_min,
                                  lambda: find_lr(WEIGHTS, X, Y, high=1.0, low=1e-6, steps=200).eta_min),
    "trainers that differ": Remedy(ValueError, "train the others apart",
                                   lambda: Trainer.stack([make(), make(batch_size=10)]),
                                   lambda: [make().fit(X, Y, steps=1), make(batch_size=10).fit(X, Y, steps=1)]),
    "a point twice": Remedy(ValueError, "give each seed once", lambda: sweep(make, {"seed": [0, 0]}, X, Y, steps=2),
                            lambda: sweep(make, {"seed": [0, 1]}, X, Y, steps=2)),
    "epochs of several lengths": Remedy(ValueError, "give steps= instead of epochs=",
                                        lambda: sweep(make, {"batch_size": [10, 20]}, X, Y, epochs=1),
                                        lambda: sweep(make, {"batch_size": [10, 20]}, X, Y, steps=3)),
    "a swept column": Remedy(ValueError, "call the swept value something else",
                             lambda: sweep(named, {"train_loss": [0.1, 0.2]}, X, Y, steps=2),
                             lambda: sweep(named, {"rate": [0.1, 0.2]}, X, Y, steps=2)),
    "an ensemble of regressions": Remedy(ValueError, r"average .*: sum\(found\.network\(m\)\(x\) for m in range",
                                         lambda: sweep(regression, {"seed": [0, 1]}, X, X[:, 0], steps=2).ensemble(),
                                         lambda: averaged(sweep(regression, {"seed": [0, 1]}, X, X[:, 0], steps=2), X)),
    "a sweep that diverged": Remedy(DivergenceError, "Lower the rates",
                                    lambda: sweep(make, {"lr": [1e30, 1e31]}, X, Y, steps=9).ensemble(),
                                    lambda: sweep(make, {"lr": [1e-3, 1e-2]}, X, Y, steps=9).ensemble()),
}


def explode(divergence: str) -> Any:
    """Train at a rate that is too high, from a network that was evaluated before."""
    return trainer(schedule=100.0, divergence=divergence).fit(X64, Y, steps=30, evaluate_every=1)


def averaged(found: Any, x: Any) -> Any:
    """Do what the error says, word for word."""
    return sum(found.network(m)(x) for m in range(len(found))) / len(found)


class Adds(xpnet.Callback):
    """A callback that adds a column."""

    def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
        """Add the column."""
        row["mine"] = row["train_loss"]
        return None


def best() -> BestWeights:
    """Return the best weights of a run."""
    callback = BestWeights("train_loss")
    trained(callbacks=[callback])
    return callback


@pytest.mark.parametrize("remedy", GENERAL.values(), ids=GENERAL)
def test_a_remedy_that_an_error_names_works(remedy: Remedy) -> None:
    remedy.follow()


def test_rows_of_other_columns_go_to_another_file(tmp_path: Path) -> None:
    trained(callbacks=[CSV(tmp_path / "rows.csv")])
    with pytest.raises(ValueError, match="write it to another file"):
        trainer(callbacks=[CSV(tmp_path / "rows.csv")]).fit(X, Y, steps=3, validation=(X, Y))
    trainer(callbacks=[CSV(tmp_path / "other.csv")]).fit(X, Y, steps=3, validation=(X, Y))


def test_another_sweep_goes_to_another_directory(tmp_path: Path) -> None:
    sweep(make, {"seed": [0, 1]}, X, Y, steps=2, directory=tmp_path / "one")
    with pytest.raises(ValueError, match="Choose another directory, or remove this one"):
        sweep(make, {"seed": [0, 2]}, X, Y, steps=2, directory=tmp_path / "one")
    sweep(make, {"seed": [0, 2]}, X, Y, steps=2, directory=tmp_path / "two")
    with pytest.raises(ValueError, match=r"cannot be told from another like it on disk.*or leave out directory="):
        sweep(make, {"lr": [lambda step: 0.1]}, X, Y, steps=2, directory=tmp_path / "three")
    sweep(make, {"lr": [lambda step: 0.1]}, X, Y, steps=2)


@pytest.mark.backends("strict", "torch", "cupy")
def test_arrays_on_another_device_are_brought_there(device: Device) -> None:
    x, y = blobs(device, 60)
    network = trained(x=x, y=y).network
    with pytest.raises(ValueError, match=r"bring them together with network\.device\.asarray\(x\)"):
        network.predict(X)
    network.predict(network.device.asarray(X))
    with pytest.raises(ValueError, match=r"bring them together with xpnet\.Device\.of\(x\)\.asarray\(y\)"):
        trainer().fit(x, Y, steps=1)
    trainer().fit(x, xpnet.Device.of(x).asarray(Y), steps=1)
