"""Kernels compiled by Numba beside what they stand for: layers, loss, gathering and updates on NumPy."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import optional
from numpy.testing import assert_allclose, assert_array_equal

optional("numba")

from xpnet import SGD, Adam, AdamW, SoftmaxCrossEntropy, Trainer, mlp  # noqa: E402
from xpnet.backend import OPS, Device, NumpyOps, Stage, form, ops_of, survey  # noqa: E402
from xpnet.backend.fast import NumbaOps, jit, stages, tables  # noqa: E402
from xpnet.nn.layers import BatchNorm, Dropout, Linear, ReLU, Tanh  # noqa: E402
from xpnet.nn.sequential import Sequential  # noqa: E402
from xpnet.training.optimizers import Segment, apply  # noqa: E402
from xpnet.training.rows import Rows  # noqa: E402
from xpnet.training.snapshot import environment  # noqa: E402

pytestmark = pytest.mark.backends("numpy")
LIMITS = {"float64": 1e-12, "float32": 2e-5}
RUNS: dict[str, tuple[int, list[Any]]] = {
    "norm": (5, [BatchNorm(), ReLU()]),
    "norm alone": (1, [BatchNorm(eps=1e-3)]),
    "relu": (5, [ReLU()]),
    "dropout": (7, [ReLU(), Dropout(0.3)]),
    "all": (50, [BatchNorm(), ReLU(), Dropout(0.3), Linear(30), BatchNorm(), ReLU(), Linear(10)]),
    "norm after relu": (6, [ReLU(), BatchNorm(), Linear(9), ReLU(), BatchNorm(), ReLU(), Dropout(0.5)]),
    "dense first": (5, [Linear(7), ReLU(), Linear(1)]),
    "dense alone": (3, [Linear(2), Linear(5)]),
    "wide": (130, [ReLU(), Linear(70), BatchNorm(), ReLU(), Linear(33)]),  # products by BLAS
}
MODELS = pytest.mark.parametrize("models", [(), (3,)], ids=str)
DTYPE = pytest.mark.parametrize("dtype", LIMITS)


def generator() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(7))


def given(run: str, models: tuple[int, ...], dtype: str, n: int = 33) -> SimpleNamespace:
    """Return a run's layers, and random arrays: the batch last in memory, as products leave it."""
    width, layers = RUNS[run]
    draw = generator()
    network = Sequential(width, layers if layers[0].parameters else [*layers, Linear(1)])
    rows = list(zip(layers, network._names, network.widths, strict=False))
    named = [name for layer, names, _ in rows for name in names[: len(layer.parameters)]]
    named += [name for layer, names, _ in rows for name in names[len(layer.parameters) :]]
    arrays = [draw.normal(size=(*models, *network.shapes[name])).astype(dtype) for name in named]
    arrays = [abs(a) + 0.1 if name.startswith("var") else a for name, a in zip(named, arrays, strict=True)]
    axes = () if isinstance(layers[0], Linear) else models  # models share the input of a dense layer
    x = np.swapaxes(draw.normal(size=(*axes, width, n)).astype(dtype), -1, -2)
    noise = [draw.random((n, w)).astype(dtype) for layer, _, w in rows if layer.noisy]
    out = layers[-1].out_features(rows[-1][2])
    dy = np.swapaxes(draw.normal(size=(*models, out, n)).astype(dtype), -1, -2)
    count = sum(len(layer.parameters) for layer in layers)
    return SimpleNamespace(layers=layers, arrays=arrays, x=x, noise=noise, dy=dy, count=count)


def results(stage: Any, job: SimpleNamespace, train: bool = True) -> list[np.ndarray]:
    """Return all that a stage computes of a job: output, gradients, statistics."""
    y, pullback, statistics = stage.forward(job.x, *job.arrays, train=train, noise=job.noise)
    dx, gradients = pullback(job.dy)
    return [np.asarray(a) for a in (y, form(dx), *map(form, gradients), *statistics)]


