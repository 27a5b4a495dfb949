"""The launch of a kernel that makes many updates of a network."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..arrays import Array
from ..devices import Device

__all__ = ["C_TYPES", "Limits", "compile_kernel", "launch", "limits"]

#: C's names of the dtypes that the kernel reads.
C_TYPES = {"float32": "float", "float64": "double", "bool": "bool", "int8": "signed char", "int16": "short",
           "int32": "int", "int64": "long long", "uint8": "unsigned char", "uint16": "unsigned short",
           "uint32": "unsigned int", "uint64": "unsigned long long"}


class Limits(NamedTuple):
    """What a GPU has for a kernel all of whose blocks run at once, one on each multiprocessor."""

    blocks: int
    shared: int  # bytes of shared memory of a block


def limits(device: Device) -> Limits:
    """Return the limits of a GPU."""
    attributes = device.native.attributes
    # A kilobyte is the system's, and the sums of a block's teams are in shared memory, too.
    return Limits(attributes["MultiProcessorCount"], attributes["MaxSharedMemoryPerBlockOptin"] - 2048)


@functools.lru_cache(maxsize=256)
def compile_kernel(source: str, cooperative: bool, shared: int, device: Device) -> Any:
    """Return the kernel ``train`` of a source, compiled for the device, which is the current one.

    Parameters
    ----------
    source : str
        Its CUDA C++.
    cooperative : bool
        Whether its blocks wait for each other.
    shared : int
        Bytes of dynamic shared memory.
    device : Device
        Where it runs.
    """
    kernel = importlib.import_module("cupy").RawKernel(source, "train", enable_cooperative_groups=cooperative)
    if shared > 48 * 1024:
        kernel.max_dynamic_shared_size_bytes = shared
    kernel.compile()
    return kernel


def launch(kernel: Any, blocks: int, threads: int, shared: int, arrays: Sequence[Array], *numbers: int) -> None:
    """Launch a kernel on the current stream with pointers to arrays, and then integers."""
    integers = [importlib.import_module("numpy").int32(number) for number in numbers]
    kernel((blocks,), (threads,), (*arrays, *integers), shared_mem=shared)
