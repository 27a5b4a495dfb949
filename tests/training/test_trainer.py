"""Training: what an update does, sweeps beside solo runs, stopping and going on, divergence, wrong inputs."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_close, assert_same, blobs, difference, draw

from xpnet import (
    SGD,
    Adam,
    AdamW,
    BatchNorm,
    Constant,
    CyclicLR,
    DivergenceError,
    Linear,
    Normal,
    ReLU,
    Sequential,
    Step,
    Trainer,
    mlp,
    random,
)
from xpnet.backend import Device, NumpyOps, to_numpy
from xpnet.training.batches import Batches
from xpnet.training.rows import Rows, blocks, moments


def make(**options: Any) -> Trainer:
    """Return a trainer of a small batch-norm network, or of ``network``, and small batches."""
    network = options.pop("network", None) or mlp(6, [8, 5], 3, batch_norm=True, standardize=True)
    return Trainer(network, **{"batch_size": 16, "schedule": 0.05, **options})


def state(trainer: Trainer) -> dict[str, np.ndarray]:
    """Return a copy of a trainer's arrays on the host."""
    return {name: to_numpy(a).copy() for name, a in trainer.arrays.items()}


# It learns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"optimizer": SGD(0.9, True)}, {"optimizer": Adam()}, {"optimizer": AdamW()}],
                         ids=["sgd", "nesterov", "adam", "adamw"])
def test_a_small_network_learns_separable_clouds(device: Device, options: dict[str, Any]) -> None:
    x, y = blobs(device, 90, 6, 3, spread=0.5)
    trainer = make(**options, schedule=CyclicLR(1e-4, 0.1 if not options else 0.02, 40))
    history = trainer.fit(x, y, steps=160, validation=(x, y))
    assert history["train_accuracy"][0] < 0.7
    assert history["train_accuracy"][-1] == pytest.approx(1.0) == history["validation_accuracy"][-1]
    assert history["train_loss"][-1] < 0.1
    assert to_numpy(trainer.network.predict(x)).tolist() == to_numpy(y).tolist()


def test_without_batch_norm_tiny_weights_stay_at_chance(device: Device) -> None:
    x, y = blobs(device, 90, 6, 3, spread=0.5)
    lost = make(network=mlp(6, [8] * 6, 3, initializer=Normal(1e-2))).fit(x, y, steps=60)
    kept = make(network=mlp(6, [8] * 6, 3, initializer=Normal(1e-2), batch_norm=True)).fit(x, y, steps=60)
    assert lost["train_loss"][-1] == pytest.approx(math.log(3), rel=1e-3)
    assert kept["train_loss"][-1] < lost["train_loss"][-1] - 0.1


# One update -----------------------------------------------------------------------------------------------------


def test_an_update_is_gradient_descent_on_the_cost(device: Device) -> None:
    network, l2, lr = mlp(6, [4], 3), 0.01, 0.1
    trainer = make(network=network, dtype="float64", l2=l2, schedule=lr)
    x, y = blobs(device, 10, dtype="float64")
    trainer.fit(x, y, steps=0)
    before, hx, targets = state(trainer), to_numpy(x), np.eye(3)[to_numpy(y)]
    value = trainer.update(x, device.asarray(targets), lr)
    z = hx @ before["W1"] + before["b1"]
    h = np.maximum(z, 0)
    out = h @ before["W2"] + before["b2"]
    p = np.exp(out) / np.exp(out).sum(axis=1, keepdims=True)
    assert float(value) == pytest.approx(-np.log((p * targets).sum(axis=1)).mean(), rel=1e-13)
    d = (p - targets) / 10
    dz = (d @ before["W2"].T) * (z > 0)
    gradients = {"W2": h.T @ d + 2 * l2 * before["W2"], "b2": d.sum(axis=0), "W1": hx.T @ dz + 2 * l2 * before["W1"],
                 "b1": dz.sum(axis=0)}
    for name, g in gradients.items():
        assert_close(trainer.arrays[name], before[name] - lr * g, 1e-13, name)
    assert trainer.step == 1


def test_running_statistics_start_from_the_first_batch_and_then_follow(device: Device) -> None:
    network = Sequential(6, [BatchNorm(momentum=0.8), Linear(4), BatchNorm(), ReLU(), Linear(3)])
    trainer = make(network=network, dtype="float64", schedule=0.0)  # weights stay, so that batches tell all
    x, y = blobs(device, 20, dtype="float64")
    trainer.fit(x, y, steps=0)
    assert set(to_numpy(trainer.arrays["mean1"]).tolist()) == {0.0}
    trainer.arrays["b1"][...] = draw(device, "b1", (4,))
    hx, one_hot, arrays = to_numpy(x), device.asarray(np.eye(3)[to_numpy(y)]), state(trainer)
    expected: dict[str, np.ndarray] = {}
    for rows in (slice(0, 8), slice(8, 12), slice(12, 20)):
        batch = hx[rows]
        normal = (batch - batch.mean(axis=0)) / np.sqrt(batch.var(axis=0) + 1e-5)
        inner = normal @ arrays["W1"] + arrays["b1"]
        for name, value, share in (
            ("mean1", batch.mean(axis=0), 0.8), ("var1", batch.var(axis=0), 0.8),  # NumPy's var is the biased one
            ("mean2", inner.mean(axis=0), 0.9), ("var2", inner.var(axis=0), 0.9),
        ):
            expected[name] = share * expected[name] + (1 - share) * value if name in expected else value
        trainer.update(x[rows, :], one_hot[rows, :], 0.0)
        for name, value in expected.items():
            assert_close(trainer.arrays[name], value, 1e-12, name)


