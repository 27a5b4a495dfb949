"""History: columns, members, and what is there to see."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_same, blobs

from xpnet import Constant, CyclicLR, History, Trainer, mlp
from xpnet.backend import Device


def sweep() -> History:
    """Give a history of two models."""
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
