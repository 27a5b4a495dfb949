"""Networks: names and shapes, the model axis, buffers to write into, predictions, members and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import assert_close, assert_same, draw
from hypothesis import given
from hypothesis import strategies as st

from xpnet import SGD, Trainer, random
from xpnet.backend import Device, to_numpy
from xpnet.nn.initializers import He, Normal, Xavier
from xpnet.nn.layers import BatchNorm, Dropout, Linear, ReLU, Standardize
from xpnet.nn.network import Network
from xpnet.nn.per_model import describe
from xpnet.nn.sequential import Sequential, mlp


def initial(network: Sequential, device: Device, models: tuple[int, ...] = (), dtype: str = "float64") -> Any:
    """Return a network's arrays: initial weights of seeds 0, 1, ..., and random others."""
    arrays = {name: view for part in network.allocate(models, device, dtype) for name, view in part.views.items()}
    seeds = list(range(int(np.prod(models)))) if len(models) == 1 else 0
    network.initialize(arrays, seeds, device, dtype)
    for name, a in arrays.items():
        if name not in network.weights:
            a += device.asarray(abs(random.normal(1, name, tuple(a.shape), 0.1)), dtype)
    return arrays


def member(arrays: Any, network: Sequential, index: tuple[int, ...], device: Device) -> Any:
    """Return one model's arrays."""
    return {name: device.asarray(to_numpy(a)[index if a.ndim > len(network.shapes[name]) else ...].copy())
            for name, a in arrays.items()}


# Names, shapes and construction ------------------------------------------------------------------------------


def test_arrays_are_numbered_by_their_name() -> None:
    network = mlp(8, [5, 4], 3, batch_norm=True, standardize=True)
    assert network.parameters == ("W1", "b1", "gamma1", "beta1", "W2", "b2", "gamma2", "beta2", "W3", "b3")
    assert network.weights == ("W1", "W2", "W3")
    assert network.statistics == ("offset1", "scale1", "mean1", "var1", "mean2", "var2")
    assert network.shapes["W2"] == (5, 4)
    assert network.shapes["gamma2"] == (4,)
    assert network.shapes["offset1"] == (8,)
    assert (network.in_features, network.out_features) == (8, 3)
    assert "Linear(out_width=5" in repr(network)


def test_mlp_puts_layers_in_order() -> None:
    network = mlp(4, [3], 2, batch_norm=True, dropout=0.5, standardize=True, initializer=Xavier())
    assert network.layers == (
        Standardize(), Linear(3, Xavier()), BatchNorm(), ReLU(), Dropout(0.5), Linear(2, Xavier()),
    )
    assert mlp(4, [3], 2).layers == (Linear(3, He()), ReLU(), Linear(2, He()))
    assert mlp(4, [], 2).layers == (Linear(2),)
    assert mlp(4, [3], 2, dropout=[0.0, 0.5]).layers[2] == Dropout([0.0, 0.5])


def test_batch_norm_may_come_before_any_dense_layer() -> None:
    network = Sequential(4, [BatchNorm(), Linear(2), BatchNorm()])
    assert network.parameters == ("gamma1", "beta1", "W1", "b1", "gamma2", "beta2")
    assert network.shapes["gamma1"] == (4,)
    assert network.shapes["gamma2"] == (2,)


