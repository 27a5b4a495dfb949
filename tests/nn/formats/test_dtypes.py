"""Arrays of any dtype become float32 or float64 without rounding, or are refused with a remedy, at every entrance."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same
from safetensors.numpy import save_file

from xpnet import Network, mlp
from xpnet.nn.formats.dtypes import as_supported

pytestmark = pytest.mark.backends("numpy")
LAYERS = mlp(4, [], 2)
VALUES = {"W1": np.arange(8.0).reshape(4, 2) / 4, "b1": np.array([0.5, -0.25])}


def from_npz(arrays: dict[str, Any], folder: Path) -> Network:
    np.savez(folder / "a.npz", **arrays)
    return Network.from_npz(folder / "a.npz", LAYERS)


def from_safetensors(arrays: dict[str, Any], folder: Path) -> Network:
    metadata = {"format": "xpnet network 1", "architecture": json.dumps(LAYERS.config())}
    save_file({name: a.astype(a.dtype.newbyteorder("=")) for name, a in arrays.items()}, folder / "a", metadata)
    return Network.load(folder / "a")


def from_torch(arrays: dict[str, Any], folder: Path) -> Network:
    return Network.from_torch(LAYERS, {"0.weight": arrays["W1"].T, "0.bias": arrays["b1"]})


READERS: dict[str, Callable[[dict[str, Any], Path], Network]] = {
    "from_npz": from_npz, "load": from_safetensors, "from_torch": from_torch}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("dtype", "becomes"), [
    ("<f4", "float32"), (">f4", "float32"), ("<f8", "float64"), (">f8", "float64"), ("<f2", "float32"),
    (">f2", "float32"),
])
def test_readers_widen_and_swap_bytes(reader: str, dtype: str, becomes: str, tmp_path: Path) -> None:
    network = READERS[reader]({name: a.astype(dtype) for name, a in VALUES.items()}, tmp_path)
    assert_same(network.arrays, {name: a.astype(becomes) for name, a in VALUES.items()})
    assert all(a.dtype == becomes and a.dtype.isnative for a in network.arrays.values())
    again = tmp_path / "again"
    network.save(again)
    assert_same(Network.load(again).arrays, network.arrays)
    assert {a.dtype.name for a in network.to_torch().values()} == {becomes}


@pytest.mark.parametrize("reader", ["from_npz", "from_torch"])
@pytest.mark.parametrize("dtype", ["longdouble", "int64", "complex128", "bool"])
def test_readers_refuse_what_would_be_rounded(reader: str, dtype: str, tmp_path: Path) -> None:
    given = {name: a.astype(dtype) for name, a in VALUES.items()}
    words = r"expected float16, float32 or float64, got dtype .*; convert it with astype\('float64'\)"
    with pytest.raises((TypeError, ValueError), match=words):
        READERS[reader](given, tmp_path)


@pytest.mark.parametrize("dtype", [">f4", ">f8", "f2", "longdouble", "int32"])
def test_networks_of_other_dtypes_are_refused_when_they_are_made(dtype: str) -> None:
    given = {name: a.astype(dtype) for name, a in VALUES.items()}
    with pytest.raises(TypeError, match=r"W1: expected floating-point numbers, as float32 or float64 in this machine's "
                                        r"byte order, got dtype .*; convert it with astype\('float32'\)"):
        Network(LAYERS, given)
    network = Network(LAYERS, {name: a.astype("float32") for name, a in given.items()})  # the remedy
    assert network(np.ones((1, 4), "float32")).shape == (1, 2)


def test_arrays_that_fit_are_not_copied() -> None:
    a = np.ones(3, "float32")
    assert as_supported("a", a) is a


@pytest.mark.parametrize("reader", READERS)
def test_networks_of_half_precision_go_to_onnx(reader: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    network = READERS[reader]({name: a.astype("f2") for name, a in VALUES.items()}, tmp_path)
    assert network.to_onnx().graph.input[0].type.tensor_type.elem_type == 1  # float
