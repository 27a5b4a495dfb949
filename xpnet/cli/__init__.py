"""The command line: ``xpnet``, or ``python -m xpnet``."""

from .commands import main

__all__ = ["main"]