@pytest.mark.parametrize(("features", "layers", "words"), [
    (0, [Linear(2)], "in_features of at least 1, got 0"),
    (4, [], "at least one layer with parameters"),
    (4, [ReLU()], "at least one layer with parameters"),
    (4, [Linear(4), Standardize()], "Standardize scales the input, so it comes first, not at place 1"),
], ids=["no features", "no layers", "no parameters", "late Standardize"])
def test_networks_that_make_no_sense_are_refused(features: int, layers: list[Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Sequential(features, layers)


@pytest.mark.parametrize(("make", "words"), [
    (lambda: Sequential(4, [ReLU]), r"expected layers, got .* at place 0; make it, like ReLU\(\)"),
    (lambda: Sequential(2.5, [Linear(1)]), "in_features as an integer, got 2.5"),
    (lambda: mlp(4, 5, 2), r"hidden widths as a sequence, like \[50, 50\], got 5"),
    (lambda: mlp(4, [5], 2, initializer="he"), "expected an initializer, like xpnet.He"),
], ids=["class", "float", "one width", "name"])
def test_things_of_the_wrong_kind_are_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        make()


def test_initial_values_are_draws_of_the_seed_and_the_name(device: Device) -> None:
    network = mlp(6, [5], 3, batch_norm=True)
    arrays = {n: v for part in network.allocate((), device, "float32") for n, v in part.views.items()}
    network.initialize(arrays, 7, device, "float32")
    expected = random.normal(7, "W1", (6, 5), np.sqrt(2 / 6)).astype("float32")
    assert to_numpy(arrays["W1"]).tobytes() == expected.tobytes()
    assert to_numpy(arrays["gamma1"]).tolist() == to_numpy(arrays["var1"]).tolist() == [1.0] * 5
    assert not any(to_numpy(arrays[name]).any() for name in ("b1", "beta1", "mean1", "b2"))


def test_a_sweep_starts_each_member_where_it_would_start_alone(device: Device) -> None:
    seeds, sigmas = [3, 4, 3], [0.1, 0.2, 0.3]
    network = mlp(4, [3], 2, initializer=Normal(sigmas))
    assert network.models() == (3,)
    arrays = {n: v for part in network.allocate((3,), device, "float64") for n, v in part.views.items()}
    network.initialize(arrays, seeds, device, "float64")
    for m, (seed, sigma) in enumerate(zip(seeds, sigmas, strict=True)):
        alone = random.normal(seed, "W1", (4, 3), sigma)
        assert to_numpy(arrays["W1"])[m].tolist() == alone.tolist()


def test_hyper_parameter_arrays_of_two_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"of one length, got lengths \[2, 3\]"):
        mlp(4, [3], 2, initializer=Normal([0.1, 0.2]), dropout=[0.1, 0.2, 0.3]).models()
    assert mlp(4, [3], 2).models() == ()


def test_describe_gives_plain_values() -> None:
    config = mlp(4, [3], 2, initializer=Normal(np.asarray([0.1, 0.2])), dropout=[0.5, 0.1]).config()
    assert config["in_features"] == 4
    assert config["layers"][0] == {
        "type": "Linear", "out_width": 3, "initializer": {"type": "Normal", "sigma": [0.1, 0.2]},
    }
    assert config["layers"][2] == {"type": "Dropout", "rate": [0.5, 0.1]}
    assert describe(BatchNorm()) == {"type": "BatchNorm", "momentum": 0.9, "eps": 1e-5}


# Forward and backward -------------------------------------------------------------------------------------------


@given(
    hidden=st.lists(st.integers(1, 5), max_size=3), batch_norm=st.booleans(), standardize=st.booleans(),
    dropout=st.sampled_from([0.0, 0.4]), models=st.sampled_from([(1,), (3,), (2, 3)]), n=st.integers(2, 6),
    shared=st.booleans(), buffer=st.sampled_from(["none", "views", "plain"]), wrt_input=st.booleans(),
)
def test_many_models_are_the_stack_of_single_runs(
    device: Device, hidden: list[int], batch_norm: bool, standardize: bool, dropout: float, models: tuple[int, ...],
    n: int, shared: bool, buffer: str, wrt_input: bool,
) -> None:
    network = mlp(4, hidden, 3, batch_norm=batch_norm, dropout=dropout, standardize=standardize)
    arrays = initial(network, device, models)
    x = draw(device, "x", (n, 4) if shared else (*models, n, 4))
    dy = draw(device, "dy", (*models, n, 3))
    noise = {name: device.asarray(random.uniform(0, name, 0, (*models, *s)), "float64")
             for name, s in network.noise_shapes(n).items()}
    into = {
        "none": None,
        "views": network.allocate(models, device, "float64")[0].views,
        "plain": {p: device.empty((*models, *network.shapes[p]), "float64") for p in network.parameters},
    }[buffer]
    y, pullback, statistics = network.forward(arrays, x, train=True, noise=noise)
    dx, gradients = pullback(dy, into, wrt_input)
    assert gradients.keys() == set(network.parameters)
    for name, g in (into or {}).items():
        assert_same(to_numpy(g), np.broadcast_to(to_numpy(gradients[name]), g.shape).copy(), name)
    for m in np.ndindex(*models):
        single, pull, stats = network.forward(
            member(arrays, network, m, device), x if shared else device.asarray(to_numpy(x)[m]), train=True,
            noise={name: device.asarray(to_numpy(u)[m]) for name, u in noise.items()},
        )
        dx_alone, alone = pull(device.asarray(to_numpy(dy)[m]))
        assert_close(to_numpy(y)[m], single, 1e-12, "y")
        if wrt_input:
            assert_close(to_numpy(dx)[m], dx_alone, 1e-12, "dx")
        scale = max(float(abs(to_numpy(g)).max()) for g in alone.values())
        for name, g in alone.items():
            assert abs(to_numpy(gradients[name])[m] - to_numpy(g)).max() <= 1e-12 * scale, name
        for a, b in zip(statistics, stats, strict=True):
            assert_close(to_numpy(a)[m], b, 1e-12, "statistics")


def test_gradients_are_written_into_views_of_few_flat_buffers(device: Device) -> None:
    network = mlp(4, [5, 3], 2, batch_norm=True)
    for models in ((), (2,)):
        arrays = initial(network, device, models)
        buffers = network.allocate(models, device, "float64")[0]
        assert len(buffers.segments) == 3
        y, pullback, _ = network.forward(arrays, draw(device, "x", (6, 4)), train=True)
        dx, returned = pullback(y, buffers.views, wrt_input=False)
        assert dx is None
        total = sum(float((to_numpy(a) ** 2).sum()) for a in returned.values())
        assert sum(float((to_numpy(s) ** 2).sum()) for s in buffers.segments) == pytest.approx(total, rel=1e-12)
        for name in network.parameters:
            assert_same(buffers.views[name], returned[name], name)


def test_statistics_come_in_the_order_of_their_names(device: Device) -> None:
    network = mlp(4, [5, 3], 2, batch_norm=True)
    _, _, statistics = network.forward(initial(network, device), draw(device, "x", (6, 4)), train=True)
    assert [tuple(s.shape) for s in statistics] == [network.shapes[name] for name in network.statistics]
    assert network.forward(initial(network, device), draw(device, "x", (6, 4)))[2] == []


def test_noise_is_of_the_shapes_that_are_announced() -> None:
    assert mlp(4, [5, 3], 2, dropout=0.1).noise_shapes(7) == {"noise1": (7, 5), "noise2": (7, 3)}
    assert mlp(4, [5, 3], 2).noise_shapes(7) == {}


# Networks with their arrays ---------------------------------------------------------------------------------------


def make(device: Device, models: tuple[int, ...] = (), dtype: str = "float32", **options: Any) -> Network:
    """Return a small network."""
    architecture = mlp(4, [5], 3, **options)
    return Network(architecture, initial(architecture, device, models, dtype))


@pytest.mark.parametrize("models", [(), (2,)], ids=str)
def test_predictions_do_not_depend_on_the_block(device: Device, models: tuple[int, ...]) -> None:
    network, x = make(device, models, "float64", batch_norm=True), draw(device, "x", (7, 4))
    whole = network(x)
    assert tuple(whole.shape) == (*models, 7, 3)
    assert Device.of(whole) == device
    for block in (1, 3, 7, 8):
        assert_close(network(x, block=block), whole, 1e-14)
    p, labels = to_numpy(network.predict_proba(x)), to_numpy(network.predict(x))
    assert_close(p.sum(axis=-1), np.ones((*models, 7)), 1e-14)
    assert labels.tolist() == p.argmax(axis=-1).tolist()


def test_predictions_of_nothing_are_empty(device: Device) -> None:
    network = make(device)
    assert tuple(network(draw(device, "x", (0, 4))).shape) == (0, 3)
    assert tuple(network.predict(draw(device, "x", (0, 4))).shape) == (0,)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "float32", "float64"])
