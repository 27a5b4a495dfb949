"""Sweeps: members beside their own runs, groups, blocks, halving, divergence, tables, files and going on."""

from __future__ import annotations

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sweeping import data, make, same

import xpnet
from xpnet import (
    SGD,
    Adam,
    AdamW,
    Layer,
    Linear,
    LogUniform,
    Network,
    Sequential,
    Step,
    Trainer,
    coarse_to_fine,
    mlp,
    sweep,
)
from xpnet.backend import Device, to_numpy
from xpnet.sweeps import blocks as blocks_module
from xpnet.sweeps.plan import fitting
from xpnet.sweeps.store import DamagedBlockWarning
from xpnet.training.optimizers import Optimizer

KINDS: dict[str, dict[str, Any]] = {
    "sgd": {}, "momentum": {"optimizer": SGD(0.9), "rate": 0.01}, "adam": {"optimizer": Adam(), "rate": 0.003},
    "adamw": {"optimizer": AdamW(), "rate": 0.003}, "dropout": {"dropout": 0.3}, "no batch norm": {"batch_norm": False},
}


def test_same_can_fail() -> None:
    with pytest.raises(AssertionError):
        same([1.0, 2.0], [1.0, 2.1], 1e-3)


# Members beside their own runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_member_is_its_own_run(kind: str, device: Device) -> None:
    if kind.startswith("adam") and device != Device():
        kind = "sgd"
    options, run = KINDS[kind], {"steps": 60, "evaluate_every": 20}
    space = {"l2": [0.0, 0.05], "sigma": [0.1, 0.5], "seed": [3, 4], "hidden": [[8, 5], [7]]}
    found = sweep(lambda **point: make(**point, **options), space, **data(device), **run)
    assert len(found) == 16
    for i in (0, 5, 10, 15):
        alone = make(**found.points[i], **options, order_seed=3)
        history = alone.fit(**data(device), **run)
        for column in history.columns:
            same(found.histories[i][column], history[column], 1e-9)
        same(found.histories[i].batch_loss, history.batch_loss, 1e-9)
        network = found.network(i)
        assert network.device == device
        x = data(device)["x"]
        same(network(x), alone.network(x), 1e-8)


@pytest.mark.slow
@pytest.mark.backends("numpy")
@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-10), ("float32", 1e-4)])
@pytest.mark.parametrize("kind", ["momentum", "adam", "adamw", "dropout", "sgd", "no batch norm"])
def test_after_500_updates_members_are_their_own_runs(kind: str, dtype: str, limit: float) -> None:
    options = KINDS[kind]
    found = sweep(lambda **point: make(**point, **options, dtype=dtype, hidden=[16, 12]),
                  {"l2": [1e-4, 1e-2], "seed": [1, 2]}, **data(dtype=dtype), steps=500)
    for i, point in enumerate(found.points):
        alone = make(**point, **options, dtype=dtype, hidden=[16, 12], order_seed=1)
        alone.fit(**data(dtype=dtype), steps=500)
        same(found.histories[i].batch_loss, alone.history.batch_loss, limit)
        assert len(alone.history.batch_loss) == 500


class Rate:
    """A schedule that does not tell its rate."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, step: int) -> float:
        return self.rate


class Descent(Optimizer):
    """An optimizer that is no dataclass."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def update(self, w: Any, g: Any, slots: Any, lr: Any, step: int) -> None:
        w -= self.factor * lr * g


@dataclasses.dataclass(frozen=True)
class Times(Layer):
    """A layer that multiplies."""

    factor: float

    def forward(self, x: Any, *arrays: Any, train: bool = False, noise: Any = None) -> Any:
        return x * self.factor, lambda dy: (dy * self.factor, ()), ()


class Spread:
    """An initializer that is no dataclass."""

    def __init__(self, std: float) -> None:
        self.value = std

    def std(self, *shape: int) -> float:
        return self.value


def closure(rate: float) -> Any:
    def schedule(step: int) -> float:
        return rate

    return schedule


def layered(layer: Layer) -> Trainer:
    return Trainer(Sequential(6, [Linear(5), layer, Linear(3)]), dtype="float64")


