"""Conversions: what comes back is what went, and torch predicts the same."""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from architectures import ARCHITECTURES, Square, trained
from helpers import assert_close, assert_same, blobs, draw

from xpnet import Network, Normal, Sequential, Trainer
from xpnet import mlp as make
from xpnet.backend import Device, from_dlpack, to_numpy
from xpnet.nn.formats.convert import fold, save_npz, to_torch
from xpnet.nn.formats.safetensors import CheckpointError
from xpnet.nn.layers import BatchNorm, Dropout, Layer, LeakyReLU, Linear, ReLU, Standardize, Tanh

# npz ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_npz_brings_back_every_bit(device: Device, name: str, tmp_path: Path) -> None:
    network = trained(ARCHITECTURES[name], device)
    network.to_npz(tmp_path / "network.npz")
    again = Network.from_npz(str(tmp_path / "network.npz"), device=device)
    assert again.architecture.config() == network.architecture.config()
    assert_same(again.arrays, network.arrays)
    assert again.device == device
    x, _ = blobs(device, 7)
    assert_same(again(x), network(x))


def test_npz_of_several_models_and_float64(tmp_path: Path) -> None:
    network = trained(make(6, [4], 3, dropout=[0.1, 0.2], initializer=Normal([0.1, 0.2])), dtype="float64",
                      seed=[1, 2])
    save_npz(tmp_path / "n", network)  # no suffix is added
    again = Network.from_npz(tmp_path / "n")
    assert_same(again.arrays, network.arrays)
    assert again.architecture.config() == network.architecture.config()
    assert [path.name for path in tmp_path.iterdir()] == ["n"]


def test_npz_of_the_same_network_is_the_same_file(tmp_path: Path) -> None:
    network = trained(ARCHITECTURES["batch norm"])
    for name in "ab":
        save_npz(tmp_path / name, network)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_numpy_alone_reads_and_writes_the_arrays(tmp_path: Path) -> None:
    network = trained(make(6, [4], 3))
    network.to_npz(tmp_path / "n.npz")
    with np.load(tmp_path / "n.npz", allow_pickle=False) as file:
        assert set(file) == {"architecture", "W1", "b1", "W2", "b2"}
        assert_same(file["W1"], network.arrays["W1"])
        assert json.loads(str(file["architecture"]))["in_features"] == 6
    np.savez_compressed(tmp_path / "bare.npz", **network.arrays)
    with pytest.raises(CheckpointError, match="holds no architecture; give the layers with architecture="):
        Network.from_npz(tmp_path / "bare.npz")
    assert_same(Network.from_npz(tmp_path / "bare.npz", network.architecture).arrays, network.arrays)
    with pytest.raises(CheckpointError, match="lacks gamma1, beta1, mean1, var1; it has W1"):
        Network.from_npz(tmp_path / "bare.npz", make(6, [4], 3, batch_norm=True))


def written(**entries: bytes) -> bytes:
    """Return a zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("_npy", ".npy"), content)
    return file.getvalue()


def npy(header: str) -> bytes:
    """Return an npy file of a header and no data."""
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


HOSTILE = {
    "empty": b"",
    "text": b"<html>not found</html>",
    "empty archive": written(),
    "no array": written(architecture_npy=b"hello"),
    "pickle": written(architecture_npy=npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}")
                      + b"cposix\nsystem\n(S'touch hacked'\ntR."),
    "huge": written(architecture_npy=npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1152921504606846,)}")),
    "no header": written(architecture_npy=npy("{")),
    "code": written(architecture_npy=npy("__import__('os').system('touch hacked')")),
    "bomb": written(architecture_npy=bytes(50_000_000)),
    "one array": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (0,)}"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_network_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "n.npz").write_bytes(HOSTILE[name])
    with pytest.raises(CheckpointError, match=r"n\.npz"):
        Network.from_npz("n.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["n.npz"]


@hypothesis.given(data=st.data())
def test_a_damaged_file_is_an_error_or_the_same_network(data: st.DataObject, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("npz") / "n.npz"
    network = trained(make(6, [4], 3))
    save_npz(path, network)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        again = Network.from_npz(path)
    except CheckpointError:
        return
    assert_same(again.arrays, network.arrays)  # the archive's checksums see to it


@dataclass(frozen=True)
class Scaled(Layer):
    """A layer of one's own with a field and an array."""

    factor: Any
    parameters: ClassVar[tuple[str, ...]] = ("a",)

    def shapes(self, features: int) -> dict[str, tuple[int, ...]]:
        """Return the array's shape."""
        return {"a": (features,)}


def test_fields_become_json_or_an_error(tmp_path: Path) -> None:
    network = trained(make(6, [4], 3, dropout=np.float32(0.25)))
    network.to_npz(tmp_path / "n.npz")
    assert Dropout(0.25) in Network.from_npz(tmp_path / "n.npz").architecture.layers
    own = Sequential(6, [Scaled(1j)])
    with pytest.raises(TypeError, match="JSON, which has no complex"):
        save_npz(tmp_path / "own.npz", Network(own, {"a1": np.ones(6)}))
    assert [path.name for path in tmp_path.iterdir()] == ["n.npz"]


