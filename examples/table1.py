"""Table 1: relative errors of the analytical gradients, for 2 and 4 layers, without and with batch norm.

Central differences with h = 1e-6 as in the report, and beside them the complex-step method, which is exact
to rounding. A bias before batch norm has gradient 0: its relative error is that of rounding noise.
"""

from __future__ import annotations

from typing import Any

from _common import Job, main

import xpnet
from xpnet import plotting
from xpnet.nn import gradcheck

SAMPLES, FEATURES, CLASSES = 20, 10, 10
REPORTED = {
    ("2", False): {"W1": 1.49e-9, "W2": 8.03e-10, "b1": 1.77e-9, "b2": 7.46e-10},
    ("2", True): {"W1": 2.50e-9, "W2": 1.07e-9, "b1": 6.39e-12, "b2": 1.00e-9, "gamma1": 1.48e-9, "beta1": 1.40e-9},
    ("4", False): {"W1": 1.99e-9, "W2": 2.43e-9, "W3": 2.00e-9, "W4": 6.88e-10,
                   "b1": 1.40e-9, "b2": 1.67e-9, "b3": 1.71e-9, "b4": 1.12e-9},
    ("4", True): {"W1": 8.59e-10, "W2": 2.34e-9, "W3": 3.18e-9, "W4": 1.34e-9,
                  "b1": 1.11e-11, "b2": 7.97e-12, "b3": 9.38e-12, "b4": 1.13e-9,
                  "gamma1": 2.01e-9, "gamma2": 2.39e-9, "gamma3": 1.75e-9,
                  "beta1": 2.81e-9, "beta2": 2.14e-9, "beta3": 1.93e-9},
}


def run(job: Job) -> dict[str, Any]:
    """Check all 32 gradients."""
    rows = []
    for (layers, batch_norm), reported in REPORTED.items():
        hidden = [50] * (int(layers) - 1)
        network = xpnet.mlp(FEATURES, hidden, CLASSES, batch_norm=batch_norm)
        checked = {row["parameter"]: row for row in gradcheck.check_network(
            network, samples=SAMPLES, seed=job.seed, device=job.device)}
        for parameter, value in reported.items():
            row = checked[parameter]
            rows.append({"hidden": hidden, "batch_norm": batch_norm, "reported": value, **row,
                         "passes": gradcheck.passes(row)})
    with job.drawing:
        plotting.save(plotting.gradient_check(rows, title="Relative errors of the gradients"), job.out / "table1.png")
    return {"gradient_check": rows}


if __name__ == "__main__":
    main("table1", __doc__, run)