MAKERS: dict[str, tuple[Any, int]] = {  # and how many groups the members make
    "a closure": (lambda v: Trainer(mlp(6, [4], 3), schedule=closure(v), dtype="float64"), 3),
    "a lambda": (lambda v: Trainer(mlp(6, [4], 3), schedule=lambda step: v, dtype="float64"), 3),
    "a partial": (lambda v: Trainer(mlp(6, [4], 3), schedule=partial(max, v), dtype="float64"), 3),
    "an object": (lambda v: Trainer(mlp(6, [4], 3), schedule=Rate(v), dtype="float64"), 3),
    "an optimiser": (lambda v: Trainer(mlp(6, [4], 3), optimizer=Descent(v), dtype="float64"), 3),
    "a layer": (lambda v: layered(Times(v)), 3),
    "an initializer": (lambda v: Trainer(mlp(6, [4], 3, initializer=Spread(v)), dtype="float64"), 3),
    "a plain rate": (lambda v: Trainer(mlp(6, [4], 3), schedule=v, dtype="float64"), 1),
    "a NumPy rate": (lambda v: Trainer(mlp(6, [4], 3), schedule=np.float32(v), dtype="float64"), 1),
    "drops of the rate": (lambda v: Trainer(mlp(6, [4], 3), schedule=Step(v, [5, 10]), dtype="float64"), 1),
}


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("kind", MAKERS)
def test_what_does_not_tell_its_values_is_not_taken_for_another(kind: str) -> None:
    one, groups = MAKERS[kind]
    found = sweep(one, {"v": [0.05, 0.2, 0.1]}, **data(), steps=15)
    assert len(found.side_by_side(range(3), 9)) == groups
    for history, point in zip(found.histories, found.points, strict=True):
        alone = one(**point).fit(**data(), steps=15)
        same(history.batch_loss, alone.batch_loss, 1e-12)
    assert len({tuple(history.batch_loss) for history in found.histories}) == 3


@pytest.mark.backends("numpy")
def test_one_function_for_all_keeps_them_together() -> None:
    schedule = closure(0.1)
    found = sweep(lambda seed: Trainer(mlp(6, [4], 3), schedule=schedule, seed=seed), {"seed": range(4)}, **data(),
                  steps=2)
    assert found.side_by_side(range(4), 9) == [[0, 1, 2, 3]]


