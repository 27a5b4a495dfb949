"""Write docs/gradients.md: the gradient and parity tables, measured now. Run: python tools/make_gradients.py.

Without a GPU, with tests on PYTHONPATH: python -m cpucuda tools/make_gradients.py.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np

from xpnet import __version__
from xpnet.backend import Device, DeviceError, survey
from xpnet.nn import gradcheck

HEAD = """# Gradients, proven

Made by `python tools/make_gradients.py` (xpnet {version}, NumPy {numpy}, Python {python}, {machine}).

Every layer, loss and composite in the registry `xpnet.nn.gradcheck.CASES`, in float64, on every backend: the error
of the analytical gradient against central differences (h = 1e-6) and against the complex step (h = 1e-30, exact to
rounding), the worst over the arrays of the case. A gradient that is 0 (a bias that batch norm cancels) has no
relative error: its norms are judged, below 1e-14 (numerical: 1e-8), and it is left out of the worst.
The same table for one backend: `xpnet gradcheck --all --backend NAME`.
"""
PARITY = """
## Parity

The largest difference from NumPy's float64 over the largest value, of the outputs (forward) and of all gradients
(backward); the tolerance is 100 roundings of the dtype. `xpnet gradcheck --parity --backend NAME`.
"""


def table(columns: list[str], rows: list[list[Any]]) -> str:
    shown = [[f"{v:.1e}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    lines = [columns, ["---"] * len(columns), *shown]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def gradients(backend: str, device: Device) -> list[list[Any]]:
    found = []
    for name, case in gradcheck.CASES.items():
        rows = gradcheck.check(*case(device))
        worst = [max(r[key] for r in rows if r["analytical_norm"] > 1e-14) for key in ("strict_error",
                                                                                     "complex_step_error")]
        found.append([backend, name, len(rows), *worst, "yes" if all(map(gradcheck.passes, rows)) else "**no**"])
    return found


def parity(backend: str, device: Device) -> list[list[Any]]:
    return [[backend, row["case"], row["dtype"], row["forward"], row["backward"], row["tolerance"],
             "yes" if row["passes"] else "**no**"]
            for dtype in ("float64", "float32") for row in gradcheck.parity(device, dtype)]


def main() -> None:
    checked, compared, absent = [], [], []
    for backend in ("numpy", "strict", "torch", "cupy"):
        try:
            device = Device.backend(backend)
        except DeviceError as error:
            absent.append(f"Not measured: {backend} ({error}).\n")
            continue
        if backend == "cupy":
            gpu = next(row["detail"] for row in survey() if row["device"] == device.name).partition(",")[0]
            absent.append(f"The device of cupy: {gpu}.\n")
        checked += gradients(backend, device)
        compared += parity(backend, device)
    text = HEAD.format(version=__version__, numpy=np.__version__, python=platform.python_version(),
                       machine=platform.machine())
    text += "\n" + table(["backend", "case", "arrays", "strict error", "complex-step error", "passes"], checked)
    text += PARITY + "\n" + table(["backend", "case", "dtype", "forward", "backward", "tolerance", "passes"], compared)
    (Path(__file__).parents[1] / "docs" / "gradients.md").write_text(text + "\n" + "\n".join(absent), encoding="utf-8")


if __name__ == "__main__":
    main()
