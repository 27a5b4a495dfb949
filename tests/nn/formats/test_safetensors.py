"""Networks on disk: round trips on every backend, and files that are damaged, foreign or hostile."""

from __future__ import annotations

import errno
import json
import pickle
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import faulty
from helpers import assert_same, blobs, draw
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from xpnet import BatchNorm, Linear, Network, Normal, ReLU, Sequential, Trainer, Xavier, mlp
from xpnet.backend import Device, to_numpy
from xpnet.files import storage
from xpnet.nn.formats.safetensors import (
    CheckpointError,
    architecture_from,
    blas_in_use,
    pack,
    save_network,
    unpack,
)

ARCHITECTURE = mlp(4, [5], 3, batch_norm=True, dropout=0.25, standardize=True, initializer=Xavier())


def make(device: Device | None = None, architecture: Sequential = ARCHITECTURE, models: tuple[int, ...] = (),
         dtype: str = "float32") -> Network:
    """Return a network with random arrays, in the layout that training gives them."""
    device = device or Device()
    arrays = {name: a for part in architecture.allocate(models, device, dtype) for name, a in part.views.items()}
    for name, a in arrays.items():
        a[...] = abs(draw(device, name, tuple(a.shape), dtype))
    return Network(architecture, arrays)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("models", [(), (3,)], ids=str)
def test_what_is_saved_comes_back_bit_for_bit(
    device: Device, models: tuple[int, ...], dtype: str, tmp_path: Path
) -> None:
    network, x = make(device, models=models, dtype=dtype), draw(device, "x", (6, 4), dtype)
    network.save(tmp_path / "a")
    loaded = Network.load(tmp_path / "a", device)
    assert loaded.device == device
    assert_same(loaded.arrays, network.arrays)
    assert loaded.architecture.layers == ARCHITECTURE.layers
    assert loaded.architecture.in_features == 4
    assert_same(loaded(x), network(x))
    elsewhere = Network.load(str(tmp_path / "a"))
    assert elsewhere.device == Device()
    assert_same(elsewhere.arrays, network.arrays)


def test_a_member_of_a_sweep_is_saved_as_it_is(device: Device, tmp_path: Path) -> None:
    sweep = make(device, models=(3,), dtype="float64")
    for m in range(3):
        sweep.member(m).save(tmp_path / f"{m}")
        loaded = Network.load(tmp_path / f"{m}", device)
        for name, a in sweep.arrays.items():
            expected = to_numpy(a)[m] if name not in ("offset1", "scale1") else to_numpy(a)
            assert to_numpy(loaded.arrays[name]).tolist() == expected.tolist(), name


def test_trained_networks_predict_the_same_after_a_round_trip(device: Device, tmp_path: Path) -> None:
    x, y = blobs(device, 60)
    network = mlp(6, [8], 3, batch_norm=True, dropout=[0.1, 0.2], initializer=Normal(np.asarray([0.1, 0.5])))
    trainer = Trainer(network, batch_size=16, l2=[0.0, 0.1])
    trainer.fit(x, y, steps=10)
    trainer.network.save(tmp_path / "sweep")
    assert_same(Network.load(tmp_path / "sweep", device)(x), trainer.network(x))
    member = trainer.network.member(1)
    member.save(tmp_path / "member")
    loaded = Network.load(tmp_path / "member", device)
    assert_same(loaded(x), member(x))
    assert loaded.architecture.layers == mlp(
        6, [8], 3, batch_norm=True, dropout=0.2, initializer=Normal(0.5)).layers


def test_safetensors_may_corrupt_transposed_arrays_and_networks_are_saved_right(tmp_path: Path) -> None:
    """The reason for the copy in ``save_network``: 0.8 writes memory as it lies, 0.5 copies."""
    transposed = np.arange(6.0).reshape(2, 3).T
    save_file({"a": transposed}, tmp_path / "raw")
    raw = load_file(tmp_path / "raw")["a"]
    assert raw.shape == (3, 2)
    as_it_lies = transposed.ravel(order="K").reshape(3, 2)
    assert raw.tolist() in (transposed.tolist(), as_it_lies.tolist())
    assert version("safetensors").startswith("0.5") or raw.tolist() != transposed.tolist()
    arrays = {"W1": np.asfortranarray(np.arange(12.0).reshape(4, 3)), "b1": np.arange(6.0)[::2]}
    Network(mlp(4, [], 3), arrays).save(tmp_path / "network")
    assert_same(Network.load(tmp_path / "network").arrays, arrays)