def test_losses_of_updates_are_kept(device: Device) -> None:
    x, y = blobs(device)
    trainer = make()
    trainer.fit(x, y, steps=11, evaluate_every=4)
    assert len(trainer.history.batch_loss) == 11
    assert all(isinstance(v, float) for v in trainer.history.batch_loss)
    sweep = make(l2=[0.0, 0.1])
    sweep.fit(x, y, steps=5)
    assert np.asarray(sweep.history.batch_loss).shape == (5, 2)


# Data -----------------------------------------------------------------------------------------------------------


def test_batches_are_the_epochs_order_cut_into_pieces(device: Device) -> None:
    x, y = device.asarray(np.arange(20.0).reshape(10, 2)), device.asarray(np.arange(10) % 3)
    batches = Batches(x, y, 3, size=4, seed=5, device=device, dtype="float32")
    assert batches.per_epoch == 3
    expected = []
    for epoch in range(3):
        order = random.permutation(5, epoch, 10)
        expected += [order[:4], order[4:8], order[8:]]
    for first, until in ((0, 9), (0, 1), (2, 8), (1, 3)):  # wherever a run starts and ends
        taken = 0
        for rows, (features, targets) in zip(expected[first:until], batches.run(first, until), strict=True):
            assert to_numpy(features).tolist() == to_numpy(x)[rows].tolist()
            assert to_numpy(targets).tolist() == np.eye(3)[rows % 3].tolist()
            assert to_numpy(features).dtype == to_numpy(targets).dtype == np.float32
            taken += 1
        assert taken == until - first
    assert to_numpy(x).tolist() == np.arange(20.0).reshape(10, 2).tolist()


def test_batches_come_scaled_where_asked(device: Device) -> None:
    x, y = device.asarray(np.arange(20).reshape(10, 2), "uint8"), device.asarray(np.arange(10) % 3)
    scaling = device.asarray([1.0, 2.0], "float64"), device.asarray([0.5, 0.25], "float64")
    batches = Batches(x, y, 3, size=10, seed=5, device=device, dtype="float64",
                      rows=Rows(x, 10, device, "float64", scaling))
    ((features, _),) = batches.run(0, 1)
    raw = to_numpy(x)[random.permutation(5, 0, 10)].astype(float)
    assert to_numpy(features).tolist() == ((raw - [1.0, 2.0]) * [0.5, 0.25]).tolist()


@pytest.mark.parametrize(
    ("n", "size", "at_least", "per_epoch"),
    [(10, 5, 1, 2), (10, 4, 1, 3), (9, 4, 1, 3), (9, 4, 2, 2), (10, 4, 2, 3), (3, 100, 1, 1), (1, 1, 1, 1)],
)
def test_batches_per_epoch(n: int, size: int, at_least: int, per_epoch: int) -> None:
    x, y = np.zeros((n, 2)), np.zeros(n, int)
    batches = Batches(x, y, 2, size=size, seed=0, device=Device(), dtype="float32", at_least=at_least)
    assert batches.per_epoch == per_epoch
    sizes = [len(features) for features, _ in batches.run(0, 2 * per_epoch)]
    assert sizes[:per_epoch] == sizes[per_epoch:]
    assert sum(sizes[:per_epoch]) == n - (n % size == 1 < at_least)


