"""Statistics, tables, goals, and the facts that a measurement depends on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environments import ROOT, described


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": middle, "low": low, "high": high}


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Return the median and quartiles of the ratio of two, taken round by round: what slows both cancels."""
    return summary([a / b for a, b in zip(over, under, strict=True)])


@dataclass(frozen=True)
class Goal:
    """A ratio that was aimed at: at most, or at least."""

    what: str
    value: float
    at_most: float | None = None
    at_least: float | None = None

    def line(self) -> list[str]:
        """Return a row of a table: what, the goal, what was measured, the verdict."""
        goal = self.at_most if self.at_most is not None else self.at_least
        if goal is None:
            raise ValueError(f"{self.what}: expected at_most or at_least, got neither")
        short = self.value / goal - 1.0 if self.at_most is not None else 1.0 - self.value / goal
        aim = f"at {'most' if self.at_most is not None else 'least'} {goal:g}"
        return [self.what, aim, f"{self.value:.2f}", "met" if short <= 0 else f"**missed by {short:.0%}**"]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "| --- |" + " ---: |" * (len(head) - 1), *lines[1:]])


def middle(values: dict[str, float], digits: int = 0) -> str:
    """Return a median with its quartiles as text."""
    return f"{values['median']:.{digits}f} ({values['low']:.{digits}f} to {values['high']:.{digits}f})"


def company(records: Iterable[dict[str, Any]]) -> str:
    """Say how much the waiting processes and everybody else used of the processors, as an item of a list."""
    measured = [r for r in records if r.get("rounds")]
    waiting, strangers = ([share for r in measured for share in r[what]] or [0.0] for what in ("waiting", "strangers"))
    said = (f"- While one measured, the waiting processes used {statistics.median(waiting):.0%} of a processor "
            f"({max(waiting):.0%} at worst), everybody else on the machine {statistics.median(strangers):.0%} "
            f"({max(strangers):.0%} at worst).")
    if statistics.median(strangers) > 0.05:
        said += " **The machine was not quiet: do not trust the times of those that use several threads.**"
    return said


def machine(envs: Path | None, groups: Iterable[str]) -> dict[str, Any]:
    """Return the facts that a measurement depends on, with the versions in some environments or (None) here."""
    def git(*what: str) -> str:
        command = ["git", "-C", str(ROOT), *what]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), cpu)
    commit = git("rev-parse", "HEAD")
    counted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    names = ("xpnet", "numpy") if envs is None else (
        "xpnet", "numpy", "torch", "jax", "equinox", "optax", "scikit-learn", "keras", "thinc")
    here = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    versions = {"": here} if envs is None else {group: described(envs, group)["versions"] for group in groups}
    kept = {group: {n: v for n, v in each.items() if n in names} for group, each in versions.items()}
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "cpu": cpu, "cores": counted,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}", "load": os.getloadavg()[0],
        "commit": commit, "changed": bool(git("status", "--porcelain", "xpnet")),
        "versions": kept,
    }


def facts(found: dict[str, Any]) -> str:
    """Return the facts as a sentence."""
    versions = sorted({f"{name} {version}" for each in found["versions"].values() for name, version in each.items()})
    changed = " with changes" if found["changed"] else ""
    return (f"Measured on {found['date']} on {found['cores']} cores of {found['cpu']}, load {found['load']:.1f} "
            f"before; commit {found['commit'][:12] or 'unknown'}{changed}; {', '.join(versions)}.")
