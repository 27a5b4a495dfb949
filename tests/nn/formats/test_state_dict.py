"""Modules of a torch state dict find their layers whatever the order of the mapping, or the order is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from helpers import assert_same, draw

from xpnet import Network, Sequential
from xpnet import mlp as make
from xpnet.backend import Device
from xpnet.nn.layers import BatchNorm, Linear, ReLU

State = dict[str, Any]


#: How files and programs order the keys of a state dict.
ORDERS: dict[str, Callable[[State], State]] = {
    "module": dict, "sorted": lambda state: dict(sorted(state.items())),
    "reversed": lambda state: dict(reversed(state.items())),
    "mixed": lambda state: dict(sorted(state.items(), key=lambda item: item[0][::-1])),
}


def network(architecture: Sequential) -> Network:
    """Return a network of random arrays, in which no two layers are alike."""
    return Network(architecture, {name: abs(draw(Device(), name, shape, "float32"))
                                  for name, shape in architecture.shapes.items()})


def state_of(source: Network, prefixes: Mapping[str, str] | None = None) -> State:
    """Return its state dict, with other names for the modules."""
    renamed = {}
    for key, a in source.to_torch().items():
        prefix, _, name = key.rpartition(".")
        renamed[f"{(prefixes or {}).get(prefix, prefix)}.{name}"] = a
    return renamed


SQUARE = network(make(8, [8] * 12, 3))
NORMED = network(make(8, [8] * 11, 3, batch_norm=True))
CASES: dict[str, tuple[Network, dict[str, str]]] = {
    "Sequential": (SQUARE, {}),
    "batch norm": (NORMED, {}),
    "attributes": (SQUARE, {**{str(2 * i): f"fc{i + 1}" for i in range(12)}, "24": "out"}),
    "two stems": (NORMED, {**{str(3 * i): f"fc{i + 1}" for i in range(11)},
                           **{str(3 * i + 1): f"bn{i + 1}" for i in range(11)}, "33": "head"}),
    "nested": (SQUARE, {str(2 * i): f"blocks.{i // 4}.{i % 4 + 8}" for i in range(13)}),
    "widths": (network(make(6, [5, 4], 3)), {"0": "z.first", "2": "y", "4": "a.last"}),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", CASES)
def test_the_order_of_the_mapping_does_not_matter(device: Device, case: str, order: str) -> None:
    source, prefixes = CASES[case]
    again = Network.from_torch(source.architecture, ORDERS[order](state_of(source, prefixes)), device)
    assert again.device == device
    assert_same(again.arrays, source.arrays)


AMBIGUOUS: dict[str, tuple[Network, dict[str, str]]] = {
    "words": (network(make(8, [8, 8], 3)), {"0": "input", "2": "hidden", "4": "output"}),
    "two stems": (network(make(8, [8, 8, 8], 8)), {"0": "enc1", "2": "enc2", "4": "dec1", "6": "dec2"}),
    "one without a number": (network(make(8, [8], 8)), {"0": "dense", "2": "dense_1"}),
    "against the numbers": (network(make(6, [5], 3)), {"0": "fc2", "2": "fc1"}),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", AMBIGUOUS)
def test_an_open_order_is_an_error_and_keys_tell_it(case: str, order: str) -> None:
    source, prefixes = AMBIGUOUS[case]
    state = ORDERS[order](state_of(source, prefixes))
    with pytest.raises(ValueError, match="names and shapes do not tell the order of the modules; list them in the "
                                         r"layers' order, like keys=\['"):
        Network.from_torch(source.architecture, state)
    assert_same(Network.from_torch(source.architecture, state, keys=list(prefixes.values())).arrays, source.arrays)


def test_keys_choose_modules_out_of_several() -> None:
    source = CASES["widths"][0]
    state = {**state_of(source), "decoder.weight": np.ones((6, 3))}
    with pytest.raises(ValueError, match=r"expected 3 modules .* got 0, 2, 4, decoder; keys= names those to take"):
        Network.from_torch(source.architecture, state)
    assert_same(Network.from_torch(source.architecture, state, keys=["0", "2", "4"]).arrays, source.arrays)


@pytest.mark.parametrize(("keys", "words"), [
    (["0", "2"], "expected keys= to name 3 different modules, one for each of Linear, Linear, Linear, got"),
    (["0", "2", "2"], "expected keys= to name 3 different modules"),
    ("024", "expected keys= to name 3 different modules"),
    (["0", "2", "5"], "keys= names '5'; the state dict has '0', '2', '4'"),
    (["2", "0", "4"], r"2: expected shape \(6, 5\) for W1, got \(5, 4\) \(transposed\)"),
])
def test_wrong_keys_are_refused(keys: Any, words: str) -> None:
    source = CASES["widths"][0]
    with pytest.raises(ValueError, match=words):
        Network.from_torch(source.architecture, state_of(source), keys=keys)


@pytest.mark.parametrize("dtype", [">f4", "f2", ">f2", ">f8"])
def test_dtypes_become_float32_or_float64_without_rounding(dtype: str) -> None:
    source = CASES["widths"][0]
    state = {key: a.astype(dtype) for key, a in state_of(source).items()}
    again = Network.from_torch(source.architecture, state)
    assert {a.dtype.str for a in again.arrays.values()} == {"<f8" if dtype == ">f8" else "<f4"}
    assert_same(again.arrays["W2"], state["2.weight"].T.astype(again.arrays["W2"].dtype))


class Unreadable:
    """A tensor of a dtype that NumPy has not, as torch's bfloat16."""

    __array_priority__ = 0

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("bfloat16 is not supported")


