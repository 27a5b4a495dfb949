"""The learning-rate range test: a short training with a rate that rises, and the bounds that it suggests."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..backend import Array
from ..nn.measures import Measure
from ..nn.per_model import integer, number
from ..nn.sequential import Sequential
from .callbacks import Callback
from .history import History, measured
from .trainer import DivergenceError, Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LRRange", "find_lr", "running_median"]


@dataclass(frozen=True, eq=False)
class LRRange:
    """What a learning-rate range test found; ``find_lr`` makes it.

    Smith, "Cyclical learning rates for training neural networks", WACV 2017, section 3.3: the lower bound is the
    rate at which the accuracy begins to rise, the upper one that at which it slows, becomes ragged, or falls. Here
    they are the rates at which a tenth and nine tenths of its rise are done. Instead of the accuracy it may be any
    measure of the loss, such as r2, and the loss itself if it has none; they are smoothed by a running median of 5.

    Parameters
    ----------
    rates, losses : sequence of float
        The learning rate and the minibatch's loss of each update, as far as the losses are finite.
    history : History
        Rows measured on the way.
    diverged : bool
        Whether the loss became infinite or NaN at the end.
    column : str
        The column of the history that suggests the bounds: on the validation data if there are some.
    measure : Measure
        Whether more of it is better.
    """

    rates: Sequence[float]
    losses: Sequence[float]
    history: History
    diverged: bool = False
    column: str = "train_accuracy"
    measure: Measure = Measure(more_is_better=True, share=True)  # noqa: RUF009

    @property
    def eta_min(self) -> float:
        """The rate at which the network begins to become better: a lower bound for a cyclical rate."""
        return self._bounds[0]

    @property
    def eta_max(self) -> float:
        """The rate at which nine tenths of the rise are done: an upper bound."""
        return self._bounds[1]

    @functools.cached_property
    def _bounds(self) -> tuple[float, float]:
        columns = self.history.columns
        found, rates = columns[self.column], columns["lr"].tolist()
        name = self.column.partition("_")[2]
        if not all(map(math.isfinite, found.tolist()[:1])):
            raise ValueError(f"{self.column} is not defined, so there is nothing to suggest a range by: choose one by "
                             "the losses")
        smoothed = running_median((found if self.measure.more_is_better else -found).tolist(), 2)
        peak = max(range(len(smoothed)), key=lambda i: smoothed[i] if math.isfinite(smoothed[i]) else -math.inf)
        lowest = min(smoothed[: peak + 1])
        least = 0.05 * (1.0 if self.measure.share else max(map(abs, smoothed[: peak + 1])))
        if smoothed[peak] - lowest < least:
            by = "by 5 points" if self.measure.share else "by a twentieth"
            raise ValueError(
                f"the {name} did not {'rise' if self.measure.more_is_better else 'fall'} {by} between the rates "
                f"{rates[0]:.3g} and {rates[-1]:.3g}, so there is no range to suggest; raise high= or steps=, lower "
                "low=, or look at the initial weights"
            )
        tenth = (smoothed[peak] - lowest) / 10
        begins = max(i for i in range(peak + 1) if smoothed[i] <= lowest + tenth)
        slows = next(i for i in range(begins, peak + 1) if smoothed[i] >= lowest + 9 * tenth)
        return rates[begins], rates[slows]

    def plot(self, *, title: str = "") -> Figure:
        """Draw the loss and, beneath, the measure against the rate, with the suggested bounds.

        Parameters
        ----------
        title : str
            The title of the figure.

        Returns
        -------
        matplotlib.figure.Figure
            The figure.
        """
        from ..plotting.training import lr_range

        try:
            bounds = (self.eta_min, self.eta_max)
        except ValueError:  # the picture then shows why
            bounds = None
        smoothed = running_median(self.losses, len(self.losses) // 40)
        return lr_range(self.rates, self.losses, smoothed, self.history.columns, bounds=bounds, title=title,
                        measure=self.column.partition("_")[2], share=self.measure.share)


def running_median(values: Sequence[float], reach: int) -> list[float]:
    """Return the median of each value and its neighbours, ``reach`` of them on either side."""
    return [statistics.median(values[max(0, i - reach) : i + reach + 1]) for i in range(len(values))]


class _Undone(Callback):
    """Stop once the loss is four times what it was at first, or not finite."""

    def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
        return not row["train_loss"] <= 4 * trainer.history.rows[0]["train_loss"]


def find_lr(
    architecture: Sequential,
    x: Array,
    y: Array,
    *,
    low: float = 1e-5,
    high: float = 1.0,
    steps: int = 500,
    scale: str = "exponential",
    validation: tuple[Array, Array] | None = None,
    points: int = 50,
    train_sample: int = 1000,
    **options: Any,
) -> LRRange:
    """Run a learning-rate range test: train a fresh network a little while with a rate that rises.

    Smith, "Cyclical learning rates for training neural networks", WACV 2017, section 3.3. The result suggests the
    bounds for ``CyclicLR`` and draws the picture to judge them by.

    Parameters
    ----------
    architecture : Sequential
        The network's layers; nothing that was trained is touched.
    x : array of shape (n, features)
        Features, as ``Trainer.fit`` takes them.
    y : array of shape (n,) or (n, outputs)
        Class indices, or what another loss takes.
    low, high : float
        The rates of the first and the last update.
    steps : int
        Number of updates, at least 10; the test ends before, when the loss is four times what it was at first.
    scale : {"exponential", "linear"}
        How the rate rises. The paper's test is linear; exponential covers several powers of ten evenly.
    validation : tuple of arrays, optional
        Features and labels to measure the accuracy on as well.
    points : int
        Measure the loss and what it measures beside so many times.
    train_sample : int
        Measure them on the first so many training examples.
    **options
        What ``Trainer`` takes besides ``schedule``, ``callbacks`` and ``divergence``: ``l2``, ``batch_size``,
        ``seed``, ...

    Returns
    -------
    LRRange
        With ``rates``, ``losses``, ``eta_min``, ``eta_max`` and ``plot()``.

    Raises
    ------
    ValueError
        If the bounds, the scale or the number of steps make no sense, or there are several models.
    TypeError
        If an option is the test's own to choose.
    """
    low, high = number("find_lr", "low", low), number("find_lr", "high", high)
    if not low < high or (scale == "exponential" and not low):
        raise ValueError(f"find_lr: expected 0 < low < high (low may be 0 on a linear scale), got {low} and {high}")
    if scale not in ("exponential", "linear"):
        raise ValueError(f"find_lr: expected the scale 'exponential' or 'linear', got {scale!r}")
    if own := [name for name in ("schedule", "callbacks", "divergence") if name in options]:
        raise TypeError(f"find_lr: it has a {own[0]} of its own: leave {own[0]}= out")
    points, steps = integer("find_lr", "points", points), integer("find_lr", "steps", steps)
    if steps < 10:
        raise ValueError(f"find_lr: expected at least 10 steps, got {steps}")

    def rate(step: int) -> float:
        done = min(step / (steps - 1), 1.0)
        return low * (high / low) ** done if scale == "exponential" else low + done * (high - low)

    trainer = Trainer(architecture, schedule=rate, callbacks=[_Undone()], **options)
    if trainer.models:
        raise ValueError(f"find_lr: expected one network, got {trainer.models[0]} models; give each option one value")
    diverged = False
    try:
        trainer.fit(x, y, steps=steps, validation=validation, evaluate_every=max(1, steps // points),
                    train_sample=train_sample)
    except DivergenceError:  # the test goes on until it comes to that
        diverged = True
    losses = trainer.history.batch_loss
    end = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    known = {name: how for name, how in measured(trainer.loss, validated=validation is not None).items()
             if not name.endswith("_cost")}
    column = [*known][-1]
    return LRRange([rate(t) for t in range(end)], losses[:end], trainer.history, diverged, column, known[column])
