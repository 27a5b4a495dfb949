"""The launch of a kernel that makes many updates of a network: see ``persistent.cu``."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..devices import Device
from .launch import C_NAMES

__all__ = ["C_TYPES", "CompileError", "Limits", "compile_kernel", "fixed_source", "launch", "limits"]

#: C's names of the dtypes that the kernel reads: no half, which needs a header of its own.
C_TYPES = {dtype: name for dtype, name in C_NAMES.items() if dtype != "float16"}


class CompileError(RuntimeError):
    """A kernel does not compile here; the message says why."""


class Limits(NamedTuple):
    """What a GPU has for a kernel all of whose blocks run at once, one on each multiprocessor."""

    blocks: int
    shared: int  # bytes of shared memory of a block


def limits(device: Device) -> Limits:
    """Return the limits of a GPU."""
    attributes = device.native.attributes
    # A kilobyte is the system's, and the sums of a block's teams are in shared memory, too.
    return Limits(attributes["MultiProcessorCount"], attributes["MaxSharedMemoryPerBlockOptin"] - 2048)


def fixed_source() -> str:
    """Return the part of the source that does not depend on the network."""
    return Path(__file__).with_suffix(".cu").read_text("utf-8")


@functools.lru_cache(maxsize=64)
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

    Raises
    ------
    CompileError
        If it does not compile.
    """
    cupy = importlib.import_module("cupy")
    # CuPy 13 asks for C++11 by default, which the header of cooperative groups no longer takes.
    kernel = cupy.RawKernel(source, "train", ("--std=c++17",), enable_cooperative_groups=cooperative)
    try:
        kernel.compile()
    except cupy.cuda.compiler.CompileException as error:
        lines = str(error).strip().splitlines()
        raise CompileError(next((line for line in lines if "error" in line), lines[0])) from error
    if shared > 48 * 1024:
        kernel.max_dynamic_shared_size_bytes = shared
    return kernel


def launch(kernel: Any, blocks: int, threads: int, shared: int, arrays: Sequence[Array], *numbers: int) -> None:
    """Launch a kernel on the current stream with pointers to arrays, and then integers."""
    kernel((blocks,), (threads,), (*arrays, *map(np.int32, numbers)), shared_mem=shared)
