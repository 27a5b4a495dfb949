"""An error that names a remedy, and the remedy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest


class Remedy(NamedTuple):
    """An error and what it advises."""

    error: type[BaseException]
    words: str  # of the message: a regular expression with the remedy's words
    wrong: Callable[[], Any]
    right: Callable[[], Any]  # the remedy, which must not raise

    def follow(self) -> None:
        """Provoke the error, and do what it advises."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(self.error, match=self.words):
                self.wrong()
            self.right()
