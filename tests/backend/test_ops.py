"""What each backend does in its own way, beside what the standard says; deferred gradients, and stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import assert_close, draw

from xpnet import SGD, Adam, Trainer, mlp
from xpnet.backend import OPS, CupyOps, Deferred, Device, NumpyOps, Ops, Stage, form, kind, ops_of, transposed
from xpnet.backend.libraries import batch_last
from xpnet.nn.gradcheck import check_network, passes
from xpnet.nn.layers import BatchNorm, Layer, Linear, ReLU
from xpnet.nn.sequential import Sequential

#: Of each operation that a backend overrides: what it computes on ``a`` (*models, 7, 5), ``b`` (*models, 5, 4), ``d``
#: (*models, 7, 4) and an array to write to.
CASES: dict[str, Callable[[Ops, Any, Any, Any, Any], Any]] = {
    "multiply": lambda ops, a, b, d, out: ops.multiply(a, b),
    "product": lambda ops, a, b, d, out: ops.product(a, b),
    "product of a shared batch": lambda ops, a, b, d, out: ops.product(a[0, ...] if a.ndim > 2 else a, b),
    "matmul": lambda ops, a, b, d, out: ops.matmul(a, b),
    "matmul in place": lambda ops, a, b, d, out: ops.matmul(transposed(a), d, out),
    "gradient": lambda ops, a, b, d, out: ops.gradient(a, d),
    "gradient in place": lambda ops, a, b, d, out: ops.gradient(a, d, out),
    "gradient of a shared batch": lambda ops, a, b, d, out: ops.gradient(a[0, ...] if a.ndim > 2 else a, d, out),
    "total": lambda ops, a, b, d, out: ops.total(a),
    "total in place": lambda ops, a, b, d, out: ops.total(d, out[..., 0, :]),
    "take": lambda ops, a, b, d, out: ops.take(a, ops_index(a)),
    "assign": lambda ops, a, b, d, out: (ops.assign(out, b), out)[1],
    "as_row_major": lambda ops, a, b, d, out: ops.as_row_major(transposed(a), lambda: None),
}


def ops_index(a: Any) -> Any:
    """Return two indices along the first axis of an array, on its device."""
    return Device.of(a).asarray([a.shape[0] - 1, 0], "int64")


def test_each_override_is_compared() -> None:
    overridden = {name for cls in (NumpyOps, CupyOps) for name, own in vars(cls).items()
                  if callable(own) and not name.startswith("_")}
    elsewhere = {"descent", "read_ahead", "whole_update"}  # test_blas.py, test_backend.py and test_fused.py
    assert overridden - elsewhere <= {name.partition(" ")[0] for name in CASES}


@pytest.mark.parametrize("models", [(), (3,)], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_a_backends_own_way_is_that_of_the_standard(device: Device, case: str, models: tuple[int, ...]) -> None:
    for dtype in ("float32", "float64"):
        a, b, d = (draw(device, name, (*models, *shape), dtype) for name, shape in (
            ("a", (7, 5)), ("b", (5, 4)), ("d", (7, 4))))
        outs = [device.empty((*models, 5, 4), dtype) for _ in range(2)]
        ours, plain = (CASES[case](ops, a, b, d, out) for ops, out in zip((ops_of(a), Ops()), outs, strict=True))
        assert ours.dtype == plain.dtype
        assert_close(ours, plain, 1e-6 if dtype == "float32" else 1e-14)
        assert_close(outs[0], outs[1], 1e-6 if dtype == "float32" else 1e-14)


def test_large_products_have_the_batch_last_too() -> None:
    x, w = np.ones((3, 1024), np.float32), np.ones((1024, 2), np.float32)
    found = NumpyOps().multiply(x, w)
    assert found.flags.f_contiguous
    assert found.tolist() == Ops().multiply(x, w).tolist()
    assert batch_last(x).tolist() == x.tolist()


# Deferred gradients -----------------------------------------------------------------------------------------------


def test_an_array_is_formed_by_copying_and_a_deferred_one_where_it_is_wanted() -> None:
    a, out = np.asarray([1.0, 2.0]), np.zeros(2)
    assert form(a) is a
    assert form(a, out) is out
    assert out.tolist() == [1.0, 2.0]
    product = Deferred(np.multiply, a, 3.0)
    assert form(product).tolist() == [3.0, 6.0]
    assert form(product, out) is out
    assert out.tolist() == [3.0, 6.0]


def test_what_nobody_wants_is_not_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPS, np.ndarray, NumpyOps())  # nothing fused
    formed: list[tuple[str, Any]] = []
    for name in ("product", "gradient", "total"):
        plain = getattr(NumpyOps, name)
        monkeypatch.setattr(NumpyOps, name, lambda self, *a, name=name, plain=plain: (
            formed.append((name, a[0].shape)), plain(self, *a))[1])
    trainer = Trainer(mlp(6, [5], 3, batch_norm=True), optimizer=Adam(), batch_size=8)
    trainer.start(Device())
    trainer.update(np.ones((8, 6), np.float32), np.eye(3, dtype=np.float32)[np.arange(8) % 3], 0.1)
    assert formed == [
        ("product", (8, 6)), ("product", (8, 5)),  # forward
        ("product", (8, 3)), ("gradient", (8, 5)), ("total", (8, 3)),  # the second layer
        ("total", (8, 5)), ("gradient", (8, 6)),  # beta; the first layer has no dx, and its bias is cancelled
    ]


class Old(ReLU):
    """A layer whose pullback takes what pullbacks took in xpnet 0.1."""

    def forward(self, x: Any, *arrays: Any, train: bool = False, noise: Any = None) -> Any:
        y, pullback, _ = super().forward(x, train=train)

        def old(dy: Any, into: Any = None, wrt_input: bool = True) -> Any:
            return (pullback(dy)[0] if wrt_input else None), ()

        return y, old, ()


def test_pullbacks_with_into_and_wrt_input_keep_working() -> None:
    layers: list[Layer] = [Old(), Linear(4), Old(), Linear(3)]
    assert all(map(passes, check_network(Sequential(5, layers))))


# Fusing -----------------------------------------------------------------------------------------------------------


class Fusing(NumpyOps):
    """Overrides each part of an update by the plain way, and notes what it is asked."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def noting(self, name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: (self.calls.append(name), plain(*arguments))[1]

    def fuse(self, layers: Any) -> Any:
        ops, stages, at = self, [], 0

        class Block(Stage):
            def forward(self, *arguments: Any, **options: Any) -> Any:
                return ops.noting("stage", lambda: super(Block, self).forward(*arguments, **options))()

        while at < len(layers):
            end = at + 1
            while end < len(layers) and kind(layers[end]) in ("BatchNorm", "ReLU", "Dropout"):
                end += 1
            stages.append(Block(layers[at:end]) if end > at + 1 else layers[at])
            at = end
        return stages

    def loss(self, loss: Any) -> Any:
        ops = self

        class Fused:
            def forward(self, outputs: Any, targets: Any) -> Any:
                return ops.noting("loss", loss.forward)(outputs, targets)

        return Fused()

    def gather(self, plain: Any, x: Any, scaling: Any, buffer: Any) -> Any:
        assert buffer.shape[1] == x.shape[1]
        assert scaling is None or scaling[0].shape == (x.shape[1],)
        return self.noting("gather", plain)

    def updater(self, plain: Any, rule: Any, segments: Any, clip_norm: Any, axes: int) -> Any:
        assert kind(rule) in ("SGD", "Adam")
        return self.noting("update", plain)


