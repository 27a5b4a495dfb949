"""One run: the update, the loop around it, and what is measured and saved on the way."""

from .trainer import DivergenceError, Trainer

__all__ = ["DivergenceError", "Trainer"]
