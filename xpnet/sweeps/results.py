"""What a sweep found: its members, a table over seeds, curves, the best network, ensembles, and their files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backend import Array, Device, to_numpy
from ..intervals import interval
from ..nn.ensemble import Ensemble
from ..nn.losses import Measure
from ..nn.network import Network
from ..training.history import History, measured
from ..training.trainer import DivergenceError, Trainer
from .blocks import Block, opaque

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Ensemble", "Sweep"]

#: Columns of the tables that are no swept value and no measure.
TOLD = ("member", "step", "n", "diverged", "diverged_at", "cause")


class Sweep:
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

    def __init__(
        self, points: Sequence[dict[str, Any]], trainers: Sequence[Trainer], measures: Sequence[str], score: str,
        device: Device, block_size: int,
    ) -> None:
        self.points: list[dict[str, Any]] = list(points)
        self.measures: list[str] = list(measures)
        self.score: str = score
        self.device: Device = device
        self.block_size: int = block_size
        self.histories: list[History] = [History() for _ in points]
        self.diverged: dict[int, tuple[int, str]] = {}
        self.states: list[dict[str, Any]] = [{} for _ in points]
        self._trainers = trainers

    @property
    def measure(self) -> Measure:
        """What ranks the members: whether more of it is better, and whether it is a share."""
        return measured(self._trainers[0].loss)[self.score]

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        best, score = self.best, self.score
        return f"<Sweep of {len(self)} networks, best {score} {self.last(best)[score]:.4g} at {self.points[best]}>"

    def add(self, block: Block) -> Block:
        """Take up what a block found.

        Parameters
        ----------
        block : Block
            What was trained side by side.

        Returns
        -------
        Block
            The block itself.
        """
        own = self._trainers[block.members[0]].architecture.has_model_axis
        for place, member in enumerate(block.members):
            history = self.histories[member]
            last = history.rows[-1]["step"] if history.rows else -1
            names, columns = list(block.columns), [to_numpy(c) for c in block.columns.values()]
            for i in range(len(columns[0])):
                row = {n: (c[i, place] if c.ndim > 1 else c[i]).item() for n, c in zip(names, columns, strict=True)}
                if row["step"] > last:  # a block that goes on begins by measuring where the one before ended
                    history.rows.append(row)
            history.batch_loss += block.batch_loss[:, place].tolist()
            self.states[member] = {name: a[place] if own(name, a) else a for name, a in block.state.items()}
            if member in block.causes:
                self.diverged[member] = block.causes[member]
        return block

    # What members reached ------------------------------------------------------------------------------------------

    def last(self, member: int) -> dict[str, Any]:
        """Return the last row of a member's history.

        Parameters
        ----------
        member : int
            Its number.

        Returns
        -------
        dict
            As in ``History``.
        """
        return self.histories[member].rows[-1]

    def reached(self, members: Sequence[int]) -> list[dict[str, Any]]:
        """Return members' rows as of the last update that each of them reached: halving may have dropped some.

        Parameters
        ----------
        members : sequence of int
            Their numbers.

        Returns
        -------
        list of dict
            A row for each of them.
        """
        step = min(self.last(m)["step"] for m in members)
        return [next(row for row in self.histories[m].rows if row["step"] == step) for m in members]

    def rank(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        """Order rows: those that went on longest come first, the diverged last, and better before worse.

        Parameters
        ----------
        row : mapping
            A row of ``members()``.

        Returns
        -------
        tuple of float
            Rows sort by it, best first.
        """
        sign = -1.0 if self.measure.more_is_better else 1.0
        value = row[self.score]
        return (bool(row["diverged"]), -row["step"], math.isnan(value), sign * value)

    def ranked(self, among: Sequence[int] | None = None) -> list[int]:
        """Return members, best first; those that diverged come last.

        Parameters
        ----------
        among : sequence of int, optional
            The members to order; all by default.

        Returns
        -------
        list of int
            Their numbers.
        """
        rows = self.members()
        return sorted(range(len(self)) if among is None else among, key=lambda member: self.rank(rows[member]))

    @property
    def best(self) -> int:
        """The number of the best member."""
        return self.ranked()[0]

    def members(self) -> list[dict[str, Any]]:
        """Return a row per member: its point, where it ended and with what, and whether and why it diverged.

        Returns
        -------
        list of dict
            In the order of the points.
        """
        rows = []
        for member, point in enumerate(self.points):
            last = {name: self.last(member)[name] for name in ("step", *self.measures)}
            step, why = self.diverged.get(member, (None, ""))
            rows.append({"member": member, **point, **last, "diverged": step is not None, "diverged_at": step,
                         "cause": why})
        return rows

    def table(self, over: str = "seed") -> list[dict[str, Any]]:
        """Return a row per point but for ``over`` (seeds), best first.

        Each measure comes as its mean, with ``_std`` (the sample's standard deviation) and ``_margin`` (half
        of the 95 % interval by Student's t); ``n`` is how many members the row stands for and ``diverged`` how
        many of them diverged, which the means leave out. All are as of update ``step``, the last that each of
        the others reached: halving may have dropped some.

        Parameters
        ----------
        over : str
            The name whose values the means are taken over; with one that no point has, each member is a row.

        Returns
        -------
        list of dict
            The rows.
        """
        groups: dict[str, list[int]] = {}
        for member, point in enumerate(self.points):
            own = {name: v for name, v in point.items() if name != over}
            groups.setdefault(json.dumps(own, default=repr, sort_keys=True), []).append(member)
        table = []
        for members in groups.values():
            point = {name: v for name, v in self.points[members[0]].items() if name != over}
            going = [m for m in members if m not in self.diverged]
            rows = self.reached(going or members)
            found: dict[str, Any] = {"n": len(members), "diverged": len(members) - len(going), "step": rows[0]["step"]}
            for name in self.measures:
                of = interval([row[name] for row in rows])
                found |= {name: of.mean, f"{name}_std": of.std, f"{name}_margin": of.margin}
            table.append({**point, **found})
        return sorted(table, key=self.rank)

    def values(self, column: str, **where: Any) -> list[float]:
        """Return the last value of a column of the members at the given values, in the order of the points.

        Parameters
        ----------
        column : str
            A column of the history.
        **where
            Values of the points, by name.

        Returns
        -------
        list of float
            A value for each such member.

        Raises
        ------
        KeyError
            If there is no such column, or no such member.
        """
        chosen = [m for m, point in enumerate(self.points) if where.items() <= point.items()]
        if not chosen:
            raise KeyError(f"no member at {where}; the points are like {self.points[0]}")
        return [self.histories[m][column][-1].item() for m in chosen]

    # Networks ------------------------------------------------------------------------------------------------------

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
            Of the members' networks.

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
