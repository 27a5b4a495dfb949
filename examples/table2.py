"""Table 2: coarse and fine search for lambda with the 3-layer batch-norm network, then 3 cycles of the best.

Each search is one sweep: 8 networks from each seed in one run, on the same minibatches.
"""

from __future__ import annotations

import math
import time
from typing import Any

from _common import HIDDEN_3, Job, Make, by_seed, main, options, train

import xpnet
from xpnet import plotting

DRAWS, COARSE = 8, xpnet.LogUniform(1e-5, 1e-1)
BEST, MARGIN = 3, 0.3  # the report's fine interval is that of its best three draws, widened by 0.3 decades


def rows(found: xpnet.Sweep) -> list[dict[str, Any]]:
    """Return log10 lambda and the validation accuracies, best first."""
    return [{"log10_lambda": math.log10(row["l2"]),
             **by_seed("validation_accuracy", found.values("validation_accuracy", l2=row["l2"]))}
            for row in found.table()]


def run(job: Job) -> dict[str, Any]:
    """Search coarsely, then finely; train the best for longer."""
    start = time.perf_counter()
    found = xpnet.coarse_to_fine(
        Make(job, HIDDEN_3, batch_norm=True), {"l2": COARSE, "seed": range(job.seed, job.seed + job.seeds)},
        draws=DRAWS, draw_seed=job.seed, keep=BEST, margin=MARGIN / 4, **options(job),
    )
    job.timings["table 2: both searches"] = round(time.perf_counter() - start, 2)
    coarse, fine, chosen = rows(found.coarse), rows(found.fine), found.best["l2"]
    interval = [math.log10(found.space["l2"].low), math.log10(found.space["l2"].high)]
    runs = train(job, HIDDEN_3, batch_norm=True, l2=chosen, cycles=3, label="table 2: the best, 3 cycles")
    final = {"log10_lambda": math.log10(chosen)}
    for split in ("validation", "test"):
        final |= by_seed(f"{split}_accuracy", runs.measure(split)["accuracy"])
    final |= {"ensemble_networks": job.seeds,
              "ensemble_test_accuracy": runs.sweep.ensemble().evaluate(*job.data.test)["accuracy"]}
    both = coarse + fine
    job.draw("table2", plotting.sweep, [10 ** row["log10_lambda"] for row in both],
             [row.get("validation_accuracy_by_seed", [row["validation_accuracy"]]) for row in both],
             groups=["coarse"] * len(coarse) + ["fine"] * len(fine), xlabel="lambda", title="Search for lambda")
    return {"lambda_search": {"coarse": coarse, "interval": interval, "fine": fine, "final": final}}


if __name__ == "__main__":
    main("table2", __doc__, run)
