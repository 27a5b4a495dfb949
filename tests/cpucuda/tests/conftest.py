"""Collects these tests only in a process that uses the emulation, and says so if it does not."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

if not os.environ.get("CPUCUDA_MADE"):
    REASON = "the process does not use the emulation: python -m cpucuda -m pytest ..."
elif importlib.util.find_spec("cupy") is None:
    REASON = "CuPy is not installed"
else:
    REASON = ""
collect_ignore_glob = ["test_*.py"] if REASON else []


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Report why nothing was collected here."""
    if REASON:
        terminalreporter.write_line(f"tests of cpucuda not collected: {REASON}")
