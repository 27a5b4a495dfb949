"""Networks on disk: arrays in safetensors, the architecture as JSON in the file's header. Nothing is unpickled."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from . import initializers
from .backend import Device, to_numpy
from .layers import LAYERS

if TYPE_CHECKING:
    from .network import Network, Sequential

__all__ = ["CheckpointError", "architecture_from", "load_network", "save_network"]

_FORMAT = "xpnet network 1"


class CheckpointError(ValueError):
    """A file is no network of xpnet's; the message names the file and what is wrong."""


def save_network(path: str | Path, network: Network) -> None:
    """Write a network to ``path``: under a temporary name first, so that a file is whole or absent."""
    path = Path(path)
    # C-ordered copies: safetensors writes a transposed view's memory as it lies, which is silently wrong.
    arrays = {name: np.array(to_numpy(a), order="C") for name, a in network.arrays.items()}
    metadata = {"format": _FORMAT, "architecture": json.dumps(network.architecture.config(), default=_plain)}
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no directory {path.parent} to write {path.name} to")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(arrays, temporary, metadata)
        mask = os.umask(0)  # safetensors gives its files to their owner alone
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_network(path: str | Path, device: str | Device = "cpu") -> Network:
    """Read a network that ``save_network`` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CheckpointError
        If it is damaged, or not a network.
    """
    from .network import Network

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no network at {path}: expected a file that Network.save wrote")
    here = Device(device) if isinstance(device, str) else device
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise CheckpointError(f"{path}: expected the format {_FORMAT!r}, got {metadata.get('format')!r}")
            architecture = architecture_from(json.loads(metadata["architecture"]))
            arrays = {name: here.asarray(file.get_tensor(name), copy=True) for name in file.keys()}
        return Network(architecture, arrays)
    except CheckpointError:
        raise
    except (SafetensorError, AttributeError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a network that xpnet wrote ({error})") from error


def architecture_from(config: Any) -> Sequential:
    """Make a network from what ``Sequential.config`` gives; only known layers and initializers are made."""
    from .network import Sequential

    known = {**LAYERS, **{name: getattr(initializers, name) for name in ("He", "Xavier", "Normal")}}

    def make(value: Any) -> Any:
        if isinstance(value, dict):
            fields = {key: make(v) for key, v in value.items() if key != "type"}
            if value.get("type") not in known:
                raise ValueError(f"unknown layer {value.get('type')!r}; known are {', '.join(known)}")
            return known[value["type"]](**fields)
        return value

    return Sequential(config["in_features"], [make(layer) for layer in config["layers"]])


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a layer's fields are saved as JSON, which has no {type(value).__name__}: {value!r}")