def test_files_hold_arrays_and_plain_json(tmp_path: Path) -> None:
    make().save(tmp_path / "a")
    with safe_open(tmp_path / "a", framework="numpy") as file:
        assert set(file.keys()) == set(ARCHITECTURE.shapes)
        assert file.metadata()["format"] == "xpnet network 1"
        assert json.loads(file.metadata()["architecture"]) == ARCHITECTURE.config()


def test_saving_replaces_a_file_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make().save(tmp_path / "a")
    before = (tmp_path / "a").read_bytes()
    for call in (("open", 1), ("write", 1), ("fsync", 1), ("replace", 1)):
        monkeypatch.setattr(storage, "os", faulty(*call, errno.ENOSPC))
        with pytest.raises(OSError, match=r"[Nn]o space"):
            make(dtype="float64").save(tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_same_network_gives_the_same_file(tmp_path: Path) -> None:
    """The library alone writes metadata in another order each time."""
    contents = set()
    for i in range(10):
        make().save(tmp_path / f"{i}")
        contents.add((tmp_path / f"{i}").read_bytes())
    assert len(contents) == 1
    assert int.from_bytes(contents.pop()[:8], "little") % 8 == 0


def test_loaded_arrays_can_be_changed(device: Device, tmp_path: Path) -> None:
    make(device).save(tmp_path / "a")
    first, second = (Network.load(tmp_path / "a", device) for _ in range(2))
    first.arrays["W1"] += 1.0
    assert_same(second.arrays, make(device).arrays)


@pytest.mark.parametrize(
    "architecture",
    [mlp(4, [], 3), Sequential(4, [BatchNorm(momentum=0.5, eps=1e-3), ReLU(), Linear(3, Normal(0.25))])],
    ids=["linear", "options"],
)
def test_architectures_come_back_from_their_description(architecture: Sequential) -> None:
    again = architecture_from(json.loads(json.dumps(architecture.config())))
    assert again.layers == architecture.layers
    assert again.shapes == architecture.shapes


# Files that are something else ------------------------------------------------------------------------------------


def test_a_missing_file_is_an_error_of_its_own(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"no network at {path}"):
            Network.load(path)


def rewrite(path: Path, **changes: Any) -> None:
    """Save a network's file with other metadata, architecture or arrays."""
    save_network(path, make())
    metadata = {"format": "xpnet network 1", "architecture": json.dumps(ARCHITECTURE.config())}
    arrays = changes.pop("arrays", lambda arrays: arrays)(load_file(path))
    save_file(arrays, path, {k: v for k, v in (metadata | changes).items() if v is not None})


def layers(*config: Any) -> str:
    """Return a description of a network of these layers."""
    return json.dumps({"in_features": 4, "layers": list(config)})


class Hostile:
    """An object that would run code if it were unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("owned"),)


HOSTILE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("<html>not found</html>"),
    "pickle": lambda path: path.write_bytes(pickle.dumps(Hostile())),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "huge header": lambda path: path.write_bytes(b"\xff" * 7 + b"\x7f" + b"{}"),
    "header that is no JSON": lambda path: path.write_bytes((5).to_bytes(8, "little") + b"{oops"),
    "long header": lambda path: path.write_bytes((2**23).to_bytes(8, "little") + b"[" * 2**23),
    "deep header": lambda path: path.write_bytes((100_000).to_bytes(8, "little") + b"[" * 100_000),
    "header that is a list": lambda path: path.write_bytes((2).to_bytes(8, "little") + b"[]"),
    "metadata that is a number": lambda path: path.write_bytes(
        (20).to_bytes(8, "little") + b'{"__metadata__": 11}'),
    "numbers that NumPy lacks": lambda path: path.write_bytes(
        (lambda header: len(header).to_bytes(8, "little") + header + bytes(2))(
            b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}')),
    "overlapping": lambda path: path.write_bytes(
        (lambda header: len(header).to_bytes(8, "little") + header + bytes(8))(
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,800]}}')),
    "no metadata": lambda path: save_file({"a": np.zeros(1)}, path),
    "other format": lambda path: rewrite(path, format="xpnet network 2"),
    "no architecture": lambda path: rewrite(path, architecture=None),
    "architecture that is no JSON": lambda path: rewrite(path, architecture="{"),
    "architecture that is a list": lambda path: rewrite(path, architecture="[]"),
    "architecture that is a number": lambda path: rewrite(path, architecture="3"),
    "architecture that is null": lambda path: rewrite(path, architecture="null"),
    "deep architecture": lambda path: rewrite(path, architecture="[" * 100_000),
    "no layers": lambda path: rewrite(path, architecture=layers()),
    "unknown layer": lambda path: rewrite(path, architecture=layers({"type": "Conv2d"})),
    "function as a layer": lambda path: rewrite(path, architecture=layers({"type": "os.system", "command": "id"})),
    "layer without type": lambda path: rewrite(path, architecture=layers({"out_width": 3})),
    "layer with other fields": lambda path: rewrite(path, architecture=layers({"type": "ReLU", "slope": 1})),
    "layer with a wrong value": lambda path: rewrite(path, architecture=layers({"type": "Linear", "out_width": "x"})),
    "layer that is a number": lambda path: rewrite(path, architecture=layers(7)),
    "initializer as a layer": lambda path: rewrite(path, architecture=layers({"type": "He"})),
    "type that is a list": lambda path: rewrite(path, architecture=layers({"type": ["Linear"]})),
    "enormous layer": lambda path: rewrite(path, architecture=layers(
        {"type": "Linear", "out_width": 10**15, "initializer": {"type": "He"}})),
    "missing array": lambda path: rewrite(path, arrays=lambda a: {k: v for k, v in a.items() if k != "W1"}),
    "array of another shape": lambda path: rewrite(path, arrays=lambda a: a | {"W1": np.zeros((5, 4), "float32")}),
    "array of integers": lambda path: rewrite(path, arrays=lambda a: a | {"W1": np.zeros((4, 5), "int64")}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file"
    HOSTILE[kind](path)
    with pytest.raises(CheckpointError, match=str(path)):
        Network.load(path)
    assert not (tmp_path / "owned").exists()


def test_a_checkpoint_error_is_a_value_error_and_names_what_is_known(tmp_path: Path) -> None:
    rewrite(tmp_path / "a", architecture=layers({"type": "Conv2d"}))
    with pytest.raises(ValueError, match=r"unknown layer 'Conv2d'; known are .*Linear"):
        Network.load(tmp_path / "a")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    save_network(tmp_path / "whole", make())
    content = (tmp_path / "whole").read_bytes()
    for size in (1, 7, 8, 9, 100, len(content) // 2, len(content) - 4, len(content) - 1):
        (tmp_path / "cut").write_bytes(content[:size])
        with pytest.raises(CheckpointError, match="not a network"):
            Network.load(tmp_path / "cut")


def test_a_field_that_json_cannot_hold_is_refused_not_changed(tmp_path: Path) -> None:
    class Odd:
        def std(self, fan_in: int, fan_out: int) -> float:
            return 0.1

    arrays = {"W1": np.zeros((4, 3)), "b1": np.zeros(3)}
    with pytest.raises(TypeError, match="saved as JSON, which has no Odd"):
        Network(mlp(4, [], 3, initializer=Odd()), arrays).save(tmp_path / "network")
    assert list(tmp_path.iterdir()) == []


def test_a_file_larger_than_the_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(2**43)
    with pytest.raises(CheckpointError, match=r"8,796,093,022,208 bytes, more than the [\d,]+ that are read"):
        Network.load(tmp_path / "a")


def test_arrays_are_packed_from_copies_in_c_order() -> None:
    a = np.arange(24.0, dtype="float32").reshape(2, 3, 4)
    given = {"f": np.asfortranarray(a[0]), "swapped": np.moveaxis(a, 0, -2), "strided": a[:, ::2, 1:], "none": a[:0],
             "one": np.asarray(3), "reversed": a[::-1], "bool": a > 3}
    assert_same(unpack(pack(given)), {name: np.array(value, order="C") for name, value in given.items()})


def test_what_decides_the_last_bits_is_told() -> None:
    told = blas_in_use()
    assert told["numpy"] == np.__version__
    assert all(type(value) is str and value for value in told.values())
