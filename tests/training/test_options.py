"""Numbers of NumPy as options do what Python's would, down to the files of a run; what is none is refused."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from entrances import CLASSES, WIDTH, X, Y

import xpnet
from xpnet import CyclicLR, Trainer, mlp, sweep
from xpnet.sweeps.refine import coarse_to_fine
from xpnet.sweeps.space import Uniform
from xpnet.training.checkpoints import Checkpoints
from xpnet.training.lr_range import find_lr
from xpnet.training.monitors import BestWeights, EarlyStopping
from xpnet.training.schedules import Constant, Cosine, Step

INTEGERS = (np.int8, np.asarray)
FLOATS = (np.float16, np.asarray)


def network(**options: Any) -> Any:
    return mlp(WIDTH, [4], CLASSES, **options)


def train(place: Any, made: Any = None, fit: Any = None, callbacks: Any = (), **options: Any) -> Trainer:
    """Train with checkpoints, which hold all of it as JSON, and go on from them."""
    def make(steps: Any) -> Trainer:
        found = Trainer(made or network(), callbacks=[*callbacks, Checkpoints(place)],
                        **{"batch_size": 10, "schedule": 0.125, **options})
        if (place / "checkpoints").exists():
            found.resume(place)
        found.fit(X, Y, validation=(X[:9], Y[:9]), **({"steps": steps, "evaluate_every": 6} if fit is None else fit))
        return found

    make(12)
    return make(24)


def finer(**options: Any) -> Any:
    return coarse_to_fine(lambda l2: Trainer(network(), l2=l2, batch_size=10), {"l2": Uniform(0, 1)}, X, Y,
                          **{"draws": 2, "steps": 2, **options})


def swept(place: Any, **options: Any) -> Any:
    space = {"seed": [0], "l2": Uniform(0, 1)}
    return sweep(lambda seed, l2: Trainer(network(), l2=l2, seed=seed, batch_size=10), space, X, Y,
                 **{"steps": 2, "directory": place, **options})


#: Calls with an integer, and the integer.
COUNTS: dict[str, tuple[Callable[[Any, Path], Any], int]] = {
    "batch_size": (lambda v, place: train(place, batch_size=v), 20),
    "seed": (lambda v, place: train(place, seed=v), 3),
    "order_seed": (lambda v, place: train(place, order_seed=v), 3),
    "steps": (lambda v, place: train(place, fit={"steps": v}), 24),
    "evaluate_every": (lambda v, place: train(place, fit={"steps": 24, "evaluate_every": v}), 6),
    "train_sample": (lambda v, place: train(place, fit={"steps": 24, "train_sample": v}), 9),
    "in_features": (lambda v, place: train(place, mlp(v, [4], CLASSES)), WIDTH),
    "hidden": (lambda v, place: train(place, mlp(WIDTH, [v], CLASSES)), 4),
    "out_features": (lambda v, place: train(place, mlp(WIDTH, [4], v)), CLASSES),
    "CyclicLR.step_size": (lambda v, place: train(place, schedule=CyclicLR(0.0, 0.125, v)), 100),
    "Step.step_size": (lambda v, place: train(place, schedule=Step(0.125, v)), 7),
    "Cosine.steps": (lambda v, place: train(place, schedule=Cosine(0.125, v)), 100),
    "patience": (lambda v, place: train(place, callbacks=[EarlyStopping(patience=v), BestWeights()]), 2),
    "Checkpoints.every": (lambda v, place: Checkpoints(place, every=v).every, 2),
    "Checkpoints.keep": (lambda v, place: Checkpoints(place, keep=v).keep, 2),
    "find_lr, steps": (lambda v, place: find_lr(network(), X, Y, steps=v), 20),
    "find_lr, points": (lambda v, place: find_lr(network(), X, Y, steps=20, points=v), 10),
    "sweep, steps": (lambda v, place: swept(place, steps=v), 2),
    "sweep, evaluate_every": (lambda v, place: swept(place, evaluate_every=v), 2),
    "sweep, train_sample": (lambda v, place: swept(place, train_sample=v), 9),
    "sweep, order_seed": (lambda v, place: swept(place, order_seed=v), 3),
    "sweep, draws": (lambda v, place: swept(place, draws=v), 2),
    "sweep, block_size": (lambda v, place: swept(place, block_size=v), 2),
    "coarse_to_fine, keep": (lambda v, place: finer(keep=v, directory=place), 1),
}
NUMBERS: dict[str, tuple[Callable[[Any, Path], Any], float]] = {
    "epochs": (lambda v, place: train(place, fit={"epochs": v}), 4.0),
    "min_delta": (lambda v, place: train(place, callbacks=[EarlyStopping(min_delta=v)]), 0.25),
    "find_lr, low": (lambda v, place: find_lr(network(), X, Y, steps=20, low=v), 0.25),
    "find_lr, high": (lambda v, place: find_lr(network(), X, Y, steps=20, high=v), 0.5),
    "sweep, epochs": (lambda v, place: swept(place, steps=None, epochs=v), 2.0),
    "coarse_to_fine, margin": (lambda v, place: finer(margin=v, directory=place), 0.125),
}
#: Those that may differ between models, so that a sequence is right.
PER_MODEL: dict[str, tuple[Callable[[Any, Path], Any], float]] = {
    "l2": (lambda v, place: train(place, l2=v), 0.125),
    "clip_norm": (lambda v, place: train(place, clip_norm=v), 0.125),
    "schedule": (lambda v, place: train(place, schedule=v), 0.125),
    "Constant": (lambda v, place: train(place, schedule=Constant(v)), 0.125),
    "CyclicLR.eta_max": (lambda v, place: train(place, schedule=CyclicLR(0.0, v, 5)), 0.125),
    "Step.gamma": (lambda v, place: train(place, schedule=Step(0.125, [4, 9], v)), 0.5),
    "Cosine.eta_min": (lambda v, place: train(place, schedule=Cosine(0.125, 30, v)), 0.125),
    "momentum": (lambda v, place: train(place, optimizer=xpnet.SGD(v)), 0.5),
    "beta1": (lambda v, place: train(place, optimizer=xpnet.Adam(beta1=v)), 0.5),
    "weight_decay": (lambda v, place: train(place, optimizer=xpnet.AdamW(weight_decay=v)), 0.5),
    "dropout": (lambda v, place: train(place, network(dropout=v)), 0.5),
}


@pytest.fixture(autouse=True)
def nothing_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the figure of a sweep, which takes longer than all else here."""
    monkeypatch.setattr(xpnet.Sweep, "plot", lambda sweep: None)
    monkeypatch.setattr("xpnet.sweeps.export.plotting.save", lambda figure, path: None)


