"""The report's claims, each measured from the runs and judged.

A claim holds as measured, does not hold, or is not told (``None``): where the measured difference contradicts it
by less than its own 95 % margin (one seed has none), or where accuracies on CIFAR-10 say nothing of other data or a
shortened run. With several seeds the margin is that of the difference paired by seed.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from _common import HIDDEN_3, HIDDEN_9

from xpnet.intervals import paired

REPORTED_VALIDATION, REPORTED_TEST = 0.553, 0.5457
CHANCE, NEAR = 0.10, 0.01  # ten balanced classes; how near to chance counts as chance


def values(row: dict[str, Any], name: str) -> np.ndarray:
    """Return a number of a row for each seed."""
    return np.asarray(row.get(f"{name}_by_seed", [row[name]]))


def difference(better: np.ndarray, worse: np.ndarray) -> tuple[float, float, str]:
    """Return the mean difference, paired by seed, its 95 % margin (NaN from one seed), and both in words."""
    found = paired(better, worse)
    if np.isnan(found.margin):
        return found.mean, found.margin, f"difference {found.mean:+.3g} from one seed (--seeds K gives an interval)"
    clear = "" if abs(found.mean) > found.margin else ", which the seeds do not tell from 0"
    return found.mean, found.margin, (f"paired difference {found.mean:+.3g} +- {found.margin:.2g} over {found.n} seeds "
                                      f"(t test: p = {found.p:.2g}){clear}")


def points(better: np.ndarray, worse: np.ndarray, images: int) -> tuple[float, float, str]:
    """Return the difference of two test accuracies in points; one seed's margin is that of the test images."""
    mean, margin, told = difference(100 * better, 100 * worse)
    if np.isnan(margin):
        margin = 196 * float(np.sqrt((better * (1 - better) + worse * (1 - worse)) / images)[0])
        told = f"difference {mean:+.3g} from one seed, +- {margin:.2g} for the choice of {images:,} test images"
    return mean, margin, told


def direction(mean: float, margin: float, *, rises: bool) -> bool | None:
    """Judge a direction: it holds as measured, fails beyond the margin, and is not told apart in between.

    One seed alone has no margin (NaN), and so contradicts nothing.
    """
    if (mean > 0) if rises else (mean < 0):
        return True
    return False if abs(mean) > margin else None


def percent(accuracy: float) -> str:
    """Show an accuracy."""
    return f"{100 * accuracy:.2f} %"


def verdict(claim: str, reported: str, measured: str, holds: bool | None, remark: str = "") -> dict[str, Any]:
    """Make a row."""
    return {"claim": claim, "reported": reported, "measured": measured,
            "holds": None if holds is None else bool(holds), "remark": remark}


