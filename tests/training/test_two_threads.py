"""Batches in halves on two threads: the same numbers as without, at every boundary, and nothing left running."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from xpnet import Callback, CyclicLR, Trainer, mlp
from xpnet.backend import Device, blas, ops_of
from xpnet.training import two_threads
from xpnet.training.rows import Rows
from xpnet.training.two_threads import BackgroundCall, Halves, halved, halves_are_faster

pytestmark = [
    pytest.mark.backends("numpy"),
    pytest.mark.skipif(not blas.found(), reason="this NumPy carries no BLAS that can be reached"),
]
DRAW = np.random.default_rng(0)
X = DRAW.integers(256, size=(130, 400), dtype=np.uint8)
Y = DRAW.integers(3, size=130)
KINDS = {
    "uint8": X,
    "float32": X.astype(np.float32),
    "float64": X / 7.0 + 1e6,
    "int64": X.astype(np.int64),
    "a part of a wider one": np.hstack([X, X])[:, :400],
    "in columns": np.asfortranarray(X),
}


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have two threads pay."""
    monkeypatch.setattr(two_threads, "threads", lambda: 2)
    monkeypatch.setattr(two_threads, "LEAST", 0)


def trainer(**options: Any) -> Trainer:
    """Return a trainer whose first layer takes its gradient through BLAS; its last batch has 10 of 40 examples."""
    network = mlp(400, options.pop("hidden", [50, 8]), 3, batch_norm=options.pop("batch_norm", True), standardize=True)
    return Trainer(network, **{"schedule": CyclicLR(1e-3, 0.1, 5), "batch_size": 40, "l2": 0.01, **options})


def fitted(x: Any = X, steps: int = 14, **options: Any) -> Trainer:
    made = trainer(**options)
    made.fit(x, Y, steps=steps)
    return made


def used(made: Trainer, x: Any = X) -> bool:
    return isinstance(made.batches(x, Y)._batch, Halves)


def assert_same_bits(a: Trainer, b: Trainer) -> None:
    for name, array in a.state().items():
        assert array.tobytes() == b.state()[name].tobytes(), name
    assert np.array_equal(a.history.batch_loss, b.history.batch_loss)


def blas_threads() -> int:
    return int(blas._library().scipy_openblas_get_num_threads64_())


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-10), ("float32", 2e-4)])
@pytest.mark.parametrize("options", [
    {}, {"batch_norm": False}, {"l2": [0.0, 0.01, 0.1]}, {"schedule": [0.1, 0.01], "seed": [1, 2]}, {"hidden": [50]},
], ids=["batch norm", "without", "penalties", "rates", "shallow"])
def test_halves_train_as_whole_batches_do(
    options: dict[str, Any], dtype: str, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fitted(dtype=dtype, **options)
    assert not used(whole)
    monkeypatch.setattr(two_threads, "threads", lambda: 2)
    monkeypatch.setattr(two_threads, "LEAST", 0)
    parts = fitted(dtype=dtype, **options)
    assert used(parts)
    largest = max(float(abs(a).max()) for a in whole.arrays.values())
    for name, a in whole.arrays.items():
        assert_allclose(parts.arrays[name], a, rtol=0, atol=limit * largest, err_msg=name)
    assert_allclose(np.stack(parts.history.batch_loss), np.stack(whole.history.batch_loss), rtol=limit)


@pytest.mark.parametrize("kind", KINDS)
def test_data_of_every_kind(kind: str, two: None) -> None:
    x = KINDS[kind]
    parts = fitted(x, dtype="float64")
    assert used(parts, x) is (kind not in ("a part of a wider one", "in columns"))
    expected = fitted(np.ascontiguousarray(x, dtype=np.float64), dtype="float64")
    for name, a in expected.arrays.items():
        assert_allclose(parts.arrays[name], a, rtol=0, atol=1e-9, err_msg=name)


def test_batches_are_the_rows(two: None) -> None:
    made = fitted(steps=1)
    batches = made.batches(X, Y)
    whole = Rows(X, 40, Device(), "float32", made.learner.scaling)
    seen = 0
    for update, (batch, _) in enumerate(batches.run(2, 6)):  # to the end of an epoch, and on
        expected = whole.take(batches._rows(2 + update))
        batches._rows(3 + update)
        batch @ made.learner.descent.w  # which has both halves ready
        assert np.array_equal(np.hstack([batch._mine.x, batch._other.x]), expected)
        assert batch.shape == expected.shape
        assert batch.ndim == 2
        seen += len(expected)
    assert seen == 40 + 10 + 2 * 40


@pytest.mark.parametrize("stops", [[1], [5], [3, 4, 9], list(range(1, 14))])
def test_a_run_that_stops_and_goes_on_has_the_bits_of_one_that_does_not(stops: list[int], two: None) -> None:
    plain, made, seen = trainer(), trainer(), []
    plain.fit(X, Y, steps=14)
    update = made.update

    def stopping(*arguments: Any) -> Any:
        value = update(*arguments)
        if made.step in stops and made.step not in seen:
            seen.append(made.step)
            made.stop()
        return value

    made.update = stopping  # type: ignore[method-assign]
    for _ in range(len(stops) + 1):
        made.fit(X, Y, steps=14)
    assert seen == stops
    assert used(made)
    assert_same_bits(made, plain)


def test_evaluations_see_the_weights_of_their_update(two: None) -> None:
    class Look(Callback):
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> None:
            self.seen.append((threading.active_count(), trainer.arrays["W1"].tobytes()))

    look, before = Look(), threading.active_count()
    made = trainer(callbacks=[look])
    made.fit(X, Y, steps=3, evaluate_every=1)
    for steps, (active, weights) in enumerate(look.seen):
        assert active == before
        if steps:
            assert weights == fitted(steps=steps).arrays["W1"].tobytes()
    assert len(look.seen) == 4


def test_nothing_is_left_of_a_generator_that_is_closed(two: None) -> None:
    made, before, active = fitted(steps=2), blas_threads(), threading.active_count()
    with contextlib.closing(made.batches(X, Y).run(2, 9)) as run:
        x, targets = next(run)
        assert threading.active_count() == active + 1
        assert blas_threads() == 1
        made.update(x, targets, 0.1)
    assert threading.active_count() == active
    assert blas_threads() == before
    alone = fitted(steps=2)
    with contextlib.closing(alone.batches(X, Y).run(2, 3)) as run:  # the last of its run: nothing is prepared
        x, targets = next(run)
        alone.update(x, targets, 0.1)
    assert made.arrays["W1"].tobytes() == alone.arrays["W1"].tobytes()


def test_an_error_on_the_other_thread_is_raised_here(two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    active, before, calls = threading.active_count(), blas_threads(), []

    def failing(self: Any, rows: Any) -> None:
        calls.append(threading.current_thread())
        if calls[-1] is not threading.main_thread():
            raise MemoryError("no room for the other half")
        take(self, rows)

    take = two_threads._Half.take
    monkeypatch.setattr(two_threads._Half, "take", failing)
    with pytest.raises(MemoryError, match="the other half"):
        fitted()
    assert len(set(calls)) == 2
    assert threading.active_count() == active
    assert blas_threads() == before


def test_two_trainers_on_two_threads(two: None) -> None:
    found: dict[int, Trainer] = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: fitted(steps=60, seed=i)})) for i in (1, 2)]
    before = blas_threads()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert blas_threads() == before
    for i in (1, 2):
        assert_same_bits(found[i], fitted(steps=60, seed=i))