def test_blocks_cover_everything_once() -> None:
    assert blocks(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert blocks(4, 2) == [slice(0, 2), slice(2, 4)]
    assert blocks(0, 2) == [slice(0, 0)]
    assert len(blocks(1001)) == 2


def test_a_lonely_last_example_is_left_out_with_batch_norm_only(device: Device) -> None:
    x, y = blobs(device, 33)
    normalised, plain = make(), make(network=mlp(6, [4], 3))
    normalised.fit(x, y, epochs=2)
    plain.fit(x, y, epochs=2)
    assert (normalised.step, plain.step) == (4, 6)


def test_a_batch_larger_than_the_data_is_the_data(device: Device) -> None:
    x, y = blobs(device, 10)
    trainer = make(batch_size=1000)
    trainer.fit(x, y, epochs=3)
    assert trainer.step == 3
    assert np.isfinite(trainer.history.batch_loss).all()


def test_a_training_batch_of_one_with_batch_norm_is_refused(device: Device) -> None:
    x, y = blobs(device, 10)
    with pytest.raises(ValueError, match="batch_size of at least 2, since BatchNorm cannot train on 1"):
        make(batch_size=1).fit(x, y, steps=1)
    assert make(network=mlp(6, [4], 3), batch_size=1).fit(x, y, steps=3)["step"][-1] == 3


def test_standardisation_comes_from_the_training_data(device: Device) -> None:
    raw = random.stream(0, "raw").integers(0, 256, (500, 6)).astype("uint8")
    raw[:, 2], raw[:, 4] = 7, 0  # they do not vary
    trainer = make(dtype="float64")
    x, y = device.asarray(raw), device.asarray(np.arange(500) % 3)
    trainer.fit(x, y, steps=0, validation=(x[:10, :], y[:10]))
    std = raw.std(axis=0)
    std[std == 0] = 1.0
    assert_close(trainer.arrays["offset1"], raw.mean(axis=0), 1e-12)
    assert_close(trainer.arrays["scale1"], 1.0 / std, 1e-12)
    trainer.fit(device.asarray(255 - raw), y, steps=3)
    assert_close(trainer.arrays["offset1"], raw.mean(axis=0), 1e-12, "the first data's, also when fit goes on")


def test_moments_survive_large_means_and_constants(device: Device) -> None:
    values = random.normal(0, "v", (2500, 3)) + 1e6
    values[:, 1] = 0.1 + 1e6
    mean, inverse = moments(device.asarray(values), device)
    assert_close(mean, values.mean(axis=0), 1e-12)
    assert float(inverse[1]) == 1.0
    assert_close(inverse[::2], 1.0 / values.std(axis=0)[::2], 1e-6)


def test_a_file_larger_than_memory_trains_as_an_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.memmap(tmp_path / "x", "uint8", "w+", shape=(103, 6))
    x[...] = random.stream(0, "raw").integers(0, 256, x.shape)
    told: list[list[int]] = []

    def noting(self: NumpyOps, x: Any, free: int | None) -> Any:
        read = read_ahead(self, x, 1)
        assert read is not None
        return lambda rows: (told.append(rows.tolist()), read(rows))

    y, ours, plain = np.arange(103) % 3, make(), make()
    plain.fit(np.array(x), y, epochs=2)
    read_ahead = NumpyOps.read_ahead
    monkeypatch.setattr(NumpyOps, "read_ahead", noting)
    ours.fit(x, y, epochs=2)
    assert_same(to_numpy(ours.history.batch_loss), to_numpy(plain.history.batch_loss))
    order = random.permutation(ours.order_seed, 1, 103).tolist()
    size, per_epoch = ours.batch_size, len(told) // 2
    assert told[per_epoch] == order[4 * size : 5 * size]
    assert told[-1] == []


def test_what_varies_little_about_a_large_mean_is_standardised(device: Device) -> None:
    few = 1e6 + 0.5 * random.normal(0, "v", (1000, 1))
    for repeats in (1, 50):
        _, inverse = moments(device.asarray(np.tile(few, (repeats, 1))), device)
        assert_close(inverse, 1.0 / few.std(axis=0), 1e-6)


@pytest.mark.parametrize("n", [7, 1000, 20_000])
def test_a_constant_is_no_variation_however_it_rounds(device: Device, n: int) -> None:
    values = np.tile([0.1, 1 / 3, 1e8 + 0.1, -1.7e9, 3.14e12], (n, 1))
    assert_same(moments(device.asarray(values), device)[1], device.asarray([1.0] * 5, "float64"))


@pytest.mark.parametrize("dtype", ["float64", "int32", "int64"])
def test_a_large_offset_is_taken_off_before_it_is_rounded(device: Device, dtype: str) -> None:
    raw = (1e8 + np.rint(3 * random.normal(0, "v", (60, 6)))).astype(dtype)
    x, trainer = device.asarray(raw), make()
    y = device.asarray((raw[:, 0] > 1e8).astype("int64"))
    trainer.fit(x, y, steps=3)
    (batch, _), = trainer.batches(x, y).run(0, 1)
    rows = random.permutation(trainer.order_seed, 0, 60)[:16]
    offset, scale = (to_numpy(trainer.arrays[name]).astype("float64") for name in ("offset1", "scale1"))
    expected = (raw[rows].astype("float64") - offset) * scale
    assert_close(batch, expected, 1e-6)
    assert to_numpy(batch).dtype == np.float32
    assert len(np.unique(to_numpy(batch)[:, 0])) == len(np.unique(raw[rows, 0]))
    centred = device.asarray((raw.astype("float64") - offset).astype("float32"))
    shifted = trainer.network
    shifted.arrays = {**shifted.arrays, "offset1": shifted.arrays["offset1"] * 0}
    assert_close(trainer.network(x), to_numpy(shifted(centred)), 1e-5)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda trainer: pickle.loads(pickle.dumps(trainer))],  # noqa: S301
                         ids=["copied", "pickled"])
