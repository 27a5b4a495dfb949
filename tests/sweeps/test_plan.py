"""What a sweep is asked for: wrong input is refused before anything is trained, and nothing is lost by it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sweeping import data, make

from xpnet import EarlyStopping, Sweep, Trainer, mlp, sweep
from xpnet.backend import Device
from xpnet.nn import losses

pytestmark = pytest.mark.backends("numpy")


def begun(seed: int) -> Trainer:
    trainer = make(seed=seed)
    trainer.fit(data()["x"], data()["y"], steps=1)
    return trainer


@dataclasses.dataclass
class Where:
    """A device that is not the host."""

    name: str = "cuda:0"
    is_host: bool = False


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"space": {"l2": [-1.0]}}, ValueError, "no trainer at .*l2.*-1.* l2 of at least 0"),
    ({"space": {"lr": [0.1]}}, TypeError, "no trainer at .*lr"),
    ({"space": {"seed": []}}, ValueError, "at least one value of seed"),
    ({"space": {"hidden": [50, 50]}}, TypeError, r"hidden widths as a sequence, like \[50, 50\], got 50"),
    ({"space": {"seed": [0, 0]}}, ValueError, "the point {'seed': 0} is there twice"),
    ({"space": {"seed": [0.5]}}, TypeError, "no trainer at {'seed': 0.5}: Trainer: expected seed as an integer"),
    ({"make": lambda n: make(l2=n), "space": {"n": [0.1]}}, ValueError, "n is a column of the table: call the swept"),
    ({"make": lambda train_loss: make(l2=train_loss), "space": {"train_loss": [1]}}, ValueError, "train_loss is a col"),
    ({"make": lambda seed: json.loads("x")}, ValueError, "no trainer at {'seed': 0}: Expecting value"),
    ({"make": lambda seed: make(seed=[1, 2])}, TypeError, "a Trainer of one model"),  # type: ignore[arg-type]
    ({"make": lambda seed: None}, TypeError, "a Trainer of one model"),
    ({"make": lambda seed: Trainer(mlp(6, [4], 3), callbacks=[EarlyStopping()])}, ValueError, "without callbacks="),
    ({"make": lambda seed: Trainer(mlp(6, [4], 3), divergence="halve")}, ValueError, "without divergence='halve'"),
    ({"make": begun}, ValueError, "trainers that have not begun"),
    ({"make": lambda seed: Trainer(mlp(6, [4], 3), device="cpu" if seed else None, seed=seed)}, ValueError,
     "trainers for one device, got cpu and none"),
    ({"make": lambda seed: Trainer(mlp(6, [4], 3), loss=losses.MeanSquaredError() if seed else None)}, ValueError,
     "losses with the same measures"),
    ({"x": [[1.0]]}, TypeError, r"got list; wrap it in numpy.asarray"),
    ({"y": np.asarray(3)}, ValueError, r"labels \(n,\) with n at least 1, got shape \(\)"),
    ({"y": np.full(90, 7)}, ValueError, "labels: expected 0 to 2"),
    ({"y": np.zeros(50, int)}, ValueError, r"got shapes \(90, 6\) and \(50,\)"),
    ({"validation": np.zeros((2, 6))}, TypeError, r"validation=\(features, labels\)"),
    ({"validation": (1, 2, 3)}, TypeError, r"validation=\(features, labels\)"),
    ({"steps": None}, ValueError, "either steps= or epochs="),
    ({"epochs": 1}, ValueError, "either steps= or epochs="),
    ({"steps": 0}, ValueError, r"steps \(updates in all\) of at least 1, got 0"),
    ({"steps": 2.5}, TypeError, r"steps \(updates in all\) as an integer, got 2.5"),
    ({"steps": None, "epochs": 0.01}, ValueError, r"steps \(updates in all\) of at least 1, got 0"),
    ({"steps": None, "epochs": float("nan")}, ValueError, "epochs of at least 0, got nan"),
    ({"steps": None, "epochs": "2"}, TypeError, "epochs as a number, or one number per model, got '2'"),
    ({"make": lambda seed: make(seed=seed, batch_size=9 + seed), "steps": None, "epochs": 1}, ValueError,
     "an epoch has from 9 to 10 updates, .*: give steps="),
    ({"evaluate_every": 2.5}, TypeError, "evaluate_every as an integer, got 2.5"),
    ({"train_sample": 0}, ValueError, "train_sample of at least 1, got 0"),
    ({"order_seed": -1}, ValueError, "order_seed of at least 0, got -1"),
    ({"order_seed": "a"}, TypeError, "order_seed as an integer, got 'a'"),
    ({"block_size": 0}, ValueError, "block_size of at least 1"),
    ({"workers": 0}, ValueError, "workers of at least 1"),
    ({"executor": "dask"}, TypeError, "interface of concurrent.futures, got 'dask'"),
    ({"score": "f1"}, ValueError, r"score as one of train_loss, .* got 'f1'"),
]


@pytest.mark.parametrize(("change", "error", "words"), WRONG, ids=[f"{i} {wrong[2]}" for i, wrong in enumerate(WRONG)])
def test_wrong_input_is_refused(change: dict[str, Any], error: type[Exception], words: str, tmp_path: Path) -> None:
    given = {"make": make, "space": {"seed": [0, 1]}, **data(), "steps": 5, "directory": tmp_path / "out"} | change
    with pytest.raises(error, match=words):
        sweep(given.pop("make"), given.pop("space"), **given)
    assert not (tmp_path / "out" / "sweep.json").exists()  # the directory is still free for another sweep


def test_other_errors_say_at_which_point() -> None:
    with pytest.raises(KeyError) as caught:
        sweep(lambda seed: {}[seed], {"seed": [7]}, **data(), steps=5)  # type: ignore[return-value]
    assert caught.value.__notes__ == ["while making the trainer at {'seed': 7}"]


def test_epochs_are_those_of_a_run() -> None:
    given = data()
    for n, batch_size in ((90, 25), (76, 25), (51, 50), (10, 50)):
        x, y = given["x"][:n, :], given["y"][:n]
        found = sweep(lambda seed, size=batch_size: make(seed=seed, batch_size=size), {"seed": [0]}, x, y, epochs=2)
        alone = make(batch_size=batch_size).fit(x, y, epochs=2)
        assert found.histories[0].batch_loss == alone.batch_loss
        assert found.histories[0]["step"].tolist() == alone["step"].tolist()


def test_numpy_counts_are_counts(tmp_path: Path) -> None:
    options: dict[str, Any] = {"steps": 6, "halve_at": [3], "evaluate_every": 2, "order_seed": 1, "block_size": 1}
    counts = {name: np.asarray(v) if name == "halve_at" else np.int64(v) for name, v in options.items()}
    a = sweep(make, {"seed": np.arange(2), "l2": np.float32(0.5)}, **data(), **counts, directory=tmp_path)
    b = sweep(make, {"seed": [0, 1], "l2": 0.5}, **data(), **options, directory=tmp_path)  # the same sweep
    assert a.table() == b.table()
    assert a.points == b.points == [{"seed": 0, "l2": 0.5}, {"seed": 1, "l2": 0.5}]
    assert json.loads((tmp_path / "curves.json").read_text())[1]["point"] == {"seed": 1, "l2": 0.5}


def test_regression_is_ranked_by_r2() -> None:
    def regression(rate: float) -> Trainer:
        return Trainer(mlp(6, [8], 1), loss=losses.MeanSquaredError(), schedule=rate, dtype="float64")

    given = data()
    given |= {"y": given["x"][:, 0], "validation": (given["validation"][0], given["validation"][0][:, 0])}
    found = sweep(regression, {"rate": [1e-6, 0.02]}, **given, steps=60)
    assert found.score == "validation_r2"
    assert found.points[found.best] == {"rate": 0.02}
    assert found.table()[0]["validation_r2"] == pytest.approx(found.evaluate(*given["validation"])["r2"][1])


def test_data_on_a_gpu_are_not_trained_on_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    from xpnet.sweeps import workers

    taken = []
    monkeypatch.setattr(Device, "of", classmethod(lambda cls, x: Where()))
    shared = workers.Shared.__new__(workers.Shared)
    monkeypatch.setattr(workers.np, "save", lambda *_, **__: None)
    workers.Shared.__init__(shared, workers.Data(np.zeros((2, 1)), np.zeros(2)), "nowhere")
    monkeypatch.undo()
    monkeypatch.setattr(workers.blocks, "run", lambda task, *_, **__: taken.append(task.options["device"]))
    monkeypatch.setattr(shared, "open", lambda: None)
    for own in (None, "cpu"):
        workers._there(workers.Task((0,), mlp(1, [], 2), {"device": own}, 1, {}, 0, {}), shared)
    assert taken == ["cuda:0", "cpu"]


def schedule(step: int) -> float:
    return 0.1


def test_what_cannot_be_told_on_disk_is_not_kept(tmp_path: Path) -> None:
    def one(seed: int, rate: Any) -> Trainer:
        return Trainer(mlp(6, [4], 3), schedule=rate, seed=seed)

    class Rate:
        def __call__(self, step: int) -> float:
            return 0.1

    def inner(step: int) -> float:
        return 0.1

    for wrong in (lambda step: 0.1, Rate(), inner):
        space = [{"seed": 0, "rate": wrong}]
        assert isinstance(sweep(one, space, **data(), steps=5), Sweep)
        with pytest.raises(ValueError, match="cannot be told from another like it on disk: name the function"):
            sweep(one, space, **data(), steps=5, directory=tmp_path)
    assert not list(tmp_path.iterdir())
    a = sweep(one, {"seed": 0, "rate": schedule}, **data(), steps=5, directory=tmp_path)
    assert sweep(one, {"seed": 0, "rate": schedule}, **data(), steps=5, directory=tmp_path).table() == a.table()