def test_a_divergence_is_found_at_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = []
    for many in (1, 2):
        monkeypatch.setattr(two_threads, "threads", lambda many=many: many)
        monkeypatch.setattr(two_threads, "LEAST", 0)
        with pytest.raises(ArithmeticError) as caught, np.errstate(all="ignore"):
            fitted(batch_norm=False, schedule=1e25)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_where_halves_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.zeros((10, 3072), np.uint8)
    monkeypatch.setattr(two_threads, "threads", lambda: 2)
    assert halves_are_faster(x, [3072 * 50, 2500, 500], 100)
    assert not halves_are_faster(x, [3072 * 50, 2500, 500], 10)  # too little to do
    assert not halves_are_faster(x, [3072 * 50, 50 * 400, 500], 100)  # too much for one thread behind it
    assert not halves_are_faster(x[:, 1:], [3071 * 50], 100)  # an odd number of features
    assert not halves_are_faster(x[:, :2048], [2048 * 50], 100)  # rows that are parts of longer ones
    for others in (1, 4):
        monkeypatch.setattr(two_threads, "threads", lambda others=others: others)
        assert not halves_are_faster(x, [3072 * 50], 100)


def test_halved_rows_are_the_same_memory() -> None:
    x = np.arange(12).reshape(3, 4)
    assert np.shares_memory(halved(x), x)
    assert halved(x).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]
    assert halved(x[:, :2]) is None
    assert halved(x[:, :3]) is None
    assert halved(x.T) is None


def test_threads_are_those_before_they_were_lent() -> None:
    there = blas.threads()
    with blas.one_thread(others=True):
        assert (blas_threads(), blas.threads()) == (1, there)
        with blas.one_thread():
            assert blas.threads() == 1
        assert (blas_threads(), blas.threads()) == (1, there)
    assert blas.threads() == blas_threads() == there


def test_a_call_aside_is_made_on_another_thread_and_in_order() -> None:
    aside, made = BackgroundCall(), []
    for i in range(20):
        aside.begin(lambda i=i: made.append((i, threading.current_thread())))
    aside.wait()
    aside.close()
    assert [i for i, _ in made] == list(range(20))
    assert {thread for _, thread in made} == {aside._thread}
    assert not aside._thread.is_alive()


def test_rows_of_an_array_in_columns_are_brought_together() -> None:
    columns = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    brought = ops_of(columns).as_row_major(columns, lambda: 10**6)
    assert brought.flags.c_contiguous
    assert np.array_equal(brought, columns)
    assert ops_of(columns).as_row_major(columns[:2], lambda: 10**6).flags.c_contiguous  # a part of such an array
    for x in (np.arange(12.0).reshape(3, 4), np.arange(12.0).reshape(3, 4)[:, ::2], np.arange(4.0),
              np.broadcast_to(np.arange(4.0), (3, 4))):
        assert ops_of(x).as_row_major(x, lambda: 10**6) is x
    assert ops_of(columns).as_row_major(columns, lambda: 100) is columns  # there is no room for it
    assert ops_of(columns).as_row_major(columns, lambda: None).flags.c_contiguous


def test_arrays_in_columns_train_alike() -> None:
    a, b = fitted(X), fitted(np.asfortranarray(X))
    assert_same_bits(a, b)
