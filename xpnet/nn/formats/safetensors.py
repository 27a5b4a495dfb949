"""Networks on disk: arrays in safetensors, the architecture as JSON in the file's header. Nothing is unpickled."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ...backend import Device, blas, to_numpy
from ...files import kinds
from ...files.storage import DamagedError, read_file, replace_file
from .. import initializers
from ..layers import LAYERS
from ..per_model import listed
from ..sequential import Sequential
from .dtypes import as_supported

if TYPE_CHECKING:
    from ..network import Network

__all__ = ["CheckpointError", "architecture_from", "blas_in_use", "pack", "plain", "readable",
           "save_network", "unpack"]

_FORMAT = "xpnet network 1"
_HEADER = 2**22  # bytes of a safetensors header, which is JSON, at most


class CheckpointError(ValueError):
    """A file is no network of xpnet's; the message names the file and what is wrong."""


def pack(arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the content of a safetensors file: the same for the same arrays and metadata."""
    # C-ordered copies: safetensors writes a transposed view's memory as it lies, which is silently wrong.
    content = save({name: np.array(to_numpy(a), order="C") for name, a in arrays.items()})
    if not metadata:
        return content
    # The library writes several metadata in another order each time.
    size = int.from_bytes(content[:8], "little")
    header = json.dumps({"__metadata__": dict(metadata), **json.loads(content[8 : 8 + size])}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def unpack(content: bytes) -> dict[str, np.ndarray]:
    """Return the arrays in a safetensors file's content.

    Raises
    ------
    CheckpointError
        If it is no such file, or damaged.
    """
    _header(content)
    try:
        return load(content)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"not a safetensors file of numbers that NumPy has ({error})") from error


def _header(content: bytes) -> dict[str, Any]:
    """Read the header, before anything believes what it says."""
    if kinds.kind_of(content[: kinds.START]) is not kinds.SAFETENSORS:
        raise CheckpointError(f"expected a safetensors file, got {kinds.describe(content[: kinds.START])}")
    size = int.from_bytes(content[:8], "little")
    if not 2 <= size <= min(_HEADER, len(content) - 8):
        raise CheckpointError(f"not a safetensors file: a header of {size:,} bytes in {len(content):,}")
    try:
        header = json.loads(content[8 : 8 + size])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"not a safetensors file: its header is no JSON ({error})") from error
    if not isinstance(header, dict):
        raise CheckpointError("not a safetensors file: its header is no JSON object")
    return header


def save_network(path: str | Path, network: Network) -> None:
    """Write a network to ``path``: under a temporary name first, so that a file is whole or absent."""
    path = Path(path)
    metadata = {"format": _FORMAT, "architecture": json.dumps(network.architecture.config(), default=plain)}
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no directory {path.parent} to write {path.name} to")
    replace_file(path, pack(network.arrays, metadata))


def load_network(
    make: Callable[[Sequential, dict[str, Any]], Network], path: str | Path, device: str | Device = "cpu"
) -> Network:
    """Read a network that ``save_network`` wrote, and make it of its layers and arrays by ``make``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CheckpointError
        If it is damaged, or not a network.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no network at {path}: expected a file that Network.save wrote")
    here = Device(device) if isinstance(device, str) else device
    try:
        content = read_file(path, readable())
        metadata = _header(content).get("__metadata__") or {}
        if metadata.get("format") != _FORMAT:
            raise CheckpointError(
                f"expected the format {_FORMAT!r}, which Network.save writes, got "
                f"{str(metadata.get('format'))[:80]!r}; Network.from_torch(layers, safetensors.numpy.load_file(path)) "
                "reads the weights of a torch module")
        architecture = architecture_from(json.loads(metadata["architecture"]))
        return make(architecture, {name: here.asarray(as_supported(name, a)) for name, a in unpack(content).items()})
    except (DamagedError, AttributeError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a network that xpnet wrote ({str(error)[:500]})") from error


def architecture_from(config: Any) -> Sequential:
    """Make a network from what ``Sequential.config`` gives; only known layers and initializers are made."""
    known = {**LAYERS, **{name: getattr(initializers, name) for name in ("He", "Xavier", "Normal")}}

    def make(value: Any) -> Any:
        if isinstance(value, dict):
            fields = {key: make(v) for key, v in value.items() if key != "type"}
            if value.get("type") not in known:
                raise ValueError(f"unknown layer {value.get('type')!r}; known are {', '.join(known)}")
            return known[value["type"]](**fields)
        return value

    return Sequential(config["in_features"], [make(layer) for layer in config["layers"]], config.get("feature_names"))


def plain(value: Any) -> Any:
    """Return what JSON holds of a layer's or a trainer's field."""
    if hasattr(value, "tolist"):
        return listed(value)
    raise TypeError(f"fields are saved as JSON, which has no {type(value).__name__}: {value!r}")


def readable() -> int:
    """Return how many bytes a file may have to be read: it is in memory up to three times."""
    free = Device().free_memory()
    return free // 3 if free else 2**40


def blas_in_use() -> dict[str, str]:
    """Return NumPy's BLAS, its instruction set and its number of threads, as far as they are known."""
    built: Any = np.show_config(mode="dicts")
    made: Any = built["Build Dependencies"]["blas"]
    told = {"numpy": np.__version__, "instructions": ", ".join(built["SIMD Extensions"]["found"]),
            "blas": f"{made.get('name')} {made.get('version')}"}
    library = blas._library()
    if library is not None:
        kernels = library.scipy_openblas_get_corename64_
        kernels.restype = ctypes.c_char_p
        told["blas"] += f" {kernels().decode()}"
        told["threads"] = str(library.scipy_openblas_get_num_threads64_())
    return told