@pytest.mark.parametrize("options", [{}, {"optimizer": Adam()}, {"optimizer": SGD(0.9), "seed": [1, 2]},
                                     {"network": mlp(60, [500], 3, standardize=True)}],
                         ids=["sgd", "adam", "momentum, two", "descent"])
def test_a_copy_of_a_trainer_learns_on_by_itself(way: Any, options: dict[str, Any]) -> None:
    width = options["network"].in_features if "network" in options else 6
    x, y = blobs(Device(), 60, width)
    first = make(**options)
    assert way(first).fit(x, y, steps=5)["step"][-1] == 5
    first.fit(x, y, steps=7)
    second, before = way(first), state(first)
    second.fit(x, y, steps=20)
    for name, array in state(first).items():
        assert_same(array, before[name])
    first.fit(x, y, steps=20)
    assert_same(to_numpy(second.history.batch_loss), to_numpy(first.history.batch_loss))
    for name, array in state(first).items():
        assert_same(to_numpy(second.arrays[name]), array)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool", "float32", "float64"])
def test_features_of_any_dtype_train_and_stay_as_they_are(device: Device, dtype: str) -> None:
    raw = random.stream(0, "raw").integers(0, 2 if dtype == "bool" else 100, (40, 6)).astype(dtype)
    x, y = device.asarray(raw.copy()), device.asarray((raw.sum(axis=1) % 3).astype("uint8"))
    trainer = make()
    trainer.fit(x, y, steps=6, validation=(x, y))
    assert to_numpy(x).dtype == raw.dtype
    assert (to_numpy(x) == raw).all()
    assert all(to_numpy(a).dtype == (np.float64 if name in trainer.architecture.inputs else np.float32)
               for name, a in trainer.arrays.items())
    as_float = make()
    as_float.fit(device.asarray(raw.astype("float32")), y, steps=6)
    assert_close(trainer.history.batch_loss, as_float.history.batch_loss, 1e-5)


@pytest.mark.backends("numpy", "torch", "cupy")
def test_half_precision_features(device: Device) -> None:
    x, y = blobs(device, 40)
    half = device.asarray(to_numpy(x).astype("float16"))
    trainer, reference = make(), make()
    trainer.fit(half, y, steps=6)
    reference.fit(device.asarray(to_numpy(half).astype("float32")), y, steps=6)
    assert_same(trainer.history.batch_loss, reference.history.batch_loss)


def test_read_only_and_strided_data_train_as_plain_ones_do() -> None:
    x, y = blobs(Device(), 40)
    plain = make()
    plain.fit(x, y, steps=8)
    locked_x, locked_y = x.copy(), y.copy()
    locked_x.flags.writeable = locked_y.flags.writeable = False
    for features, labels in (
        (locked_x, locked_y), (np.asfortranarray(x), y), (np.repeat(x, 2, axis=0)[::2], np.repeat(y, 2)[::2]),
        (x[::-1][::-1], y),
    ):
        trainer = make()
        trainer.fit(features, labels, steps=8, validation=(features, labels))
        assert_same(state(trainer), state(plain))
        assert features.tolist() == x.tolist()
        assert labels.tolist() == y.tolist()


# Sweeps beside solo runs ------------------------------------------------------------------------------------------

