"""Hyper-parameters: what is a model axis, and what is refused."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from xpnet.nn.per_model import check_range, hosted, is_array, lengths, pick, stack

NET = xpnet.mlp(4, [5], 2)


@pytest.mark.parametrize(("value", "several"), [
    (0.1, False), ([0.1], True), ((1, 2), True), (np.array([0.1]), True), (np.array(0.1), False),
    (np.float32(1), False),
    ("he", False),
], ids=repr)
def test_a_sequence_is_a_model_axis(value: Any, several: bool) -> None:
    assert is_array(value) is several


@pytest.mark.parametrize(("make", "words"), [
    (lambda: xpnet.Trainer(NET, l2=-1), "Trainer: expected l2 of at least 0, got -1"),
    (lambda: xpnet.Trainer(NET, l2=float("nan")), "l2 of at least 0, got nan"),
    (lambda: xpnet.Trainer(NET, l2=[]), "at least one value of l2"),
    (lambda: xpnet.Trainer(NET, schedule=-1.0), "Constant: expected eta of at least 0, got -1.0"),
    (lambda: xpnet.CyclicLR(1e-5, [0.1, float("inf")], 10), "CyclicLR: expected eta_max of at least 0"),
    (lambda: xpnet.Step(0.1, 0), "Step: expected step_size of at least 1"),
    (lambda: xpnet.Cosine(0.1, -1), "Cosine: expected steps of at least 1"),
    (lambda: xpnet.SGD(1.5), "SGD: expected momentum of at least 0 and below 1, got 1.5"),
    (lambda: xpnet.Adam(1.0), "Adam: expected beta1 of at least 0 and below 1"),
    (lambda: xpnet.AdamW(weight_decay=-1), "AdamW: expected weight_decay of at least 0"),
    (lambda: xpnet.Normal(-1), "Normal: expected sigma of at least 0"),
    (lambda: xpnet.BatchNorm(momentum=2), "BatchNorm: expected momentum of at least 0 and below 1"),
    (lambda: xpnet.BatchNorm(eps=-10), "BatchNorm: expected eps of at least 0"),
    (lambda: xpnet.Trainer(xpnet.mlp(4, [5], 2, dropout=[])), "at least one value of rate"),
], ids=lambda value: value if isinstance(value, str) else "of")
def test_values_out_of_range_are_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(("make", "words"), [
    (lambda: check_range("A", "b", "c"), "A: expected b as a number, or one number per model, got 'c'"),
    (lambda: xpnet.Trainer(NET, l2=[[0.1, 0.2]]), "one number per model"),
    (lambda: xpnet.CyclicLR(step_size=2.5), "step_size as an integer, got 2.5"),
    (lambda: xpnet.Trainer(NET, batch_size=2.5), "batch_size as an integer, got 2.5"),
    (lambda: xpnet.Trainer(NET, optimizer=xpnet.SGD), r"expected an optimizer, like xpnet.SGD\(\)"),
    (lambda: xpnet.Trainer(NET, optimizer="adam"), "expected an optimizer"),
    (lambda: xpnet.Trainer("net"), "expected a Sequential"),
], ids=lambda value: value if isinstance(value, str) else "of")
def test_things_of_the_wrong_kind_are_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        make()


def test_only_hyper_parameters_make_models() -> None:
    class Steps:
        def __init__(self) -> None:
            self.boundaries = [2, 3, 4]

        def __call__(self, step: int) -> float:
            return 0.1 * len(self.boundaries)

    assert xpnet.Trainer(NET, schedule=Steps()).models == ()
    assert xpnet.Trainer(NET, schedule=xpnet.Step(0.1, [2, 3, 4])).models == ()
    assert xpnet.Trainer(NET, schedule=lambda step: np.array([0.1, 0.2])).models == (2,)
    assert dict(lengths(xpnet.Linear(3, xpnet.Normal([0.1, 0.2])))) == {"sigma": 2}


@pytest.mark.parametrize("schedule", [
    xpnet.CyclicLR(1e-5, [0.1, 0.2], 10), xpnet.Cosine([0.1, 0.2], 10), xpnet.Step([0.1, 0.2], 10),
    xpnet.Step(0.1, 10, [0.1, 0.5]), xpnet.Constant([0.1, 0.2]),
], ids=repr)
def test_bounds_may_be_lists(schedule: Any) -> None:
    assert xpnet.Trainer(NET, schedule=schedule).models == (2,)
    assert hosted(schedule)(3).shape in {(2,), ()}


SCALE = """
from dataclasses import dataclass
from typing import Any

import xpnet
from xpnet.nn.per_model import per_model


