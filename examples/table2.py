"""Table 2: coarse and fine search for lambda with the 3-layer batch-norm network, then 3 cycles of the best.

Each search is one sweep: 8 networks in one run, on the same minibatches.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from _common import HIDDEN_3, Job, by_seed, main, train

from xpnet import plotting, random

DRAWS, COARSE = 8, (-5.0, -1.0)
BEST, MARGIN = 3, 0.3  # the report's fine interval is that of its best three draws, widened by 0.3


def search(job: Job, name: str, low: float, high: float) -> list[dict[str, Any]]:
    """Train with draws of log10 lambda from [low, high], and rank them by validation accuracy.

    One draw is uniform in each eighth of the interval: each is uniform in the whole, and none are bunched.
    """
    width = (high - low) / DRAWS
    exponents = low + width * (np.arange(DRAWS) + random.stream(job.seed, f"{name} lambda").random(DRAWS))
    runs = train(job, HIDDEN_3, batch_norm=True, l2=(10.0**exponents).tolist(), label=f"table 2: {name} search")
    accuracies = runs.measure("validation")["accuracy"]
    rows = [{"log10_lambda": float(e), **by_seed("validation_accuracy", a)}
            for e, a in zip(exponents, accuracies, strict=True)]
    return sorted(rows, key=lambda row: -row["validation_accuracy"])


def run(job: Job) -> dict[str, Any]:
    """Search coarsely, then finely, each from one seed; train the best for longer, from every seed."""
    one = replace(job, seeds=1)
    coarse = search(one, "coarse", *COARSE)
    best = [row["log10_lambda"] for row in coarse[:BEST]]
    interval = [min(best) - MARGIN, max(best) + MARGIN]
    fine = search(one, "fine", *interval)
    chosen = max(coarse + fine, key=lambda row: row["validation_accuracy"])["log10_lambda"]
    runs = train(job, HIDDEN_3, batch_norm=True, l2=10.0**chosen, cycles=3, label="table 2: the best, 3 cycles")
    final = {"log10_lambda": chosen}
    for split in ("validation", "test"):
        final |= by_seed(f"{split}_accuracy", runs.measure(split)["accuracy"])
    rows = coarse + fine
    job.draw("table2", plotting.search, [row["log10_lambda"] for row in rows],
             [row["validation_accuracy"] for row in rows], groups=["coarse"] * len(coarse) + ["fine"] * len(fine),
             title="Search for lambda")
    return {"lambda_search": {"coarse": coarse, "interval": interval, "fine": fine, "final": final}}


if __name__ == "__main__":
    main("table2", __doc__, run)