PLAIN = mlp(6, [8, 5], 3)
LOW, HIGH = np.asarray([1e-4, 1e-3, 1e-2]), np.asarray([0.05, 0.02, 0.1])
SWEEPS: dict[str, Callable[[Any], dict[str, Any]]] = {
    # From a function that picks a model's value of three (or gives all three) to a trainer's options.
    "l2": lambda of: {"l2": of([0.0, 0.005, 0.1])},
    "rate": lambda of: {"schedule": Constant(of([0.01, 0.05, 0.1]))},
    "rate bounds": lambda of: {"schedule": CyclicLR(of(LOW), of(HIGH), 30)},
    "step": lambda of: {"schedule": Step(0.05, [40, 80], gamma=of(np.asarray([0.1, 0.5, 1.0])))},
    "sigma": lambda of: {"network": mlp(6, [8, 5], 3, batch_norm=True, initializer=Normal(of([0.1, 0.01, 0.5])))},
    "dropout": lambda of: {"network": mlp(6, [8, 5], 3, dropout=of([0.0, 0.2, 0.5]))},
    "momentum": lambda of: {"optimizer": SGD(of([0.0, 0.5, 0.9])), "schedule": 0.01},
    "nesterov": lambda of: {"optimizer": SGD(of(np.asarray([0.0, 0.5, 0.9])), nesterov=True), "schedule": 0.01},
    # Without batch norm: Adam blows the rounding noise of the biases that it cancels up to the size of the rate.
    "adam": lambda of: {
        "network": PLAIN, "schedule": 0.003, "optimizer": Adam(of([0.5, 0.75, 0.9]), of([0.9, 0.99, 0.999])),
    },
    "adamw": lambda of: {
        "network": PLAIN, "optimizer": AdamW(weight_decay=of([0.0, 0.1, 0.5])), "schedule": 0.003,
    },
    "seed": lambda of: {"seed": of([3, 4, 3])},
    "seed, dropout": lambda of: {
        "seed": of([3, 4, 9]), "network": mlp(6, [8, 5], 3, batch_norm=True, dropout=0.3, standardize=True),
    },
    "all": lambda of: {
        "seed": of([3, 4, 3]), "l2": of(np.asarray([0.0, 0.005, 0.1])), "schedule": CyclicLR(of(LOW), of(HIGH), 30),
        "network": mlp(6, [8, 5], 3, batch_norm=True, dropout=of([0.0, 0.2, 0.5]), initializer=Normal(of(HIGH))),
    },
    "softmax regression": lambda of: {"network": mlp(6, [], 3), "l2": of([0.0, 0.005, 0.1])},
    "batch norm first": lambda of: {
        "network": Sequential(6, [BatchNorm(), Linear(5), BatchNorm(), ReLU(), Linear(3)]), "l2": of([0.0, 0.005, 0.1]),
    },
}


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-10), ("float32", 1e-4)])
@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_member_of_a_sweep_is_its_solo_run(device: Device, sweep: str, dtype: str, limit: float) -> None:
    x, y = blobs(device, 75, spread=2.0)
    steps = 200 if device == Device() else 30
    options, run = SWEEPS[sweep], {"steps": steps, "validation": (x[:20, :], y[:20]), "evaluate_every": 20}
    together = make(**options(lambda values: values), dtype=dtype, order_seed=7)
    history = together.fit(x, y, **run)
    assert together.models == (3,)
    for m in range(3):
        alone = make(**options(lambda values, m=m: values[m]), dtype=dtype, order_seed=7)
        single = alone.fit(x, y, **run)
        assert alone.models == ()
        assert_close(history.member(m).batch_loss, single.batch_loss, limit, "losses")
        for column in single.columns:
            assert_close(history.member(m)[column], single[column], limit, column)
        member, scale = together.network.member(m), max(float(abs(a).max()) for a in state(alone).values())
        for name, a in state(alone).items():
            # A bias that batch norm cancels is rounding noise: measured against the network's largest value.
            assert abs(to_numpy(member.arrays[name]) - a).max() <= limit * scale, name
        assert_close(member(x), alone.network(x), 10 * limit, "outputs")


@pytest.mark.backends("numpy")
@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-10), ("float32", 1e-4)])
def test_500_updates_of_many_seeds_are_those_of_solo_runs(device: Device, dtype: str, limit: float) -> None:
    x, y = blobs(device, 200, 20, 4, spread=3.0)
    network, schedule = mlp(20, [16, 12], 4, batch_norm=True, standardize=True), CyclicLR(1e-5, 0.1, 250)
    options: dict[str, Any] = {
        "network": network, "schedule": schedule, "l2": 0.005, "dtype": dtype, "order_seed": 0, "batch_size": 50,
    }
    together = make(**options, seed=range(4))
    together.fit(x, y, steps=500)
    for m in range(4):
        alone = make(**options, seed=m)
        alone.fit(x, y, steps=500)
        assert_close([row[m] for row in together.history.batch_loss], alone.history.batch_loss, limit, f"seed {m}")


def test_members_see_the_order_of_the_first_seed_unless_told(device: Device) -> None:
    assert make(seed=[5, 6]).order_seed == 5 == make(seed=np.asarray([5, 6])).order_seed == make(seed=5).order_seed
    assert make(seed=[5, 6], order_seed=1).order_seed == 1
    assert make(seed=range(3, 9)).order_seed == 3
    x, y = blobs(device, 40)
    a, b = make(seed=np.asarray([5, 6])), make(seed=[5, 6])
    a.fit(x, y, steps=3)
    b.fit(x, y, steps=3)
    assert_same(state(a), state(b))


@pytest.mark.parametrize(
    "options",
    [{"l2": [0.0, 0.1], "seed": [1, 2, 3]}, {"l2": [0.0, 0.1], "optimizer": SGD([0.1, 0.2, 0.3])},
     {"l2": [0.0, 0.1], "schedule": Constant(LOW)}, {"l2": [0.0, 0.1], "network": mlp(6, [4], 3, dropout=[0.1] * 3)}],
    ids=["seed", "optimizer", "schedule", "network"],
)
def test_hyper_parameters_of_two_lengths_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"hyper-parameters of one length \(the number of models\), got .*(2.*3|3.*2)"):
        make(**options)


# The same again, and going on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"l2": [0.0, 0.1]}, {"optimizer": Adam()}], ids=["plain", "sweep", "adam"])
def test_the_same_run_twice_is_the_same_bit_for_bit(device: Device, options: dict[str, Any]) -> None:
    x, y = blobs(device, 50)
    network = mlp(6, [8, 5], 3, batch_norm=True, dropout=0.2, standardize=True)
    first, second = (make(network=network, **options) for _ in range(2))
    for trainer in (first, second):
        trainer.fit(x, y, steps=25, validation=(x, y))
    assert_same(state(second), state(first))
    assert_same(second.history.rows, first.history.rows)
    assert_same(second.history.batch_loss, first.history.batch_loss)
    other = make(network=network, **options, seed=1)
    other.fit(x, y, steps=25)
    assert difference(other.arrays["W1"], first.arrays["W1"]) > 1e-3