def compare(ours: list[np.ndarray], plain: list[np.ndarray], limit: float) -> None:
    assert len(ours) == len(plain)
    for a, b in zip(ours, plain, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert_allclose(a, b, rtol=limit, atol=limit * (1.0 + np.nanmax(np.where(np.isfinite(b), abs(b), 0.0))))


@DTYPE
@MODELS
@pytest.mark.parametrize("run", RUNS)
def test_a_chain_computes_what_its_layers_do(run: str, models: tuple[int, ...], dtype: str) -> None:
    for n in (2, 33, 100) if dtype == "float64" else (33, 100):  # of two examples, float32 keeps little
        job = given(run, models, dtype, n)
        chain = stages.Chain(job.layers)
        for train in (True, False):
            compare(results(chain, job, train), results(Stage(job.layers), job, train), LIMITS[dtype])
        assert chain._tables is not None
        assert chain._tables.fits


def test_the_comparison_finds_a_wrong_gradient() -> None:
    job = given("all", (), "float64")
    ours = results(stages.Chain(job.layers), job)
    ours[1] = ours[1] + 1e-9
    with pytest.raises(AssertionError):
        compare(ours, results(Stage(job.layers), job), LIMITS["float64"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("run", ["all", "norm after relu", "dense first"])
def test_nan_and_infinity_go_where_they_go_in_layers(run: str, bad: float) -> None:
    for place in ("x", "dy", *range(len(given(run, (), "float64").arrays))):
        job = given(run, (), "float64")
        array = job.arrays[place] if isinstance(place, int) else getattr(job, place)
        array[(1,) * array.ndim if array.shape[-1] > 1 else (0,) * array.ndim] = bad
        with np.errstate(all="ignore"):
            ours, plain = (results(kind(job.layers), job) for kind in (stages.Chain, Stage))
        for a, b in zip(ours, plain, strict=True):
            assert_array_equal(np.isfinite(a), np.isfinite(b), err_msg=str(place))
            assert_array_equal(np.isnan(a), np.isnan(b), err_msg=str(place))


def test_gradients_are_written_to_their_receivers() -> None:
    job = given("all", (3,), "float32")
    chain = stages.Chain(job.layers)
    expected = results(Stage(job.layers), job)[2 : 2 + job.count]
    flat = np.zeros((3, sum(g[0].size for g in expected)), np.float32)  # a model's arrays one behind the other
    ends = np.cumsum([g[0].size for g in expected])
    into: list[Any] = [flat[:, end - g[0].size : end].reshape(g.shape) for g, end in zip(expected, ends, strict=True)]
    into[0] = None
    for _ in range(2):  # the second time from tables that were kept
        flat[...] = 0.0
        _, pullback, _ = chain.forward(job.x, *job.arrays, train=True, noise=job.noise)
        _, own = pullback(job.dy, into)
        assert all(a is b for a, b in zip(own, into, strict=True))
        compare(own[1:], expected[1:], 2e-5)
        assert not flat[:, : ends[0]].any()


def test_what_a_chain_does_not_cover_is_left_to_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    job = given("wide", (), "float64")
    for change in ({"x": job.x + 0j}, {"x": job.x[None, None]}, {"arrays": [a.astype("float32") for a in job.arrays]},
                   {"arrays": [np.asfortranarray(a) for a in job.arrays]}):
        other = SimpleNamespace(**{**vars(job), **change})
        chain = stages.Chain(job.layers)
        y, plain = (kind.forward(other.x, *other.arrays, train=True)[0] for kind in (chain, Stage(job.layers)))
        assert y.dtype == plain.dtype
        assert_allclose(y, plain)
    monkeypatch.setattr(tables, "gemm_address", lambda dtype: 0)  # another BLAS than that of NumPy's wheels
    for run in ("all", "wide"):
        job = given(run, (), "float64")
        chain = stages.Chain(job.layers)
        compare(results(chain, job), results(Stage(job.layers), job), 1e-12)
        assert chain._tables is not None
        assert chain._tables.fits == (run == "all")  # NumPy's large products are faster
    with pytest.raises(ValueError, match="at least 2 examples"):
        stages.Chain([BatchNorm()]).forward(np.ones((1, 2)), *np.ones((4, 2)), train=True)


def test_layers_in_a_row_are_one_chain() -> None:
    def fused(*layers: Any) -> list[list[str]]:
        return [[type(part).__name__ for part in getattr(stage, "layers", [stage])] for stage in stages.fuse(layers)]

    assert fused(Linear(3), BatchNorm(), ReLU(), Dropout(), Linear(3)) == [
        ["Linear"], ["BatchNorm", "ReLU", "Dropout", "Linear"]]
    assert fused(Dropout(), Linear(3), Tanh(), Linear(3)) == [["Dropout"], ["Linear"], ["Tanh"], ["Linear"]]
    assert fused(BatchNorm(), Linear(3), ReLU(), Tanh(), Dropout(), ReLU()) == [
        ["BatchNorm"], ["Linear"], ["ReLU"], ["Tanh"], ["Dropout"], ["ReLU"]]


@DTYPE
@MODELS
def test_the_cross_entropy_is_that_of_the_loss(models: tuple[int, ...], dtype: str) -> None:
    draw, loss = generator(), SoftmaxCrossEntropy()
    ours = NumbaOps().loss(loss)
    assert ours is not loss
    for n, classes in ((1, 2), (33, 10), (100, 3)):
        outputs = 9.0 * draw.normal(size=(*models, n, classes)).astype(dtype)
        soft = draw.dirichlet(np.ones(classes), n).astype(dtype)
        for targets in (np.eye(classes, dtype=dtype)[draw.integers(classes, size=n)], soft):
            for bad in (0.0, np.nan, np.inf, -np.inf, 1e30):
                outputs[..., 0, 0] = bad
                with np.errstate(all="ignore"):
                    (a, back), (b, plain) = ours.forward(outputs, targets), loss.forward(outputs, targets)
                    pairs = [(a, b), (back(), plain()), (back(2.0), plain(2.0))]
                for got, expected in pairs:
                    assert got.shape == expected.shape
                    assert got.dtype == expected.dtype
                    assert_allclose(got, expected, rtol=10 * LIMITS[dtype], atol=LIMITS[dtype])


@pytest.mark.parametrize("kind", ["uint8", "bool", "int64", "float32", "float64", "float16"])
@pytest.mark.parametrize("order", ["C", "F", "gaps", "file"])
def test_rows_are_gathered_converted_and_standardised(
    kind: str, order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = generator().integers(0, 2 if kind == "bool" else 200, (40, 19)).astype(kind)
    if order == "file":
        np.save(tmp_path / "x.npy", x)
        x = np.load(tmp_path / "x.npy", mmap_mode="r")
    else:
        x = np.repeat(x, 2, axis=1)[:, ::2] if order == "gaps" else np.asarray(x, order=order)
    offset, scale = generator().normal(size=(2, 19))
    for dtype, scaling in (("float32", (offset, scale)), ("float64", (offset, scale)), ("float32", None),
                           ("float32", (1e9 + offset, scale))):
        found = []
        for ops in (NumpyOps(), NumbaOps()):
            monkeypatch.setitem(OPS, type(x), ops)
            rows = Rows(x, 8, Device(), dtype, scaling)
            assert (ops.gather(abs, x, None, np.empty((8, 19), dtype)) is abs) == (
                type(ops) is NumpyOps or kind == "float16" or order == "gaps")
            found.append([rows.take(np.asarray([39, 0, 7])).copy(), rows.slice(slice(3, 11, 2)).copy()])
        for a, b in zip(*found, strict=True):
            assert_allclose(a, b, rtol=1e-6 if dtype == "float32" else 1e-15)


@DTYPE
@MODELS
@pytest.mark.parametrize("rule", [
    SGD(), SGD(momentum=0.9), SGD(momentum=0.9, nesterov=True), Adam(eps=1e-3), AdamW(weight_decay=0.3)], ids=str)
def test_updates_are_those_of_the_rule(rule: Any, models: tuple[int, ...], dtype: str) -> None:
    shapes = [(*models, 17), (4, *models, 5)] if models else [(17,), (20,)]
    column = (lambda *values: np.asarray(values)[:, None].astype(dtype)) if models else (lambda *values: values[0])

    def segments() -> list[Segment]:
        draw, changes = generator(), ((None, None), (column(0.1, 0.2, 0.0), column(0.3, 0.0, 0.1)))
        return [Segment(draw.normal(size=shape).astype(dtype), draw.normal(size=shape).astype(dtype),
                        {name: draw.random(shape).astype(dtype) for name in rule.slots}, penalty, decay)
                for shape in shapes for penalty, decay in changes]

    made = [segments(), segments()]
    plain, other = (functools.partial(apply, rule, parts, axes=len(models)) for parts in made)
    ours = NumbaOps().updater(other, rule, made[1], None, len(models))
    assert ours is not other
    assert NumbaOps().updater(other, rule, made[1], 1.0, len(models)) is other  # clipping
    gradients = [segment.g.copy() for segment in made[0]]
    for step in (0, 1, 9):
        for parts in made:
            for segment, g in zip(parts, gradients, strict=True):
                segment.g[...] = g  # an update may write to it
        lr = column(0.1, 0.0, 0.01)
        plain(lr, step)
        ours(lr, step)
    for a, b in zip(*made, strict=True):
        for got, expected in ((b.w, a.w), *((b.slots[name], a.slots[name]) for name in rule.slots)):
            assert_allclose(got, expected, rtol=100 * LIMITS[dtype], atol=LIMITS[dtype])


@pytest.mark.parametrize("seeds", [0, [0, 1, 2]], ids=["one", "three"])
def test_training_is_the_same_to_rounding(seeds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = generator().integers(0, 256, (90, 200), np.uint8), np.arange(90) % 3
    found = []
    for ops in (NumpyOps(), NumbaOps()):
        monkeypatch.setitem(OPS, np.ndarray, ops)
        network = mlp(200, [100, 12], 3, batch_norm=True, dropout=[0.1, 0.2, 0.3] if seeds else 0.2, standardize=True)
        trainer = Trainer(network, seed=seeds, l2=0.01, batch_size=20, dtype="float64")
        trainer.fit(x, y, steps=30, validation=(x, y))
        found.append({**trainer.state(), "losses": np.asarray(trainer.history.batch_loss)})
    for name, expected in found[0].items():
        assert_allclose(found[1][name], expected, rtol=1e-9, atol=1e-9, err_msg=name)


def test_code_is_kept_in_the_users_cache_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit.config, "CACHE_DIR", str(tmp_path))
    jit._place.cache_clear()
    try:
        code = jit._compiled(lambda a: a + 1, "int64(int64)")
    finally:
        jit._place.cache_clear()
    assert code(2) == 3
    assert list(tmp_path.rglob("*.nbi"))
    assert jit.config.CACHE_DIR == str(tmp_path)
    readonly = tmp_path / "file"
    readonly.write_text("no directory")
    monkeypatch.setattr(jit.config, "CACHE_DIR", str(readonly))
    monkeypatch.setattr(jit, "_place", lambda: str(readonly / "below"))
    assert jit._compiled(lambda a: a + 2, "int64(int64)")(2) == 4  # nowhere to keep it: compiled for this process


def test_the_path_is_told_and_recorded_in_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    for ops, words in ((NumbaOps(), "with Numba "), (NumpyOps(), "without Numba")):
        monkeypatch.setitem(OPS, np.ndarray, ops)
        assert f"NumPy {np.__version__} {words}" in survey()[0]["detail"]
        assert words in environment(Device())["arrays"]  # with which a run that goes on compares its own


@pytest.mark.parametrize("chosen", ["0", "1"])
def test_a_variable_switches_it_off(chosen: str) -> None:
    code = ("import sys, numpy, xpnet; assert 'numba' not in sys.modules\n"
            "from xpnet.backend import ops_of; print(type(ops_of(numpy.empty(1))).__name__)")
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "XPNET_FAST": chosen}, text=True, check=True,
                          capture_output=True)
    assert done.stdout.strip() == ("NumbaOps" if chosen == "1" else "NumpyOps")
    assert isinstance(ops_of(np.empty(1)), NumbaOps) == (os.environ.get("XPNET_FAST") != "0")
