"""Figures 5 to 7: initial weights N(0, sigma^2) for three sigmas, without and with batch norm.

All sigmas are one sweep: three networks that start from the same draws, scaled. A second one asks why
sigma = 1e-3 fails without batch norm: the penalty shrinks such small weights faster than the loss moves them.
"""

from __future__ import annotations

from typing import Any

from _common import HIDDEN_3, L2, Job, by_seed, main, train
from figures1to4 import POINTS

from xpnet import plotting

SIGMAS = [1e-1, 1e-3, 1e-4]
PENALTIES = [0.0, 5e-5, 5e-4, L2]


def run(job: Job) -> dict[str, Any]:
    """Train three sigmas without and with batch norm, draw each pair, and vary the penalty at 1e-3."""
    curves, rows = {}, []
    for batch_norm in (False, True):
        label = f"figures 5 to 7: {'with' if batch_norm else 'without'} batch norm"
        runs = train(job, HIDDEN_3, batch_norm=batch_norm, points=POINTS, sigma=SIGMAS, label=label)
        found = {split: runs.measure(split) for split in ("train", "validation", "test")}
        for i, sigma in enumerate(SIGMAS):
            curves[sigma, batch_norm] = runs.curves(i)
            rows.append({"sigma": sigma, "batch_norm": batch_norm,
                         **by_seed("test_accuracy", found["test"]["accuracy"][i]),
                         **by_seed("validation_accuracy", found["validation"]["accuracy"][i]),
                         **by_seed("final_train_loss", found["train"]["loss"][i])})
    for i, sigma in enumerate(SIGMAS):
        panels = [{"title": f"{'with' if bn else 'without'} batch norm", **curves[sigma, bn]} for bn in (False, True)]
        job.draw(f"figure{5 + i}", plotting.curves, panels, title=f"Figure {5 + i}: sigma = {sigma:g}")
    runs = train(job, HIDDEN_3, batch_norm=False, l2=PENALTIES, sigma=1e-3, cycles=1,
                 label="sigma 1e-3, by lambda")
    test, final = runs.measure("test"), runs.measure("train")
    penalties = [{"sigma": 1e-3, "l2": l2, **by_seed("test_accuracy", test["accuracy"][i]),
                  **by_seed("final_train_loss", final["loss"][i])} for i, l2 in enumerate(PENALTIES)]
    return {"initialisation": rows, "initialisation_penalty": penalties}


if __name__ == "__main__":
    main("figures5to7", __doc__, run)
