"""Callbacks: what happens beside training. Their methods are called at evaluation points only."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..files.json_form import plain
from .callback import Callback
from .history import by_model, measured
from .monitors import BestWeights, EarlyStopping

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = ["CSV", "BestWeights", "Callback", "EarlyStopping", "JSONLines", "Progress", "TensorBoard"]


class Progress(Callback):
    """A tqdm bar over the updates, with the last losses and accuracies; quiet when output is no terminal.

    Parameters
    ----------
    label : str
        What stands before the bar.
    show : bool, optional
        Show it or not; by default where the standard error output is a terminal.
    """

    def __init__(self, label: str = "training", *, show: bool | None = None) -> None:
        self.label: str = label
        self.show: bool | None = show

    def on_begin(self, trainer: Trainer, steps: int) -> None:
        """Open the bar."""
        from tqdm import tqdm

        hidden = not (sys.stderr.isatty() if self.show is None else self.show)
        self.columns: list[str] = [name for name in measured(trainer.loss) if not name.endswith("_cost")]
        self.bar: Any = tqdm(total=steps, initial=trainer.step, desc=self.label, unit="step", disable=hidden)

    def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
        """Move the bar."""
        self.bar.update(trainer.step - self.bar.n)
        shown = {name.replace("validation", "val"): value for name, value in row.items() if name in self.columns}
        self.bar.set_postfix({name: f"{v:.3f}" for name, v in shown.items() if isinstance(v, float)})
        return None

    def on_end(self, trainer: Trainer) -> None:
        """Close the bar."""
        self.bar.close()


class JSONLines(Callback):
    """Write each row as a line of JSON, flushed as it comes; numbers that are not finite become null.

    Parameters
    ----------
    path : path
        The file; rows are appended.
    """

    def __init__(self, path: str | Path) -> None:
        self.path: Path = Path(path)

    def on_begin(self, trainer: Trainer, steps: int) -> None:
        """Open the file."""
        self.file: TextIO = self.path.open("a", encoding="utf-8")

    def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
        """Write a line."""
        self.file.write(json.dumps(plain(row), allow_nan=False) + "\n")
        self.file.flush()
        return None

    def on_end(self, trainer: Trainer) -> None:
        """Close the file."""
        self.file.close()


class CSV(Callback):
    """Write each row as a line of comma-separated values, flushed as it comes; with several models, a line for each.

    Parameters
    ----------
    path : path
        The file; it begins with the columns' names, the first of them ``model`` where there are several models.
        Rows are appended to those of an earlier run with the same columns.
    """

    def __init__(self, path: str | Path) -> None:
        self.path: Path = Path(path)

    def on_begin(self, trainer: Trainer, steps: int) -> None:
        """Open the file, and see which columns it has."""
        self.file: TextIO = self.path.open("a+", encoding="utf-8", newline="")
        self.file.seek(0)
        self.columns: list[str] = next(csv.reader(self.file), [])
        self.file.seek(0, 2)

    def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
        """Write the row's lines."""
        writer = csv.writer(self.file, lineterminator="\n")
        records = by_model(row)
        if not self.columns:
            self.columns = list(records[0])
            writer.writerow(self.columns)
        if self.columns != list(records[0]):
            raise ValueError(f"{self.path} has the columns {', '.join(self.columns)}; the row has "
                             f"{', '.join(records[0])}: write it to another file")
        writer.writerows(record.values() for record in records)
        self.file.flush()
        return None

    def on_end(self, trainer: Trainer) -> None:
        """Close the file."""
        self.file.close()


class TensorBoard(Callback):
    """Write every column as a scalar against the update step; with several models, ``column/model`` for each.

    Parameters
    ----------
    to : path or writer
        The directory of the event files, which tensorboardX then writes; or any object with its
        ``add_scalar(tag, value, step)`` and ``flush()``, such as ``torch.utils.tensorboard.SummaryWriter``.

    Raises
    ------
    ModuleNotFoundError
        When training begins, if tensorboardX is needed and not installed.
    """

    def __init__(self, to: str | Path | Any) -> None:
        self.to: Any = to

    def on_begin(self, trainer: Trainer, steps: int) -> None:
        """Open the event file."""
        if hasattr(self.to, "add_scalar"):
            self.writer: Any = self.to
            return
        try:
            from tensorboardX import SummaryWriter  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError as error:
            raise ModuleNotFoundError(
                f"TensorBoard needs tensorboardX ({error}): pip install tensorboardX, or give it a "
                "torch.utils.tensorboard.SummaryWriter", name="tensorboardX",
            ) from error
        self.writer = SummaryWriter(str(self.to))

    def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
        """Write the row's numbers."""
        for record in by_model(row):
            model = record.pop("model", None)
            for name, value in record.items():
                if name != "step":
                    self.writer.add_scalar(name if model is None else f"{name}/{model}", value, row["step"])
        self.writer.flush()
        return None

    def on_end(self, trainer: Trainer) -> None:
        """Close the event file, if it was opened here."""
        if self.writer is not self.to:
            self.writer.close()
