"""What can compute on this machine."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .devices import Device
from .gpu import DeviceError, import_cupy
from .libraries import ops_of

__all__ = ["survey"]


def survey() -> list[dict[str, Any]]:
    """Return for each device its name, whether it works, and its facts or the reason and remedy.

    Returns
    -------
    list of dict
        With ``device``, ``works``, ``detail``, and ``persistent``: whether a kernel can make many updates in one launch
        there, and if not, why. The CPU comes first.
    """
    free = "" if (memory := Device().free_memory()) is None else f", {memory / 2**30:.1f} GiB free"
    numpy = f"NumPy {np.__version__}{ops_of(np.empty(0)).kernels}"
    rows = [{"device": "cpu", "works": True, "detail": f"{numpy}, {os.cpu_count()} cores{free}",
             "persistent": "no: cpu is no GPU"}]
    try:
        cupy = import_cupy()
    except DeviceError as error:
        return [*rows, {"device": "cuda", "works": False, "detail": str(error), "persistent": "no: it does not work"}]
    for index in range(cupy.cuda.runtime.getDeviceCount()):
        row: dict[str, Any] = {"device": f"cuda:{index}", "works": True, "persistent": "no: it does not work"}
        try:
            here = Device(row["device"])
            properties = cupy.cuda.runtime.getDeviceProperties(index)
            major = properties.get("major", 0)
            row["persistent"] = "yes" if major >= 6 else f"no: compute capability {major}, 6 is needed"
            row["detail"] = f"{properties['name'].decode()}, {(here.free_memory() or 0) / 2**30:.1f} GiB free"
        except DeviceError as error:
            row |= {"works": False, "detail": str(error)}
        rows.append(row)
    return rows
