"""Data larger than memory: training, scoring and prediction read a memory-mapped file batch by batch, and copy none."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from estimating import all_entrances, both_kinds, small
from helpers import assert_same, blobs

from xpnet.backend import Device, to_numpy
from xpnet.estimators import GridSearch
from xpnet.estimators.conventions import features
from xpnet.estimators.epochs import hold_out, train
from xpnet.training.rows import moments
from xpnet.training.trainer import Trainer

ROWS, COLUMNS = 20_000, 200
WIDTH: dict[str, Any] = {"hidden_layer_sizes": (4,), "max_iter": 1, "batch_size": 400}
ALLOWED = 0.4  # of the file: a few blocks of 1000 rows, labels and indices, but not half of the rows


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Return a function that maps a file of 16 MB, in rows or in columns."""
    folder: Path = tmp_path_factory.mktemp("mapped")
    x = np.random.default_rng(0).normal(size=(ROWS, COLUMNS)).astype("float32")
    np.save(folder / "C.npy", x)
    np.save(folder / "F.npy", np.asfortranarray(x))
    return lambda order: np.load(folder / f"{order}.npy", mmap_mode="r")


def labels(x: Any) -> Any:
    """Return three classes, which are targets as well."""
    return np.arange(len(x)) % 3


def peak(call: Callable[[], Any]) -> float:
    """Return the most memory that a call allocates, as a share of the file's size."""
    tracemalloc.start()
    try:
        call()
        return float(tracemalloc.get_traced_memory()[1] / (ROWS * COLUMNS * 4))
    finally:
        tracemalloc.stop()


def test_a_copy_would_be_seen(mapped: Any) -> None:
    x = mapped("C")
    assert peak(lambda: x[: ROWS // 2].copy()) > ALLOWED


@both_kinds
@all_entrances
@pytest.mark.parametrize("order", ["C", "F"])
def test_training_copies_no_file(mapped: Any, make: Any, params: Any, train: Any, order: str) -> None:
    x = mapped(order)
    y, model = labels(x), make(**params, **WIDTH)
    for _ in range(2):
        assert peak(lambda: train(model, x, y)) < ALLOWED
    assert peak(lambda: model.predict(x)) < ALLOWED
    assert peak(lambda: model.score(x, y)) < ALLOWED


@both_kinds
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("early", [True, False])
def test_a_search_copies_no_file(mapped: Any, make: Any, order: str, early: bool) -> None:
    x = mapped(order)
    y, model = labels(x), make(**WIDTH, early_stopping=early)
    search = GridSearch(model, {"l2": [0.0, 0.1]}, cv=2, return_train_score=True)
    assert peak(lambda: search.fit(x, y)) < ALLOWED


# The rows that are selected are those that a copy would have held -----------------------------------------------------


@both_kinds
def test_held_out_rows_are_those_of_copies(device: Device, make: Any) -> None:
    """Early stopping by index gives, bit for bit, what a trainer gives for copies of both sides."""
    x, y = blobs(device, 90)
    model = make(early_stopping=True, validation_fraction=0.3, batch_norm=True, dropout=0.2, max_iter=6).fit(x, y)
    p = model._checked()
    sides = hold_out(y, 0.3, 0, classes=model._kind == "classifier")
    copies = [(device.asarray(to_numpy(x)[side]), device.asarray(to_numpy(y)[side]), None) for side in sides]
    fresh = make(batch_norm=True, dropout=0.2)
    trainer: Trainer = fresh._trainer({**p, "early_stopping": False}, x, 3 if model._kind == "classifier" else 1)
    trainer.start(device, copies[0][0])
    out = train(trainer, *copies, epochs=6, tol=p["tol"], patience=99)
    assert_same(model.network_.arrays, out.networks[0].arrays)
    assert model.validation_scores_ == out.scores[0]
    assert model.loss_curve_ == out.losses[0]


def test_moments_of_rows_are_those_of_a_copy(device: Device) -> None:
    x, _ = blobs(device, 700)
    rows = np.random.default_rng(0).permutation(700)[:450]
    copied = device.asarray(to_numpy(x)[rows])
    assert_same(moments(x, device, device.asarray(rows)), moments(copied, device))


def test_negative_indices_of_folds_count_from_the_end() -> None:
    x, y = blobs(Device(), 60)
    model = small("classifier")
    one, other = (GridSearch(model, {"l2": [0.0, 0.1]}, cv=[(rows, rows + 30)]).fit(x, y).cv_results_
                  for rows in (np.arange(30), np.arange(-60, -30)))
    assert one["mean_test_score"].tolist() == other["mean_test_score"].tolist()
    assert features(model, x, reset=True) is x  # nothing is copied at the border


@pytest.mark.slow
def test_memory_of_the_process_stays_flat_on_a_large_file(tmp_path: Path) -> None:
    """In a process of its own: what it holds beside the pages of the file, which the system may drop."""
    code = f"""
import threading, time, warnings, numpy as np; warnings.simplefilter("ignore")
from xpnet.estimators import MLPClassifier, MLPRegressor, GridSearch
n, k = 50000, 1000
f = np.lib.format.open_memmap({str(tmp_path / 'x.npy')!r}, "w+", "f4", (n, k)); r = np.random.default_rng(0)
for i in range(0, n, 5000): f[i:i + 5000] = r.normal(size=(5000, k))
f.flush(); del f
x = np.load({str(tmp_path / 'x.npy')!r}, mmap_mode="r"); y = (np.asarray(x[:, 0]) > 0).astype(int)
def anon(): return [int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon")][0] // 1024
def grown(call):
    top, done, start = [0], [], anon()
    def watch():
        while not done: top[0] = max(top[0], anon()); time.sleep(0.005)
    t = threading.Thread(target=watch); t.start(); call(); done.append(1); t.join()
    return top[0] - start
for make in MLPClassifier, MLPRegressor:
    for early in False, True:
        m = make((8,), max_iter=1, early_stopping=early)
        print(grown(lambda: m.fit(x, y)), grown(lambda: m.score(x, y)),
              grown(lambda: GridSearch(m, {{"l2": [0.0, 0.1]}}, cv=2).fit(x, y)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    megabytes = [int(word) for word in done.stdout.split()]
    assert len(megabytes) == 12
    assert max(megabytes) < 40  # of 190
