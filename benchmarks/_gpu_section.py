"""One section of the GPU acceptance run: its checks, results, time budget, and the file that survives a crash."""

from __future__ import annotations

import json
import math
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: The networks of the runs, by name: hidden widths, each with batch norm.
NETWORKS = {"3 layers": (50, 50), "9 layers": (50, 30, 20, 20, 10, 10, 10, 10)}


#: The name of the device of tests/cpucuda, which runs CuPy's kernels on the CPU.
EMULATION = "CPU emulation"


class AbsentError(Exception):
    """What a section needs is not on this machine; the message says what and why."""


def write_json(path: Path, content: Any) -> None:
    """Write a file that is always whole: under another name first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}.part")
    scratch.write_text(json.dumps(content, indent=1, default=_plain) + "\n", encoding="utf-8")
    os.replace(scratch, path)


def _plain(value: Any) -> Any:
    """Turn NumPy scalars and arrays into what JSON knows."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


class Section:
    """The record of one section; every addition is on disk before the next begins.

    Parameters
    ----------
    name : str
        The section's name.
    budget : float
        Seconds that it should take; sections with more work than that do less, and say so.
    path : Path, optional
        Where to write the record.
    started : float, optional
        Wall-clock time at which the budget began to run; now by default.
    small : bool
        Whether to compute the same things at small sizes.
    emulated : bool
        Whether the device is the CPU emulation, whose times say nothing about a GPU and are not recorded.
    """

    def __init__(
        self, name: str, budget: float, path: Path | None = None, started: float | None = None, *,
        small: bool = False, emulated: bool = False,
    ) -> None:
        self.name, self.budget, self.path, self.small, self.emulated = name, budget, path, small, emulated
        self.started = time.time() if started is None else started
        self.record: dict[str, Any] = {"status": "running", "budget_s": budget, "checks": [], "results": {}}
        self.save()

    def save(self) -> None:
        """Write the record as it is now."""
        self.record["seconds"] = self.timing(round(time.time() - self.started, 2))
        if self.path is not None:
            write_json(self.path, self.record)

    def timing(self, value: Any) -> Any:
        """Return a time as it is recorded: None on the emulation."""
        return None if self.emulated else value

    def left(self) -> float:
        """Return the seconds left of the budget."""
        return self.budget - (time.time() - self.started)

    def check(self, name: str, value: float, limit: float) -> bool:
        """Record whether ``value`` is at most ``limit``; NaN never is."""
        value, limit = float(value), float(limit)
        passed = value <= limit
        shown = value if math.isfinite(value) else str(value)
        self.record["checks"].append({"name": name, "passed": passed, "value": shown, "limit": limit})
        self.save()
        return passed

    def expect(self, name: str, condition: Any, detail: str = "") -> bool:
        """Record whether ``condition`` holds; ``detail`` says what was found."""
        passed = bool(condition)
        self.record["checks"].append({"name": name, "passed": passed} | ({"detail": detail} if detail else {}))
        self.save()
        return passed

    def result(self, name: str, value: Any) -> None:
        """Record a measurement."""
        self.record["results"][name] = value
        self.save()

    def shorten(self, why: str) -> None:
        """Record that the section did less than its full work."""
        self.record.setdefault("shortened", []).append(why)
        self.save()


def execute(function: Callable[[Section], None], section: Section, *, peer: bool = False) -> dict[str, Any]:
    """Run a section and judge it: passed, failed, absent, or (another library broke) broken.

    A section fails if a check fails, if it raises, or if it checks nothing.
    """
    record = section.record
    try:
        function(section)
    except AbsentError as error:
        record |= {"status": "absent", "reason": str(error)}
    except BaseException as error:
        record |= {"status": "broken" if peer else "failed", "reason": f"{type(error).__name__}: {error}"[:500]}
        record["traceback"] = traceback.format_exc()[-6000:]
    else:
        record["status"] = "passed"
        if not record["checks"]:
            record |= {"status": "failed", "reason": "it checked nothing"}
    failed = [check["name"] for check in record["checks"] if not check["passed"]]
    if failed:
        record["status"] = "failed"
        record.setdefault("reason", f"{len(failed)} of {len(record['checks'])} checks failed: {', '.join(failed[:4])}")
    section.save()
    return record