def test_errors_of_the_file_system_are_named(tmp_path: Path) -> None:
    network = trained(make(6, [4], 3))
    with pytest.raises(FileNotFoundError, match=r"no directory .*missing to write n.npz to"):
        network.to_npz(tmp_path / "missing" / "n.npz")
    with pytest.raises(FileNotFoundError, match=r"no network at .*n.npz"):
        Network.from_npz(tmp_path / "n.npz")


# Folding ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_folded_network_predicts_the_same(device: Device, name: str, dtype: str) -> None:
    network = trained(ARCHITECTURES[name], device, dtype)
    folded = network.fold()
    kinds = [type(layer) for layer in folded.architecture.layers]
    assert Dropout not in kinds
    assert (Linear, BatchNorm) not in set(itertools.pairwise(kinds))
    x, _ = blobs(device, 50, dtype=dtype)
    assert_close(folded(x), network(x), 1e-5 if dtype == "float32" else 1e-13)
    assert folded.arrays["W1"].dtype == network.arrays["W1"].dtype
    assert folded.device == network.device


def test_folding_several_models_is_folding_each(device: Device) -> None:
    network = trained(make(6, [5], 3, batch_norm=True, dropout=[0.1, 0.2]), device)
    folded = fold(network)
    assert to_numpy(folded.arrays["W1"]).shape == (2, 6, 5)
    for m in range(2):
        assert_same(folded.member(m).arrays, fold(network.member(m)).arrays)


CONVERSIONS: dict[str, Any] = {
    "fold": lambda network: network.fold().arrays,
    "member": lambda network: network.member(0).arrays,
    "to_torch": lambda network: network.to_torch(),
    "from_torch": lambda network: Network.from_torch(
        Sequential(6, [Linear(5), ReLU(), Linear(3)]), {
            "0.weight": network.arrays["W1"].T, "0.bias": network.arrays["b1"], "1.weight": network.arrays["W3"].T,
            "1.bias": network.arrays["b3"]}).arrays,
}


