"""Losses declare what they measure: whatever ranks or keeps networks by a measure asks them which way is better."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from xpnet import Adam, BestWeights, Checkpoints, EarlyStopping, Trainer, mlp, sweep
from xpnet.datasets.admission import NotFiniteError
from xpnet.estimators import MLPRegressor
from xpnet.nn.losses import (
    LOSSES,
    Loss,
    MeanSquaredError,
    Measure,
    SoftmaxCrossEntropy,
    measures_of,
    registered_measures,
)
from xpnet.nn.measures import UndefinedMeasureWarning
from xpnet.sweeps.refine import coarse_to_fine
from xpnet.sweeps.space import Uniform
from xpnet.training.history import direction, measured

RNG = np.random.default_rng(0)
X = RNG.normal(size=(150, 3))
TARGETS, CLASSES = X[:, 0] * X[:, 1], (X[:, 0] * X[:, 1] > 0).astype("int64")


class Counted(SoftmaxCrossEntropy):
    """Cross-entropy beside which stand the share of mistakes, and the share of hits under a name that misleads."""

    measures: ClassVar[Any] = {"hits_lost": Measure(True, share=True), "accuracy_of_mistakes": Measure(False)}

    def score(self, tally: Any, y: Any) -> dict[str, Any]:
        share = tally / y.shape[0]
        return {"hits_lost": share, "accuracy_of_mistakes": 1.0 - share}


CASES: list[tuple[Loss, str, bool]] = [
    (loss, name, measure.more_is_better)
    for loss in (SoftmaxCrossEntropy(), MeanSquaredError(), Counted()) for name, measure in measures_of(loss).items()
]


def labels(loss: Loss) -> Any:
    return CLASSES if loss.classifies else TARGETS


def make(loss: Loss, seed: int = 0, **options: Any) -> Trainer:
    network = mlp(3, [8], 2 if loss.classifies else 1)
    options = {"optimizer": Adam(), "schedule": 0.05, "batch_size": 25, **options}
    return Trainer(network, loss=loss, l2=1e-3, seed=seed, order_seed=0, **options)


def train(loss: Loss, **options: Any) -> Trainer:
    trainer, y = make(loss, **options), labels(loss)
    trainer.fit(X[:100], y[:100], epochs=12, validation=(X[100:], y[100:]))
    return trainer


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_reports_what_it_declares(name: str) -> None:
    loss = LOSSES[name]()
    trainer = train(loss)
    assert list(trainer.evaluate(X, labels(loss))) == list(measures_of(loss))
    assert list(trainer.history.columns) == ["step", "epoch", "lr", *measured(loss)]
    assert registered_measures().items() >= measures_of(loss).items()


def test_which_way_is_better() -> None:
    ways = {name: measure.more_is_better for name, measure in registered_measures().items()}
    assert ways == {"loss": False, "cost": False, "accuracy": True, "r2": True}
    assert direction("Owner", "train_r2", None, MeanSquaredError()) == "max"
    assert direction("Owner", "train_r2", "min", MeanSquaredError()) == "min"
    assert "validation_loss" not in measured(MeanSquaredError(), validated=False)


def entrances(tmp_path: Path, column: str, **options: Any) -> dict[str, Any]:
    return {
        "Checkpoints": Checkpoints(tmp_path / "run", monitor=column, **options),
        "BestWeights": BestWeights(column, **options),
        "EarlyStopping": EarlyStopping(column, patience=99, **options),
    }


@pytest.mark.parametrize(("loss", "name", "more"), CASES, ids=lambda value: getattr(value, "__name__", str(value)))
@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("entrance", ["Checkpoints", "BestWeights", "EarlyStopping"])
def test_what_keeps_the_best_keeps_the_best(
    entrance: str, split: str, loss: Loss, name: str, more: bool, tmp_path: Path
) -> None:
    callback = entrances(tmp_path, f"{split}_{name}")[entrance]
    column = train(loss, callbacks=[callback]).history[f"{split}_{name}"]
    best = column.max() if more else column.min()
    assert (callback.best[1] if entrance == "Checkpoints" else callback.best[0]) == best
    assert column.min() < column.max()  # so that the worst is another


@pytest.mark.parametrize(("loss", "name", "more"), CASES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_sweep_ranks_by_what_the_loss_declares(loss: Loss, name: str, more: bool) -> None:
    y, score = labels(loss), f"validation_{name}"
    found = sweep(lambda seed: make(loss, seed), {"seed": range(4)}, X[:100], y[:100], epochs=4, score=score,
                  validation=(X[100:], y[100:]))
    last = [found.last(member)[score] for member in found.ranked()]
    assert last == sorted(last, reverse=more)
    assert last[0] != last[-1]
    assert found.table()[0][score] == pytest.approx(np.mean(last))
    by_default = list(loss.measures)[-1]
    assert sweep(lambda seed: make(loss, seed), {"seed": [0]}, X, y, steps=1).score == f"train_{by_default}"


def test_an_ensemble_takes_what_classifies_whatever_its_measures_are_called() -> None:
    for loss in (SoftmaxCrossEntropy(), Counted()):
        found = sweep(lambda seed, loss=loss: make(loss, seed), {"seed": [0, 1]}, X, CLASSES, steps=8)
        assert found.ensemble().evaluate(X, CLASSES)["accuracy"] > 0.4
    found = sweep(lambda seed: make(MeanSquaredError(), seed), {"seed": [0, 1]}, X, TARGETS, steps=2)
    with pytest.raises(ValueError, match="averages the probabilities of classifiers"):
        found.ensemble()


@pytest.mark.parametrize("column", ["validation_acuracy", "accuracy", "validation_r2", "speed", "lr"])
@pytest.mark.parametrize("entrance", ["Checkpoints", "BestWeights", "EarlyStopping", "sweep"])
def test_an_unknown_measure_is_refused_with_the_known_ones(entrance: str, column: str, tmp_path: Path) -> None:
    loss = SoftmaxCrossEntropy()

    def begin() -> None:
        if entrance == "sweep":
            sweep(lambda seed: make(loss, seed), {"seed": [0]}, X, CLASSES, steps=1, score=column,
                  validation=(X, CLASSES))
        else:
            train(loss, callbacks=[entrances(tmp_path, column)[entrance]])

    words = f"{entrance}: expected .* as one of train_loss, .*validation_accuracy, got '{column}'"
    with pytest.raises(ValueError, match=words):
        begin()
    assert not (tmp_path / "run").exists()


# Undefined ------------------------------------------------------------------------------------------------------

def held_out(kind: str) -> tuple[Any, Any]:
    """Return data whose targets leave r2 undefined."""
    return (X[:1], TARGETS[:1]) if kind == "one" else (X, np.full(len(X), 0.1))


def ranked(entrance: str, column: str, validation: Any, place: Path) -> None:
    """Begin a training that compares networks by a column."""
    loss = MeanSquaredError()
    if entrance in ("sweep", "halving", "coarse_to_fine"):
        options: dict[str, Any] = {"steps": 2, "validation": validation, "score": column}
        if entrance == "coarse_to_fine":
            coarse_to_fine(lambda rate: make(loss, 0, schedule=rate), {"rate": Uniform(0, 1)}, X, TARGETS, draws=2,
                           **options)
        else:
            sweep(lambda seed: make(loss, seed), {"seed": [0, 1]}, X, TARGETS, **options,
                  halve_at=[1] if entrance == "halving" else ())
    else:
        trainer = make(loss, callbacks=[entrances(place, column)[entrance]])
        trainer.fit(X, TARGETS, steps=2, validation=validation)


RANKED = ["Checkpoints", "BestWeights", "EarlyStopping", "sweep", "halving", "coarse_to_fine"]


@pytest.mark.parametrize("kind", ["one", "alike"])
@pytest.mark.parametrize("entrance", RANKED)
def test_networks_are_not_ranked_by_what_is_undefined(entrance: str, kind: str, tmp_path: Path) -> None:
    owner = {"halving": "sweep", "coarse_to_fine": "sweep"}.get(entrance, entrance)
    with pytest.raises(ValueError, match=f"{owner}: validation_r2 is not defined, since .*: use 'validation_loss'"):
        ranked(entrance, "validation_r2", held_out(kind), tmp_path)
    assert not (tmp_path / "run").exists()
    with warnings.catch_warnings(record=True) as caught:  # as the error advises
        warnings.simplefilter("always")
        ranked(entrance, "validation_loss", held_out(kind), tmp_path)
    assert any(issubclass(one.category, UndefinedMeasureWarning) for one in caught)


@pytest.mark.parametrize("kind", ["one", "alike"])
def test_an_undefined_measure_is_nan_with_a_warning(kind: str) -> None:
    trainer = make(MeanSquaredError(), 0)
    trainer.fit(X, TARGETS, steps=2)
    with pytest.warns(UndefinedMeasureWarning, match="r2 is NaN, since"):
        found = trainer.evaluate(*held_out(kind))
    assert np.isnan(found["r2"])
    assert np.isfinite(found["loss"])
    model = MLPRegressor.from_network(trainer.network)
    with pytest.warns(UndefinedMeasureWarning, match="r2 is NaN, since"):
        assert np.isnan(model.score(*held_out(kind)))
    member = sweep(lambda seed: make(MeanSquaredError(), seed), {"seed": [0, 1]}, X, TARGETS, steps=2)
    with pytest.warns(UndefinedMeasureWarning, match="r2 is NaN, since"):
        assert np.isnan(member.evaluate(*held_out(kind))["r2"]).all()


def test_a_model_without_a_finite_value_has_no_best_network() -> None:
    class Blind(MeanSquaredError):
        undefined = None  # a loss that does not say so

        def score(self, tally: Any, y: Any) -> dict[str, Any]:
            return {"r2": tally.sum(axis=-1) * np.nan}

    best = BestWeights("train_r2")
    with_best, without = (make(Blind(), 0, callbacks=callbacks) for callbacks in ([best], []))
    for trainer in (with_best, without):
        trainer.fit(X, TARGETS, steps=9)
    assert best.best == [None]
    for name, array in without.arrays.items():
        assert (with_best.arrays[name] == array).all()


@pytest.mark.parametrize("kind", [EarlyStopping, BestWeights])
def test_a_state_of_the_other_direction_is_refused_when_the_run_goes_on(kind: Callable[..., Any]) -> None:
    trainer = train(SoftmaxCrossEntropy(), callbacks=[kind("validation_accuracy", mode="min")])
    old = trainer.callbacks[0]
    new = kind("validation_accuracy")
    new.load_state(old.state(), old.arrays)
    trainer.callbacks = (new,)
    with pytest.raises(ValueError, match="expected the state of mode='max', got 'min'"):
        trainer.fit(X, CLASSES, epochs=20, validation=(X, CLASSES))
    same = kind("validation_accuracy", mode="min")
    same.load_state(old.state(), old.arrays)
    assert same.state() == old.state()


def test_a_loss_that_declares_no_measures_is_refused() -> None:
    class Bare:
        def encoder(self, outputs: int, device: Any, dtype: str) -> Any: ...

    with pytest.raises(TypeError, match=r"expected a loss, .* with its forward, encoder, measures"):
        Trainer(mlp(3, [4], 2), loss=Bare())  # type: ignore[arg-type]


# Targets whose squares float32, or float64, does not hold ---------------------------------------------------------


def test_r2_of_large_targets_is_right() -> None:
    model = MLPRegressor((3,), max_iter=2, random_state=0, tol=1.0).fit(X.astype("float32"), TARGETS)
    large = TARGETS * 1e25
    expected = 1.0 - ((model.predict(X.astype("float32")) - large) ** 2).sum() / ((large - large.mean()) ** 2).sum()
    assert model.score(X.astype("float32"), large) == pytest.approx(expected, rel=1e-12)
    with pytest.warns(UndefinedMeasureWarning, match="the targets' squares are too large for float64"):
        assert np.isnan(model.score(X.astype("float32"), TARGETS * 1e200))
    for wrong in (TARGETS[:, None].repeat(2, axis=1), TARGETS[:, None].repeat(3, axis=1)):
        with pytest.raises(ValueError, match=r"y: expected 1 output\(s\), as in fit, got [23]"):
            model.score(X.astype("float32"), wrong)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    trainer = Trainer(mlp(3, [3], 1), loss=MeanSquaredError(), batch_size=50)
    trainer.fit(X, TARGETS, steps=2)
    with pytest.raises(NotFiniteError, match=r"the loss is inf: .* targets are too large for float32; rescale them"):
        trainer.evaluate(X, TARGETS * 1e25)
    assert np.isfinite(trainer.evaluate(X, TARGETS * 1e10)["r2"])


@pytest.mark.parametrize("labels", [TARGETS.astype(str), TARGETS.astype(object)], ids=["text", "objects"])
@pytest.mark.parametrize("part", ["training", "validation"])
def test_a_sweep_checks_targets_before_it_measures_them(labels: Any, part: str) -> None:
    def make(seed: int) -> Trainer:
        return Trainer(mlp(3, [3], 1), loss=MeanSquaredError(), batch_size=50, seed=seed)

    y, validation = (labels, None) if part == "training" else (TARGETS, (X, labels))
    with pytest.raises(TypeError, match="targets: expected real numbers, got dtype"):
        sweep(make, {"seed": [0, 1]}, X, y, steps=1, validation=validation)
