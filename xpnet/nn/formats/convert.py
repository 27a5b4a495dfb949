"""Networks to and from other formats: npz files, a torch ``Sequential``'s state dict (ONNX: ``onnx``).

DLPack needs no conversion: the entries of ``network.arrays`` are arrays of the library that they lie in, so
``torch.from_dlpack(network.arrays["W1"])`` is a view of the same memory, and ``Network(architecture, arrays)`` takes
any library's arrays, after ``xpnet.backend.from_dlpack`` those that have no in-place operators.

Between batch norm here and in torch there are two differences, neither of which changes a prediction. The running
variance follows the batches' biased variances here and their unbiased ones, larger by n / (n - 1), in torch, so it
moves that way when the other trains on. And ``momentum`` is the share that stays here, the share that goes in torch:
0.9 here is 0.1 there. ``eps`` means the same, is 1e-5 in both by default, and like momentum is part of the layer, not
of the state dict: make the torch layer as ``BatchNorm1d(width, eps=layer.eps, momentum=1 - layer.momentum)``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...backend import Device, to_numpy
from ...files import kinds
from ..layers import BatchNorm, Dropout, Layer, LeakyReLU, Linear, ReLU, Standardize, Tanh
from ..per_model import listed
from ..sequential import Sequential
from .dtypes import as_supported
from .safetensors import CheckpointError, architecture_from
from .state_dict import TORCH_NAMES

if TYPE_CHECKING:
    from ..network import Network

__all__ = ["fold", "save_npz", "to_torch"]

_LOST = 1e-6  # standard deviations of a feature that folding its standardisation into a Linear may lose
_ARCHITECTURE = "architecture"  # the entry of an npz file that holds the layers, as JSON


def save_npz(path: str | Path, network: Network) -> None:
    """Write a network to an npz file: its arrays by name, and its layers as JSON in the entry ``architecture``.

    Parameters
    ----------
    path : path
        The file, to which no suffix is added; it is whole or not there.
    network : Network
        One network, or several models.

    Raises
    ------
    TypeError
        If a layer of one's own has a field that JSON cannot hold.
    """
    config = json.dumps(network.architecture.config(), default=_plain)
    arrays = {name: np.array(to_numpy(a), order="C") for name, a in network.arrays.items()}
    entries: dict[str, Any] = {_ARCHITECTURE: np.asarray(config), **arrays}
    write_file(Path(path), lambda file: np.savez(file, **entries))


def load_npz(
    make: Callable[[Sequential, dict[str, Any]], Network], path: str | Path, architecture: Sequential | None = None,
    device: str | Device = "cpu",
) -> Network:
    """Read a network from an npz file, and make it of its layers and arrays by ``make``: see ``Network.from_npz``."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no network at {path}: expected an npz file")
    here = Device(device) if isinstance(device, str) else device
    if kinds.kind_of(kinds.start_of(path)) is not kinds.NPZ:
        raise CheckpointError(f"{path}: expected an npz archive, got {kinds.describe(path)}")
    try:
        with path.open("rb") as stream:  # np.load itself leaves a damaged file open
            file: Any = np.load(stream, allow_pickle=False)
            packed: Any = file.zip
            if sum(entry.file_size for entry in packed.infolist()) > 20 * path.stat().st_size + 2**20:
                raise CheckpointError(f"{path}: is packed more than 20 times, which weights are not; use np.savez")
            if architecture is None:
                if _ARCHITECTURE not in file:
                    raise CheckpointError(f"{path}: holds no {_ARCHITECTURE}; give the layers with architecture=")
                architecture = architecture_from(json.loads(str(file[_ARCHITECTURE])))
            missing = [name for name in architecture.shapes if name not in file]
            if missing:
                raise CheckpointError(f"{path}: lacks {', '.join(missing)}; it has {', '.join(file) or 'nothing'}")
            return make(architecture, {name: here.asarray(as_supported(name, file[name]), copy=True)
                                       for name in architecture.shapes})
    except CheckpointError:
        raise
    except Exception as error:  # zipfile, zlib, tokenize, struct: whatever a damaged file brings up
        objects = "allow_pickle" in str(error)  # NumPy's advice to unpickle
        why = "it holds Python objects, and nothing is unpickled: save arrays of numbers" if objects else error
        raise CheckpointError(f"{path}: not a network ({why})") from error


