"""Figures 1 to 4: loss and cost while training 3 and 9 layers, without and with batch norm."""

from __future__ import annotations

from typing import Any

from _common import HIDDEN_3, HIDDEN_9, Job, main, train

from xpnet import plotting

FIGURES = {1: (HIDDEN_3, False), 2: (HIDDEN_3, True), 3: (HIDDEN_9, False), 4: (HIDDEN_9, True)}
POINTS = 100  # evaluations per run


def curve(history: Any) -> dict[str, list[float]]:
    """Give the columns of a run that the figures show."""
    names = ("train_loss", "validation_loss", "train_cost", "validation_cost", "train_accuracy", "validation_accuracy")
    return {"steps": history["step"].tolist(), **{name: history[name].tolist() for name in names}}


def run(job: Job) -> dict[str, Any]:
    """Train the four networks and draw their figures."""
    rows = []
    for number, (hidden, batch_norm) in FIGURES.items():
        name = f"{len(hidden) + 1} layers, {'with' if batch_norm else 'without'} batch norm"
        trainer = train(job, hidden, batch_norm=batch_norm, points=POINTS, label=f"figure {number}: {name}")
        columns = curve(trainer.history)
        title = f"Figure {number}: {name}\n{job.on}"
        plotting.save(plotting.curves([{"title": name, **columns}], title=title), job.out / f"figure{number}.png")
        rows.append({
            "figure": number, "hidden": hidden, "batch_norm": batch_norm, **columns,
            "curve_of_train_accuracy": columns.pop("train_accuracy"),
            "curve_of_validation_accuracy": columns.pop("validation_accuracy"),
            "train_accuracy": trainer.evaluate(*job.data.train)["accuracy"],
            "validation_accuracy": trainer.evaluate(*job.data.validation)["accuracy"],
            "test_accuracy": trainer.evaluate(*job.data.test)["accuracy"],
        })
    return {"loss_curves": rows}


if __name__ == "__main__":
    main("figures1to4", __doc__, run)