@pytest.mark.parametrize("standardize", [True, False])
def test_features_of_any_real_dtype_give_outputs_of_the_networks(
    device: Device, dtype: str, standardize: bool
) -> None:
    network, x = make(device, standardize=standardize), np.asarray([[0, 1, 1, 0], [1, 1, 0, 0]])
    out = network(device.asarray(x, dtype))
    assert to_numpy(out).dtype == np.float32
    assert_close(out, network(device.asarray(x, "float32")), 1e-6)


def test_an_array_has_the_model_axis_or_is_shared() -> None:
    trainer = Trainer(mlp(6, [4], 3, batch_norm=True, standardize=True), seed=[0, 1], optimizer=SGD(momentum=0.5))
    trainer.start(Device())
    own = trainer.architecture.has_model_axis
    shared = {name for name, a in trainer.state().items() if not own(name, a)}
    assert shared == {"offset1", "scale1"}
    assert own("velocity.W1", trainer.state()["velocity.W1"])
    assert trainer.network.models == (2,)
    assert trainer.network.member(1).models == ()
    assert not any(own(name, a) for name, a in trainer.network.member(1).arrays.items())


def test_a_member_is_an_ordinary_network(device: Device) -> None:
    network, x = make(device, (3,), "float64", batch_norm=True), draw(device, "x", (7, 4))
    for m in range(3):
        one = network.member(m)
        assert one.arrays["W1"].shape == (4, 5)
        assert_close(one(x), to_numpy(network(x))[m], 1e-13)
    network.arrays["W1"][...] = 0.0
    assert float(to_numpy(one.arrays["W1"]).std()) > 0, "a member has copies"