def outcome(found: Any) -> Any:
    """Return the numbers that a call gave."""
    if isinstance(found, Trainer):
        return [{name: np.asarray(v).tolist() for name, v in row.items()} for row in found.history.rows]
    if isinstance(found, xpnet.Sweep):
        return [history.rows for history in found.histories]
    if hasattr(found, "better"):
        return [outcome(found.coarse), outcome(found.fine)]
    return getattr(found, "losses", found)


@pytest.fixture(scope="module")
def with_python(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, list[str]]]:
    """Return the function from an option to the outcome and the names of the files with Python's number."""
    @functools.cache
    def given(option: str) -> tuple[Any, list[str]]:
        call, value = (COUNTS | NUMBERS | PER_MODEL)[option]
        place = tmp_path_factory.mktemp("python")
        found = outcome(call(value, place))
        return found, sorted(path.name for path in place.rglob("*.json"))

    return given


@pytest.mark.filterwarnings("ignore:r2 is NaN")
@pytest.mark.parametrize("kind", INTEGERS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("option", COUNTS)
def test_integers_of_numpy_do_as_pythons_do(option: str, kind: Any, tmp_path: Path, with_python: Any) -> None:
    call, value = COUNTS[option]
    expected, names = with_python(option)
    assert outcome(call(kind(value), tmp_path)) == expected
    files = list(tmp_path.rglob("*.json"))
    assert sorted(path.name for path in files) == names
    for path in files:
        json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("kind", FLOATS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("option", NUMBERS | PER_MODEL)
def test_numbers_of_numpy_do_as_pythons_do(option: str, kind: Any, tmp_path: Path, with_python: Any) -> None:
    call, value = (NUMBERS | PER_MODEL)[option]
    assert outcome(call(kind(value), tmp_path)) == with_python(option)[0]


@pytest.mark.parametrize("kind", [list, tuple, lambda v: np.asarray(v), bool, np.bool_, str, lambda v: 2.5],
                         ids=["list", "tuple", "array", "bool", "NumPy's bool", "text", "a fraction"])
@pytest.mark.parametrize("option", [name for name in COUNTS if name != "hidden"])
def test_what_is_no_integer_is_refused(option: str, kind: Any, tmp_path: Path) -> None:
    call, value = COUNTS[option]
    given = kind([value]) if kind not in (bool, np.bool_, str) else kind(value)
    if isinstance(given, list | tuple | np.ndarray) and option in ("seed", "Step.step_size"):
        return
    with pytest.raises(TypeError, match=r"expected .* as an integer|expected seed as a number"):
        call(given, tmp_path)
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("kind", [list, tuple, np.asarray, lambda v: True, lambda v: "0.5"],
                         ids=["list", "tuple", "array", "bool", "text"])
@pytest.mark.parametrize("option", NUMBERS)
def test_what_is_no_number_is_refused(option: str, kind: Any, tmp_path: Path) -> None:
    call, value = NUMBERS[option]
    with pytest.raises(TypeError, match=r"expected .* as a number"):
        call(kind([value]), tmp_path)
    with pytest.raises(ValueError, match="expected"):
        call(float("nan"), tmp_path)


def test_small_integers_do_not_overflow() -> None:
    rates = [CyclicLR(np.float32(0.0), np.float16(1.0), np.int8(100))(t) for t in range(0, 400, 25)]
    assert rates == [CyclicLR(0.0, 1.0, 100)(t) for t in range(0, 400, 25)]
    assert all(type(rate) is float for rate in rates)


@pytest.mark.parametrize("dtype", [np.float32, np.dtype("float32"), "float16", None])
def test_the_dtype_is_a_name(dtype: Any) -> None:
    with pytest.raises(ValueError, match="dtype: expected 'float32' or 'float64'"):
        Trainer(network(), dtype=dtype)