def judge(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row per claim that the results allow to judge."""
    faithful = results["data"]["name"] == "CIFAR-10" and not results["environment"]["quick"]
    rows = []
    if "gradient_check" in results:
        rows.append(_gradients(results["gradient_check"]))
    if "loss_curves" in results:
        rows += _curves(results["loss_curves"])
    if "initialisation" in results:
        rows += _initialisation(results["initialisation"], results["initialisation_penalty"], results["data"]["test"])
    if "lambda_search" in results:
        final = results["lambda_search"]["final"]
        for name, reported in (("validation", REPORTED_VALIDATION), ("test", REPORTED_TEST)):
            measured = final[f"{name}_accuracy"]
            rows.append(verdict(
                f"Final {name} accuracy (within 2 points)", percent(reported), percent(measured),
                abs(measured - reported) < 0.02 if faithful else None,
                "" if faithful else "Only the whole run on CIFAR-10 can be compared with the report.",
            ))
    return rows


def _gradients(checked: list[dict[str, Any]]) -> dict[str, Any]:
    worst = max(row["complex_step_error"] for row in checked if row["analytical_norm"] > 1e-14)
    return verdict(
        "The analytical gradients are correct", "errors up to 3.2e-9",
        f"{sum(row['passes'] for row in checked)} of {len(checked)} pass; complex-step error up to {worst:.1e}",
        all(row["passes"] for row in checked),
        "A bias that batch norm cancels has gradient 0. Central differences return rounding noise of about 1e-9 "
        "there, which the formula divides by 1e-5; so its norms are judged, not its relative errors.",
    )


def _curves(curves: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for hidden in (HIDDEN_3, HIDDEN_9):
        plain, normed = (next(r for r in curves if r["hidden"] == hidden and r["batch_norm"] == batch_norm)
                         for batch_norm in (False, True))
        layers = len(hidden) + 1
        a, b = (values(row, "final_train_loss") for row in (plain, normed))
        mean, margin, told = difference(b, a)
        held_out = difference(*(values(row, "final_validation_loss") for row in (normed, plain)))[2]
        rows.append(verdict(
            f"Batch norm ends with a lower loss, {layers} layers", "lower", f"{b.mean():.3f} against {a.mean():.3f}",
            direction(mean, margin, rises=False), f"Training loss: {told}. Validation loss: {held_out}.",
        ))
        a, b = (values(row, "roughness") for row in (plain, normed))
        mean, margin, told = difference(b, a)
        rows.append(verdict(
            f"Batch norm gives a smoother curve, {layers} layers", "smoother", f"{b.mean():.4f} against {a.mean():.4f}",
            direction(mean, margin, rises=False), "Roughness: the mean absolute second difference of the training "
            f"loss at 60 equal steps of the run; {told}.",
        ))
    return rows


def _initialisation(
    runs: list[dict[str, Any]], penalties: list[dict[str, Any]], images: int
) -> list[dict[str, Any]]:
    test = {(row["sigma"], row["batch_norm"]): values(row, "test_accuracy") for row in runs}
    sigmas = sorted({sigma for sigma, _ in test}, reverse=True)
    rows = []
    for sigma in sigmas:
        a, b = test[sigma, False], test[sigma, True]
        mean, margin, told = points(b, a, images)
        rows.append(verdict(
            f"Batch norm does better at sigma = {sigma:g}", "better",
            f"{percent(b.mean())} against {percent(a.mean())}", direction(mean, margin, rises=True),
            f"Test accuracy, in points: {told}.",
        ))
    a, b = test[sigmas[-1], False], test[sigmas[-1], True]
    rows.append(verdict(f"Without batch norm sigma = {sigmas[-1]:g} stays at chance", "10 %", percent(a.mean()),
                        bool((abs(a - CHANCE) < NEAR).all())))
    rows.append(verdict(f"With batch norm training survives sigma = {sigmas[-1]:g}", "no catastrophic fall",
                        f"{percent(b.mean())}, and {percent(test[sigmas[0], True].mean())} at {sigmas[0]:g}",
                        b.mean() > 2 * CHANCE and b.mean() > test[sigmas[0], True].mean() - 0.1))
    for batch_norm in (False, True):
        steps = [(high, low, *points(test[low, batch_norm], test[high, batch_norm], images))
                 for high, low in pairwise(sigmas)]
        remark = "Test accuracy, in points, from sigma " + "; ".join(
            f"{high:g} to {low:g}: {told}" for high, low, _, _, told in steps) + "."
        if batch_norm:
            remark += (" Batch norm divides by the deviation of its input, so that the scale of the weights before "
                       "it hardly reaches the output; it changes how far a step turns them.")
        else:
            shown = ", ".join(f"{percent(row['test_accuracy'])} at lambda {row['l2']:g}" for row in penalties)
            remark += (f" At sigma = 0.001 the penalty decides: after one cycle {shown}. The report's lambda shrinks "
                       "such small weights faster than the loss lets them grow.")
        judged = [None if 0 < mean <= margin else mean <= 0 for _, _, mean, margin, _ in steps]
        rows.append(verdict(
            f"Accuracy does not rise as sigma shrinks, {'with' if batch_norm else 'without'} batch norm",
            "decreases", ", ".join(percent(test[sigma, batch_norm].mean()) for sigma in sigmas),
            False if False in judged else None if None in judged else True, remark,
        ))
    return rows
