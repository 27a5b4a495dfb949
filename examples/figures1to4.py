"""Figures 1 to 4: loss and cost while training 3 and 9 layers, without and with batch norm."""

from __future__ import annotations

from typing import Any

from _common import HIDDEN_3, HIDDEN_9, Job, by_seed, main, train

from xpnet import plotting

FIGURES = {1: (HIDDEN_3, False), 2: (HIDDEN_3, True), 3: (HIDDEN_9, False), 4: (HIDDEN_9, True)}
POINTS = 60  # evaluations per run


def run(job: Job) -> dict[str, Any]:
    """Train the four networks and draw their figures."""
    rows = []
    for number, (hidden, batch_norm) in FIGURES.items():
        name = f"{len(hidden) + 1} layers, {'with' if batch_norm else 'without'} batch norm"
        runs = train(job, hidden, batch_norm=batch_norm, points=POINTS, label=f"figure {number}: {name}")
        columns = runs.curves()
        job.draw(f"figure{number}", plotting.curves, [{"title": "", **columns}], title=f"Figure {number}: {name}")
        found = {split: runs.measure(split) for split in ("train", "validation", "test")}
        row = {"figure": number, "hidden": hidden, "batch_norm": batch_norm, **columns}
        row["accuracy_curves"] = {split: row.pop(f"{split}_accuracy") for split in ("train", "validation")}
        for split, measured in found.items():
            row |= by_seed(f"{split}_accuracy", measured["accuracy"]) | by_seed(f"final_{split}_loss", measured["loss"])
        rows.append(row | by_seed("roughness", runs.roughness("train_loss")))
    return {"loss_curves": rows}


if __name__ == "__main__":
    main("figures1to4", __doc__, run)
