"""Sections: what machine this is, and every layer's numbers, forward and backward.

A float32 result of the device may be 4 times as far from NumPy's in float64 as NumPy's own float32 result is,
plus 1e-6 of the largest value that the same pass (forward or backward) gives.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from _gpu_section import EMULATION, Section

import xpnet
from xpnet import random
from xpnet.backend import Array, Device, form, survey, to_numpy
from xpnet.nn.gradcheck import CASES, EXAMPLES
from xpnet.nn.layers import Layer, Linear
from xpnet.nn.losses import LOSSES

FACTOR, SHARE = 4.0, 1e-6
Results = dict[str, np.ndarray]

# Environment ------------------------------------------------------------------------------------------------------

PACKAGES = ("numpy", "array-api-compat", "cupy-cuda12x", "cupy-cuda13x", "torch", "triton", "jax", "jaxlib")


def environment(section: Section, device: str) -> None:
    """Record versions, hardware and settings; see that the device works."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    section.result("versions", {"xpnet": xpnet.__version__, "python": platform.python_version(), **versions})
    section.result("commit", _output("git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"))
    section.result("host", {"platform": platform.platform(), "cores": os.cpu_count(), "processor": _processor()})
    section.result("settings", {name: value for name, value in sorted(os.environ.items())
                                if name.startswith(("CUPY_", "CUDA_", "NVIDIA_TF32", "XLA_"))
                                or name.endswith("_NUM_THREADS")})
    section.result("blas", _blas())
    section.result("devices", survey())
    section.result("nvidia_smi", _output(
        "nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm,power.limit",
        "--format=csv",
    ))
    here = Device(device)  # raises with the reason and the remedy
    total = float(to_numpy(here.xp.sum(here.asarray(np.arange(10.0), "float32"))))
    section.expect("the device adds ten numbers", total == 45.0, f"got {total}")
    fine = here.asarray(np.full((256, 256), 1.0 + 2.0**-12), "float32")  # TF32 keeps 10 bits of the fraction
    off = float(to_numpy(here.xp.max(here.xp.abs(fine @ here.asarray(np.eye(256), "float32") - fine))))
    section.expect("float32 products are not TF32", off == 0.0, f"off by {off}")
    name = f"cpu {platform.machine()}"
    if here.name != "cpu":
        runtime = here.xp.cuda.runtime
        properties = runtime.getDeviceProperties(here.native.id)
        name = properties["name"].decode()
        section.emulated = name == EMULATION
        section.result("gpu", {
            "name": name, "compute_capability": f"{properties['major']}.{properties['minor']}",
            "multiprocessors": properties["multiProcessorCount"], "memory_bytes": properties["totalGlobalMem"],
            "cuda_runtime": runtime.runtimeGetVersion(), "cuda_driver": runtime.driverGetVersion(),
        })
    section.result("device_name", name)
    section.result("headline", f"{name}, xpnet {xpnet.__version__}, NumPy {np.__version__}, Python {sys.version[:6]}")


def _output(*command: str) -> str | None:
    """Return what a program prints, or None where it is not there or fails."""
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=5, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _blas() -> str:
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[index]
    return json.dumps({key: blas.get(key) for key in ("name", "version")})


# Layers -----------------------------------------------------------------------------------------------------------


class Rounded(Device):
    """A device on which "float64" is another dtype, with values that are exact in float32.

    What the registry of the gradient check builds in float64 so is built in float32 from the same numbers.
    """

    def __init__(self, device: Device, dtype: str) -> None:
        self.__dict__.update(device.__dict__)
        self._dtype = dtype

    def asarray(self, x: Any, dtype: str | None = None, *, copy: bool | None = None) -> Array:
        """Bring ``x`` here."""
        if dtype == "float64":
            x, dtype = to_numpy(x).astype(np.float32), self._dtype
        return super().asarray(x, dtype, copy=copy)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return zeros here."""
        return super().empty(shape, self._dtype if dtype == "float64" else dtype)


def of_case(name: str, device: Device, dtype: str) -> tuple[Results, Results]:
    """Return the value and the gradients of an entry of the gradient check's registry."""
    f, arrays = CASES[name](Rounded(device, dtype))
    value, gradients = f(arrays)
    return {"value": to_numpy(value)}, {f"d{key}": to_numpy(g) for key, g in gradients().items()}


#: name -> shape of x, and (where models share it) the axes of the parameters alone.
SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "100 x 50": ((100, 50), ()),
    "13 x 17": ((13, 17), ()),
    "2 x 5": ((2, 5), ()),
    "9 x 1": ((9, 1), ()),
    "257 x 129": ((257, 129), ()),
    "100 x 3072": ((100, 3072), ()),
    "3 models, 10 x 6": ((3, 10, 6), ()),
    "5 models, 33 x 65": ((5, 33, 65), ()),
    "64 models, 100 x 50": ((64, 100, 50), ()),
    "4 models sharing 100 x 3072": ((100, 3072), (4,)),
    "7 models sharing 31 x 19": ((31, 19), (7,)),
}


