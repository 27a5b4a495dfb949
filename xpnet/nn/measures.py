"""Measures: what a loss reports beside its value, which way is better, and for which labels one is undefined."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from ..backend import Array, Device

if TYPE_CHECKING:
    from .losses import Loss

__all__ = ["ALWAYS", "Measure", "UndefinedMeasureWarning", "measures_of", "undefined_measures", "warn_undefined"]


class UndefinedMeasureWarning(RuntimeWarning):
    """A measure is NaN, because it is not defined for the labels; the message says why."""


class Measure(NamedTuple):
    """What ranks and shows networks by a measure needs to know of it.

    Parameters
    ----------
    more_is_better : bool
        Whether a network with more of it is better.
    share : bool
        Whether it is a share of the whole, which is shown in percent.
    """

    more_is_better: bool
    share: bool = False


ALWAYS = {"loss": Measure(more_is_better=False), "cost": Measure(more_is_better=False)}


def measures_of(loss: Loss) -> dict[str, Measure]:
    """Return all that an evaluation measures: the loss, the cost, and the measures that the loss declares.

    Parameters
    ----------
    loss : Loss
        A loss.

    Returns
    -------
    dict of str to Measure
        By name.
    """
    return {**ALWAYS, **loss.measures}


def undefined_measures(loss: Loss, y: Array) -> dict[str, str]:
    """Return the measures of a loss that are not defined for labels, each with the reason.

    Parameters
    ----------
    loss : Loss
        A loss; one without a method ``undefined`` has measures that always are.
    y : array
        All labels, as the loss keeps them.

    Returns
    -------
    dict of str to str
        The reason by measure.
    """
    find: Any = getattr(loss, "undefined", None)
    with Device.of(y).activate():
        return dict(find(y)) if find else {}


def warn_undefined(loss: Loss, y: Array) -> None:
    """Warn of each measure that is not defined for labels."""
    for name, why in undefined_measures(loss, y).items():
        warnings.warn(f"{name} is NaN, since {why}: measure it on at least 2 examples with different targets",
                      UndefinedMeasureWarning, stacklevel=4)