@pytest.mark.parametrize("options", [{}, {"seed": [1, 2]}, {"optimizer": SGD(0.9)}, {"optimizer": Adam()}],
                         ids=["plain", "sweep", "momentum", "adam"])
def test_two_calls_of_fit_are_one_long_one_bit_for_bit(device: Device, options: dict[str, Any]) -> None:
    x, y = blobs(device, 50)
    options |= {"network": mlp(6, [8, 5], 3, batch_norm=True, dropout=0.2, standardize=True)}
    options |= {"schedule": CyclicLR(1e-3, 0.1, 7)}
    whole, parts = make(**options), make(**options)
    whole.fit(x, y, steps=30, validation=(x, y), evaluate_every=5)
    for steps in (10, 10, 15, 30):
        parts.fit(x, y, steps=steps, validation=(x, y), evaluate_every=5)
    assert whole.step == parts.step == 30
    assert_same(state(parts), state(whole))
    assert_same(parts.history.rows, whole.history.rows)
    assert_same(parts.history.batch_loss, whole.history.batch_loss)


def test_epochs_are_counted_in_passes_over_the_data(device: Device) -> None:
    x, y = blobs(device, 48)
    trainer = make()
    history = trainer.fit(x, y, epochs=2)
    assert trainer.step == 6
    assert history["step"].tolist() == [0, 3, 6]
    assert history["epoch"].tolist() == [0.0, 1.0, 2.0]
    trainer.fit(x, y, epochs=2.5)
    assert trainer.step == 8
    trainer.fit(x, y, steps=3)
    assert trainer.step == 8  # it is there already


def test_evaluation_points(device: Device) -> None:
    x, y = blobs(device, 48)
    history = make().fit(x, y, steps=10, evaluate_every=4, validation=(x[:7, :], y[:7]), train_sample=5)
    assert history["step"].tolist() == [0, 4, 8, 10]
    trainer = make()
    trainer.fit(x, y, steps=0, train_sample=5)
    few = trainer.evaluate(x[:5, :], y[:5])
    assert trainer.history.rows[0]["train_loss"] == few["loss"]


@pytest.mark.parametrize("models", [False, True])
def test_evaluation_is_the_mean_over_the_data(device: Device, models: bool) -> None:
    x, y = blobs(device, 2345, spread=3.0)  # three blocks, the last one short
    trainer = make(dtype="float64", l2=[0.01, 0.1] if models else 0.01)
    trainer.fit(x, y, steps=20)
    found, labels = trainer.evaluate(x, y), to_numpy(y)
    for m in range(2) if models else (0,):
        network = trainer.network.member(m) if models else trainer.network
        p = to_numpy(network.predict_proba(x))
        loss = -np.log(p[np.arange(2345), labels]).mean()
        penalty = (0.01, 0.1)[m] * sum((to_numpy(network.arrays[w]) ** 2).sum() for w in ("W1", "W2", "W3"))
        expected = {"loss": loss, "cost": loss + penalty, "accuracy": (p.argmax(axis=1) == labels).mean()}
        for name, value in expected.items():
            assert (found[name][m] if models else found[name]) == pytest.approx(value, rel=1e-12), name
    assert all(isinstance(v, float) for v in found.values()) is not models


# Divergence -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_diverging_run_names_the_update_and_the_rate(device: Device) -> None:
    x, y = blobs(device, 50)
    trainer = make(network=mlp(6, [8, 5], 3), schedule=1e12)
    with pytest.raises(DivergenceError, match=r"the loss of the network was (?:nan|inf) at update (\d+) .*rate 1e\+12"):
        trainer.fit(x, y, steps=50)
    step = trainer.diverged[0]
    losses = trainer.history.batch_loss
    assert np.isfinite(losses[:step]).all()
    assert not math.isfinite(losses[step])