@dataclass(frozen=True)
class Scale(xpnet.Layer):
    factor: {annotation} = per_model(1.0)
    places: tuple[int, ...] = (0, 1)

    def forward(self, x, *arrays, train=False, noise=None):
        return x * self.factor, lambda dy: (dy * self.factor, ()), ()
"""


@pytest.mark.parametrize("annotation", ["float", "Any"])
@pytest.mark.parametrize("first", ["", "from __future__ import annotations"], ids=["evaluated", "postponed"])
def test_layers_train_side_by_side_however_their_module_writes_annotations(
    first: str, annotation: str, tmp_path: Path
) -> None:
    module = tmp_path / "scale.py"
    module.write_text(first + SCALE.format(annotation=annotation), encoding="utf-8")
    Scale = runpy.run_path(str(module))["Scale"]
    x = np.random.default_rng(0).normal(size=(6, 4))

    def make(factor: Any) -> xpnet.Trainer:
        network = xpnet.Sequential(4, [xpnet.Linear(5), Scale(factor), xpnet.Linear(2)])
        return xpnet.Trainer(network, schedule=0.1, dtype="float64")

    assert make([0.5, 2.0, 3.0]).models == (3,)
    found = xpnet.sweep(make, {"factor": [0.5, 2.0]}, x, np.array([0, 1] * 3), steps=9)
    assert found.side_by_side(range(2), 9) == [[0, 1]]
    for history, factor in zip(found.histories, [0.5, 2.0], strict=True):
        alone = make(factor).fit(x, np.array([0, 1] * 3), steps=9)
        np.testing.assert_allclose(history.batch_loss, alone.batch_loss, rtol=1e-12)


@pytest.mark.parametrize(("optimizer", "models"), [
    (xpnet.Adam(eps=[1e-8, 1e-3]), 2), (xpnet.AdamW(weight_decay=[0.1, 0.2, 0.3]), 3), (xpnet.SGD([0.0, 0.9]), 2),
], ids=repr)
def test_optimizers_hyper_parameters_may_be_lists(optimizer: Any, models: int) -> None:
    trainer = xpnet.Trainer(NET, optimizer=optimizer)
    assert trainer.models == (models,)
    history = trainer.fit(np.ones((6, 4), dtype="float32"), np.array([0, 1] * 3), steps=3)
    assert np.shape(history.batch_loss) == (3, models)


def test_updates_at_which_a_rate_drops_stay_together_when_models_are_picked() -> None:
    assert pick(xpnet.Step([0.1, 0.2], [2, 3, 4], 0.5), 1) == xpnet.Step(0.2, [2, 3, 4], 0.5)
    assert pick(xpnet.Linear(3, xpnet.Normal([0.1, 0.2, 0.3])), [2, 0]) == xpnet.Linear(3, xpnet.Normal([0.3, 0.1]))
    assert stack([xpnet.Step(0.1, [2, 3]), xpnet.Step(0.2, [2, 3])]) == xpnet.Step([0.1, 0.2], [2, 3])


def fit(**options: Any) -> Any:
    x = np.ones((6, 4), dtype="float32")
    return xpnet.Trainer(NET, schedule=0.1).fit(x, np.array([0, 1] * 3), **{"steps": 1, **options})


@pytest.mark.parametrize(("options", "error"), [
    ({"steps": -5}, ValueError), ({"steps": float("nan")}, TypeError), ({"steps": None, "epochs": -1}, ValueError),
    ({"steps": None, "epochs": float("inf")}, ValueError), ({"evaluate_every": -2}, ValueError),
    ({"train_sample": 0}, ValueError), ({"validation": np.ones((6, 4))}, TypeError),
    ({"validation": (1, 2, 3)}, TypeError), ({"epochs": 1}, ValueError),
], ids=repr)
def test_lengths_of_training_that_make_no_sense_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="fit: expected"):
        fit(**options)


def test_validation_features_that_are_not_finite_are_not_passed_over() -> None:
    bad = np.full((6, 4), np.nan, dtype="float32")
    with pytest.raises(ArithmeticError, match="validation features: expected finite numbers, got nan in example 0"):
        fit(validation=(bad, np.array([0, 1] * 3)))


def test_an_interruption_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.ones((60, 4), dtype="float32"), np.array([0, 1] * 30)
    trainer = xpnet.Trainer(NET, schedule=0.1, batch_size=10)
    update = trainer.update

    def interrupted(*arguments: Any) -> Any:
        if trainer.step == 8:
            raise KeyboardInterrupt
        return update(*arguments)

    monkeypatch.setattr(trainer, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(x, y, steps=24)
    monkeypatch.setattr(trainer, "update", update)
    trainer.fit(x, y, steps=24)
    assert trainer.step == len(trainer.history.batch_loss) == 24