@pytest.mark.parametrize("models", [1, 2])
@pytest.mark.parametrize("optimizer", [SGD(), Adam()], ids=["plain descent", "Adam"])
def test_a_backend_may_compute_each_part_of_an_update(
    models: int, optimizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = np.random.Generator(np.random.Philox(0)).integers(0, 256, (60, 200), np.uint8), np.arange(60) % 3

    def trained() -> Trainer:
        network = mlp(200, [100, 12], 3, batch_norm=True, dropout=0.2, standardize=True)
        trainer = Trainer(network, seed=list(range(models)), l2=0.01, optimizer=optimizer, batch_size=20)
        trainer.fit(x, y, steps=7, validation=(x, y))
        return trainer

    monkeypatch.setitem(OPS, np.ndarray, NumpyOps())
    plain, ops = trained(), Fusing()
    monkeypatch.setitem(OPS, np.ndarray, ops)
    fused = trained()
    for name, a in plain.state().items():
        np.testing.assert_array_equal(fused.state()[name], a, err_msg=name)
    np.testing.assert_array_equal(fused.history.batch_loss, plain.history.batch_loss)
    assert {name: ops.calls.count(name) for name in ("loss", "update")} == {"loss": 7, "update": 7}
    assert ops.calls.count("stage") >= 2 * 7
    assert ops.calls.count("gather") >= 7
    assert all(map(passes, check_network(mlp(5, [4], 3, batch_norm=True, dropout=0.3))))


def test_a_class_of_ones_own_is_none_that_a_backend_knows() -> None:
    assert (kind(BatchNorm()), kind(Old()), kind(SGD()), kind(3)) == ("BatchNorm", "", "SGD", "")
