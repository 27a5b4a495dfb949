"""What a sweep found: its members, a table over seeds, curves, the best network, ensembles, and their files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backend import Array, to_numpy
from ..nn.ensemble import Ensemble
from ..nn.network import Network
from ..training.trainer import DivergenceError, Trainer
from .blocks import opaque
from .members import Members

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Ensemble", "Sweep"]

#: Columns of the tables that are no swept value and no measure.
TOLD = ("member", "step", "n", "diverged", "diverged_at", "cause")


class Sweep(Members):
    """The members of a sweep and what they reached.

    It is ``xpnet.sweep`` that makes one. Its parameters are attributes, but for the trainers.

    Parameters
    ----------
    points : list of dict
        Each member's values.
    trainers : sequence of Trainer
        Each member's, which has not begun.
    measures : list of str
        The columns of the history that tell how good a member is.
    score : str
        The one that ranks members.
    device : Device
        Where the networks that it gives lie.
    block_size : int
        How many members were trained side by side, at most.

    Attributes
    ----------
    measure : Measure
        What the loss declares of the score: whether more of it is better.
    histories : list of History
        Each member's, as of its own run.
    diverged : dict of int to (int, str)
        By member that diverged: at which update, and why. Its network is the last that was finite.
    """

    def stack(self, members: Sequence[int], **options: Any) -> tuple[Trainer, dict[str, Any]]:
        """Return one trainer of members that can train side by side, and their state for its ``restore``.

        The state is empty where they have not begun.

        Parameters
        ----------
        members : sequence of int
            Their numbers.
        **options : Any
            For the trainer, in place of their own.

        Returns
        -------
        tuple of Trainer and dict
            The trainer, and the state by name.
        """
        trainer = Trainer.stack([self._trainers[m] for m in members], **options)
        shared, first = trainer.architecture.inputs, self.states[members[0]]
        return trainer, {name: a if name in shared else to_numpy([self.states[m][name] for m in members])
                         for name, a in first.items()}

    def side_by_side(self, among: Sequence[int], size: int) -> list[list[int]]:
        """Group members that can train side by side, and cut the groups into blocks of at most ``size``.

        Parameters
        ----------
        among : sequence of int
            The members to group.
        size : int
            The most in a block.

        Returns
        -------
        list of list of int
            The blocks.
        """
        groups: dict[str, list[int]] = {}
        for member in among:
            trainer = self._trainers[member]
            apart = [id(thing) for thing in opaque([*trainer.architecture.layers, *trainer.options.values()])]
            groups.setdefault(json.dumps([trainer.signature(), apart], sort_keys=True, default=repr), []).append(member)
        blocks = []
        for members in groups.values():
            parts = -(-len(members) // size)
            blocks += [members[i * len(members) // parts : (i + 1) * len(members) // parts] for i in range(parts)]
        return blocks

    def evaluate(self, x: Array, y: Array) -> dict[str, list[float]]:
        """Return ``loss``, ``cost`` and ``accuracy`` (or r2) of every member on other data, such as the test images.

        Parameters
        ----------
        x, y : arrays
            Features (n, features) and labels, on the sweep's device unless its trainers named one.

        Returns
        -------
        dict of str to list of float
            A value for each member.

        Raises
        ------
        ValueError, TypeError
            If the data do not fit the networks or each other.
        """
        found: dict[str, list[float]] = {}
        for members in self.side_by_side(range(len(self)), self.block_size):
            trainer, state = self.stack(members)
            trainer.restore(state, 0, self.device)
            for name, values in trainer.evaluate(x, y).items():
                column = found.setdefault(name, [math.nan] * len(self))
                for member, value in zip(members, values.tolist(), strict=True):
                    column[member] = value
        return found

    def network(self, member: int | None = None) -> Network:
        """Return a member as an ordinary trained network, with arrays of its own.

        Parameters
        ----------
        member : int, optional
            Its number; by default the best that did not diverge.

        Returns
        -------
        Network
            On the sweep's device.

        Raises
        ------
        DivergenceError
            If every member diverged, and none was named.
        IndexError
            If there is no such member.
        """
        chosen = self._going()[0] if member is None else member
        if not -len(self) <= chosen < len(self):
            raise IndexError(f"expected a member from 0 to {len(self) - 1}, got {chosen}")
        architecture, state = self._trainers[chosen].architecture, self.states[chosen]
        return Network(architecture, {name: self.device.asarray(state[name], copy=True)
                                      for name in architecture.shapes})

    def ensemble(self, members: Sequence[int] | None = None) -> Ensemble:
        """Return members as one classifier.

        Parameters
        ----------
        members : sequence of int, optional
            Their numbers; by default all that did not diverge and ran to the end.

        Returns
        -------
        Ensemble
            An ensemble of the members' networks.

        Raises
        ------
        DivergenceError
            If every member diverged, and none were named.
        IndexError
            If there is no such member.
        ValueError
            If they are no classifiers.
        """
        if not all(trainer.loss.classifies for trainer in self._trainers):
            raise ValueError("ensemble: it averages the probabilities of classifiers; average these networks' outputs: "
                             "sum(found.network(m)(x) for m in range(len(found))) / len(found)")
        if members is None:
            last = max(self.last(m)["step"] for m in self._going())
            members = [m for m in sorted(self._going()) if self.last(m)["step"] == last]
        return Ensemble([self.network(m) for m in members])

    def _going(self) -> list[int]:
        """Return the members that did not diverge, best first."""
        if len(self.diverged) == len(self):
            raise DivergenceError(f"every member diverged; member 0: {self.diverged[0][1]}. Lower the rates")
        return [m for m in self.ranked() if m not in self.diverged]

    # Pictures and files --------------------------------------------------------------------------------------------

    def plot(self, against: str | None = None, *, title: str = "") -> Figure:
        """Draw the score against one swept value, with 95 % intervals over seeds; the other values are series.

        Parameters
        ----------
        against : str, optional
            The swept value; by default the first that is a number.
        title : str
            The title of the figure.

        Returns
        -------
        matplotlib.figure.Figure
            The figure.

        Raises
        ------
        KeyError
            If no value is called so.
        ValueError
            If every member diverged.
        """
        from .export import picture

        return picture(self, against, title)

    def save(self, directory: str | Path) -> None:
        """Write table.csv, table.json, members.csv, curves.json; unless all diverged sweep.png and best.safetensors.

        Parameters
        ----------
        directory : path
            It is made where it is missing.

        Raises
        ------
        OSError
            If a file cannot be written; each is whole or as it was before.
        """
        from .export import save

        save(self, Path(directory))
