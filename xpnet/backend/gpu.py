"""CuPy, if it works here, and what to do if it does not."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["DeviceError", "import_cupy"]


class DeviceError(RuntimeError):
    """A device was asked for that does not exist or does not work here; the message says what to do."""


def import_cupy() -> Any:
    """Import CuPy and see that it works, or say in one error why not and what to do."""
    try:
        version = importlib.import_module("cupy").__version__
        cupy = importlib.import_module("array_api_compat.cupy")
    except ImportError as error:
        if getattr(error, "name", None) == "cupy":
            raise DeviceError(
                "CuPy is not installed: pip install 'xpnet[cuda12]' (or 'xpnet[cuda13]' for CUDA 13), "
                "or use --device cpu"
            ) from None
        raise DeviceError(
            f"CuPy is installed but does not import ({str(error).strip().splitlines()[0]}): reinstall the extra "
            "that fits your CUDA version (xpnet[cuda12] or xpnet[cuda13]), or use --device cpu"
        ) from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy raises its own CUDARuntimeError, unknown until CuPy is there
        raise DeviceError(
            f"CuPy {version} finds no working GPU ({error}): install or update the NVIDIA driver "
            "(nvidia-smi must work), or use --device cpu"
        ) from None
    if not count:
        raise DeviceError("CuPy finds no GPU: check CUDA_VISIBLE_DEVICES and nvidia-smi, or use --device cpu")
    built, driver = cupy.cuda.runtime.runtimeGetVersion() // 1000, cupy.cuda.runtime.driverGetVersion() // 1000
    if built > driver:
        raise DeviceError(
            f"CuPy {version} is built for CUDA {built}, the driver supports CUDA {driver}: "
            f"pip uninstall cupy-cuda{built}x, then pip install 'xpnet[cuda{driver}]', or update the driver"
        )
    return cupy
