"""Networks from torch state dicts: which module belongs to which layer, whatever the order of the mapping."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...backend import Device, to_numpy
from ..layers import BatchNorm, Layer, Linear, Standardize
from ..per_model import shown
from ..scaling import SCALING_DTYPE
from ..sequential import Sequential
from .dtypes import as_supported

if TYPE_CHECKING:
    from ..network import Network

__all__ = ["TORCH_NAMES", "from_torch"]

TORCH_NAMES = ("weight", "bias", "running_mean", "running_var")

Module = dict[str, NDArray[Any]]


def from_torch(
    make: Callable[[Sequential, dict[str, Any]], Network], architecture: Sequential, state: Mapping[str, Any],
    keys: Sequence[str] | None = None, device: str | Device = "cpu",
) -> Network:
    """Find the arrays of a torch module's state dict, and make a network of them: see ``Network.from_torch``."""
    here = Device(device) if isinstance(device, str) else device
    given: Any = architecture, state
    if [*map(isinstance, given, (Sequential, Mapping))] != [True, True]:
        raise TypeError(f"from_torch: expected layers and a state dict, got {' and '.join(map(shown, given))}")
    modules: dict[str, Module] = {}
    for key, value in state.items():
        prefix, _, name = str(key).rpartition(".")
        if name != "num_batches_tracked":
            modules.setdefault(prefix, {})[name] = as_supported(f"from_torch: {key}", _host(key, value))
    owners = [(layer, names) for layer, names in zip(architecture.layers, architecture._names, strict=True)
              if names and not isinstance(layer, Standardize)]
    for layer, _ in owners:
        if not isinstance(layer, Linear | BatchNorm):
            raise TypeError(f"from_torch: {layer!r} has arrays that torch has no names for")
    shapes = [architecture.shapes[names[0]] for _, names in owners]
    order = _named(keys, modules, owners) if keys is not None else _matched(modules, owners, shapes)
    arrays: dict[str, NDArray[Any]] = {}
    for (layer, names), prefix in zip(owners, order, strict=True):
        own, batch_norm = modules[prefix], isinstance(layer, BatchNorm)
        needed = TORCH_NAMES if batch_norm else TORCH_NAMES[:1]
        if not set(needed) <= set(own) <= {*needed, "bias"}:
            raise ValueError(f"from_torch: expected {', '.join(needed)} of {prefix or 'the module'} for "
                             f"{type(layer).__name__}, got {', '.join(own)}")
        weight = own["weight"] if batch_norm else own["weight"].T
        found = [weight, own.get("bias", np.zeros(weight.shape[-1:], weight.dtype)), *(own[n] for n in needed[2:])]
        for name, a in zip(names, found, strict=True):
            if a.shape != architecture.shapes[name]:
                raise ValueError(f"from_torch: {prefix}: expected shape {architecture.shapes[name]} for {name}, got "
                                 f"{a.shape}{'' if batch_norm else ' (transposed)'}")
            arrays[name] = a
    for layer, names in zip(architecture.layers, architecture._names, strict=True):
        if isinstance(layer, Standardize):
            arrays |= {name: np.full(architecture.shapes[name], layer.initial(own), SCALING_DTYPE)
                       for name, own in zip(names, layer.statistics, strict=True)}
    return make(architecture, {name: here.asarray(np.array(a, order="C")) for name, a in arrays.items()})


def _host(key: str, value: Any) -> NDArray[Any]:
    try:
        return to_numpy(value)
    except (TypeError, ValueError, RuntimeError, BufferError, AttributeError) as error:  # bfloat16, sparse, meta, ...
        raise TypeError(f"from_torch: {key} cannot be read as a NumPy array ({error}); expected dense tensors of a "
                        "dtype that NumPy has, such as {key: a.float() for key, a in state.items()}") from error


def _named(keys: Sequence[str], modules: Mapping[str, Module], owners: Sequence[tuple[Layer, Any]]) -> list[str]:
    """Return the modules that a caller named, after checking that they exist and that there is one for each layer."""
    if isinstance(keys, str) or len(keys) != len(owners) or len(set(keys)) != len(keys):
        raise ValueError(f"from_torch: expected keys= to name {len(owners)} different modules, one for each of "
                         f"{_kinds(owners)}, got {keys!r}")
    unknown = [key for key in keys if key not in modules]
    if unknown:
        raise ValueError(f"from_torch: keys= names {', '.join(map(repr, unknown))}; the state dict has "
                         f"{', '.join(map(repr, modules)) or 'none'}")
    return list(keys)


def _matched(
    modules: Mapping[str, Module], owners: Sequence[tuple[Layer, Any]], shapes: Sequence[tuple[int, ...]]
) -> list[str]:
    """Return the module of each layer, by kind, shape, and the numbers in the names.

    The order of the mapping is no evidence: safetensors files sort their keys. Neither is the alphabet, in which
    ``hidden`` comes before ``input``. So modules that would fit in each other's place must differ in numbers only.

    Raises
    ------
    ValueError
        If the number of modules is another one, or the names leave open which of two modules comes first.
    """
    if len(owners) != len(modules):
        raise ValueError(f"from_torch: expected {len(owners)} modules with arrays, one for each of {_kinds(owners)}, "
                         f"got {', '.join(modules) or 'none'}; keys= names those to take, in the layers' order")
    left = sorted(modules, key=_natural)
    order: list[str] = []
    for (layer, _), shape in zip(owners, shapes, strict=True):
        fitting = [prefix for prefix in left if _fits(layer, shape, modules[prefix])]
        if not fitting:  # the caller compares each module with its layer, and says what is wrong
            return sorted(modules, key=_natural)
        if len({_stem(prefix) for prefix in fitting}) > 1:
            raise _unclear(f"{', '.join(fitting)} fit in each other's place", modules)
        order.append(fitting[0])
        left.remove(fitting[0])
    last: dict[str, str] = {}
    for prefix in order:
        before = last.get(_stem(prefix), prefix)
        if _natural(before) > _natural(prefix):
            raise _unclear(f"by their shapes {before} comes before {prefix}", modules)
        last[_stem(prefix)] = prefix
    return order


def _unclear(why: str, modules: Mapping[str, Module]) -> ValueError:
    listed = sorted(modules, key=_natural)
    return ValueError(f"from_torch: {why}, so that names and shapes do not tell the order of the modules; list them "
                      f"in the layers' order, like keys={listed!r}")


def _fits(layer: Layer, shape: tuple[int, ...], own: Module) -> bool:
    weight = own.get("weight")
    if weight is None or isinstance(layer, BatchNorm) != ("running_mean" in own):
        return False
    return (weight.T if isinstance(layer, Linear) else weight).shape == shape


def _kinds(owners: Sequence[tuple[Layer, Any]]) -> str:
    return ", ".join(type(layer).__name__ for layer, _ in owners)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts ``fc2`` before ``fc10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _stem(name: str) -> str:
    return re.sub(r"[0-9]+", "#", name)