def test_not_a_number_among_the_features_is_found(device: Device) -> None:
    x, y = blobs(device, 50)
    raw = to_numpy(x).copy()
    raw[3, 2] = np.nan
    with pytest.raises(ArithmeticError, match="check the features for NaN"):
        make(network=mlp(6, [8, 5], 3)).fit(device.asarray(raw), y, epochs=1)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_one_model_of_several_that_diverges(device: Device) -> None:
    x, y = blobs(device, 50)
    options: dict[str, Any] = {"network": mlp(6, [8, 5], 3)}
    rates = np.asarray([0.01, 1e15, 0.05])
    with pytest.raises(DivergenceError, match=r"the loss of model 1 was (nan|inf)"):
        make(**options, schedule=Constant(rates)).fit(x, y, steps=20)
    frozen = make(**options, schedule=Constant(rates), divergence="freeze")
    history = frozen.fit(x, y, steps=20, evaluate_every=5)
    assert set(frozen.diverged) == {1} == set(frozen.causes)
    assert frozen.step == 20
    assert f"update {frozen.diverged[1]} (learning rate 1e+15)" in frozen.causes[1]
    untouched = make(**options, schedule=Constant(rates * 0.0))
    untouched.fit(x, y, steps=1)
    healthy = make(**options, schedule=Constant(np.asarray([0.01, 0.02, 0.05])))
    healthy.fit(x, y, steps=20, evaluate_every=5)
    for m in (0, 2):  # they do not notice
        assert_same([row[m] for row in history.batch_loss], [row[m] for row in healthy.history.batch_loss])
        assert_same(history["train_loss"][:, m], healthy.history["train_loss"][:, m])
        for name, a in state(healthy).items():
            assert_same(to_numpy(frozen.arrays[name])[m], a[m], name)
    for name, a in state(untouched).items():  # as when last evaluated: before the first update
        assert_same(to_numpy(frozen.arrays[name])[1], a[1], name)
    assert np.isfinite(history["train_loss"][0]).all()
    assert np.isnan(history["train_loss"][1:, 1]).all()
    assert np.isnan([row[1] for row in history.batch_loss][5:]).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_training_stops_where_every_model_is_frozen(device: Device) -> None:
    x, y = blobs(device, 50)
    for rate in (1e15, np.asarray([1e15, 1e14])):
        frozen = make(network=mlp(6, [8, 5], 3), schedule=Constant(rate), divergence="freeze")
        frozen.fit(x, y, steps=200, evaluate_every=10)
        assert frozen.step == 10
        assert all(np.isfinite(to_numpy(a)).all() for a in frozen.arrays.values())


# Wrong inputs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda d, x, y: (x[:, :5], y), ValueError, r"features: expected shape \(n, 6\), got \(20, 5\)"),
        (lambda d, x, y: (x[0, :], y), ValueError, r"features: expected shape \(n, 6\), got \(6,\)"),
        (lambda d, x, y: (x[:19, :], y), ValueError, r"got shapes \(19, 6\) and \(20,\)"),
        (lambda d, x, y: (x[:0, :], y[:0]), ValueError, "with n at least 1, got shapes"),
        (lambda d, x, y: (x, y[:, None]), ValueError, r"labels \(n,\).*got shapes \(20, 6\) and \(20, 1\)"),
        (lambda d, x, y: (x[None, ...], y), ValueError, r"got shapes \(1, 20, 6\)"),
        (lambda d, x, y: (x, y + 1), ValueError, r"labels: expected 0 to 2 \(the network has 3 outputs\), got 1 to 3"),
        (lambda d, x, y: (x, y - 1), ValueError, "labels: expected 0 to 2 .*got -1 to 1"),
        (lambda d, x, y: (x, d.asarray(y, "float32")), TypeError, "labels: expected integers from 0, got .*float32"),
        (lambda d, x, y: (x, d.asarray(to_numpy(y) > 0)), TypeError, "labels: expected integers from 0, got .*bool"),
        (lambda d, x, y: (d.asarray(to_numpy(x), "complex64"), y), TypeError, "features: expected real numbers"),
        (lambda d, x, y: (to_numpy(x).tolist(), y), TypeError, "expected an array, got list; wrap it"),
        (lambda d, x, y: (x, to_numpy(y).tolist()), TypeError, "expected an array, got list; wrap it"),
        (lambda d, x, y: ("x", y), TypeError, "expected an array, got str"),
        (lambda d, x, y: (None, y), TypeError, "expected an array, got NoneType"),
    ],
    ids=["width", "one axis", "lengths", "empty", "label axes", "feature axes", "too high", "too low", "float labels",
         "bool labels", "complex", "list", "label list", "text", "none"],
)
def test_wrong_data_are_refused(device: Device, change: Callable[..., Any], error: type, words: str) -> None:
    x, y = blobs(device, 20)
    wrong = change(device, x, y)
    with pytest.raises(error, match=words):
        make().fit(*wrong, steps=1)
    trainer = make()
    with pytest.raises(error):
        trainer.fit(x, y, steps=1, validation=wrong)
    assert trainer.step == 0
    assert not trainer.arrays
    trainer.fit(x, y, steps=1)
    with pytest.raises(error):
        trainer.evaluate(*wrong)


@pytest.mark.parametrize(("options", "words"), [
    ({"seed": 0.5}, "expected seed as an integer"),
    ({"seed": [0, 0.5]}, "expected seed as an integer, or one for each model"),
    ({"l2": "0.1"}, "expected l2 as a number"),
    ({"network": Sequential(6, [BatchNorm(), Linear(3)]), "l2": "x"}, "expected l2 as a number"),
])
def test_options_of_a_wrong_kind_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        make(**options)


