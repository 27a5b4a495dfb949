"""Bytes on disk: files and directories that are whole or absent, and locks."""

from .storage import write_text

__all__ = ["write_text"]