def test_one_output_is_no_choice_of_classes(device: Device) -> None:
    network = Network(mlp(4, [3], 1), initial(mlp(4, [3], 1), device))
    x = draw(device, "x", (7, 4), "float32")
    assert network(x).shape == (7, 1)
    for method in (network.predict, network.predict_proba):
        with pytest.raises(ValueError, match=r"one output, .* network\(x\) gives its outputs .*--raw"):
            method(x)


def test_a_member_of_a_sweep_over_the_architecture_has_its_own_values(device: Device) -> None:
    architecture = mlp(4, [5], 3, dropout=[0.0, 0.5], initializer=Normal(np.asarray([0.1, 0.2])))
    one = Network(architecture, initial(architecture, device, (2,))).member(1)
    assert one.architecture.layers == mlp(4, [5], 3, dropout=0.5, initializer=Normal(0.2)).layers


def test_networks_show_where_they_are(device: Device) -> None:
    network = make(device)
    assert network.device == device
    assert device.name in repr(network)


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (lambda d: [[1.0] * 4], TypeError, "features: expected an array, got list; wrap it"),
        (lambda d: draw(d, "x", (2, 5)), ValueError, r"expected shape \(n, 4\), got \(2, 5\)"),
        (lambda d: draw(d, "x", (4,)), ValueError, r"expected shape \(n, 4\), got \(4,\)"),
        (lambda d: d.asarray(np.ones((2, 4)), "complex128"), TypeError, "features: expected real numbers.*complex128"),
    ],
    ids=["list", "width", "one axis", "complex"],
)
def test_wrong_features_are_refused(device: Device, x: Callable[[Device], Any], error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        make(device)(x(device))


@pytest.mark.backends("strict", "torch", "cupy")
def test_features_of_another_device_are_refused_by_both_names(device: Device) -> None:
    with pytest.raises(ValueError, match=r"features are on cpu, the network on .*network\.device\.asarray") as caught:
        make(device)(np.ones((2, 4)))
    assert device.name in str(caught.value)
    with pytest.raises(ValueError, match="the network on cpu"):
        make(Device())(draw(device, "x", (2, 4)))


def test_missing_and_misshapen_arrays_are_refused(device: Device) -> None:
    architecture = mlp(4, [5], 3)
    arrays = initial(architecture, device)
    with pytest.raises(ValueError, match="needs arrays named b1, b2; got W1, W2"):
        Network(architecture, {name: arrays[name] for name in ("W1", "W2")})
    with pytest.raises(ValueError, match=r"W1: expected shape \(4, 5\) .*got \(5, 3\)"):
        Network(architecture, arrays | {"W1": arrays["W2"]})


@pytest.mark.backends("strict", "torch", "cupy")
def test_arrays_of_two_devices_are_refused(device: Device) -> None:
    architecture = mlp(4, [5], 3)
    arrays = initial(architecture, device)
    with pytest.raises(ValueError, match=r"W1 is on .*bring them together with") as caught:
        Network(architecture, arrays | {"b2": np.zeros(3)})
    assert device.name in str(caught.value)
    assert "b2 on cpu" in str(caught.value)


def test_outputs_whose_sum_overflows_are_finite(device: Device) -> None:
    arrays = {"W1": device.asarray([[3e38, 3e38]], "float32"), "b1": device.asarray([0.0, 0.0], "float32")}
    network = Network(Sequential(1, [Linear(2)]), arrays)
    found = to_numpy(network(device.asarray([[1.0]], "float32")))
    assert found.tolist() == [[np.float32(3e38)] * 2]
    with pytest.raises(ValueError, match=r"not finite for row\(s\) 1"):
        network(device.asarray([[1.0], [2.0]], "float32"))
