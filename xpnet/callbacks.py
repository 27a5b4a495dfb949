"""Callbacks: what happens beside training. Each has up to three methods, called at evaluation points only."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from .training import Trainer

__all__ = ["Callback", "JSONLines", "Progress"]


class Callback:
    """The protocol; every method may be left as it is."""

    def on_begin(self, trainer: Trainer, steps: int) -> None:
        """Training begins, and goes on until update ``steps``."""

    def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
        """See a row that was measured; return True to stop training."""
        return None

    def on_end(self, trainer: Trainer) -> None:
        """Training ends, also by an error."""


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
        self.label, self.show = label, show

    def on_begin(self, trainer: Trainer, steps: int) -> None:
        """Open the bar."""
        from tqdm import tqdm

        hidden = not (sys.stderr.isatty() if self.show is None else self.show)
        self.bar = tqdm(total=steps, initial=trainer.step, desc=self.label, unit="step", disable=hidden)

    def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
        """Move the bar."""
        self.bar.update(trainer.step - self.bar.n)
        shown = {k.replace("validation", "val"): v for k, v in row.items() if k.endswith(("loss", "accuracy"))}
        self.bar.set_postfix({k: f"{v:.3f}" for k, v in shown.items() if isinstance(v, float)})
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
        self.path = Path(path)

    def on_begin(self, trainer: Trainer, steps: int) -> None:
        """Open the file."""
        self.file: TextIO = self.path.open("a", encoding="utf-8")

    def on_evaluation(self, trainer: Trainer, row: dict[str, Any]) -> bool | None:
        """Write a line."""
        self.file.write(json.dumps({name: _plain(v) for name, v in row.items()}, allow_nan=False) + "\n")
        self.file.flush()
        return None

    def on_end(self, trainer: Trainer) -> None:
        """Close the file."""
        self.file.close()


def _plain(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
