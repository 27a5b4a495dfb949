"""What a run measured: one row per evaluation, and the minibatch loss of every update."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..backend import Array, to_numpy
from ..nn.losses import Loss, Measure, measures_of, undefined_measures
from ..nn.per_model import integer
from ..nn.summary import text_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["History", "by_model", "check_defined", "direction", "measured"]


def measured(loss: Loss, *, validated: bool = True) -> dict[str, Measure]:
    """Return the columns in which a row holds what was measured; the one that ranks networks by default comes last."""
    splits = ("train", "validation")[: 1 + validated]
    return {f"{split}_{name}": measure for split in splits for name, measure in measures_of(loss).items()}


def direction(
    owner: str, column: str, mode: str | None, loss: Loss, data: Mapping[str, tuple[Array, Array]] | None = None
) -> str:
    """Return "max" if more of a column is better, else "min": what ``mode`` says or, without it, the loss.

    Raises
    ------
    ValueError
        If the loss does not report the column, and there is no mode; or if it does, but the ``data`` of the run, by
        split, leave the column out or undefined.
    """
    known = measured(loss)
    if column not in known:
        if mode is None:
            raise ValueError(f"{owner}: expected monitor as one of {', '.join(known)}, got {column!r}; with mode='min' "
                             "or mode='max' it may be a column that a callback adds")
        return mode
    split, _, name = column.partition("_")
    if data is not None and split not in data:
        raise ValueError(f"{owner}: expected a column of this run, got {column!r} without {split} data: give fit "
                         f"{split}=(x, y), or monitor 'train_{name}'")
    check_defined(owner, column, loss, data)
    return mode or ("max" if known[column].more_is_better else "min")


def check_defined(owner: str, column: str, loss: Loss, data: Mapping[str, tuple[Array, Array]] | None) -> None:
    """Check that a column by which networks are compared is defined for the data, by split.

    Raises
    ------
    ValueError
        If it is not: each value would be NaN.
    """
    split, _, name = column.partition("_")
    why = undefined_measures(loss, data[split][1]).get(name) if data else None
    if why:
        raise ValueError(f"{owner}: {column} is not defined, since {why}: use '{split}_loss' instead, or at least 2 "
                         "examples with different targets")


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
        """Return one column as an array of shape (rows,), or (rows, models); NaN where a row lacks it."""
        there = [row[column] for row in self.rows if column in row]
        if not there:
            raise KeyError(f"no column {column!r}; there are {', '.join(self._names()) or 'no rows'}")
        return to_numpy([row[column] if column in row else there[0] * math.nan for row in self.rows])

    def _names(self) -> list[str]:
        """Return the names in all rows, in the order in which they first came."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    @property
    def columns(self) -> dict[str, Any]:
        """All columns by name."""
        return {name: self[name] for name in self._names()}

    @property
    def models(self) -> int | None:
        """How many models the rows are of, None for a single network."""
        sizes = (len(v) for row in self.rows for v in row.values() if getattr(v, "ndim", 0))
        return next(sizes, None)

    def member(self, index: int) -> History:
        """Return the history of one model of several.

        Parameters
        ----------
        index : int
            Which one.

        Returns
        -------
        History
            The rows, in plain numbers.
        """
        integer("member", "the number of a model", index, low=-sys.maxsize)
        one = History()
        one.rows = [{name: _of(v, index) for name, v in row.items()} for row in self.rows]
        one.batch_loss = [_of(v, index) for v in self.batch_loss]
        return one

    def records(self) -> list[dict[str, Any]]:
        """Return the rows in plain numbers: with several models, one row for each, with a column ``model``.

        Returns
        -------
        list of dict
            By column.
        """
        return [record for row in self.rows for record in by_model(row)]

    def table(self, last: int | None = None) -> str:
        """Return the rows as a plain text table.

        Parameters
        ----------
        last : int, optional
            Only the last so many lines; all by default.

        Returns
        -------
        str
            A line of names, then a line for each row and model.

        Raises
        ------
        ValueError
            If ``last`` is below 1.
        """
        if last is not None:
            try:
                last = integer("table", "last", last)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{error}; leave it out for all lines") from None
        records = self.records()[-last if last else None :]
        names = list(dict.fromkeys(name for record in records for name in record))
        return text_table(names, [[_cell(record.get(name)) for name in names] for record in records])

    def plot(self, *, title: str = "") -> Figure:
        """Draw loss and accuracy, and the learning rate beneath, against the update step.

        Parameters
        ----------
        title : str
            The title of the figure.

        Returns
        -------
        matplotlib.figure.Figure
            The figure.

        Raises
        ------
        ValueError
            If there are no rows, or the rows are of several models.
        """
        if not self.rows:
            raise ValueError("plot: expected at least one row, got none; train first, with Trainer.fit")
        if self.models is not None:
            raise ValueError(f"plot: expected one network, got {self.models} models; draw history.member(0).plot()")
        from .. import plotting

        return plotting.history(self.columns, title=title)

    def to_pandas(self) -> Any:
        """Return the rows as a ``pandas.DataFrame``: with several models, a row for each, with a column ``model``.

        Returns
        -------
        pandas.DataFrame
            A column for each measure.

        Raises
        ------
        ModuleNotFoundError
            If pandas is not installed.
        """
        try:
            import pandas  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError as error:
            raise ModuleNotFoundError(
                f"to_pandas needs pandas ({error}): pip install pandas, or use history.records()", name="pandas"
            ) from error
        return pandas.DataFrame(self.records())

    def to_dict(self) -> dict[str, Any]:
        """Return everything in plain values that strict JSON holds, from which ``from_dict`` makes it again, exactly.

        Arrays become lists, with their dtypes by column; what is not finite becomes "nan", "inf" or "-inf".

        Returns
        -------
        dict
            The columns, as lists and strings.
        """
        named = [item for row in self.rows for item in row.items()] + [("batch_loss", v) for v in self.batch_loss]
        return {
            "rows": [{name: _packed(v) for name, v in row.items()} for row in self.rows],
            "batch_loss": [_packed(v) for v in self.batch_loss],
            "dtypes": {name: str(v.dtype) for name, v in named if getattr(v, "ndim", 0)},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> History:
        """Make a history of what ``to_dict`` gave.

        Parameters
        ----------
        values : mapping
            With the keys ``rows``, ``batch_loss`` and ``dtypes``.

        Raises
        ------
        ValueError
            If it is no such mapping.
        """
        self = cls()
        try:
            kinds = values["dtypes"]
            self.rows = [{name: _unpacked(v, kinds.get(name)) for name, v in row.items()} for row in values["rows"]]
            self.batch_loss = [_unpacked(v, kinds.get("batch_loss")) for v in values["batch_loss"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"expected what History.to_dict gives, got something else ({error!r})") from error
        return self


def by_model(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row in plain numbers: one dict, or one for each model with its index as ``model``."""
    models = max((len(v) for v in row.values() if getattr(v, "ndim", 0)), default=None)
    if models is None:
        return [dict(row)]
    return [{"model": i, **{name: _of(v, i) for name, v in row.items()}} for i in range(models)]


def _of(value: Any, index: int) -> Any:
    return value[index].item() if getattr(value, "ndim", 0) else value


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _packed(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_packed(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _unpacked(value: Any, dtype: str | None) -> Any:
    if isinstance(value, list):
        return to_numpy([float(v) if isinstance(v, str) else v for v in value]).astype(dtype)
    return float(value) if isinstance(value, str) else value