@pytest.mark.parametrize("conversion", CONVERSIONS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_made_of_a_live_network_is_a_copy(device: Device, name: str, conversion: str) -> None:
    """In part views, it would be another network after each update."""
    architecture = make(6, [5, 5], 3, batch_norm=True) if conversion == "from_torch" else ARCHITECTURES[name]
    trainer = Trainer(architecture, batch_size=16, schedule=0.05)
    trainer.fit(*blobs(device, 48), steps=9)
    made = CONVERSIONS[conversion](trainer.network)
    before = {key: np.array(to_numpy(a)) for key, a in made.items()}
    trainer.fit(*blobs(device, 48), steps=18)
    for array in trainer.arrays.values():  # also those that training leaves alone
        array[...] = array + 1.0
    assert_same(made, before)


def test_what_is_changed_in_a_conversion_does_not_reach_the_network(device: Device) -> None:
    network = trained(ARCHITECTURES["everything"], device)
    before = {key: np.array(to_numpy(a)) for key, a in network.arrays.items()}
    for made in (network.fold().arrays, network.to_torch()):
        for array in made.values():
            array[...] = 7
    assert_same(network.arrays, before)


# torch --------------------------------------------------------------------------------------------------------------


def module(architecture: Sequential) -> Any:
    """Return the torch ``Sequential`` with the same layers, Standardize left out."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    layers, width = [], architecture.in_features
    for layer in architecture.layers:
        if isinstance(layer, Linear):
            layers.append(torch.nn.Linear(width, layer.out_width))
        elif isinstance(layer, BatchNorm):
            layers.append(torch.nn.BatchNorm1d(width, eps=layer.eps, momentum=1 - layer.momentum))
        elif isinstance(layer, LeakyReLU):
            layers.append(torch.nn.LeakyReLU(layer.slope))
        elif not isinstance(layer, Standardize):
            others = {ReLU: torch.nn.ReLU, Tanh: torch.nn.Tanh, Dropout: torch.nn.Dropout}
            layers.append(others[type(layer)]())
        width = layer.out_features(width)
    return torch.nn.Sequential(*layers)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_torch_predicts_the_same_with_our_weights(device: Device, name: str) -> None:
    other = module(ARCHITECTURES[name])
    import torch

    network = trained(ARCHITECTURES[name], device)
    state = network.to_torch()
    other.load_state_dict({name: torch.from_numpy(a) for name, a in state.items()}, strict=True)
    x = np.array(to_numpy(draw(Device(), "x", (50, 6), "float32")))
    with torch.no_grad():
        outputs = other.eval()(torch.from_numpy(x)).numpy()
    assert_close(network(device.asarray(x)), outputs, 1e-5)
    again = Network.from_torch(network.architecture, state, device)
    assert again.device == device
    assert_close(again(device.asarray(x)), network(device.asarray(x)), 1e-5)
    if "Standardize" not in str(network.architecture):
        assert_same(again.arrays, {name: np.array(to_numpy(a)) for name, a in network.arrays.items()})


@pytest.mark.backends("numpy", "torch")  # it needs no device, and torch
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_we_predict_the_same_with_the_weights_of_torch(name: str) -> None:
    other = module(ARCHITECTURES[name])
    import torch

    x = torch.from_numpy(np.array(to_numpy(draw(Device(), "x", (50, 6), "float32"))))
    optimizer = torch.optim.SGD(other.parameters(), lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        other(x).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        outputs = other.eval()(x).numpy()
    network = Network.from_torch(ARCHITECTURES[name], other.state_dict())
    assert_close(network(x.numpy()), outputs, 1e-5)
    before = network.arrays["W1" if "W1" in network.arrays else "gamma1"].copy()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert_same(network.arrays["W1" if "W1" in network.arrays else "gamma1"], before)  # a copy


def test_states_that_do_not_fit_are_refused() -> None:
    network = trained(make(6, [5], 3, batch_norm=True))
    state = network.to_torch()
    assert state["1.num_batches_tracked"].dtype == np.int64
    with pytest.raises(ValueError, match="expected 2 modules with arrays, one for each of Linear, Linear, got 0, 1, 3"):
        Network.from_torch(make(6, [5], 3), state)
    with pytest.raises(ValueError, match="expected weight of 1 for Linear, got weight, bias, running_mean"):
        Network.from_torch(make(6, [5, 5], 3), state)
    with pytest.raises(ValueError, match=r"0: expected shape \(6, 4\) for W1, got \(6, 5\) \(transposed\)"):
        Network.from_torch(make(6, [4], 3, batch_norm=True), state)
    with pytest.raises(ValueError, match="expected weight, bias, running_mean, running_var of 1 for BatchNorm"):
        Network.from_torch(network.architecture, {k: a for k, a in state.items() if k != "1.running_var"})
    with pytest.raises(ValueError, match="got none"):
        Network.from_torch(network.architecture, {})


def test_what_torch_does_not_know_is_refused() -> None:
    arrays = {name: np.ones(shape) for name, shape in Sequential(6, [Linear(3)]).shapes.items()}
    with pytest.raises(TypeError, match=r"to_torch: layer 1 is .*Square"):
        to_torch(Network(Sequential(6, [Linear(3), Square()]), arrays))
    with pytest.raises(ValueError, match=r"to_torch: expected one network, got 2 models; .* network.member\(0\)"):
        to_torch(trained(make(6, [4], 3), seed=[1, 2]))
    with pytest.raises(TypeError, match=r"from_torch: Scaled\(factor=1\) has arrays that torch has no names for"):
        Network.from_torch(Sequential(6, [Scaled(1)]), {"0.weight": np.ones(6)})
    odd = Sequential(6, [Standardize(), BatchNorm(), Linear(3)])
    with pytest.raises(TypeError, match="expected a Linear after Standardize, to fold it into, got BatchNorm"):
        to_torch(trained(odd))


# DLPack -------------------------------------------------------------------------------------------------------------


@pytest.mark.backends("numpy", "torch")  # it needs no device, and torch
def test_arrays_are_seen_through_dlpack_without_a_copy() -> None:
    network = trained(make(6, [4], 3))
    seen = np.from_dlpack(network.arrays["W1"])
    assert np.shares_memory(seen, network.arrays["W1"])
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = torch.from_dlpack(network.arrays["W1"])
    tensor[0, 0] = 7.0
    assert network.arrays["W1"][0, 0] == 7.0


@pytest.mark.backends("numpy", "torch")  # it needs no device, and torch
def test_a_network_takes_arrays_through_dlpack() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    network = trained(make(6, [4], 3))
    theirs = {name: torch.tensor(a) for name, a in network.arrays.items()}
    ours = Network(network.architecture, {name: np.from_dlpack(a) for name, a in theirs.items()})
    x, _ = blobs(Device(), 10)
    assert_same(ours(x), network(x))
    other = Network(network.architecture, {name: from_dlpack(a) for name, a in theirs.items()})
    assert_close(other(torch.tensor(x)), network(x), 1e-6)
    theirs["b2"] += 1.0
    assert_close(ours(x), network(x) + 1.0, 1e-6)  # the same memory


def test_models_convert_member_by_member() -> None:
    network = trained(make(6, [4], 3, batch_norm=True), seed=[1, 2])
    states = [to_torch(network.member(m)) for m in range(2)]
    assert not np.array_equal(states[0]["0.weight"], states[1]["0.weight"])
    for m, state in enumerate(states):
        assert_same(Network.from_torch(network.architecture, state).arrays, {
            name: np.array(a[m]) for name, a in network.arrays.items()})
