"""Table 2: coarse and fine search for lambda with the 3-layer batch-norm network, then 3 cycles of the best.

Each search is one sweep: 8 networks in one run, on the same minibatches.
"""

from __future__ import annotations

from typing import Any

from _common import HIDDEN_3, Job, main, train

from xpnet import plotting, random

DRAWS, COARSE = 8, (-5.0, -1.0)
BEST, MARGIN = 3, 0.3  # the report's fine interval is that of its best three draws, widened by 0.3


def search(job: Job, name: str, low: float, high: float) -> list[dict[str, float]]:
    """Train with draws of log10 lambda from [low, high], and rank them by validation accuracy."""
    exponents = random.stream(job.seed, f"{name} lambda").uniform(low, high, DRAWS)
    trainer = train(job, HIDDEN_3, batch_norm=True, l2=(10.0**exponents).tolist(), label=f"table 2: {name} search")
    accuracies = trainer.evaluate(*job.data.validation)["accuracy"]
    rows = [{"log10_lambda": float(e), "validation_accuracy": float(a)}
            for e, a in zip(exponents, accuracies, strict=True)]
    return sorted(rows, key=lambda row: -row["validation_accuracy"])


def run(job: Job) -> dict[str, Any]:
    """Search coarsely, then finely, and train the best for longer."""
    coarse = search(job, "coarse", *COARSE)
    best = [row["log10_lambda"] for row in coarse[:BEST]]
    interval = (min(best) - MARGIN, max(best) + MARGIN)
    fine = search(job, "fine", *interval)
    chosen = max(coarse + fine, key=lambda row: row["validation_accuracy"])["log10_lambda"]
    trainer = train(job, HIDDEN_3, batch_norm=True, l2=10.0**chosen, cycles=3, points=30, label="table 2: best, 3 cycles")
    final = {"log10_lambda": chosen,
             "validation_accuracy": trainer.evaluate(*job.data.validation)["accuracy"],
             "test_accuracy": trainer.evaluate(*job.data.test)["accuracy"]}
    rows = coarse + fine
    figure = plotting.search(
        [row["log10_lambda"] for row in rows], [row["validation_accuracy"] for row in rows],
        groups=["coarse"] * len(coarse) + ["fine"] * len(fine), title=f"Search for lambda\n{job.on}",
    )
    plotting.save(figure, job.out / "table2.png")
    return {"lambda_search": {"coarse": coarse, "interval": interval, "fine": fine, "final": final}}


if __name__ == "__main__":
    main("table2", __doc__, run)
