"""History: columns, members, and what is there to see."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from helpers import assert_same, blobs

from xpnet import Constant, CyclicLR, History, Trainer, mlp
from xpnet.backend import Device
from xpnet.training.lr_range import LRRange, running_median


def sweep() -> History:
    """Return a history of two models."""
    history = History()
    history.rows = [
        {"step": 0, "lr": np.asarray([0.1, 0.2]), "train_loss": np.asarray([1.0, 2.0], "float32")},
        {"step": 5, "lr": np.asarray([0.3, 0.4]), "train_loss": np.asarray([0.5, 1.5], "float32")},
    ]
    history.batch_loss = [np.asarray([1.0, 2.0]), np.asarray([0.75, 1.75])]
    return history


def test_columns_are_arrays_over_the_rows() -> None:
    history = sweep()
    assert history["step"].tolist() == [0, 5]
    assert history["train_loss"].tolist() == [[1.0, 2.0], [0.5, 1.5]]
    assert list(history.columns) == ["step", "lr", "train_loss"]
    assert len(history) == 2
    assert [row["step"] for row in history] == [0, 5]


def test_a_member_has_plain_numbers() -> None:
    one = sweep().member(1)
    assert one.rows == [{"step": 0, "lr": 0.2, "train_loss": 2.0}, {"step": 5, "lr": 0.4, "train_loss": 1.5}]
    assert one.batch_loss == [2.0, 1.75]
    assert all(type(v) in (int, float) for row in one for v in row.values())
    assert len(sweep()) == 2
    assert sweep().rows[0]["train_loss"].tolist() == [1.0, 2.0]


def test_an_unknown_column_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(KeyError, match=r"no column 'loss'; there are step, lr, train_loss"):
        sweep()["loss"]
    with pytest.raises(KeyError, match=r"no column 'step'; there are no rows"):
        History()["step"]
    assert History().columns == {}
    assert len(History()) == 0


@pytest.mark.parametrize("validation", [True, False])
def test_rows_of_a_run(device: Device, validation: bool) -> None:
    x, y = blobs(device, 32)
    history = Trainer(mlp(6, [4], 3), batch_size=16, l2=0.25, schedule=CyclicLR(0.0, 0.1, 2)).fit(
        x, y, steps=4, validation=(x, y) if validation else None
    )
    names = [f"{name}_{kind}" for name in (["train", "validation"] if validation else ["train"])
             for kind in ("loss", "cost", "accuracy")]
    assert list(history.columns) == ["step", "epoch", "lr", *names]
    assert history["lr"].tolist() == [0.0, 0.1, 0.0]
    assert history["epoch"].tolist() == [0.0, 1.0, 2.0]
    assert (history["train_cost"] > history["train_loss"]).all()
    assert all(type(v) in (int, float) for row in history for v in row.values())
    if validation:
        assert_same(history["validation_loss"], history["train_loss"])  # the same data


@pytest.mark.parametrize("rates", [[0.1, 0.2], np.asarray([0.1, 0.2])], ids=["list", "array"])
def test_members_of_a_run_have_their_own_rate(device: Device, rates: object) -> None:
    x, y = blobs(device, 32)
    history = Trainer(mlp(6, [4], 3), batch_size=16, schedule=Constant(rates)).fit(x, y, steps=2)
    assert [history.member(m)["lr"].tolist() for m in range(2)] == [[0.1, 0.1], [0.2, 0.2]]
    assert history["train_loss"].shape == (2, 2)


def mixed() -> History:
    """Return a history whose second row has a column more."""
    history = History()
    history.rows = [{"step": 0, "train_loss": 1.5}, {"step": 5, "train_loss": math.nan, "validation_loss": 2.0}]
    return history


def test_a_column_that_comes_later_is_nan_before() -> None:
    assert list(mixed().columns) == ["step", "train_loss", "validation_loss"]
    assert np.isnan(mixed()["validation_loss"][0])
    assert mixed()["validation_loss"][1] == 2.0
    later = sweep()
    later.rows[1]["validation_loss"] = np.asarray([1.0, 2.0])
    assert np.isnan(later["validation_loss"][0]).all()
    assert later["validation_loss"][1].tolist() == [1.0, 2.0]


def test_records_are_plain_rows_with_the_model() -> None:
    assert sweep().records() == [
        {"model": 0, "step": 0, "lr": 0.1, "train_loss": 1.0}, {"model": 1, "step": 0, "lr": 0.2, "train_loss": 2.0},
        {"model": 0, "step": 5, "lr": 0.3, "train_loss": 0.5}, {"model": 1, "step": 5, "lr": 0.4, "train_loss": 1.5},
    ]
    assert sweep().models == 2
    assert sweep().member(0).models is None
    assert_same(mixed().records(), mixed().rows)


def test_the_table_is_aligned_text() -> None:
    assert mixed().table() == (
        "step  train_loss  validation_loss\n"
        "   0         1.5                -\n"
        "   5         nan                2"
    )
    assert sweep().table(last=1) == "model  step   lr  train_loss\n    1     5  0.4         1.5"
    assert History().table() == ""
    with pytest.raises(ValueError, match="last of at least 1, got 0"):
        sweep().table(last=0)


def test_the_plot_holds_the_columns() -> None:
    x, y = blobs(Device(), 32)
    history = Trainer(mlp(6, [4], 3), batch_size=16, schedule=CyclicLR(0.0, 0.1, 2)).fit(x, y, steps=4)
    loss, accuracy, rate = history.plot(title="run").axes
    assert loss.lines[0].get_ydata().tolist() == history["train_loss"].tolist()
    assert accuracy.lines[0].get_ydata().tolist() == history["train_accuracy"].tolist()
    assert rate.lines[0].get_ydata().tolist() == [0.0, 0.1, 0.0]
    with pytest.raises(ValueError, match=r"got 2 models; draw history.member\(0\).plot\(\)"):
        sweep().plot()
    with pytest.raises(ValueError, match="at least one row, got none"):
        History().plot()


def test_pandas_gets_the_records() -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    frame = sweep().to_pandas()
    assert frame.to_dict("records") == sweep().records()
    assert list(frame.columns) == ["model", "step", "lr", "train_loss"]


def test_without_pandas_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"pip install pandas, or use history.records\(\)"):
        sweep().to_pandas()


FLOATS = st.floats(allow_nan=True, allow_infinity=True)


@hypothesis.given(st.lists(st.tuples(FLOATS, FLOATS), max_size=4), st.sampled_from([None, "float32", "float64"]))
def test_a_history_comes_back_from_strict_json_exactly(values: list[tuple[float, float]], dtype: str | None) -> None:
    history = History()
    with np.errstate(over="ignore"):
        made: list[Any] = [pair[0] if dtype is None else np.asarray(pair, dtype) for pair in values]
    history.rows = [{"step": i, "train_loss": value} for i, value in enumerate(made)]
    history.batch_loss = list(made)
    text = json.dumps(history.to_dict(), allow_nan=False)
    again = History.from_dict(json.loads(text))
    nan = [np.isnan(v) for v in made]
    assert [np.isnan(v).tolist() for v in again.batch_loss] == [v.tolist() for v in nan]
    for a, b in zip(again.rows, history.rows, strict=True):
        assert type(a["train_loss"]) is type(b["train_loss"])
        if not np.isnan(b["train_loss"]).any():
            assert_same(a, b)
    assert again.to_dict() == history.to_dict()


@pytest.mark.parametrize("l2", [0.1, [0.0, 0.1]])
def test_the_history_of_a_run_comes_back(device: Device, l2: Any) -> None:
    x, y = blobs(device, 32)
    history = Trainer(mlp(6, [4], 3), batch_size=16, l2=l2).fit(x, y, steps=4, validation=(x, y))
    again = History.from_dict(json.loads(json.dumps(history.to_dict(), allow_nan=False)))
    assert_same(again.rows, history.rows)
    assert_same(again.batch_loss, history.batch_loss)
    assert again.table() == history.table()


@pytest.mark.parametrize("values", [{}, {"rows": 1, "batch_loss": [], "dtypes": {}}, {"rows": [1], "batch_loss": [],
                                    "dtypes": {}}, [], {"rows": [{"a": ["x"]}], "batch_loss": [], "dtypes": {}}])
def test_what_is_no_history_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match=r"History.to_dict gives|could not convert"):
        History.from_dict(values)


def test_the_running_median_ignores_what_stands_alone() -> None:
    assert running_median([1.0, 1.0, 9.0, 1.0, 2.0], 1) == [1.0, 1.0, 1.0, 2.0, 1.5]
    assert running_median([3.0, 1.0], 0) == [3.0, 1.0]


def ranged(accuracy: list[float], name: str = "train_accuracy") -> LRRange:
    """Return a range test over rates 1, 2, ... that measured these accuracies."""
    history = History()
    history.rows = [{"step": i, "lr": float(i + 1), "train_accuracy": 0.1, name: a} for i, a in enumerate(accuracy)]
    return LRRange([1.0, 2.0], [3.0, 2.0], history, column=name)


@pytest.mark.parametrize("name", ["train_accuracy", "validation_accuracy"])
def test_the_bounds_are_where_the_accuracy_begins_to_rise_and_slows(name: str) -> None:
    rising = [0.1] * 10 + [0.1 + 0.05 * k for k in range(11)] + [0.6] * 5 + [0.3, 0.2, 0.1]
    found = ranged(rising, name)
    assert (found.eta_min, found.eta_max) == (12.0, 20.0)  # 0.15 is a tenth of the rise, 0.55 nine tenths
    spiked = [*rising]
    spiked[3] = 0.9  # one ragged point
    assert (ranged(spiked, name).eta_min, ranged(spiked, name).eta_max) == (12.0, 20.0)


def test_no_rise_no_bounds() -> None:
    with pytest.raises(ValueError, match="did not rise by 5 points between the rates 1 and 20"):
        _ = ranged([0.1, 0.14] * 10).eta_min