def to_torch(network: Network, dtype: str | None = None) -> dict[str, NDArray[Any]]:
    """Return the state dict of the torch ``Sequential`` with the same layers, as NumPy arrays.

    ``module.load_state_dict({name: torch.from_numpy(a) for name, a in to_torch(network).items()})`` loads it into
    ``torch.nn.Sequential(Linear, BatchNorm1d, ReLU, Dropout, ...)``, whose names are the layers' places. A
    Standardize layer at the beginning has no counterpart: it is folded into the first Linear, and takes no place.

    Parameters
    ----------
    network : Network
        A single network.
    dtype : {"float32", "float64"}, optional
        Dtype of the arrays, by default the network's. float64 is for ``module.double()``.

    Returns
    -------
    dict of str to numpy.ndarray
        Copies, which do not follow the network if it is trained on: ``0.weight`` (out, in), ``0.bias`` (out,),
        ``1.weight``, ``1.bias``, ``1.running_mean``, ``1.running_var`` (all (out,)) and ``1.num_batches_tracked``
        (int64, 0), ...

    Raises
    ------
    ValueError
        If the network is several models, or standardises features from a mean so large beside their deviation that
        a Linear of this dtype would round it away.
    TypeError
        If it has a layer that torch does not know.
    """
    if dtype not in (None, "float32", "float64"):
        raise ValueError(f"to_torch: expected dtype 'float32' or 'float64', got {dtype!r}")
    network = single(network, "to_torch")
    kind = np.dtype(dtype or to_numpy(network.arrays[network.architecture.parameters[0]]).dtype)
    network = type(network)(network.architecture, {
        name: network.device.asarray(a, None if name in network.architecture.inputs else kind.name)
        for name, a in network.arrays.items()})
    if network.architecture.inputs:
        offset, scale = (to_numpy(network.arrays[name]) for name in network.architecture.inputs)
        _check_folding(offset, scale, kind)
    network = folded(network, batch_norm=False, standardize=True, keep=(Dropout,))
    state: dict[str, NDArray[Any]] = {}
    for i, (layer, own) in enumerate(hosted(network)):
        if isinstance(layer, Linear):
            state |= {f"{i}.weight": np.array(own[0].T, order="C"), f"{i}.bias": own[1]}
        elif isinstance(layer, BatchNorm):
            state |= {f"{i}.{name}": a for name, a in zip(TORCH_NAMES, own, strict=True)}
            state[f"{i}.num_batches_tracked"] = np.asarray(0, np.int64)
        elif not isinstance(layer, Dropout | LeakyReLU | ReLU | Tanh):
            raise TypeError(f"to_torch: layer {i} is {layer!r}, which torch.nn has no counterpart for")
    return state


def _check_folding(offset: NDArray[Any], scale: NDArray[Any], dtype: np.dtype[Any]) -> None:
    """Check that a Linear with the offset in its bias is as good as one behind the standardisation.

    Its product and its bias then are as large as the mean in standard deviations, and cancel but for their rounding.
    """
    lost = abs(offset * scale) * float(np.finfo(dtype).eps) / 2
    i = int(lost.argmax())
    if lost[i] > _LOST:
        remedy = ("use to_torch(dtype='float64') for a module.double()" if dtype == np.float32 else
                  "subtract a constant near the mean from this feature before training")
        raise ValueError(
            f"to_torch: feature {i} has the mean {offset[i]:g} and the standard deviation {1 / scale[i]:g}; a Linear "
            f"in {dtype} that standardises it is off by up to {lost[i]:.0e} deviations, expected at most {_LOST:g}: "
            f"{remedy}")


def fold(network: Network) -> Network:
    """Return a network that predicts the same with less: batch norm folded into the Linear before it, no dropout.

    ``(x @ W + b - mean) * s + beta`` with ``s = gamma / sqrt(var + eps)`` is ``x @ (W * s) + (b - mean) * s + beta``.
    It is calculated in float64 and rounded once. Batch norm that does not follow a Linear stays.

    Parameters
    ----------
    network : Network
        One network, or several models.

    Returns
    -------
    Network
        For prediction, with copies of all arrays: it stays as it is if the original is trained on.
    """
    return folded(network)


def folded(
    network: Network, *, batch_norm: bool = True, standardize: bool = False, keep: tuple[type[Layer], ...] = ()
) -> Network:
    layers: list[Layer] = []
    arrays: list[list[NDArray[Any]]] = []
    before: list[NDArray[Any]] = []  # offset and scale that wait for the first Linear
    for layer, own in hosted(network):
        if isinstance(layer, Dropout) and not isinstance(layer, keep):
            continue
        if isinstance(layer, Standardize) and standardize:
            before = [np.asarray(a, np.float64) for a in own]
            continue
        if before and not isinstance(layer, Linear):
            raise TypeError(f"expected a Linear after Standardize, to fold it into, got {layer!r}")
        if before:
            (offset, scale), (W, b) = before, own
            wide = scale[:, None] * W.astype(np.float64)
            own = [wide.astype(W.dtype), (b - (offset @ wide)).astype(b.dtype)]
            before = []
        if isinstance(layer, BatchNorm) and batch_norm and layers and isinstance(layers[-1], Linear):
            gamma, beta, mean, var = (np.asarray(a, np.float64) for a in own)
            (W, b), s = arrays[-1], gamma / np.sqrt(var + layer.eps)
            arrays[-1] = [(W * s[..., None, :]).astype(W.dtype), ((b - mean) * s + beta).astype(b.dtype)]
            continue
        layers.append(layer)
        arrays.append(own)
    architecture = network.architecture.with_layers(layers)
    named = {name: network.device.asarray(np.ascontiguousarray(a)) for names, own in zip(
        architecture._names, arrays, strict=True) for name, a in zip(names, own, strict=True)}
    return type(network)(architecture, named)


def single(network: Network, owner: str) -> Network:
    """Return a network, having checked that it is one model."""
    if network.models:
        raise ValueError(f"{owner}: expected one network, got {network.models[0]} models; take one of them, like "
                         "network.member(0)")
    return network


def hosted(network: Network) -> list[tuple[Layer, list[NDArray[Any]]]]:
    """Return each layer with copies of its arrays on the host, parameters first.

    Views would change as a live network is trained on, and part of what is made of them is copied anyway.
    """
    return [(layer, [np.array(to_numpy(network.arrays[name]), order="C") for name in names])
            for layer, names in zip(network.architecture.layers, network.architecture._names, strict=True)]


def write_file(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file under a temporary name first, so that it is whole or absent."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no directory {path.parent} to write {path.name} to")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            write(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return listed(value)
    raise TypeError(f"a layer's fields are saved as JSON, which has no {type(value).__name__}: {value!r}")
