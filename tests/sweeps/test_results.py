"""What a sweep tells: tables over seeds, members, files, pictures, networks and ensembles."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sweeping import data, make, same

import xpnet
from xpnet import Adam, LogUniform, Network, Normal, Trainer, mlp, sweep
from xpnet.backend import Device, to_numpy
from xpnet.sweeps.export import plain


def test_the_table_is_over_seeds(tmp_path: Path) -> None:
    found = sweep(make, {"l2": [0.0, 0.3], "seed": range(4)}, **data(), steps=40)
    best, worst = found.table()
    assert best["validation_accuracy"] >= worst["validation_accuracy"]
    values = found.values("validation_accuracy", l2=best["l2"])
    assert best["validation_accuracy"] == pytest.approx(np.mean(values))
    assert best["validation_accuracy_std"] == pytest.approx(np.std(values, ddof=1))
    assert best["validation_accuracy_margin"] == pytest.approx(3.182446 * np.std(values, ddof=1) / 2, rel=1e-6)
    assert best["n"] == 4
    by_loss = sweep(make, {"l2": [0.0, 0.3], "seed": range(4)}, **data(), steps=40, score="train_cost").table()
    assert by_loss[0]["train_cost"] < by_loss[1]["train_cost"]
    with pytest.raises(ValueError, match=r"score as one of train_loss, .* got 'f1'"):
        sweep(make, {"seed": [0]}, **data(), steps=4, score="f1")
    assert "Sweep of 8 networks" in repr(found)
    assert found.members()[5] | {"member": 5, "l2": 0.3, "seed": 1, "diverged": False} == found.members()[5]


def test_files_say_what_the_sweep_says(tmp_path: Path) -> None:
    found = sweep(make, {"l2": [0.0, 0.3], "seed": range(2), "hidden": [[5], [6, 4]]}, **data(), steps=20,
                  directory=tmp_path)
    table = json.loads((tmp_path / "table.json").read_text())
    assert [row["l2"] for row in table] == [row["l2"] for row in found.table()]
    assert table[0]["validation_accuracy"] == found.table()[0]["validation_accuracy"]
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["validation_accuracy"]) == found.table()[0]["validation_accuracy"]
    assert rows[0]["hidden"] in ("[5]", "[6, 4]")
    with (tmp_path / "members.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 8
    curves = json.loads((tmp_path / "curves.json").read_text())
    assert curves[3]["point"] == found.points[3]
    assert curves[3]["train_loss"] == found.histories[3]["train_loss"].tolist()
    assert (tmp_path / "sweep.png").stat().st_size > 10_000
    best, x = Network.load(tmp_path / "best.safetensors"), data()["x"]
    assert best(x).tolist() == found.network()(x).tolist() == found.network(found.best)(x).tolist()


def test_an_ensemble_averages_probabilities(device: Device) -> None:
    found = sweep(make, {"seed": range(3), "hidden": [[5], [6, 4]]}, **data(device), steps=20)
    ensemble, (x, y) = found.ensemble(), data(device)["validation"]
    proba = to_numpy(ensemble.predict_proba(x))
    same(proba, np.mean([to_numpy(found.network(m).predict_proba(x)) for m in range(6)], axis=0), 1e-12)
    assert to_numpy(ensemble.predict(x)).tolist() == proba.argmax(axis=1).tolist()
    scores = ensemble.evaluate(x, y)
    assert scores["accuracy"] == pytest.approx((proba.argmax(axis=1) == to_numpy(y)).mean())
    assert scores["members"] == pytest.approx([h["validation_accuracy"][-1] for h in found.histories])
    with pytest.raises(ValueError, match="number of networks"):
        xpnet.Ensemble([])


def test_networks_for_regression_are_no_ensemble_of_classifiers() -> None:
    def regression(seed: int) -> Trainer:
        return Trainer(mlp(6, [5], 6), loss=xpnet.MeanSquaredError(), seed=seed)

    x = data()["x"]
    found = sweep(regression, {"seed": range(2)}, x, x, steps=4)
    with pytest.raises(ValueError, match="average these networks' outputs: sum"):
        found.ensemble()


@pytest.mark.backends("numpy")
def test_a_row_measures_its_seeds_at_one_update() -> None:
    run: dict[str, Any] = {**data(), "steps": 60, "evaluate_every": 10, "score": "validation_loss"}
    full = sweep(make, {"l2": [0.0, 0.01], "seed": range(4)}, **run)
    found = sweep(make, {"l2": [0.0, 0.01], "seed": range(4)}, **run, halve_at=[20])
    lengths = [len(history.batch_loss) for history in found.histories]
    rows = {row["l2"]: row for row in found.table()}
    for start, l2 in ((0, 0.0), (4, 0.01)):
        step = min(lengths[start : start + 4])
        expected = [full.histories[m]["validation_loss"][step // 10] for m in range(start, start + 4)]
        assert rows[l2]["step"] == step
        assert rows[l2]["validation_loss"] == pytest.approx(np.mean(expected))
    assert 20 in [row["step"] for row in rows.values()]
    assert len(set(lengths)) == 2


@pytest.mark.backends("numpy")
def test_what_is_not_there_is_named() -> None:
    found = sweep(make, {"l2": [0.0, 0.1], "hidden": [[5], [4]]}, **data(), steps=5)
    for column, where, words in (
        ("f1", {}, "no column 'f1'; there are step, epoch"), ("train_loss", {"l2": 7}, "no member at {'l2': 7}"),
        ("train_loss", {"lr": 0.0}, "no member at {'lr': 0.0}"),
    ):
        with pytest.raises(KeyError, match=words):
            found.values(column, **where)
    assert found.values("train_loss", hidden=[4], l2=0.1) == [found.last(3)["train_loss"]]
    for wrong in (lambda: found.network(4), lambda: found.network(-5), lambda: found.ensemble([0, 4])):
        with pytest.raises(IndexError, match="a member from 0 to 3, got"):
            wrong()
    with pytest.raises(KeyError, match="expected one of l2, hidden, got 'lr'"):
        found.plot("lr")
    x, y = data()["validation"]
    for labels in (y[:3], y[:, None], y[:0]):
        with pytest.raises(ValueError, match=r"data: expected features \(n, 6\) and labels \(n,\)"):
            found.ensemble().evaluate(x, labels)
    with pytest.raises(ValueError, match="got shapes"):
        found.evaluate(x, y[:3])


@pytest.mark.backends("numpy")
def test_a_network_is_a_copy() -> None:
    found = sweep(make, {"seed": [0, 1]}, **data(), steps=5)
    before, network = found.evaluate(*data()["validation"]), found.network(0)
    for array in network.arrays.values():
        array *= 0.0
    assert found.evaluate(*data()["validation"]) == before
    assert to_numpy(found.network(0).arrays["W1"]).any()


@pytest.mark.backends("numpy")
def test_when_all_diverge_it_is_said(tmp_path: Path) -> None:
    def one(seed: int) -> Trainer:
        return make(rate=1e30, seed=seed, batch_norm=False)

    found = sweep(one, {"seed": [0, 1]}, **data(), steps=40, directory=tmp_path)
    for ask in (found.network, found.ensemble):
        with pytest.raises(xpnet.DivergenceError, match="every member diverged; member 0: the train loss was nan"):
            ask()
    row = json.loads((tmp_path / "table.json").read_text())[0]
    assert (row["n"], row["diverged"], row["validation_accuracy"]) == (2, 2, None)
    assert not (tmp_path / "best.safetensors").exists()
    assert np.isfinite(to_numpy(found.network(1).arrays["W1"])).all()
    with pytest.raises(xpnet.DivergenceError, match="every point of the coarse sweep diverged"):
        xpnet.coarse_to_fine(lambda rate: make(rate=rate, batch_norm=False), {"rate": LogUniform(1e29, 1e30)}, **data(),
                             steps=40, draws=2)


@pytest.mark.backends("numpy")
def test_values_of_all_kinds_are_written(tmp_path: Path) -> None:
    def one(sigma: float | None, optimizer: Any, lr: float) -> Trainer:
        return Trainer(mlp(6, [4], 3, initializer=None if sigma is None else Normal(sigma)), optimizer=optimizer,
                       schedule=lr)

    space = {"sigma": [None, np.float64(0.1)], "optimizer": [Adam(), xpnet.SGD()], "lr": [0.01]}
    found = sweep(one, space, **data(), steps=5, directory=tmp_path)
    rows = json.loads((tmp_path / "table.json").read_text())
    assert {row["sigma"] for row in rows} == {None, 0.1}
    assert rows[0]["optimizer"] in (repr(Adam()), repr(xpnet.SGD()))
    curves = json.loads((tmp_path / "curves.json").read_text())
    assert curves[0]["point"]["lr"] == 0.01
    assert curves[0]["lr"] == pytest.approx([0.01] * 6)
    assert sweep(one, space, **data(), steps=5, directory=tmp_path).table() == found.table()
    assert plain({"a": [math.nan, 1, np.inf, (True, "x")]}) == {"a": [None, 1, None, [True, "x"]]}


@pytest.mark.backends("numpy")
def test_a_picture_of_many_draws_has_no_legend_of_each() -> None:
    def one(l2: float, rate: float) -> Trainer:
        return make(l2=l2, rate=rate)

    space = {"l2": LogUniform(1e-5, 1e-1), "rate": LogUniform(1e-3, 1e-1)}
    for draws, legend in ((5, True), (20, False)):
        axes = sweep(one, space, **data(), steps=3, draws=draws).plot().axes[0]
        assert (axes.get_legend() is not None) is legend
        assert {container[0].get_linestyle() == "None" for container in axes.containers} == {not legend}
