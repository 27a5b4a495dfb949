"""NumPy's numbers as arguments of a trainer: a run is the same as with Python's, checkpoints and resuming included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same, blobs

from xpnet import SGD, Checkpoints, CyclicLR, EarlyStopping, Trainer, mlp
from xpnet.backend import Device

PLAIN: dict[str, Any] = {"batch_size": 10, "seed": 3, "order_seed": 4, "l2": 0.25, "schedule": 0.5}
FIT: dict[str, Any] = {"steps": 12, "evaluate_every": 3, "train_sample": 40}


def run(folder: Path, options: dict[str, Any], fit: dict[str, Any], number: Callable[[Any], Any]) -> list[Trainer]:
    """Return a trainer after a run with checkpoints, and one that was resumed from them."""
    x, y = blobs(Device(), 60)
    trainers = []
    for steps in (fit["steps"], number(18)):
        trainer = Trainer(
            mlp(6, [number(8)], 3, dropout=number(0.5)), optimizer=SGD(number(0.5)), **options,
            callbacks=[EarlyStopping("train_loss", patience=number(50), min_delta=number(0.0)),
                       Checkpoints(folder, every=number(1), keep=number(2))])
        if trainers:
            trainer.resume(folder)
        trainer.fit(x, y, **{**fit, "steps": steps})
        trainers.append(trainer)
    return trainers


@pytest.mark.parametrize("name", [*PLAIN, *FIT, "all"])
@pytest.mark.parametrize("kinds", [(np.int64, np.float64), (np.uint8, np.float32)], ids=["64 bits", "8 and 32 bits"])
def test_numbers_of_numpy_are_taken_as_pythons(tmp_path: Path, name: str, kinds: tuple[Any, Any]) -> None:
    def number(value: Any) -> Any:
        return kinds[isinstance(value, float)](value)

    def changed(options: dict[str, Any]) -> dict[str, Any]:
        return {key: number(value) if name in (key, "all") else value for key, value in options.items()}

    expected = run(tmp_path / "plain", PLAIN, FIT, lambda value: value)
    found = run(tmp_path / "numpy", changed(PLAIN), changed(FIT), number if name == "all" else lambda value: value)
    for one, other in zip(found, expected, strict=True):
        assert_same(dict(one.arrays), dict(other.arrays))
        assert_same(one.history.rows, other.history.rows)
        assert one.plan == other.plan
        assert {type(value) for value in one.plan.values()} == {int}
        assert one.config() == other.config()


def test_epochs_and_bounds_of_numpy_are_taken_too(tmp_path: Path) -> None:
    x, y = blobs(Device(), 60)
    trainers = [Trainer(mlp(6, [8], 3), schedule=CyclicLR(number(0.1), number(0.5), integer(4)), batch_size=integer(10),
                        callbacks=[Checkpoints(tmp_path / name)])
                for name, number, integer in (("plain", float, int), ("numpy", np.float64, np.int32))]
    for trainer, epochs in zip(trainers, (2, np.int64(2)), strict=True):
        trainer.fit(x, y, epochs=epochs)
    assert_same(dict(trainers[1].arrays), dict(trainers[0].arrays))
    assert trainers[1].plan == trainers[0].plan
