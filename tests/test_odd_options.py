"""Options of the wrong kind: each is refused in one line that names it, at the door where it is given."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import blobs

import xpnet
from xpnet import CyclicLR, LeakyReLU, Linear, Network, Sequential, Trainer, mlp, sweep
from xpnet.backend import Device
from xpnet.nn.per_model import flag, is_array, shown

X, Y = blobs(Device(), 60)
NET = mlp(6, [4], 3)
ODD: dict[str, Any] = {
    "bytes": b"3", "set": {3}, "mapping": {3: 3}, "object": object(), "Decimal": Decimal("0.5"),
    "Fraction": Fraction(1, 2), "complex": 1j, "function": print, "duration": np.timedelta64(3, "s"),
    "matrix": np.ones((2, 2)), "masked": np.ma.masked_array([3], [True]), "text": "no", "empty": np.asarray([]),
}


def fit(network: Any = NET, **options: Any) -> Trainer:
    """Return a trainer after an update."""
    made = Trainer(network, **{"batch_size": 20, **options})
    made.fit(X, Y, steps=1)
    return made


def members(value: Any) -> Any:
    """Train two networks side by side, and return the one of a number."""
    return fit(l2=[0.0, 0.1]).network.member(value)


DOORS: dict[str, Callable[[Any], Any]] = {
    "l2": lambda v: fit(l2=v), "seed": lambda v: fit(seed=v), "batch_size": lambda v: fit(batch_size=v),
    "clip_norm": lambda v: fit(clip_norm=v), "device": lambda v: fit(device=v), "optimizer": lambda v: fit(optimizer=v),
    "loss": lambda v: fit(loss=v), "dtype": lambda v: fit(dtype=v),
    "rate": lambda v: fit(schedule=CyclicLR(v, 1.0, 3)), "momentum": lambda v: fit(optimizer=xpnet.SGD(v)),
    "eps": lambda v: fit(optimizer=xpnet.AdamW(eps=v)), "nesterov": lambda v: xpnet.SGD(0.5, nesterov=v),
    "eps of BatchNorm": lambda v: xpnet.BatchNorm(eps=v),
    "slope": lambda v: fit(Sequential(6, [Linear(4), LeakyReLU(v), Linear(3)])),
    "batch_norm": lambda v: mlp(6, [4], 3, batch_norm=v), "standardize": lambda v: mlp(6, [4], 3, standardize=v),
    "dropout": lambda v: fit(mlp(6, [4], 3, dropout=v)), "initializer": lambda v: mlp(6, [4], 3, initializer=v),
    "feature_names": lambda v: mlp(6, [4], 3, feature_names=v), "layers": lambda v: Sequential(6, v),
    "member": members, "table": lambda v: fit().history.table(last=v), "history": lambda v: fit().history.member(v),
    "Ensemble": xpnet.Ensemble, "Network": lambda v: Network(NET, v), "architecture": lambda v: Network(v, {}),
    "from_torch": lambda v: Network.from_torch(v, {}), "state": lambda v: Network.from_torch(NET, v),
    "monitor": lambda v: fit(callbacks=[xpnet.Checkpoints("nowhere", monitor=v)]),
    "images": lambda v: xpnet.datasets.synthetic(train=v),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("door", DOORS)
def test_odd_options_are_refused_in_a_line(door: str, kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TypeError, ValueError)) as caught:
        DOORS[door](ODD[kind])
    text = str(caught.value)
    assert "\n" not in text
    assert "expected" in text or "needs arrays named" in text
    assert caught.traceback[-1].path.is_relative_to(Path(xpnet.__file__).parent)


@pytest.mark.parametrize("value", [0, "", {}, False])
@pytest.mark.parametrize("option", ["optimizer", "loss", "device"])
def test_only_none_is_a_default(option: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="expected"):
        Trainer(NET, **{option: value})


@pytest.mark.parametrize("value", [3, [3], "Progress", [xpnet.EarlyStopping], None])
def test_callbacks_are_a_list_of_callbacks(value: Any) -> None:
    with pytest.raises(TypeError, match=r"expected callbacks as a list, like \[xpnet.EarlyStopping\(\)\], got"):
        Trainer(NET, callbacks=value)


def test_a_model_is_named_by_its_number() -> None:
    for wrong in (None, True, np.bool_(False), 0.0, "0", slice(0, 1)):
        with pytest.raises(TypeError, match="member: expected the number of a model as an integer"):
            members(wrong)
    for far in (2, np.int64(7)):
        with pytest.raises(IndexError, match="expected the number of a model from 0 to 1"):
            members(far)
    assert members(np.int8(1)).models == members(-1).models == ()


def test_sets_have_no_order() -> None:
    with pytest.raises(TypeError, match="hidden widths as a sequence"):
        mlp(6, {8, 4}, 3)  # type: ignore[arg-type]
    with pytest.raises((TypeError, ValueError), match="expected width as a value, a sequence of values"):
        sweep(lambda width: Trainer(mlp(6, width, 3)), {"width": {4, 8}}, X, Y, steps=1)
    assert not any(map(is_array, ({1}, frozenset({1}), {1: 2}, b"1", bytearray(b"1"), "1")))
    assert all(map(is_array, ([1], (1,), range(2), np.ones(1))))


def test_flags_and_what_errors_show() -> None:
    assert [flag("f", "x", v) for v in (True, np.bool_(False), 1, 0)] == [True, False, True, False]
    for wrong in ("yes", None, 2, 1.0, [True], np.asarray([True])):
        with pytest.raises(TypeError, match="f: expected x as True or False"):
            flag("f", "x", wrong)
    assert shown(np.ones((2, 2))) == "array([[1., 1.], [1., 1.]])"
    assert len(shown("x" * 1000)) == 200


def test_long_double_is_a_number_that_checkpoints_keep(tmp_path: Path) -> None:
    number = np.longdouble("0.125")
    made = fit(schedule=CyclicLR(number, number, 3), l2=number, optimizer=xpnet.SGD(number),
               callbacks=[xpnet.Checkpoints(tmp_path)])
    again = Trainer(NET, batch_size=20, schedule=CyclicLR(0.125, 0.125, 3), l2=0.125, optimizer=xpnet.SGD(0.125))
    again.resume(tmp_path)
    assert again.step == made.step == 1