def test_other_values_of_a_wrong_kind_are_refused() -> None:
    x, y = blobs(Device(), 20)
    for wrong, error, words in (
        (lambda: make().fit(x, y, steps=2.5), TypeError, "expected steps as an integer, got 2.5"),
        (lambda: BatchNorm(momentum=[0.1, 0.9]), TypeError, "expected one momentum for all models"),
        (lambda: BatchNorm(eps=np.asarray([0.1, 0.9])), TypeError, "expected one eps for all models"),
        (lambda: make().fit(x, np.asarray(["a", "b"] * 10), steps=1), TypeError, r"numpy.unique\(y, return_inverse"),
        (lambda: make().fit(x, np.eye(3)[y], steps=1), ValueError, r"y.argmax\(axis=-1\) for one-hot rows"),
        (lambda: make(l2=np.ones((2, 2))), ValueError, "l2 as one number per model, got an array of 2 axes"),
        (lambda: make().fit(np.ma.masked_greater(x, 1.0), y, steps=1), TypeError, "an array without a mask"),
        (lambda: blocks(5, 0), ValueError, "at least 1, got 0"),
    ):
        with pytest.raises(error, match=words):
            wrong()


def test_errors_in_validation_data_say_so(device: Device) -> None:
    x, y = blobs(device, 20)
    for wrong, words in (((x, y[:5]), "validation data"), ((x, y + 1), "validation labels")):
        with pytest.raises(ValueError, match=words):
            make().fit(x, y, steps=1, validation=wrong)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "expected batch_size of at least 1, got 0"),
        ({"dtype": "float16"}, "dtype: expected 'float32' or 'float64', got 'float16'"),
        ({"divergence": "ignore"}, "divergence: expected 'raise', 'freeze' or 'halve', got 'ignore'"),
        ({"device": "gpu"}, "expected the device 'cpu', 'cuda', 'cuda:N' or 'auto', got 'gpu'"),
    ],
    ids=["batch_size", "dtype", "divergence", "device"],
)
def test_wrong_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(**options)


@pytest.mark.parametrize("options", [{}, {"steps": 1, "epochs": 1}], ids=["neither", "both"])
def test_fit_needs_steps_or_epochs(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected either steps= or epochs="):
        make().fit(*blobs(Device(), 20), **options)


def test_there_is_no_network_before_fit() -> None:
    with pytest.raises(RuntimeError, match=r"call fit\(x, y\) first"):
        make().network  # noqa: B018
    with pytest.raises(RuntimeError, match=r"call fit\(x, y\) first"):
        make().evaluate(*blobs(Device(), 20))


# Devices ----------------------------------------------------------------------------------------------------------


def test_training_happens_where_the_data_are(device: Device) -> None:
    trainer = make()
    trainer.fit(*blobs(device, 20), steps=2)
    assert trainer.device == device == trainer.network.device
    assert all(Device.of(a) == device for a in trainer.arrays.values())


@pytest.mark.backends("strict", "torch", "cupy")
def test_mixed_devices_are_refused_by_both_names(device: Device) -> None:
    (x, y), (hx, hy) = blobs(device, 20), blobs(Device(), 20)
    trainer = make()
    trainer.fit(hx, hy, steps=1)
    for call in (
        lambda: make().fit(x, hy, steps=1), lambda: make().fit(hx, y, steps=1),
        lambda: make().fit(x, y, steps=1, validation=(hx, hy)), lambda: make().fit(x, y, steps=1, validation=(x, hy)),
        lambda: trainer.fit(x, y, steps=2), lambda: trainer.evaluate(x, y),
    ):
        with pytest.raises(ValueError, match="on cpu") as caught:
            call()
        assert device.name in str(caught.value)
    assert trainer.step == 1


def test_a_device_that_was_asked_for_gets_the_data(device: Device) -> None:
    x, y = blobs(Device(), 20)
    trainer = make(device=device)
    trainer.fit(x, y, steps=2, validation=(x, y))
    assert trainer.network.device == device
    there = make()
    there.fit(*blobs(device, 20), steps=2)
    assert_same(state(trainer), state(there))
    assert trainer.evaluate(x, y)["loss"] == there.evaluate(*blobs(device, 20))["loss"]


def test_numpy_scalars_do_as_python_numbers_do(device: Device) -> None:
    x, y = blobs(device, 40)
    for kind in (np.float64, np.float32):
        plain = make(l2=0.125, schedule=0.0625, optimizer=SGD(0.5, True))
        scalars = make(l2=kind(0.125), schedule=CyclicLR(kind(0.0625), kind(0.0625), 5), optimizer=SGD(kind(0.5), True))
        for trainer in (plain, scalars):
            trainer.fit(x, y, steps=4)
        assert_same(state(scalars), state(plain))
        assert_same(scalars.history.rows, plain.history.rows)


def test_draws_are_those_of_random(device: Device) -> None:
    trainer = make(network=mlp(6, [8], 3), seed=11)
    trainer.fit(*blobs(device, 20), steps=0)
    assert_close(trainer.arrays["W1"], random.normal(11, "W1", (6, 8), math.sqrt(2 / 6)), 1e-7)
    assert difference(draw(device, "W1", (6, 8)), trainer.arrays["W1"]) > 0.1
