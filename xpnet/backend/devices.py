"""Devices: where arrays lie and are computed, which of them work here, and what to do where one does not."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from typing import Any

import array_api_compat
import numpy as np

from .arrays import NAMESPACES, Array, namespace, to_numpy
from .gpu import DeviceError, import_cupy
from .memory import format_bytes

__all__ = ["Device", "DeviceError", "MixedDevicesError", "OutOfMemoryError", "check_same_device", "from_dlpack"]


class OutOfMemoryError(MemoryError):
    """Memory ran out; the message says how much was asked, how much is free, and what to lower."""


class MixedDevicesError(ValueError):
    """Arrays of different libraries or devices met; the message names both sides and the fix."""


def from_dlpack(x: Any) -> Array:
    """Return ``x`` as an array that xpnet computes on: itself, or a view through DLPack without a copy.

    Arrays of NumPy, CuPy, PyTorch and array-API libraries with in-place operators are returned as they are.
    Others (JAX arrays, say) are viewed by NumPy where they lie on the host, and by CuPy on a GPU.

    Parameters
    ----------
    x : array
        Anything with ``__dlpack__``.

    Returns
    -------
    array
        With the memory of x.

    Raises
    ------
    TypeError
        If ``x`` is no array, or has a mask.
    """
    if hasattr(x, "mask") and hasattr(x, "filled"):
        raise TypeError("expected an array without a mask; use x.filled(...), or leave the masked examples out")
    if isinstance(x, np.ndarray) or array_api_compat.is_cupy_array(x) or array_api_compat.is_torch_array(x):
        return x
    if hasattr(x, "__array_namespace__") and not array_api_compat.is_jax_array(x):
        return x
    if not hasattr(x, "__dlpack_device__"):
        raise TypeError(f"expected an array, got {type(x).__name__}; wrap it in numpy.asarray(...)")
    kind, index = x.__dlpack_device__()
    return np.from_dlpack(x) if int(kind) == 1 else Device(f"cuda:{index}").xp.from_dlpack(x)  # 1 is kDLCPU


class Device:
    """A place where arrays live and are computed: a namespace and one of its devices.

    Parameters
    ----------
    name : str
        ``"cpu"`` (NumPy), ``"cuda"`` or ``"cuda:1"`` (CuPy), or ``"auto"``: a GPU where one works, else
        the CPU, as ``name`` then tells and ``why`` explains.

    Raises
    ------
    ValueError
        If the name is none of these.
    DeviceError
        If the device does not work here; the message says why and what to do.
    """

    name: str

    def __init__(self, name: str = "cpu") -> None:
        self.why: str = ""
        kind, colon, index = str(name).partition(":")
        if kind not in ("cpu", "cuda", "auto") or (colon and (kind != "cuda" or not index.isdecimal())):
            raise ValueError(f"expected the device 'cpu', 'cuda', 'cuda:N' or 'auto', got {str(name)[:80]!r}")
        if kind == "auto":
            try:
                self._use_cuda(0)
                return
            except DeviceError as error:
                self.why = str(error)
        if kind == "cuda":
            self._use_cuda(int(index or 0))
            return
        self.xp: Any = array_api_compat.array_namespace(np.empty(0))
        self.name = "cpu"
        self.native: Any = "cpu"

    def _use_cuda(self, index: int) -> None:
        cupy = import_cupy()
        count = cupy.cuda.runtime.getDeviceCount()
        if index >= count:
            raise DeviceError(f"there is no cuda:{index}: {count} GPU(s) found, cuda:0 to cuda:{count - 1}")
        try:
            with cupy.cuda.Device(index):
                cupy.zeros(1) + 1
        except Exception as error:
            raise DeviceError(f"cuda:{index} does not compute ({error}): is it out of memory? see nvidia-smi") from None
        self.xp, self.name, self.native = cupy, f"cuda:{index}", cupy.cuda.Device(index)

    @classmethod
    def backend(cls, name: str) -> Device:
        """Return the device of a backend by its name: numpy, cupy, torch (on the CPU) or strict.

        ``strict`` is array-api-strict on its ``device1``, which refuses what the standard does not promise
        and any silent way to the host: a stand-in for a GPU.

        Parameters
        ----------
        name : str
            ``"numpy"``, ``"cupy"``, ``"torch"`` or ``"strict"``.
        """
        if name in ("numpy", "cupy"):
            return cls({"numpy": "cpu", "cupy": "cuda"}[name])
        if name not in ("torch", "strict"):
            raise ValueError(f"expected the backend numpy, cupy, torch or strict, got {name!r}")
        module = {"torch": "array_api_compat.torch", "strict": "array_api_strict"}[name]
        try:
            xp = importlib.import_module(module)
        except ImportError as error:
            package = {"torch": "torch", "strict": "array-api-strict"}[name]
            raise DeviceError(f"the backend {name} needs {package} ({error}): pip install {package}") from None
        return cls.of(xp.zeros(1, device=xp.Device("device1")) if name == "strict" else xp.zeros(1))

    @classmethod
    def of(cls, x: Array) -> Device:
        """Return the device on which ``x`` lies, whatever its library.

        Parameters
        ----------
        x : array
            An array of any library.
        """
        self = cls.__new__(cls)
        self.why = ""
        self.xp, self.native = namespace(x), array_api_compat.device(x)
        if isinstance(x, np.ndarray):
            self.name = "cpu"
        elif array_api_compat.is_cupy_array(x):
            self.name = f"cuda:{self.native.id}"
        else:
            self.name = f"{self.xp.__name__.rpartition('.')[2]} {self.native}"
        return self

    def __repr__(self) -> str:
        return f"Device({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self.name.startswith(("cpu", "cuda")):
            return Device, (self.name,), {"why": self.why}
        return _device_in, (self.xp.__name__, self.native)

    @property
    def is_host(self) -> bool:
        """Whether arrays here are computed by the calling thread, as on a CPU, rather than queued."""
        return "cuda" not in self.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def asarray(self, x: Any, dtype: str | None = None, *, copy: bool | None = None) -> Array:
        """Bring ``x`` (any array, or nested sequences) here, as ``dtype`` where one is named.

        Parameters
        ----------
        x : array or nested sequences
            An array of any library, on any device.
        dtype : str, optional
            What it becomes; its own by default.
        copy : bool, optional
            True for a copy in any case, False for none or an error; by default where needed.

        Returns
        -------
        array
            On this device, of the same shape.
        """
        if type(x) not in NAMESPACES or namespace(x) is not self.xp:
            x = to_numpy(x)
        kind = None if dtype is None else getattr(self.xp, dtype)
        with self.activate():
            return self.xp.asarray(x, dtype=kind, device=self.native, copy=copy)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an array of zeros here: pages are touched before the first step needs them.

        Parameters
        ----------
        shape : tuple of int
            The shape.
        dtype : str
            The dtype's name.

        Returns
        -------
        array
            Zeros, on this device.
        """
        with self.activate():
            return self.xp.zeros(shape, dtype=getattr(self.xp, dtype), device=self.native)

    @contextlib.contextmanager
    def activate(self) -> Iterator[None]:
        """Make this the current device, where the library has such a notion, and explain a lack of memory.

        Yields
        ------
        None
            In the context, the device is the current one.

        Raises
        ------
        OutOfMemoryError
            Where what is done inside asks for more memory than there is.
        """
        with self.native if self.name.startswith("cuda") else contextlib.nullcontext():
            try:
                yield
            except OutOfMemoryError:
                raise
            except MemoryError as error:  # NumPy's and CuPy's own say how much was asked
                free = self.free_memory()
                left = "how much is free is unknown" if free is None else f"{format_bytes(free)} are free"
                raise OutOfMemoryError(
                    f"out of memory on {self.name}: {str(error).rstrip('.')}; {left}. Lower the batch size, the "
                    "number of models, or the widths of the layers"
                ) from error

    @contextlib.contextmanager
    def ignore_overflow(self) -> Iterator[None]:
        """Leave out NumPy's warnings of overflow, where whoever computes looks for what is not finite.

        Yields
        ------
        None
            In the context, NumPy does not warn.
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            yield

    def synchronize(self) -> None:
        """Wait until everything queued here is done."""
        if self.name.startswith("cuda"):
            with self.native:
                self.xp.cuda.get_current_stream().synchronize()

    def free_memory(self) -> int | None:
        """Return the free memory in bytes, or None where it cannot be told.

        Returns
        -------
        int or None
            Bytes.
        """
        if self.name.startswith("cuda"):
            with self.native:
                pool, free = self.xp.get_default_memory_pool(), int(self.xp.cuda.runtime.memGetInfo()[0])
                limit = int(pool.get_limit())  # of CUPY_GPU_MEMORY_LIMIT; 0 if there is none
                if limit:
                    free = min(free, max(0, limit - int(pool.total_bytes())))
                return free + int(pool.free_bytes())
        try:
            with open("/proc/meminfo", encoding="ascii") as lines:
                return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        except (OSError, StopIteration):
            names = getattr(os, "sysconf_names", {})
            if "SC_AVPHYS_PAGES" in names:
                return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            return None


def _device_in(module: str, native: Any) -> Device:
    """Return a device of an array library by the name of its namespace: a module cannot be pickled."""
    return Device.of(importlib.import_module(module).zeros(1, device=native))


def check_same_device(**arrays: Array) -> Device:
    """Return the device that all ``arrays`` share.

    Parameters
    ----------
    **arrays : array
        At least one, by the names that an error gives them.

    Returns
    -------
    Device
        Where they all lie.

    Raises
    ------
    ValueError
        If they do not share one; it names both sides and the fix.
    """
    first: tuple[str, Device] | None = None
    for name, x in arrays.items():
        here = Device.of(x)
        if first is None:
            first = (name, here)
        elif first[1] != here:
            raise MixedDevicesError(
                f"{first[0]} is on {first[1].name}, {name} on {here.name}; bring them together with "
                f"xpnet.Device.of({first[0]}).asarray({name})"
            )
    if first is None:
        raise ValueError("expected at least one array")
    return first[1]