@pytest.mark.backends("numpy")
def test_arrays_of_any_library_and_maps_of_files_are_data(tmp_path: Path) -> None:
    class OnlyDLPack:
        def __init__(self, array: Any) -> None:
            self.array = array

        def __dlpack__(self, **options: Any) -> Any:
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    pixels = np.memmap(tmp_path / "x", "uint8", "w+", shape=(60, 6))
    pixels[:] = np.random.default_rng(0).integers(0, 256, pixels.shape)
    y = np.asarray(pixels[:, 0] // 86, dtype="int64")
    runs = []
    for x, labels in ((np.array(pixels), y), (pixels, y), (OnlyDLPack(np.array(pixels)), OnlyDLPack(y))):
        found = sweep(make, {"seed": [0, 1]}, x, labels, steps=9, validation=(x, labels),
                      directory=tmp_path / str(len(runs)))
        told = found.evaluate(x, labels)["loss"], found.ensemble().evaluate(x, labels)
        runs.append(([history.batch_loss for history in found.histories], told))
    assert runs[0] == runs[1] == runs[2]


def test_the_order_of_the_examples_can_be_given() -> None:
    a = sweep(make, {"seed": [1, 2]}, **data(), steps=10)
    b = sweep(make, {"seed": [1, 2]}, **data(), steps=10, order_seed=1)
    c = sweep(make, {"seed": [1, 2]}, **data(), steps=10, order_seed=7)
    assert a.histories[0].batch_loss == b.histories[0].batch_loss != c.histories[0].batch_loss


# Blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("options", [{"block_size": 1}, {"block_size": 3}, {"executor": 2}, {"executor": 1}])
def test_blocks_and_executors_change_nothing_beyond_rounding(options: dict[str, Any]) -> None:
    space = {"l2": [0.0, 0.01, 0.1], "seed": [0, 1]}
    whole = sweep(make, space, **data(), steps=40)
    if "executor" in options:
        with ThreadPoolExecutor(options["executor"]) as pool:
            parts = sweep(make, space, **data(), steps=40, executor=pool, workers=2)
    else:
        parts = sweep(make, space, **data(), steps=40, **options)
    for a, b in zip(whole.histories, parts.histories, strict=True):
        same(a.batch_loss, b.batch_loss, 1e-10)
        same(a["validation_loss"], b["validation_loss"], 1e-10)
    assert [row["l2"] for row in whole.table()] == [row["l2"] for row in parts.table()]


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("threads", [0, 1])
def test_blocks_too_large_for_the_memory_are_halved(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    space, train, sizes = {"l2": [0.0, 0.01, 0.1], "seed": [0, 1]}, blocks_module.run, []

    def run(task: Any, *arguments: Any, **options: Any) -> Any:
        sizes.append(len(task.members))
        if len(task.members) > 2:
            raise xpnet.OutOfMemoryError("out of memory")
        return train(task, *arguments, **options)

    whole = sweep(make, space, **data(), steps=30)
    monkeypatch.setattr(blocks_module, "run", run)
    with ThreadPoolExecutor(1) as pool:
        halved = sweep(make, space, **data(), steps=30, executor=pool if threads else None)
    assert sorted(sizes) == [1, 1, 2, 2, 3, 3, 6]
    for a, b in zip(whole.histories, halved.histories, strict=True):
        same(a.batch_loss, b.batch_loss, 1e-10)


@pytest.mark.backends("numpy")
def test_memory_that_holds_not_even_one_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: Any, **options: Any) -> Any:
        raise xpnet.OutOfMemoryError("out of memory on cpu")

    monkeypatch.setattr(blocks_module, "run", run)
    with pytest.raises(MemoryError, match="out of memory on cpu"):
        sweep(make, {"seed": [0, 1]}, **data(), steps=5)


@pytest.mark.backends("numpy")
def test_blocks_are_as_large_as_half_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    trainers = [make(seed=seed) for seed in range(64)]

    def size(free: int | None, workers: int = 1, count: int = 64) -> int:
        monkeypatch.setattr(Device, "free_memory", lambda self: free)
        return int(fitting(trainers[:count], Device(), workers))

    assert [size(10**12), size(None), size(1), size(10**12, 4), size(10**12, 2, 7)] == [32, 32, 1, 16, 4]
    free = next(10**5 * k for k in range(1, 1000) if size(10**5 * k) == 8)
    assert size(2 * free) == 16
    assert size(free, 2) == 4


# Halving and divergence -------------------------------------------------------------------------------------------


def test_halving_goes_on_with_the_better_half_where_it_was(device: Device) -> None:
    space = {"l2": [0.0, 0.3, 0.01, 1.0], "seed": [0, 1]}
    run: dict[str, Any] = {**data(device), "steps": 60, "evaluate_every": 10, "score": "validation_loss"}
    full = sweep(make, space, **run)
    found = sweep(make, space, **run, halve_at=[20, 40], block_size=3)
    lengths = [len(h.batch_loss) for h in found.histories]
    assert sorted(lengths) == [20] * 4 + [40] * 2 + [60] * 2
    first = sorted(range(8), key=lambda m: full.histories[m]["validation_loss"][2])
    assert {m for m in range(8) if lengths[m] > 20} == set(first[:4])
    for m in range(8):
        assert found.histories[m]["step"].tolist() == list(range(0, lengths[m] + 1, 10))
        same(found.histories[m].batch_loss, full.histories[m].batch_loss[: lengths[m]], 1e-9)
    assert [row["step"] for row in found.table("none")] == [60] * 2 + [40] * 2 + [20] * 4
    assert lengths[found.best] == 60


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("halve_at", [[0], [60], [-5], [2.5], 30], ids=str)
def test_halving_happens_on_the_way(halve_at: Any) -> None:
    with pytest.raises(ValueError, match="halve_at as updates from 1 to 59"):
        sweep(make, {"seed": [0, 1]}, **data(), steps=60, halve_at=halve_at)


def test_a_member_that_diverges_is_named_and_moves_no_bit_of_the_others(device: Device) -> None:
    def one(rate: float, seed: int) -> Trainer:
        return make(rate=rate, seed=seed, batch_norm=False)

    run = {**data(device), "steps": 60, "evaluate_every": 15}
    tame = sweep(one, {"rate": [0.05, 0.04], "seed": [0, 1]}, **run)
    wild = sweep(one, {"rate": [0.05, 1e30], "seed": [0, 1]}, **run)
    assert set(wild.diverged) == {2, 3}
    step, cause = wild.diverged[2]
    assert cause.startswith("the loss was ")
    assert f"at update {step} (learning rate" in cause
    for m in (0, 1):
        assert wild.histories[m].batch_loss == tame.histories[m].batch_loss
        assert wild.histories[m]["train_loss"].tolist() == tame.histories[m]["train_loss"].tolist()
        for name, a in tame.network(m).arrays.items():
            assert to_numpy(a).tolist() == to_numpy(wild.network(m).arrays[name]).tolist()
    rows = wild.table()
    assert [(row["n"], row["diverged"]) for row in rows] == [(2, 0), (2, 2)]
    assert math.isnan(rows[1]["validation_accuracy"])
    assert wild.best in (0, 1)
    assert len(wild.ensemble().networks) == 2
    assert all(np.isfinite(to_numpy(a)).all() for a in wild.network(3).arrays.values())
    lost = sweep(one, {"rate": [1e30], "seed": [0, 1]}, **run, halve_at=[30])
    with pytest.raises(xpnet.DivergenceError, match="every member diverged"):
        lost.network()


# Two rounds -------------------------------------------------------------------------------------------------------


@pytest.mark.backends("numpy")
def test_coarse_to_fine_looks_around_the_best(tmp_path: Path) -> None:
    space = {"l2": LogUniform(1e-5, 1e1), "seed": [0, 1]}
    found = coarse_to_fine(make, space, **data(), steps=40, draws=6, keep=2, margin=0.05, directory=tmp_path,
                           score="validation_loss")
    best = [row["l2"] for row in found.coarse.table()[:2]]
    width = math.log10(1e6)
    assert found.space["l2"].low == pytest.approx(max(1e-5, min(best) * 10 ** (-0.05 * width)))
    assert found.space["l2"].high == pytest.approx(min(1e1, max(best) * 10 ** (0.05 * width)))
    assert len(found.fine) == 12
    assert all(found.space["l2"].low <= p["l2"] <= found.space["l2"].high for p in found.fine.points)
    assert found.best["validation_loss"] == min(s.table()[0]["validation_loss"] for s in (found.coarse, found.fine))
    assert (tmp_path / "fine" / "table.csv").is_file()
    with pytest.raises(ValueError, match="expected a distribution"):
        coarse_to_fine(make, {"l2": [0.1]}, **data(), steps=4)


# Going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.backends("numpy")
def test_only_what_is_missing_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, train, trained = {"l2": [0.0, 0.01, 0.1], "seed": [0, 1]}, blocks_module.run, []
    run = {**data(), "steps": 30, "block_size": 2, "halve_at": [15]}

    def counted(task: Any, *arguments: Any, **options: Any) -> Any:
        if len(trained) == 4:
            raise KeyboardInterrupt
        trained.append(task.members)
        return train(task, *arguments, **options)

    whole = sweep(make, space, **run, directory=tmp_path / "whole")
    monkeypatch.setattr(blocks_module, "run", counted)
    with pytest.raises(KeyboardInterrupt, match=r"1 of 3 networks were done up to update 30; what was done is in .*"
                       "the same command goes on"):
        sweep(make, space, **run, directory=tmp_path / "part")
    trained[:] = [()]
    damaged = sorted((tmp_path / "part" / "blocks").iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.warns(DamagedBlockWarning, match=f"{damaged.name} is damaged"):
        again = sweep(make, space, **run, directory=tmp_path / "part")
    assert len(trained) == 3  # the damaged one, the missing one, and the placeholder
    files = ("table.json", "members.csv", "curves.json")
    for name in files:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "part" / name).read_bytes()
    assert again.table() == whole.table()
    a, b = (Network.load(tmp_path / name / "best.safetensors").arrays for name in ("whole", "part"))
    assert all(a[name].tolist() == b[name].tolist() for name in a)
    trained[:] = [()] * 4
    with pytest.raises(KeyboardInterrupt, match="nothing was kept"):
        sweep(make, space, **run)


@pytest.mark.backends("numpy")
def test_a_smaller_block_size_divides_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, sizes, run = blocks_module.run, [], {**data(), "steps": 20, "halve_at": [10]}
    space = {"l2": [0.0, 0.01, 0.1, 0.2], "seed": [0, 1]}
    whole = sweep(make, space, **run, block_size=4, directory=tmp_path)

    def counted(task: Any, *arguments: Any, **options: Any) -> Any:
        sizes.append((len(task.members), task.until))
        return train(task, *arguments, **options)

    monkeypatch.setattr(blocks_module, "run", counted)
    last = sorted((tmp_path / "blocks").iterdir())[-1]
    last.unlink()
    again = sweep(make, space, **run, block_size=3, directory=tmp_path)
    assert sizes == [(2, 20), (2, 20)]
    assert not last.exists()
    sizes.clear()
    assert sweep(make, space, **run, directory=tmp_path).table() == again.table()
    assert not sizes
    assert [row["l2"] for row in again.table()] == [row["l2"] for row in whole.table()]
    for a, b in zip(again.histories, whole.histories, strict=True):
        same(a.batch_loss, b.batch_loss, 1e-10)


@pytest.mark.backends("numpy")
def test_another_sweep_in_the_directory_is_not_overwritten(tmp_path: Path) -> None:
    sweep(make, {"seed": [0, 1]}, **data(), steps=5, directory=tmp_path)
    before = (tmp_path / "table.json").read_bytes()
    other = data() | {"x": data()["x"] + 1e-9}
    for space, given, steps, different in (
        ({"seed": [0, 2]}, data(), 5, r"points\[1\].seed was 1, and is 2 here"),
        ({"seed": [0, 1]}, other, 5, "data.train features.sha256 was"),
        ({"seed": [0, 1]}, data(), 6, r"rungs\[0\] was 5, and is 6 here"),
    ):
        with pytest.raises(ValueError, match=f"holds another sweep: {different}"):
            sweep(make, space, **given, steps=steps, directory=tmp_path)
    assert (tmp_path / "table.json").read_bytes() == before
