"""NumPy's own BLAS: the step that uses it beside the step that does not, threads, and builds without it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import blobs
from numpy.testing import assert_allclose

from xpnet import SGD, BatchNorm, Constant, CyclicLR, Dropout, Linear, ReLU, Sequential, Trainer, mlp
from xpnet.backend import Device, blas, libraries, to_numpy

BIG = mlp(200, [100, 12], 3, batch_norm=True)  # 200 x 100 weights are worth a descent
JOBS: dict[str, dict[str, Any]] = {
    "one": {},
    "penalised": {"l2": 0.01},
    "penalties": {"l2": [0.0, 0.01, 0.1]},
    "rates": {"schedule": Constant([0.1, 0.01]), "l2": 0.01},
    "rates and penalties": {"schedule": CyclicLR(1e-4, np.asarray([0.1, 0.05]), 5), "l2": [0.0, 0.02]},
    "seeds": {"seed": [1, 2], "l2": 0.01},
    "frozen": {"seed": [1, 2], "divergence": "freeze"},
    "standardised": {"architecture": mlp(200, [100], 3, standardize=True), "l2": 0.01},
    "dropout first": {"architecture": Sequential(200, [Dropout(0.5), Linear(100), ReLU(), Linear(3)]), "seed": [1, 2]},
    "norm first": {"architecture": Sequential(200, [BatchNorm(), Linear(100), ReLU(), Linear(3)]), "seed": [1, 2]},
}
pytestmark = pytest.mark.backends("numpy")


def trained(job: str, dtype: str = "float64") -> tuple[Trainer, bool]:
    options = {"architecture": BIG, "schedule": 0.05, "batch_size": 20, "dtype": dtype, **JOBS[job]}
    trainer = Trainer(options.pop("architecture"), **options)
    x, y = blobs(Device(), 60, 200, 3, spread=2.0)
    trainer.fit(x, y, steps=25)
    return trainer, trainer.learner.descent is not None


@pytest.mark.skipif(not blas.found(), reason="this NumPy carries no BLAS that can be reached")
@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-11), ("float32", 4e-4)])
@pytest.mark.parametrize("job", JOBS)
def test_descent_through_blas_is_the_ordinary_update(
    job: str, dtype: str, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, used = trained(job, dtype)
    assert used is (not job.endswith("first"))
    monkeypatch.setattr(libraries, "blas_found", lambda: False)
    plain, used = trained(job, dtype)
    assert not used
    largest = max(float(abs(a).max()) for a in plain.arrays.values())  # a bias before batch norm is rounding noise
    for name, a in plain.arrays.items():
        assert_allclose(fast.arrays[name], a, rtol=0, atol=limit * largest, err_msg=name)
    assert_allclose(np.stack(fast.history.batch_loss), np.stack(plain.history.batch_loss), rtol=limit)


def test_only_plain_descent_takes_this_way() -> None:
    x, y = blobs(Device(), 60, 200, 3)
    for options in ({"optimizer": SGD(0.9)}, {"device": "cpu", "dtype": "float32", "optimizer": SGD([0.0, 0.5])}):
        trainer = Trainer(BIG, **options)
        trainer.fit(x, y, steps=1)
        assert trainer.learner.descent is None
    small = Trainer(mlp(200, [5], 3))
    small.fit(x, y, steps=1)
    assert small.learner.descent is None


@pytest.mark.skipif(not blas.found(), reason="this NumPy carries no BLAS that can be reached")
@pytest.mark.parametrize("keep", [0.5, np.asarray([[0.5], [0.25]])])
@pytest.mark.parametrize("factor", [-2.0, np.asarray([[3.0], [1.0]])])
def test_a_product_is_added(keep: Any, factor: Any) -> None:
    draw = np.random.default_rng(0)
    w, x, d = draw.normal(size=(6, 4)), draw.normal(size=(5, 6)), draw.normal(size=(5, 8))[:, ::2]  # not contiguous
    columns = [np.repeat(v, 2) if isinstance(v, np.ndarray) else v for v in (keep, factor)]
    expected = w * columns[0] + x.T @ (d * columns[1])
    taken = blas.Descent(w)
    taken.keep, taken.factor = keep, factor
    taken.add_product(x, d)
    assert_allclose(w, expected, rtol=1e-14)


@pytest.mark.skipif(not blas.found(), reason="this NumPy carries no BLAS that can be reached")
def test_threads_are_limited_while_anyone_asks() -> None:
    def threads() -> int:
        return int(blas._library().scipy_openblas_get_num_threads64_())

    before = threads()
    with blas.one_thread() as limited:
        assert limited
        with blas.one_thread():
            assert threads() == 1
        assert threads() == 1
    assert threads() == before


def test_a_numpy_without_such_a_library_trains_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_library", lambda: None)
    assert not blas.found()
    with blas.one_thread() as limited:
        assert not limited
    trainer, used = trained("penalties")
    assert not used
    assert np.isfinite(to_numpy(trainer.arrays["W1"])).all()


def test_a_library_that_computes_something_else_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert blas._library() is None or blas._computes(blas._library())
    monkeypatch.setattr(blas, "_gemm", lambda library, dtype: lambda *arguments: None)
    assert not blas._computes(object())
