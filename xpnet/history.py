"""What a run measured: one row per evaluation, and the minibatch loss of every update."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .backend import to_numpy

__all__ = ["History"]


class History:
    """Rows of named numbers; with several models, each number is an array over the model axis.

    Attributes
    ----------
    rows : list of dict
        One per evaluation: ``step``, ``epoch``, ``lr``, ``train_loss``, ``train_cost``, ``train_accuracy``
        and, with validation data, the same of ``validation``. Losses are in nats; the cost adds the
        penalty; accuracies are fractions.
    batch_loss : list
        The minibatch's loss at each update.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.batch_loss: list[Any] = []

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __getitem__(self, column: str) -> Any:
        """Give one column as an array of shape (rows,), or (rows, models)."""
        if not self.rows or column not in self.rows[0]:
            raise KeyError(f"no column {column!r}; there are {', '.join(self.rows[0]) if self.rows else 'no rows'}")
        return to_numpy([row[column] for row in self.rows])

    @property
    def columns(self) -> dict[str, Any]:
        """All columns by name."""
        return {name: self[name] for name in (self.rows[0] if self.rows else ())}

    def member(self, index: int) -> History:
        """Give the history of one model of several."""
        one = History()
        one.rows = [{name: _of(v, index) for name, v in row.items()} for row in self.rows]
        one.batch_loss = [_of(v, index) for v in self.batch_loss]
        return one


def _of(value: Any, index: int) -> Any:
    return value[index].item() if getattr(value, "ndim", 0) else value
