"""The members of a sweep: their values, histories and ranks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..backend import Device, to_numpy
from ..intervals import interval
from ..nn.losses import Measure
from ..training.history import History, measured
from ..training.trainer import Trainer
from .blocks import Block

__all__ = ["Members"]


class Members:
    """The members of a sweep and what they reached, without their networks: see ``Sweep``."""

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