@pytest.mark.parametrize(("value", "words"), [
    (Unreadable(), r"0.weight cannot be read as a NumPy array .*; expected dense tensors .* a.float\(\)"),
    (np.ones((5, 6), "longdouble"), r"0.weight: expected float16, float32 or float64, got .*astype\('float64'\)"),
    (np.ones((5, 6), "int64"), r"0.weight: expected float16, float32 or float64, got dtype int64"),
    (np.ones((5, 6), "complex64"), r"0.weight: expected float16, float32 or float64, got dtype complex64"),
])
def test_arrays_that_cannot_be_held_are_refused(value: Any, words: str) -> None:
    source = CASES["widths"][0]
    with pytest.raises(TypeError, match=words):
        Network.from_torch(source.architecture, {**state_of(source), "0.weight": value})


@pytest.mark.backends("numpy", "torch")  # it needs no device, and torch
@pytest.mark.parametrize("change", ["bfloat16", "to_sparse"])
def test_tensors_that_numpy_cannot_hold_are_refused(change: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    other = torch.nn.Sequential(torch.nn.Linear(6, 5))
    state = {key: getattr(a, change)() for key, a in other.state_dict().items()}
    with pytest.raises(TypeError, match=r"0.weight cannot be read as a NumPy array"):
        Network.from_torch(Sequential(6, [Linear(5)]), state)


def test_batch_norm_without_its_statistics_is_named() -> None:
    architecture = Sequential(6, [Linear(5), BatchNorm(), ReLU(), Linear(3)])
    state = dict(sorted(state_of(network(architecture)).items()))
    del state["1.running_var"]
    with pytest.raises(ValueError, match="expected weight, bias, running_mean, running_var of 1 for BatchNorm"):
        Network.from_torch(architecture, state)


def test_modules_are_matched_whatever_they_are_called() -> None:
    source = network(make(6, [4], 3))
    renamed = {{"0": "encoder.first", "2": "head"}[key.split(".")[0]] + "." + key.split(".")[1]: a
               for key, a in source.to_torch().items()}
    assert_same(Network.from_torch(source.architecture, renamed).arrays, source.arrays)
    bare = {key: a for key, a in source.to_torch().items() if key != "2.bias"}
    assert_same(Network.from_torch(source.architecture, bare).arrays, {**source.arrays, "b2": np.zeros(3, "float32")})
    one = {"weight": np.ones((3, 6)), "bias": np.ones(3)}
    assert Network.from_torch(Sequential(6, [Linear(3)]), one).arrays["W1"].shape == (6, 3)
