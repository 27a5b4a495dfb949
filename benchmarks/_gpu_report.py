"""The report of a GPU acceptance run: its verdict, and what makes a report valid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from _gpu_section import EMULATION

FORMAT = 2
#: Status of a section -> whether the run may still pass.
STATUSES = {"passed": True, "absent": True, "broken": True, "failed": False, "not run": False}
#: Where a time may stand: these names, and those that begin with ``us_per_step``.
TIMES = ("seconds", "model_steps_per_second")


def verdict(report: dict[str, Any]) -> bool:
    """Return whether everything that had to pass did; peers may be absent or broken."""
    return all(STATUSES[record["status"]] for record in report["sections"].values())


def summary(record: dict[str, Any]) -> str:
    """Return in one line what a section found."""
    parts = [str(record["reason"]).splitlines()[0][:400]] if "reason" in record else []
    checks = record.get("checks", [])
    if checks:
        parts.append(f"{sum(check['passed'] for check in checks)} of {len(checks)} checks")
    if "headline" in record.get("results", {}):
        parts.append(record["results"]["headline"])
    return "; ".join([*parts, *(f"SHORTENED: {why}" for why in record.get("shortened", []))])


def times(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every time in a report with its path."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        here = f"{path}/{key}"
        if isinstance(value, dict | list) and not str(key).startswith("us_per_step"):
            yield from times(value, here)
        elif key in TIMES or str(key).startswith("us_per_step"):
            yield here, value


def problems(report: dict[str, Any]) -> list[str]:
    """Return what contradicts the description of a report in README.md; nothing, if the report is valid."""
    found = [f"{key} is missing" for key in ("benchmark", "device", "asked", "passed", "budget_scale", "started",
                                             "seconds", "sections") if key not in report]
    if found:
        return found
    if report.get("format") != FORMAT:
        found.append(f"format is not {FORMAT}")
    for name, record in report["sections"].items():
        status, checks = record["status"], record.get("checks", [])
        if status not in STATUSES:
            found.append(f"{name}: unknown status {status!r}")
            continue
        if status == "passed" and not (checks and all(check["passed"] for check in checks)):
            found.append(f"{name}: passed without checks, or with one that failed")
        if status != "passed" and not record.get("reason"):
            found.append(f"{name}: {status} without a reason")
        found += [f"{name}: check {check['name']!r} says passed, its value is above the limit" for check in checks
                  if check["passed"] and "limit" in check and not float(check["value"]) <= check["limit"]]
        if any(not check["passed"] for check in checks) and status != "failed":
            found.append(f"{name}: {status} with a failed check")
    if not found and report["passed"] is not verdict(report):
        found.append(f"passed is {report['passed']}, the sections say {verdict(report)}")
    if report["device"] == EMULATION:
        found += [f"{path}: {value} was measured on the {EMULATION}" for path, value in times(report)
                  if value is not None]
    return found