def kinds() -> dict[str, tuple[Any, bool]]:
    """Return each registered layer and loss, and whether it trains or predicts."""
    losses = {name: (kind(), True) for name, kind in LOSSES.items()}
    return {**EXAMPLES, **losses, "Linear": (Linear(50), True), "Linear, 1 output": (Linear(1), True)}


def of_layer(what: Any, train: bool, shape: str, device: Device, dtype: str) -> tuple[Results, Results]:
    """Return everything that a layer or loss computes from the same draws: forward, and backward."""

    def put(name: str, shape: tuple[int, ...], positive: bool = False) -> Array:
        values = random.normal(5, name, shape).astype(np.float32)  # exact in both dtypes
        return device.asarray(values**2 + np.float32(0.5) if positive else values, dtype)

    x_shape, shared = SHAPES[shape]
    n, features = x_shape[-2:]
    x = put("x", x_shape)
    if not isinstance(what, Layer):
        value, pullback = what.forward(x, device.asarray(np.eye(features)[np.arange(n) % features], dtype))
        return {"value": to_numpy(value)}, {"dx": to_numpy(pullback())}
    models = shared or x_shape[:-2]
    arrays = [put(name, (*models, *what.shapes(features)[name]), name in ("var", "scale"))
              for name in (*what.parameters, *what.statistics)]
    noise = None
    if what.noisy:
        noise = device.asarray(random.uniform(5, "noise", 0, x_shape), dtype)
    y, pullback, statistics = what.forward(x, *arrays, train=train, noise=noise)
    dx, own = pullback(put("dy", tuple(y.shape)))
    forward = {"y": y} | {f"batch {name}": s for name, s in zip(what.statistics, statistics, strict=False)}
    backward = {"dx": dx} | {f"d{name}": g for name, g in zip(what.parameters, own, strict=True)}
    return {k: to_numpy(a) for k, a in forward.items()}, {k: to_numpy(form(a)) for k, a in backward.items()}


def worst(golden: Results, own: Results, got: Results) -> tuple[float, str]:
    """Compare float32 results with float64 ones, and say which is worst: at most 1 is allowed.

    Parameters
    ----------
    golden, own : dict of str to ndarray
        NumPy's results in float64 and in float32.
    got : dict of str to ndarray
        The device's results in float32.

    Returns
    -------
    float
        The largest ratio of error to allowance; infinite for another shape, dtype, or for NaN.
    str
        The name of that result, with the error.
    """
    scale = max(float(abs(a).max()) for a in golden.values())
    found = (0.0, "")
    for name, reference in golden.items():
        result = got[name]
        if result.shape != reference.shape or result.dtype != np.float32 or not np.isfinite(result).all():
            return float("inf"), f"{name}: {result.dtype} {result.shape}, expected float32 {reference.shape}, finite"
        error = float(abs(result - reference).max())
        allowed = FACTOR * float(abs(own[name] - reference).max()) + SHARE * scale
        ratio = error / allowed if allowed else float("inf") if error else 0.0
        if ratio >= found[0]:
            found = ratio, f"{name}: error {error:.2g}, allowed {allowed:.2g}, largest value {scale:.2g}"
    return found


def layers(section: Section, device: str) -> None:
    """Compare every registered layer, loss and composite with NumPy, at even, odd and many-model shapes."""
    cpu, here = Device(), Device(device)
    work: dict[str, dict[str, Any]] = {f"case {name}": {"": lambda d, t, n=name: of_case(n, d, t)} for name in CASES}
    for name, (what, train) in kinds().items():
        shared = isinstance(what, Layer) and what.parameters  # models can share an input only where they have arrays
        work[name] = {shape: lambda d, t, w=what, r=train, s=shape: of_layer(w, r, s, d, t)
                      for shape in SHAPES if shared or not SHAPES[shape][1]}
    table: dict[str, Any] = {}
    highest = 0.0
    with here.activate():
        for name, computations in work.items():
            top, of_top = 0.0, ""
            for shape, compute in computations.items():
                golden, own, got = compute(cpu, "float64"), compute(cpu, "float32"), compute(here, "float32")
                for direction, *three in zip(("forward", "backward"), golden, own, got, strict=True):
                    ratio, detail = worst(*three) if three[0] else (0.0, "no arrays")
                    label = ", ".join(filter(None, (name, shape, direction)))
                    table[label] = {"share_of_allowed": float(f"{ratio:.3g}"), "worst": detail}
                    if ratio >= top:
                        top, of_top = ratio, f"{shape} {direction} {detail}".strip()
            section.check(f"{name}: the largest error as a share of what is allowed ({of_top})", top, 1.0)
            highest = max(highest, top)
    section.result("comparisons", table)
    section.result("headline", f"{len(table)} comparisons, the worst error {highest:.2f} of what is allowed")


